"""The figures of a log for TensorBoard, which is an extra."""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from unilmctl.errors import RecipeError
from unilmctl.runs.curves import curves


def require_tensorboard() -> None:
    """RecipeError when TensorBoard is not installed."""
    if find_spec("tensorboard") is None:
        raise RecipeError(
            "finetune.tensorboard: true needs the package tensorboard",
            'install it: pip install "unilmctl[tensorboard]", or leave the key out: report.html shows the same curves',
        )


class Board:
    """Writes every number of a log entry as `EVENT/NAME`; what a folder holds beyond step `after` is forgotten."""

    def __init__(self, folder: Path, *, after: int = 0) -> None:
        require_tensorboard()
        self._writer: Any = import_module("torch.utils.tensorboard").SummaryWriter(folder, purge_step=after + 1)

    def write(self, entry: dict[str, Any]) -> None:
        """Takes one entry of the log."""
        for name, curve in curves([entry]).items():
            self._writer.add_scalar(name.replace(".", "/", 1), curve.values[0], curve.steps[0])

    def close(self) -> None:
        """Writes what is still held."""
        self._writer.close()
