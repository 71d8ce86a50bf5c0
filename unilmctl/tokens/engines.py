"""WordPiece and byte-level BPE, through the `tokenizers` library; and what every engine offers."""

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from unilmctl.tokens.memory import Flat, Memory, flat, splitter
from unilmctl.tokens.words import PREFIX, join_words

LARGEST_VOCABULARY = 4_000_000
WORDPIECE_ROLES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
BPE_ROLES = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")  # RoBERTa's order


class Engine(Protocol):
    """What turns text into ids: a `Tokenizer` without its roles."""

    kind: str
    vocabulary: list[str]
    """Every token in the order of its id; "" where an id has none."""
    files: dict[str, bytes]
    """The files that make this engine again when they lie in a folder."""

    @property
    def encode_flat(self) -> Callable[[Sequence[str]], Flat]:
        """Texts -> their ids, special tokens neither added nor recognised."""
        ...

    def encode_placed(self, texts: Sequence[str]) -> list[tuple[list[int], list[int]]] | None:
        """Ids of every text, and the character at which each begins; None where the library does not tell."""
        ...

    def join(self, tokens: Sequence[str]) -> str:
        """The text that `tokens` spell."""
        ...

    def content(self) -> bytes:
        """Bytes that differ when any text would get other ids."""
        ...


class FastEngine:
    """An engine over `tokenizers.Tokenizer`; `definition` is the JSON text of a tokenizer.json."""

    def __init__(self, kind: str, definition: str, files: dict[str, bytes]) -> None:
        self.kind = kind
        self.files = files
        self._open(definition)

    def _open(self, definition: str) -> None:
        self._definition = definition
        self._tokenizer = tokenizers.Tokenizer.from_str(definition)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = True  # special tokens in a text are text
        self.vocabulary = in_order(self._tokenizer.get_vocab(with_added_tokens=True))
        split = splitter(json.loads(definition))
        self.encode_flat = Memory(split, self.encode_whole, self.encode_whole).encode_flat if split else self._flat

    def __getstate__(self) -> dict[str, Any]:
        return {"kind": self.kind, "files": self.files, "definition": self._definition}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.kind, self.files = state["kind"], state["files"]
        self._open(state["definition"])

    def encode_whole(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of every text, by the library alone, which spreads a batch over the cores."""
        return [one.ids for one in self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    def _flat(self, texts: Sequence[str]) -> Flat:
        return flat(self.encode_whole(texts))

    def encode_placed(self, texts: Sequence[str]) -> list[tuple[list[int], list[int]]] | None:
        """Ids of every text, and the character at which each begins."""
        encoded = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [(one.ids, [start for start, _ in one.offsets]) for one in encoded]

    def join(self, tokens: Sequence[str]) -> str:
        """The text that `tokens` spell."""
        if self.kind == "wordpiece":
            return join_words(tokens)
        return str(self._tokenizer.decoder.decode(list(tokens)))

    def content(self) -> bytes:
        """The whole definition: normaliser, splitter, vocabulary, merges."""
        return self._definition.encode()


def wordpiece_definition(
    vocabulary: dict[str, int], *, lowercase: bool, accents: bool | None, chinese: bool, words: bool = False
) -> str:
    """tokenizer.json text of BERT's WordPiece.

    `accents`: whether accents are stripped; None strips them when `lowercase` (BERT's habit). `chinese`: whether every
    CJK character is a word of its own. `words`: the text has a blank between any two words, and no other word ends.
    """
    tokenizer = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=chinese, strip_accents=accents, lowercase=lowercase
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit() if words else pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix=PREFIX)
    return str(tokenizer.to_str())


def bpe_definition(vocabulary: dict[str, int], merges: list[tuple[str, str]], *, prefix_space: bool) -> str:
    """tokenizer.json text of a byte-level BPE, as RoBERTa and GPT-2 have it."""
    tokenizer = tokenizers.Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    if {"<s>", "</s>"} <= vocabulary.keys():
        tokenizer.post_processor = processors.RobertaProcessing(
            ("</s>", vocabulary["</s>"]), ("<s>", vocabulary["<s>"]), trim_offsets=True, add_prefix_space=prefix_space
        )
    return str(tokenizer.to_str())


def in_order(vocabulary: dict[str, int]) -> list[str]:
    """Tokens by id; an id without a token gets ""."""
    size = max(vocabulary.values(), default=-1) + 1
    if size > LARGEST_VOCABULARY:
        raise ValueError(f"a token has the number {size - 1}")
    tokens = [""] * size
    for token, index in vocabulary.items():
        tokens[index] = token
    return tokens


def only_special(definition: dict[str, Any], names: Iterable[str]) -> str:
    """A tokenizer.json in which only the tokens called `names` are special.

    Special tokens are not recognised in text; a token that a user added to mark something, such as `<hl>`, must be.
    """
    special = set(names)
    added = [{**one, "special": one.get("content") in special} for one in definition.get("added_tokens") or []]
    return json.dumps({**definition, "added_tokens": added}, ensure_ascii=False)
