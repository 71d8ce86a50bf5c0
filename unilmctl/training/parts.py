"""What a process does of a step at a time, and what it does when that is more than its memory holds.

A part that does not fit is cut in two, until it is one example, and the step is done again from its beginning: a
gradient that was half added up is of no use. (Validation adds up no gradient, and goes on with the halves.) From then
on parts of that size are cut beforehand. The gradient is the same but for the order in which it is added up, and for
dropout, whose numbers are drawn part by part. A head whose labels are compared with each other (contrastive) compares
those of a part.
"""

from typing import Any, NamedTuple

from unilmctl.errors import OutOfMemory
from unilmctl.rows import Batch, Ints
from unilmctl.training.distributed import Piece
from unilmctl.training.feed import Feed, Place


class Part(NamedTuple):
    """What a process does at a time: a batch or some rows of it, and what its dropout is drawn from.

    One that is not `counted` stands in where there are fewer rows than parts: its loss counts nothing. `epoch` and
    `indices` say which examples it has.
    """

    batch: Batch
    key: tuple[int, ...]
    counted: bool
    epoch: int
    indices: Ints

    @property
    def size(self) -> int:
        """Tokens, padding included."""
        return self.batch.ids.numel()


def part_of(feed: Feed[Any], place: Place, piece: Piece) -> Part:
    """This piece of the batch at `place`."""
    mine = piece.of(place.indices)
    chosen = mine if len(mine) else place.indices[:1]
    return Part(feed.batch(place.epoch, chosen), piece.key, bool(len(mine)), place.epoch, chosen)


def below(limit: int | None, parts: list[Part], feed: Feed[Any]) -> list[Part]:
    """The parts, those of `limit` tokens or more cut in two until they are smaller, or one example."""
    if limit is None:
        return parts
    found: list[Part] = []
    for part in parts:
        small = part.size < limit or len(part.indices) == 1
        found += [part] if small else below(limit, _halves(feed, part), feed)
    return found


def require_several(part: Part, where: str) -> int:
    """The size below which parts must be cut when this one did not fit; OutOfMemory when it is one example."""
    if len(part.indices) == 1:
        raise OutOfMemory(
            f"{where}: memory does not hold a single example (number {part.indices[0]}, {part.size:,} tokens)",
            "shorten the examples (tokens.max_source, max_target, max_length), or set checkpoint_activations: true",
        )
    return part.size


def _halves(feed: Feed[Any], part: Part) -> list[Part]:
    """Every other example each: rows of one batch are of like length, so halves are too."""
    shares = [part.indices[half::2] for half in (0, 1)]
    return [
        Part(feed.batch(part.epoch, share), (*part.key, half, 2), part.counted, part.epoch, share)
        for half, share in enumerate(shares)
    ]
