"""SIGTERM, SIGHUP and SIGINT as a question: "should we stop?"

The first signal is remembered, so that training can save and end; the second one ends the process at once. Under
torchrun one stop arrives by several ways, and it is torchrun that ends at once those who take too long.
"""

import os
import signal
from types import FrameType

from unilmctl.errors import Stopped

INTERRUPTED = 130
ASKING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGINT") if hasattr(signal, name))


class StopSignals:
    """A context manager that remembers the first SIGTERM, SIGHUP or SIGINT; call it to ask whether one came.

    One that is ignored, as SIGHUP is under nohup, stays so. With `patience` later ones are passed over, even after the
    block: they must not change the exit code.
    """

    def __init__(self, *, patience: bool = False) -> None:
        self.received: signal.Signals | None = None
        self.patience = patience
        self._previous: dict[signal.Signals, object] = {}

    def __enter__(self) -> "StopSignals":
        for number in ASKING:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *failure: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, signal.SIG_IGN if self.patience else handler)  # type: ignore[arg-type]

    def __call__(self) -> bool:
        """Whether a signal came."""
        return self.received is not None

    def stopped(self, message: str) -> Stopped:
        """The error to raise once all is saved: exit code 75, after SIGINT 130."""
        error = Stopped(message, "run the same command again to go on")
        if self.received is signal.SIGINT:
            error.exit_code = INTERRUPTED
        return error

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and not self.patience:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.received = self.received or signal.Signals(number)
