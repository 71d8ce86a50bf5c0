"""One input, several commands: which records each answers, and how their outputs become one file.

Of n shards, shard i answers records i, i+n, i+2n, ..., so that no one needs to know how long the input is, and input
that was sorted by length is shared out evenly. Outputs are merged in turn. Each shard writes a part beside the output;
the first line of a part is a digest of all that the output follows from, the input included. Whoever sees all parts
with its own digest merges them: the last to finish. No shard waits for another, and a part of something else, or of
an attempt that failed, is never taken for one of this output.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

from unilmctl.errors import UsageError
from unilmctl.files import write_atomically
from unilmctl.generation.lines import Item, write_lines


@dataclass(frozen=True)
class Shard:
    """Part `index` (from 0) of `count`."""

    index: int
    count: int

    @property
    def name(self) -> str:
        """As people say it: from 1."""
        return f"{self.index + 1}/{self.count}"

    def mine(self, records: Iterable[Item | None]) -> Iterator[Item | None]:
        """The records of this shard; pauses of the input stay."""
        number = 0
        for record in records:
            if record is None or number % self.count == self.index:
                yield record
            number += record is not None

    def part(self, output: Path) -> Path:
        """Where this shard's part of an output is written."""
        return output.with_name(f"{output.name}.part-{self.index + 1}-of-{self.count}")


WHOLE = Shard(0, 1)


def shard_of(asked: str | None, source: str, output: Path | None, environment: Mapping[str, str]) -> Shard:
    """The shard that was asked for as `i/n`, from 1/n to n/n; without one, that of a process under torchrun.

    UsageError for what is no shard, and under torchrun where input or output cannot be shared.
    """
    ranks = [environment.get(name, "") for name in ("RANK", "WORLD_SIZE")]
    launched = all(rank.isdecimal() for rank in ranks) and int(ranks[1]) > 1
    if asked is not None:
        if launched:
            raise UsageError("--shard and torchrun exclude each other: torchrun makes the shards itself")
        return _parsed(asked)
    if not launched:
        return WHOLE
    if output is None:
        raise UsageError("several processes cannot share standard output", "--output FILE under torchrun")
    if source == "-":
        raise UsageError("several processes cannot share standard input", "name the input file under torchrun")
    return Shard(int(ranks[0]), int(ranks[1]))


class Digest:
    """A sha256 over all that an output follows from: some facts, and the records that are watched."""

    def __init__(self, *facts: object) -> None:
        self._hash = hashlib.sha256(repr(facts).encode())

    def watched(self, records: Iterable[Item | None]) -> Iterator[Item | None]:
        """The records as they are."""
        for record in records:
            if record is not None:
                self._hash.update(repr(record).encode())
            yield record

    @property
    def line(self) -> bytes:
        """The first line of a part."""
        return self._hash.hexdigest().encode() + b"\n"


@contextmanager
def open_part(output: Path, shard: Shard, digest: Digest) -> Iterator[Callable[[list[str]], None]]:
    """A function that writes lines to a shard's part; it appears when the block ends well. WriteError if it cannot."""
    with write_atomically(shard.part(output)) as file:
        file.write(digest.line)
        yield lambda lines: write_lines(file, lines)
        file.seek(0)  # by now the digest has seen the input
        file.write(digest.line)


def merged(output: Path, count: int, digest: Digest, lines: int) -> bool:
    """Makes `output` of its parts and removes them; False while there are not yet, or no longer, all of them.

    `lines`: those that each record has. WriteError when the output cannot be written.
    """
    paths = [Shard(index, count).part(output) for index in range(count)]
    with ExitStack() as stack:
        try:
            parts = [stack.enter_context(path.open("rb")) for path in paths]
        except FileNotFoundError:
            return False
        if {part.readline() for part in parts} != {digest.line}:
            return False
        with write_atomically(output) as file:
            for part in cycle(parts):
                first = part.readline()
                if not first:
                    break
                file.writelines([first, *(part.readline() for _ in range(lines - 1))])
    for path in paths:
        path.unlink(missing_ok=True)  # two that finish at once have both merged, to the same end
    return True


def _parsed(text: str) -> Shard:
    found = re.fullmatch(r"([0-9]+)/([0-9]+)", text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise UsageError(f"--shard cannot be '{text}'", "1/4 is the first of four, 4/4 the last")
    return Shard(int(found[1]) - 1, int(found[2]))
