"""Lines with gaps: where the model's own mask token stands in them, and the line again with the gaps filled.

What stands around a gap stays as it was written. Marks side by side, with nothing or blanks between them, are one gap.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from unilmctl.data.parsing import Text
from unilmctl.rows import Ints
from unilmctl.tokens import Tokenizer
from unilmctl.tokens.words import BLANK


@dataclass(frozen=True)
class Gapped:
    """A line: its tokens with a mask token for every mark, and the text before, between and after its gaps.

    `around` is None for a line of ready-made tokens. `gaps` are the places of each gap's marks among the tokens.
    """

    ids: Ints
    gaps: list[Ints]
    around: list[str] | None

    def filled(self, fillings: Sequence[Sequence[int]], tokenizer: Tokenizer) -> tuple[str, list[str]]:
        """The line with the tokens of each filling in its gap, and the fillings as they stand there."""
        texts, before, done = [], list[int](), 0
        for gap, filling in zip(self.gaps, fillings, strict=True):
            before += self.ids[done : gap[0]].tolist()
            texts.append(_following(tokenizer, before, filling))
            before += filling
            done = int(gap[-1]) + 1
        if self.around is None:
            return tokenizer.decode([*before, *self.ids[done:].tolist()]), [text.strip() for text in texts]
        first, *others = self.around
        whole = first + "".join(text + after for text, after in zip(texts, others, strict=True))
        return whole if first else whole.lstrip(), [text.strip() for text in texts]


def gapped(texts: Sequence[Text], tokenizer: Tokenizer) -> list[Gapped]:
    """Texts, or ready-made tokens, as lines with gaps."""
    mark = tokenizer.tokens([tokenizer.roles.mask])[0]
    parts = [list(_parts(text, mark)) if isinstance(text, str) else [] for text in texts]
    encoded = iter(_encoded([(text, number > 0) for some in parts for number, (text, _) in enumerate(some)], tokenizer))
    lines = []
    for text, some in zip(texts, parts, strict=True):
        if isinstance(text, str):
            ids = [token for _, marks in some for token in [*next(encoded), *[tokenizer.roles.mask] * marks]]
            lines.append(_line(ids, [part for part, _ in some], tokenizer))
        else:
            lines.append(_line(tokenizer.encode_tokens(text), None, tokenizer))
    return lines


def _encoded(parts: list[tuple[str, bool]], tokenizer: Tokenizer) -> list[list[int]]:
    """The tokens of parts of lines, each of which may go on after a gap.

    SentencePiece begins every text with a blank: it is the one that a part begins with, or there should be none.
    """
    pieces = tokenizer.kind == "sentencepiece"
    found = tokenizer.encode_batch([text.removeprefix(" ") if pieces and later else text for text, later in parts])
    return [
        _without_blank(ids, tokenizer) if pieces and later and ids and not text.startswith(" ") else ids
        for (text, later), ids in zip(parts, found, strict=True)
    ]


def _without_blank(ids: list[int], tokenizer: Tokenizer) -> list[int]:
    """The tokens [1+] without the blank that the first one begins with, where the vocabulary can do without it."""
    bare = tokenizer.tokens(ids[:1])[0].removeprefix(BLANK)
    first = tokenizer.token_id(bare) if bare else None
    return ids[1:] if not bare else [ids[0] if first is None else first, *ids[1:]]


def _line(ids: list[int], around: list[str] | None, tokenizer: Tokenizer) -> Gapped:
    places = np.flatnonzero(np.array(ids, dtype=np.int64) == tokenizer.roles.mask)
    gaps = np.split(places, np.flatnonzero(np.diff(places) > 1) + 1) if len(places) else []
    return Gapped(np.array(ids, dtype=np.int64), gaps, around)


def _parts(text: str, mark: str) -> Iterator[tuple[str, int]]:
    """The text before each gap, without blanks before its first mark, and how many marks it has; the rest has none."""
    pieces = text.split(mark)
    part, marks = pieces[0], 0
    for piece in pieces[1:-1]:
        marks += 1
        if piece.strip():
            yield part.rstrip(), marks
            part, marks = piece, 0
    if len(pieces) > 1:
        yield part.rstrip(), marks + 1
        part = pieces[-1]
    yield part, 0


def _following(tokenizer: Tokenizer, before: Sequence[int], filling: Sequence[int]) -> str:
    """The text of a filling after these tokens, with the blank that stands between them, if any."""
    known, new = tokenizer.tokens(before[-1:]), tokenizer.tokens(filling)
    start, both = tokenizer.join(known), tokenizer.join([*known, *new])
    return both.removeprefix(start) if both.startswith(start) else " " + tokenizer.join(new)
