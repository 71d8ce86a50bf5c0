"""Texts in parts: what one row of a model can hold of them, and where a part stands in its text (no torch).

| task | parts of a text |
|---|---|
| `classify`, `regress` | one; what does not fit is left to whoever makes the row |
| `tag` | as many whole words as fit, then the next ones |
| `span` | the question, and a window of the context; windows begin `stride` tokens apart |

Shapes: S tokens of the first text, T of the second, W words.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from unilmctl.data.encoding import encode_texts
from unilmctl.data.labelled import SPAN, TAG, plain_of, words_of
from unilmctl.data.parsing import Text
from unilmctl.tokens import Tokenizer, lists

Ids = list[int]


class Part(NamedTuple):
    """What a row holds of a text, as ids without special tokens: `source` [S], `second` [T].

    `marks`, to tag: the places in `source` where words begin [W]; to find an answer: the characters of the second text
    at which its tokens begin, and the one after the last [T + 1].
    """

    source: Ids
    second: Ids
    marks: Ids


@dataclass(frozen=True)
class Parting:
    """How texts are parted: `longest` row with its special tokens, `stride` between windows."""

    task: str
    longest: int
    stride: int

    def parts(self, tokenizer: Tokenizer, texts: Sequence[tuple[Text, Text | None]]) -> list[list[Part]]:
        """The parts of every text and its second. ModelError for a vocabulary that cannot tell where answers are."""
        if self.task == TAG:
            return list(self._words(tokenizer, [words_of(source) for source, _ in texts]))
        if self.task == SPAN:
            return list(self._windows(tokenizer, [(plain_of(one), plain_of(two or "")) for one, two in texts]))
        sources = lists(encode_texts(tokenizer, [source for source, _ in texts]))
        seconds = lists(encode_texts(tokenizer, [second or "" for _, second in texts]))
        return [[Part(source, second, [])] for source, second in zip(sources, seconds, strict=True)]

    def _words(self, tokenizer: Tokenizer, texts: Sequence[list[str]]) -> Iterator[list[Part]]:
        """Each word encoded by itself; one without a token of its own is unknown, one too long loses its end."""
        room = self.longest - 2
        encoded = iter(tokenizer.encode_batch([word for words in texts for word in words]))
        for words in texts:
            parts = [Part([], [], [])]
            for _ in words:
                ids = (next(encoded) or [tokenizer.roles.unknown])[:room]
                if len(parts[-1].source) + len(ids) > room:
                    parts.append(Part([], [], []))
                parts[-1].marks.append(len(parts[-1].source))
                parts[-1].source.extend(ids)
            yield parts

    def _windows(self, tokenizer: Tokenizer, texts: Sequence[tuple[str, str]]) -> Iterator[list[Part]]:
        """A question takes at most half of the row."""
        questions = tokenizer.encode_batch([question for question, _ in texts])
        contexts = tokenizer.encode_placed([context for _, context in texts])
        for question, (ids, places), (_, context) in zip(questions, contexts, texts, strict=True):
            asked = question[: (self.longest - 3) // 2]
            room = self.longest - 3 - len(asked)
            marks, step = [*places, len(context)], min(self.stride, room)
            last = max(0, -(-(len(ids) - room) // step))
            yield [
                Part(asked, ids[begin : begin + room], marks[begin : begin + room + 1])
                for begin in range(0, (last + 1) * step, step)
            ]
