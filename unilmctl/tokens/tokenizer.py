"""The one Tokenizer of the house: an engine, its roles, and the way back to text."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unilmctl.errors import DataError, ModelError, WriteError
from unilmctl.tokens.engines import Engine
from unilmctl.tokens.loading import open_engine, role_names
from unilmctl.tokens.memory import Flat, lists
from unilmctl.tokens.training import train_engine
from unilmctl.tokens.words import continues_word

PROBE = "a \U0010fffd"
"""A text that every tokenizer must take: a word, and one that no vocabulary holds."""


@dataclass(frozen=True)
class Roles:
    """Ids of the five tokens that a model cannot do without."""

    pad: int
    unknown: int
    start: int
    """[CLS] or <s>"""
    separator: int
    """[SEP] or </s>"""
    mask: int


class Tokenizer:
    """Text to ids and back. `kind` is wordpiece, bpe or sentencepiece; `size` the number of ids.

    A tokenizer pickles, so that worker processes can have it.
    """

    def __init__(self, engine: Engine) -> None:
        """ModelError when the vocabulary lacks a token for one of the roles."""
        self._engine = engine
        self._vocabulary = engine.vocabulary
        self._ids = {token: i for i, token in enumerate(self._vocabulary) if token}
        self.kind = engine.kind
        self.size = len(self._vocabulary)
        self.roles = Roles(**{field.name: self._role(field.name) for field in fields(Roles)})
        self._control = frozenset({self.roles.pad, self.roles.start, self.roles.separator, self.roles.mask})
        self._is_control = np.isin(np.arange(self.size), list(self._control))

    def _role(self, role: str) -> int:
        names = role_names(self._engine.files)[role]
        found = next((self._ids[name] for name in names if name in self._ids), None)
        if found is None:
            raise ModelError(f"the vocabulary has no {role} token ({' or '.join(names)})")
        return found

    def encode(self, text: str) -> list[int]:
        """Ids of `text`, without special tokens. DataError when it holds half of a surrogate pair."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of every text; much faster than one by one. DataError as in `encode`."""
        return lists(self.encode_flat(texts))

    def encode_flat(self, texts: Sequence[str]) -> Flat:
        """Ids of all texts one after another, and how many each has; faster still. DataError as in `encode`."""
        try:
            ids, lengths = self._engine.encode_flat(texts)
        except MemoryError:
            raise
        except Exception as error:  # the libraries raise their own, and bare Exception
            _refuse_surrogates(texts)
            raise ModelError(f"the tokenizer takes no text: {str(error)[:200]}") from error
        control = self._is_control[ids]
        if control.any():  # a control token was recognised in a text all the same: it becomes unknown
            ids = np.where(control, np.int32(self.roles.unknown), ids)
        return ids, lengths

    def encode_placed(self, texts: Sequence[str]) -> list[tuple[list[int], list[int]]]:
        """Ids of every text, and the character at which each begins. ModelError for SentencePiece and RoFormer."""
        encoded = self._engine.encode_placed(texts)
        if encoded is None:
            raise ModelError(
                "this vocabulary does not tell where its pieces begin in a text",
                "a segmenter needs BERT's WordPiece or a byte-level BPE",
            )
        unknown = self.roles.unknown
        return [([unknown if i in self._control else i for i in ids], starts) for ids, starts in encoded]

    def continues(self) -> NDArray[np.bool_]:
        """Which vocabulary entries continue a word that another token began [V].

        A word is what WordPiece does not mark with ##, and what stands between blanks for the other kinds; a Chinese
        or Japanese character is a word of its own, and so is a token with a role.
        """
        table = np.array([continues_word(token, self.kind) for token in self._vocabulary], dtype=np.bool_)
        table[[getattr(self.roles, field.name) for field in fields(Roles)]] = False
        return table

    def encode_tokens(self, tokens: Sequence[str]) -> list[int]:
        """Ids of ready-made tokens; what the vocabulary lacks is `roles.unknown`."""
        return [self._ids.get(token, self.roles.unknown) for token in tokens]

    def tokens(self, ids: Iterable[int]) -> list[str]:
        """The token of every id; an id beyond the vocabulary reads as the unknown token."""
        unknown = self._vocabulary[self.roles.unknown]
        return [self._vocabulary[i] if 0 <= i < self.size else unknown for i in ids]

    def token_id(self, token: str) -> int | None:
        """The id of one token, None when the vocabulary lacks it."""
        return self._ids.get(token)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`. Padding, start, separator and mask are dropped; an unknown token stays to be seen."""
        return self.join(self.tokens(i for i in ids if i not in self._control))

    def join(self, tokens: Sequence[str]) -> str:
        """The text that ready-made tokens spell (WordPiece: also tokens outside the vocabulary)."""
        return self._engine.join(tokens)

    def fingerprint(self) -> str:
        """sha256 over everything that changes the ids of a text."""
        digest = hashlib.sha256(f"{self.kind}\0{self.roles}\0".encode())
        digest.update(self._engine.content())
        return digest.hexdigest()

    def save(self, folder: Path) -> None:
        """Write the tokenizer's files into `folder`, under the names that `transformers` reads."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, content in sorted(self._engine.files.items()):
                (folder / name).write_bytes(content)
        except OSError as error:
            raise WriteError(f"cannot write {folder}: {error.strerror or error}") from error

    @staticmethod
    def load(folder: Path) -> "Tokenizer":
        """The tokenizer of a model folder. ModelError when it has none, or a broken one."""
        engine = open_engine(folder)
        try:
            made = Tokenizer(engine)
            made.encode(PROBE)
        except ModelError as error:
            raise ModelError(f"{folder}: {error.message}", error.hint) from error
        return made


def train(texts: Iterable[str], *, kind: str, size: int, lowercase: bool = False) -> Tokenizer:
    """A tokenizer with a vocabulary of at most `size` entries learnt from `texts`; the same texts give the same one.

    kind: wordpiece, bpe (byte-level) or sentencepiece (unigram). DataError when the texts are empty or too rich for
    `size`, and for half a surrogate pair.
    """
    return Tokenizer(train_engine(texts, kind=kind, size=size, lowercase=lowercase))


def _refuse_surrogates(texts: Sequence[str]) -> None:
    """DataError for the first text that holds a code point which UTF-8 cannot write."""
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            code = f"U+{ord(text[error.start]):04X}"
            raise DataError(
                f"text holds half of a surrogate pair ({code} at character {error.start + 1})",
                "the text was cut in the middle of an emoji, or written with a broken \\u escape",
            ) from error
