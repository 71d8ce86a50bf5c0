"""What can be seen of a run while it goes on: report.html, and TensorBoard where the recipe asks for it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from unilmctl.data.store import Store
from unilmctl.runs import RunFolder, lengths_of, write_report
from unilmctl.runs.board import Board
from unilmctl.runs.folder import TENSORBOARD


@contextmanager
def watched(folder: RunFolder, stores: Mapping[str, Store], *, after: int, tensorboard: bool) -> Iterator[None]:
    """Within the block, every evaluation renews the report, and every entry of the log goes to TensorBoard.

    `after` is the step from which the run goes on. At the end of the block the report is written once more.
    """
    lengths = lengths_of(stores)

    def renew(entry: dict[str, Any]) -> None:
        if entry["event"] != "steps":
            write_report(folder, lengths)

    board = Board(folder.folder / TENSORBOARD, after=after) if tensorboard else None
    folder.listeners += [renew, board.write] if board else [renew]
    try:
        yield
    finally:
        if board:
            board.close()
    write_report(folder, lengths)
