"""The command line: its signatures are in `signatures`, and this page is the only place where the program ends.

`main` turns a user's mistake into one plain line, a hint and an exit code; what is not a user's mistake is a bug and
keeps its traceback.
"""

import os
import signal
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from types import FrameType

import typer

from unilmctl.cli.signatures import app
from unilmctl.errors import OutOfMemory, UsageError, UserError, WriteError, ran_out_of_memory

__all__ = ["app", "as_mistake", "main", "run"]

INTERRUPTED = 130
PIPE_CLOSED = 141


def main() -> None:
    """Runs the command line and ends the process with its exit code; text is UTF-8 whatever the locale says.

    Threads that wait sleep instead of spinning, unless the environment says otherwise: on a machine that also does
    something else, spinning makes training several times slower. It must be said before torch is loaded.
    """
    _end_in_order()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    sys.exit(run(sys.argv[1:]))


def _end_in_order() -> None:
    """Makes SIGTERM and SIGHUP leave as errors do, with nothing half done behind them; training takes its own care."""
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _end)


def _end(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)  # a second one does not wait
    raise SystemExit(128 + number)


def run(arguments: Sequence[str]) -> int:
    """Runs one command line; gives its exit code, with a user's mistake already shown on standard error."""
    try:
        outcome = app(list(arguments), prog_name="unilmctl", standalone_mode=False)
        sys.stdout.flush()
    except (BrokenPipeError, SystemExit) as error:
        # Typer turns a closed pipe into an exit with 1; what it was is in the context.
        if not isinstance(error, BrokenPipeError) and not isinstance(error.__context__, BrokenPipeError):
            raise
        _drop_output()  # whoever read it has left
        return PIPE_CLOSED
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        mistake = as_mistake(error)
        if mistake is None or os.environ.get("UNILMCTL_DEBUG"):
            raise
        from unilmctl import console

        console.error(mistake)
        try:
            sys.stdout.flush()
        except OSError:
            _drop_output()
        return mistake.exit_code
    return outcome if isinstance(outcome, int) else 0


def _drop_output() -> None:
    """What is left to write goes nowhere: Python must not complain when it flushes at its own end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _open_closed_streams() -> None:
    """Puts something in the place of standard streams that whoever started the program closed.

    Otherwise the next file that is opened would take their number. There is nothing to read, messages are for nobody,
    and data is refused as the system refuses it.
    """
    modes = {"stdin": ("r", os.O_RDONLY), "stdout": ("w", os.O_RDONLY), "stderr": ("w", os.O_WRONLY)}
    for number, (name, (mode, flags)) in enumerate(modes.items()):
        if getattr(sys, name) is None:
            found = os.open(os.devnull, flags)
            if found != number:
                os.dup2(found, number)
                os.close(found)
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


def as_mistake(error: Exception) -> UserError | None:
    """What a person is told about this exception; None when it is a bug."""
    if isinstance(error, UserError):
        return error
    if isinstance(error, typer.TyperException):
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else "unilmctl"
        return UsageError(" ".join(error.format_message().split()), f"{command} --help shows what it takes")
    if ran_out_of_memory(error):
        return OutOfMemory("not enough memory", "lower batch_tokens (--batch-tokens), the beam or the lengths")
    if isinstance(error, OSError) and error.errno is not None:
        return WriteError(f"{error.filename or 'input or output'}: {error.strerror}")
    return None
