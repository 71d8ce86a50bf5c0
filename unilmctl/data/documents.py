"""Raw text to documents of token ids: where sentences end, and where words begin if that was asked for (no torch).

A document is a run of lines up to a blank one, a line, or a JSON object. Blocks of lines are encoded apart and put
together again by `Assembler`, so that a document may be longer than a block; memory holds one unfinished document at
most, and a document of more than `LONGEST` tokens is stored in parts.

Shapes: T tokens, S sentences, D documents of a block.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unilmctl.data.encoding import SHOWN, encode_texts
from unilmctl.data.parsing import Text, decode, mended, sentences_from_json, sentences_of
from unilmctl.data.reading import detect
from unilmctl.data.streams import Block, blocks, label_of, opened
from unilmctl.data.words import marked
from unilmctl.errors import DataError
from unilmctl.tokens import Flat, Tokenizer, flat

LONGEST = 1 << 20
"""Tokens of a stored document at most, unless one sentence is longer: a corpus without blank lines is no document."""

TEXT_FIELDS = ("text", "ends")
UNITS = "units"

Parser = Callable[[str, str], list[Text]]
"""(text of a line, where) -> its sentences"""

Arrays = dict[str, tuple[NDArray[Any], NDArray[np.int64]]]
"""Field -> the values of all documents one after another, and how many each has [D]; what a store takes."""


@dataclass
class TextTally:
    """What was counted while encoding. `lengths`: tokens of a sentence -> sentences."""

    sentences: int = 0
    tokens: int = 0
    unknown: int = 0
    empty: int = 0
    bad: int = 0
    bad_lines: list[str] = field(default_factory=list)
    lengths: Counter[int] = field(default_factory=Counter)

    def add(self, other: "TextTally") -> None:
        """Count in what another block counted."""
        for name in ("sentences", "tokens", "unknown", "empty", "bad"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.bad_lines = (self.bad_lines + other.bad_lines)[:SHOWN]
        self.lengths.update(other.lengths)

    def plain(self) -> dict[str, Any]:
        """The counts as JSON values."""
        return {**vars(self), "lengths": dict(sorted(self.lengths.items()))}


class EncodedText(NamedTuple):
    """The sentences of a block: tokens [T], their lengths [S], which of them open a document [S].

    ended: whether the last document is whole. begins: which tokens begin a word [T], None where nobody asked.
    """

    tokens: NDArray[np.int32]
    lengths: NDArray[np.int64]
    opens: NDArray[np.bool_]
    begins: NDArray[np.bool_] | None
    ended: bool
    tally: TextTally


@dataclass(frozen=True)
class TextReader:
    """Finds the sentences and documents in blocks of lines.

    documents: blank-line or lines, in plain text. field: what holds the document in a JSON object. segmenter: given,
    when the data lists the words of its sentences. policy: what becomes of bad lines.
    """

    documents: str = "blank-line"
    field: str = "text"
    segmenter: str | None = None
    policy: str = "fail"

    def sentences(self, block: Block, tally: TextTally) -> tuple[list[Text], list[bool], bool]:
        """The sentences of a block, which of them open a document, and whether the last document is whole.

        DataError names the line.
        """
        apart = self.documents == "lines" or block.format == "jsonl"
        parse = self._parser(block)
        texts = None if apart else _texts(block.lines)
        if texts is not None:
            return _paragraphs(texts, fresh=block.first == 1)
        sentences: list[Text] = []
        opens: list[bool] = []
        fresh = block.first == 1
        for number, line in enumerate(block.lines, block.first):
            found = self._line(line.removesuffix(b"\n"), f"{block.label}:{number}", parse, tally)
            if found:
                opens += [apart or fresh] + [False] * (len(found) - 1)
                sentences += found
            if found is not None:  # a bad line that is passed over ends nothing
                fresh = apart or not found
        return sentences, opens, fresh

    def _line(self, line: bytes, where: str, parse: Parser, tally: TextTally) -> list[Text] | None:
        """The sentences of a line; None when it is bad and passed over."""
        try:
            return parse(decode(line, where), where)
        except DataError as error:
            if self.policy == "fail":
                raise
            tally.bad += 1
            tally.bad_lines = [*tally.bad_lines, error.message][:SHOWN]
        try:
            return parse(mended(line), where) if self.policy == "replace" else None
        except DataError:
            return None  # beyond repair

    def _parser(self, block: Block) -> Parser:
        if block.format == "jsonl":
            return partial(sentences_from_json, field=self.field, given=self.segmenter == "given")
        if self.segmenter == "given":
            hint = f'segmenter: given wants JSON lines: {{"{self.field}": [["the words", "of", "a sentence"], ...]}}'
            raise DataError(f"{block.label}: plain text does not list its words", hint)
        return _own_sentences if self.documents == "lines" else _one_sentence


@dataclass(frozen=True)
class TextCoder:
    """Encodes blocks of lines, with words if the reader has a segmenter."""

    tokenizer: Tokenizer
    reader: TextReader

    def __call__(self, block: Block) -> EncodedText:
        """Parse, encode and count. DataError names the line."""
        tally = TextTally()
        sentences, opens, ended = self.reader.sentences(block, tally)
        (tokens, lengths), begins = self._encoded(sentences)
        tally.empty = int((lengths == 0).sum())
        tally.tokens, tally.sentences = len(tokens), len(lengths) - tally.empty
        tally.unknown = int((tokens == self.tokenizer.roles.unknown).sum())
        document = np.cumsum(np.array(opens, dtype=np.int64))[lengths > 0]  # a sentence of nothing opens nothing
        lengths = lengths[lengths > 0]
        found, counts = np.unique(lengths, return_counts=True)
        tally.lengths = Counter(dict(zip(found.tolist(), counts.tolist(), strict=True)))
        return EncodedText(tokens, lengths, np.diff(document, prepend=0) > 0, begins, ended, tally)

    def _encoded(self, sentences: list[Text]) -> tuple[Flat, NDArray[np.bool_] | None]:
        """Ids of all sentences, and which of them begin a word [T]."""
        if self.reader.segmenter is not None:
            ids, begins = marked(self.tokenizer, sentences, self.reader.segmenter)
            return flat(ids), begins
        return encode_texts(self.tokenizer, sentences), None


def _texts(lines: Sequence[bytes]) -> list[str] | None:
    """The lines of a block as text, all at once; None when there is something wrong with one of them."""
    whole = b"".join(lines)
    try:
        texts = whole.removesuffix(b"\n").decode().split("\n")
    except UnicodeDecodeError:
        return None
    if b"\r" in whole:
        texts = [text.removesuffix("\r") for text in texts]
    return None if b"\0" in whole else texts


def _paragraphs(lines: list[str], *, fresh: bool) -> tuple[list[Text], list[bool], bool]:
    """The lines that are not blank, which of them come first after a blank one, and whether a blank one is the last."""
    sentences: list[Text] = []
    opens: list[bool] = []
    for line in lines:
        if line and not line.isspace():
            sentences.append(line)
            opens.append(fresh)
            fresh = False
        else:
            fresh = True
    return sentences, opens, fresh


def _own_sentences(text: str, _where: str) -> list[Text]:
    return list(sentences_of(text))


def _one_sentence(text: str, _where: str) -> list[Text]:
    return [] if not text or text.isspace() else [text]


class Assembler:
    """Puts the documents of blocks together; what the last block left open waits for the next one."""

    def __init__(self) -> None:
        self._lengths = np.zeros(0, dtype=np.int64)
        self._opens = np.zeros(0, dtype=np.bool_)
        self._tokens: list[NDArray[Any]] = []
        self._begins: list[NDArray[Any]] = []
        self._ended = True

    def add(self, part: EncodedText) -> Arrays:
        """The documents that are whole now; nothing when there are none."""
        if len(part.opens):
            part.opens[0] |= self._ended
        self._lengths = np.concatenate((self._lengths, part.lengths))
        self._opens = np.concatenate((self._opens, part.opens))
        self._tokens.append(part.tokens)
        self._begins += [] if part.begins is None else [part.begins]
        self._ended = part.ended or (self._ended and not len(part.opens))
        starts = _starts(self._lengths, self._opens)
        if not len(starts):
            return {}
        return self._taken(starts if self._ended else starts[:-1], len(self._lengths) if self._ended else starts[-1])

    def finish(self) -> Arrays:
        """The last document."""
        return self._taken(_starts(self._lengths, self._opens), len(self._lengths))

    def _taken(self, starts: NDArray[np.int64], stop: int) -> Arrays:
        """The documents that begin at sentences `starts`, up to the sentence `stop`; the rest is kept."""
        if not len(starts):
            return {}
        lengths, self._lengths, self._opens = self._lengths[:stop], self._lengths[stop:], self._opens[stop:]
        self._opens[:1] = True  # the next part of a long document
        tokens, self._tokens = _split(self._tokens, int(lengths.sum()))
        after = np.cumsum(lengths)
        sizes = np.add.reduceat(lengths, starts)
        counts = np.diff(starts, append=stop)
        ends = after - np.repeat(after[starts] - lengths[starts], counts)
        made: Arrays = {"text": (tokens, sizes), "ends": (ends, counts)}
        if self._begins:
            begins, self._begins = _split(self._begins, len(tokens))
            made[UNITS] = (begins, sizes)
        return made


def _starts(lengths: NDArray[np.int64], opens: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The sentences at which documents begin, and parts of those that are too long."""
    starts = np.flatnonzero(opens)
    if not len(starts):
        return starts
    more: list[int] = []
    for index in np.flatnonzero(np.add.reduceat(lengths, starts) > LONGEST):
        place, end = int(starts[index]), int(starts[index + 1]) if index + 1 < len(starts) else len(lengths)
        after = np.cumsum(lengths[place:end])
        first, done = place, 0
        while after[-1] - done > LONGEST:
            step = int(np.searchsorted(after, done + LONGEST, side="right"))
            first = max(first + 1, place + step)
            if first >= end:
                break
            more.append(first)
            done = int(after[first - place - 1])
    return np.sort(np.concatenate((starts, more)).astype(np.int64))


def _split(parts: list[NDArray[Any]], count: int) -> tuple[NDArray[Any], list[NDArray[Any]]]:
    """The first `count` values of arrays that lie one after another, and the rest."""
    whole = np.concatenate(parts)
    return whole[:count], [whole[count:].copy()]


def text_blocks(files: Sequence[Path | str], format: str) -> Iterator[Block]:
    """The lines of all files. format: auto, text or jsonl. "-" is standard input."""
    for file in files:
        with opened(file) as stream:
            found = detect(file, stream, need_target=False) if format == "auto" else format
            yield from blocks(label_of(file), stream, found)
