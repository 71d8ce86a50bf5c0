"""A vocabulary of one's own, learnt from text: the same text gives the same vocabulary, byte for byte."""

import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain

import sentencepiece
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from unilmctl.errors import DataError
from unilmctl.tokens.engines import (
    BPE_ROLES,
    WORDPIECE_ROLES,
    Engine,
    FastEngine,
    bpe_definition,
    in_order,
    wordpiece_definition,
)
from unilmctl.tokens.pieces import PieceEngine
from unilmctl.tokens.words import PREFIX

LONGEST_SENTENCE = 1 << 20  # bytes; the SentencePiece trainer passes over longer lines


def train_engine(texts: Iterable[str], *, kind: str, size: int, lowercase: bool) -> Engine:
    """See `tokens.train`."""
    if kind not in TRAINERS:
        raise DataError(f"no such kind of vocabulary: {kind!r}", f"one of {', '.join(TRAINERS)}")
    return TRAINERS[kind](_sound(texts), size, lowercase)


def _sound(texts: Iterable[str]) -> Iterator[str]:
    """`texts` with NULs as blanks and halves of surrogate pairs as question marks: they teach a vocabulary nothing."""
    for text in texts:
        yield text.encode("utf-8", "replace").decode().replace("\0", " ")


def _wordpiece(texts: Iterable[str], size: int, lowercase: bool) -> Engine:
    """BERT's splitting, pieces merged by frequency.

    The library numbers continuation characters in the order of a randomised hash table, and ties between merges fall
    by those numbers: handing it the alphabet in order makes the outcome the same every time.
    """
    lines = list(texts)
    tokenizer = tokenizers.Tokenizer.from_str(
        wordpiece_definition({"[UNK]": 0}, lowercase=lowercase, accents=None, chinese=True)
    )
    alphabet = _alphabet(lines, tokenizer, room=(size - len(WORDPIECE_ROLES)) // 2)
    tokenizer.train_from_iterator(
        lines,
        trainers.WordPieceTrainer(
            vocab_size=size,
            min_frequency=2,
            special_tokens=[*WORDPIECE_ROLES, *alphabet],
            limit_alphabet=0,
            show_progress=False,
        ),
    )
    tokens = in_order(tokenizer.get_vocab())
    definition = wordpiece_definition(
        {token: i for i, token in enumerate(tokens)}, lowercase=lowercase, accents=None, chinese=True
    )
    config = {"tokenizer_class": "BertTokenizer", "do_lower_case": lowercase, "tokenize_chinese_chars": True}
    files = {"vocab.txt": "".join(token + "\n" for token in tokens).encode(), "tokenizer_config.json": _json(config)}
    return FastEngine("wordpiece", definition, files)


def _alphabet(lines: list[str], tokenizer: tokenizers.Tokenizer, room: int) -> list[str]:
    """The `room` commonest characters, sorted, then `##c` for those that continue a word."""
    chunks: Counter[str] = Counter()
    for line in lines:
        chunks.update(tokenizer.normalizer.normalize_str(line).split())
    if not chunks:
        raise _no_text()
    counts: Counter[str] = Counter()
    inside: set[str] = set()
    for chunk, count in chunks.items():
        for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(chunk):
            for character in word:
                counts[character] += count
            inside.update(word[1:])
    if room < 1:
        raise DataError(f"a wordpiece vocabulary of {len(WORDPIECE_ROLES) + 2 * room} has no room for characters")
    kept = sorted(sorted(counts, key=lambda character: (-counts[character], character))[:room])
    return kept + [PREFIX + character for character in kept if character in inside]


def _bpe(texts: Iterable[str], size: int, lowercase: bool) -> Engine:
    """Byte-level BPE as RoBERTa has it: all 256 bytes are in the vocabulary, so nothing is unknown."""
    smallest = len(BPE_ROLES) + 256
    if size < smallest:
        raise DataError(f"a bpe vocabulary needs at least {smallest} entries (every byte is one), not {size}")
    tokenizer = tokenizers.Tokenizer(models.BPE())
    if lowercase:
        tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=2,
        special_tokens=list(BPE_ROLES),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_some(texts), trainer)
    trained = json.loads(tokenizer.to_str())["model"]
    vocabulary, merges = trained["vocab"], [(left, right) for left, right in trained["merges"]]
    definition = json.loads(bpe_definition(vocabulary, merges, prefix_space=False))
    if lowercase:
        definition["normalizer"] = {"type": "Lowercase"}
    start, pad, end, unknown, mask = BPE_ROLES
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "cls_token": start, "bos_token": start, "sep_token": end, "eos_token": end,
        "pad_token": pad, "unk_token": unknown, "mask_token": mask,
    }  # fmt: skip
    text = json.dumps(definition, ensure_ascii=False)
    return FastEngine("bpe", text, {"tokenizer.json": text.encode(), "tokenizer_config.json": _json(config)})


def _sentencepiece(texts: Iterable[str], size: int, lowercase: bool) -> Engine:
    """A unigram model that normalises nothing (but case, if asked), with bytes for rare characters.

    One thread: with more, sums of floating-point numbers come in any order.
    """
    model = io.BytesIO()
    failures: list[Exception] = []
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_held(_some(texts), failures),
            model_writer=model,
            vocab_size=size,
            model_type="unigram",
            normalization_rule_name="nmt_nfkc_cf" if lowercase else "identity",
            remove_extra_whitespaces=False,
            byte_fallback=True,
            hard_vocab_limit=False,
            max_sentence_length=LONGEST_SENTENCE,
            num_threads=1,
            pad_id=0, pad_piece="<pad>", unk_id=1, unk_piece="<unk>", bos_id=2, bos_piece="<s>",
            eos_id=3, eos_piece="</s>", control_symbols=["<mask>"],
            minloglevel=2,
        )  # fmt: skip
    except RuntimeError as error:
        if "smaller than required_chars" in str(error):
            raise DataError(
                f"a sentencepiece vocabulary of {size} is too small for the characters of this text",
                "raise tokens.train.size, or use kind: bpe, which spells in bytes",
            ) from error
        if not failures:
            raise
    if failures:
        raise failures[0]
    return PieceEngine(model.getvalue(), {"spiece.model": model.getvalue()})


def _some(texts: Iterable[str]) -> Iterator[str]:
    """`texts` from the first that is not blank; DataError at once when all of them are."""
    rest = iter(texts)
    for text in rest:
        if text.strip():
            return chain([text], rest)
    raise _no_text()


def _held(texts: Iterable[str], failures: list[Exception]) -> Iterator[str]:
    """`texts`, ending early at an exception, which goes to `failures`: the trainer's C++ would swallow its kind."""
    try:
        yield from texts
    except Exception as error:
        failures.append(error)


def _no_text() -> DataError:
    return DataError("there is no text to learn a vocabulary from")


def _json(value: Mapping[str, object]) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()


TRAINERS = {"wordpiece": _wordpiece, "bpe": _bpe, "sentencepiece": _sentencepiece}
