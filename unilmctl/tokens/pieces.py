"""SentencePiece, through the `sentencepiece` library."""

import unicodedata
from collections.abc import Sequence
from typing import Any, NamedTuple

import sentencepiece

from unilmctl.tokens.memory import Flat, Memory, flat
from unilmctl.tokens.words import BLANK

LONGEST_TEXT = 1000
LONGEST_WORD = 32
MARGIN = 0.05
"""How much the best way to cut a word is better than the second, in nats. The library adds the scores of a whole text
in 32 bits: with `LONGEST_TEXT` characters of 20 nats at most, a word's sum is off by far less than half of this."""


class AlbertText(NamedTuple):
    """What is done to a text before an ALBERT model's own normalisation."""

    lowercase: bool
    keep_accents: bool

    def __call__(self, text: str) -> str:
        """LaTeX quotes become plain ones, accents and capitals go."""
        text = text.replace("``", '"').replace("''", '"')
        if not self.keep_accents:
            text = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
        return text.lower() if self.lowercase else text


class Words:
    """Which words of a model have ids that do not depend on the text around them.

    A unigram model takes the cheapest way through a text. If no piece reaches over a blank, that is the cheapest way
    through each word; but the library's sums are rounded, so a word with a second way of nearly the same cost, such as
    "..." in two pieces, may come out either way. Such words are not taken apart.
    """

    def __init__(self, processor: Any, pieces: list[str]) -> None:
        self._processor, self._pieces = processor, pieces
        self._scores = [float(processor.get_score(i)) for i in range(len(pieces))]
        self.work = (
            BLANK in pieces
            and not any(BLANK in piece[1:] or " " in piece for piece in pieces)
            and str(processor.normalize("a b")) == f"{BLANK}a{BLANK}b"
            and self._has_second()
        )
        doubled = str(processor.normalize("a  b")) == f"{BLANK}a{BLANK}{BLANK}b"
        self._nothing = [pieces.index(BLANK)] if self.work and doubled else []  # between two blanks

    def _has_second(self) -> bool:
        try:
            return bool(self._processor.nbest_encode("a", nbest_size=2, return_type=int))
        except RuntimeError:  # not a unigram model
            return False

    def apart(self, words: list[str]) -> list[list[int] | None]:
        """The model file's ids of every word, None where it takes the text."""
        usual = [word for word in words if word and len(word) <= LONGEST_WORD]
        ways = dict(zip(usual, self._processor.nbest_encode(usual, nbest_size=2, return_type=int), strict=True))
        found = {word: self._best(two) for word, two in ways.items()} | {"": self._nothing}
        return [found.get(word) for word in words]

    def _best(self, ways: list[list[int]]) -> list[int] | None:
        """The first of two ways, if it is one blank and a word, of ordinary pieces, and clearly the best."""
        ids = ways[0]
        text = "".join(self._pieces[i] for i in ids)
        if len(text) < 2 or text.rfind(BLANK) != 0 or not all(self._scores[i] < 0 for i in ids):
            return None
        costs = [sum(self._scores[i] for i in way) for way in ways]
        return ids if len(costs) == 1 or costs[0] - costs[1] > MARGIN else None


def split_words(text: str) -> list[str]:
    """The words between blanks; a text that is no place for them is one word that is never apart."""
    return text.split(" ") if 0 < len(text) <= LONGEST_TEXT and BLANK not in text else [BLANK]


class PieceEngine:
    """An engine over one SentencePiece model.

    fairseq: the ids of XLM-R: `<s> <pad> </s> <unk>` first, every other piece one further than in the model file,
    and `<mask>` after the last one. albert: texts are prepared as ALBERT's are.
    """

    kind = "sentencepiece"

    def __init__(
        self, model: bytes, files: dict[str, bytes], *, fairseq: bool = False, albert: AlbertText | None = None
    ) -> None:
        self.files = files
        self._open(model, fairseq, albert)

    def _open(self, model: bytes, fairseq: bool, albert: AlbertText | None) -> None:
        self._model, self._fairseq, self._albert = model, fairseq, albert
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        pieces = [str(self._processor.id_to_piece(i)) for i in range(self._processor.vocab_size())]
        self.vocabulary = pieces
        self._renumbered: list[int] | None = None  # the model file's id -> ours
        if fairseq:
            self.vocabulary = ["<s>", "<pad>", "</s>", "<unk>", *pieces[3:], "<mask>"]
            self._renumbered = [3, 0, 2, *(i + 1 for i in range(3, len(pieces)))]
        byte_names = [f"<0x{value:02X}>" for value in range(256)]
        where = {piece: i for i, piece in enumerate(self.vocabulary)}
        self._bytes = [where[name] for name in byte_names] if all(name in where for name in byte_names) else None
        words = Words(self._processor, pieces)
        self._memory = Memory(split_words, lambda new: self._apart(words, new), self._whole) if words.work else None

    def _apart(self, words: "Words", new: list[str]) -> list[list[int] | None]:
        return [None if ids is None else self._ours([ids])[0] for ids in words.apart(new)]

    def __getstate__(self) -> dict[str, Any]:
        return {"files": self.files, "model": self._model, "fairseq": self._fairseq, "albert": self._albert}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.files = state["files"]
        self._open(state["model"], state["fairseq"], state["albert"])

    def encode_flat(self, texts: Sequence[str]) -> Flat:
        """Ids of all texts."""
        if self._albert is not None:
            texts = [self._albert(text) for text in texts]
        return flat(self._whole(texts)) if self._memory is None else self._memory.encode_flat(texts)

    def encode_whole(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of every text, by the library alone."""
        return self._whole(texts if self._albert is None else [self._albert(text) for text in texts])

    def _whole(self, texts: Sequence[str]) -> list[list[int]]:
        encoded = self._ours(self._processor.encode(list(texts)))
        if self._bytes is None:
            return encoded
        return [self._spelled(text) if BLANK in text else ids for text, ids in zip(texts, encoded, strict=True)]

    def encode_placed(self, texts: Sequence[str]) -> None:
        """Not told: pieces are of normalised text."""

    def _ours(self, encoded: list[list[int]]) -> list[list[int]]:
        """The model file's ids as ours."""
        table = self._renumbered
        return encoded if table is None else [[table[i] for i in ids] for ids in encoded]

    def _spelled(self, text: str) -> list[int]:
        """Ids of a text that holds a literal ▁, which the model would take for a blank: it is spelled in bytes."""
        first, *rest = self._ours(self._processor.encode(text.split(BLANK)))
        for segment in rest:
            first += self._in_bytes(BLANK)
            if segment:  # its first piece begins with the blank that every text is given: spell that piece without it
                first += self._in_bytes(self.vocabulary[segment[0]][1:].replace(BLANK, " ")) + segment[1:]
        return first

    def _in_bytes(self, text: str) -> list[int]:
        assert self._bytes is not None
        return [self._bytes[value] for value in text.encode()]

    def join(self, tokens: Sequence[str]) -> str:
        """The text that `tokens` spell."""
        return str(self._processor.decode_pieces(list(tokens)))

    def content(self) -> bytes:
        """The model file, and how its ids are numbered."""
        prepared = b"" if self._albert is None else repr(tuple(self._albert)).encode()
        return (b"fairseq" if self._fairseq else b"plain") + prepared + self._model
