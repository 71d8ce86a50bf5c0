"""SentencePiece, through the `sentencepiece` library."""

import unicodedata
from collections.abc import Sequence
from typing import Any, NamedTuple

import sentencepiece

from unilmctl.tokens.words import BLANK


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

    def __getstate__(self) -> dict[str, Any]:
        return {"files": self.files, "model": self._model, "fairseq": self._fairseq, "albert": self._albert}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.files = state["files"]
        self._open(state["model"], state["fairseq"], state["albert"])

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of every text."""
        if self._albert is not None:
            texts = [self._albert(text) for text in texts]
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
