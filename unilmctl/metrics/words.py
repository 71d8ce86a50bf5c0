"""Text to units: how each metric cuts a line, by language and by what the papers did.

`unit` chooses among four: "ascii" (rouge-score's English words), "words" (letters and digits of any script),
"characters" (scripts without blanks) and "blanks" (the text is tokens already).
"""

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from unilmctl.errors import DataError, UsageError
from unilmctl.metrics.values import Options

Split = Callable[[str], list[str]]

UNSPACED = frozenset({"zh", "yue", "wuu", "ja", "th", "lo", "km", "my", "bo"})
BLEU_TOKENIZERS = ("13a", "intl", "zh", "char", "none")
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[a-z0-9]+)*")


@dataclass(frozen=True)
class Tokenizer:
    """A function in the shape that rouge-score asks for."""

    tokenize: Split


def unit(options: Options) -> str:
    """Which of the four units the options ask for; raises UsageError for what is no language code."""
    language = options.language.lower()
    if not _LANGUAGE.fullmatch(language):
        raise UsageError(f"'{options.language}' is not a language code", "use a code such as en, zh or de")
    if options.tokenize == "none":
        return "blanks"
    primary = language.partition("-")[0]
    if options.tokenize in ("zh", "char") or primary in UNSPACED:
        return "characters"
    return "ascii" if primary == "en" else "words"


def bleu_tokenizer(options: Options) -> str:
    """The sacrebleu tokenizer: the one asked for, else by language; raises UsageError for an unknown one."""
    if options.tokenize is not None:
        if options.tokenize not in BLEU_TOKENIZERS:
            raise UsageError(f"unknown tokenizer '{options.tokenize}'", f"use one of {', '.join(BLEU_TOKENIZERS)}")
        return options.tokenize
    if unit(options) != "characters":
        return "13a"
    return "zh" if options.language.lower().partition("-")[0] in ("zh", "yue", "wuu") else "char"


def bleu_splitter(options: Options, *, lowercase: bool) -> Split:
    """Words as BLEU counts them."""
    from sacrebleu.metrics.bleu import BLEU  # noqa: PLC0415

    tokenizer = BLEU(tokenize=bleu_tokenizer(options), force=True).tokenizer

    def split(text: str) -> list[str]:
        words: list[str] = tokenizer((text.lower() if lowercase else text).rstrip()).split()
        return words

    return split


def characters(text: str) -> list[str]:
    """Every character that is not a blank, lower-cased: how Chinese titles are scored."""
    return [character for character in text.lower() if not character.isspace()]


def blanks(text: str) -> list[str]:
    """Tokens that are parted by blanks already, lower-cased."""
    return text.lower().split()


def unicode_words(text: str) -> list[str]:
    """Runs of letters, marks and digits of any script, lower-cased; punctuation and symbols part them."""
    kept = (character if unicodedata.category(character)[0] in "LMN" else " " for character in text.lower())
    return "".join(kept).split()


PLAIN: dict[str, Split] = {"characters": characters, "blanks": blanks, "words": unicode_words}


def rouge_tokenizer(options: Options) -> Tokenizer:
    """What rouge-score is given: its own words for English, ours for every other unit."""
    kind = unit(options)
    return Tokenizer(_english(stem=options.stem) if kind == "ascii" else PLAIN[kind])


class _Stemmer:
    """NLTK's Porter stemmer, each word stemmed once: nine tenths of ROUGE's time otherwise."""

    def __init__(self) -> None:
        from nltk.stem.porter import PorterStemmer  # noqa: PLC0415

        self.stem = lru_cache(maxsize=1 << 16)(PorterStemmer().stem)


def _english(*, stem: bool) -> Split:
    from rouge_score.tokenize import tokenize  # noqa: PLC0415

    stemmer = _Stemmer() if stem else None

    def split(text: str) -> list[str]:
        found: list[str] = tokenize(text, stemmer)
        return found

    return split


# --- ROUGE-1.5.5 ----------------------------------------------------------------------------------------------------

_PENN_BRACKET = re.compile(r"-[lr][rcs]b-")
_NOT_ASCII_WORD = re.compile(r"[^a-z0-9]+")


def read_exceptions(folder: Path) -> dict[str, str]:
    """WordNet's irregular forms: the first base form of every word in the folder's `.exc` files.

    Where two files hold a word, the file later in the alphabet wins, as the last one read wins in the original. Raises
    DataError when there is no such folder, no such file in it, or a line without a base form.
    """
    files = sorted(folder.glob("*.exc")) if folder.is_dir() else []
    if not files:
        raise DataError(
            f"{folder}: no .exc files here",
            "give WordNet's folder of exception lists (Debian's wordnet-base puts it in /usr/share/wordnet)",
        )
    forms: dict[str, str] = {}
    for file in files:
        for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
            fields = line.split()
            if len(fields) == 1:
                raise DataError(f"{file}:{number}: '{line}' has no base form", "a line is: irregular form, base form")
            if fields:
                forms[fields[0]] = fields[1]
    return forms


def rouge155_tokenizer(options: Options) -> Tokenizer:
    """The words of ROUGE-1.5.5 with `-m`, behind the wrapper that the papers used.

    The wrapper lower-cases and turns `-lrb-` and its kin back into brackets; ROUGE keeps runs of [a-z0-9] and looks up
    words of more than three letters in the list of irregular forms before it stems them with Porter's original rules.
    """
    from nltk.stem.porter import PorterStemmer  # noqa: PLC0415

    forms = read_exceptions(options.exceptions) if options.exceptions else {}
    stemmer = PorterStemmer(mode=PorterStemmer.ORIGINAL_ALGORITHM)

    @lru_cache(maxsize=1 << 16)
    def base(word: str) -> str:
        if len(word) <= 3:
            return word
        return forms.get(word) or str(stemmer.stem(word))

    def split(text: str) -> list[str]:
        text = _PENN_BRACKET.sub(" ", text.lower())
        return [base(word) for word in _NOT_ASCII_WORD.sub(" ", text).split()]

    return Tokenizer(split)


# --- COCO -----------------------------------------------------------------------------------------------------------

_CLITIC = re.compile(r"(?<=\w)(n['’]t|['’](?:s|d|m|ll|re|ve))\b")
_PENN_WORD = re.compile(r"n['’]t|['’](?:s|d|m|ll|re|ve)\b|\d+(?:[.,:/-]\d+)*|[^\W_]+(?:[-.&][^\W_]+)*|[^\w\s]")
_DROPPED = frozenset("'\"`’‘“”.?!,:;-–—()[]{}…")


def coco_splitter(options: Options) -> Split:
    """Words as the COCO scorer sees them: lower-cased, clitics apart, punctuation marks dropped.

    A pattern stands in for the CoreNLP tokenizer of the original: within 0.01 points on eleven E2E Challenge outputs.
    """
    kind = unit(options)
    if kind in ("blanks", "characters"):
        return PLAIN[kind]

    def split(text: str) -> list[str]:
        apart = _CLITIC.sub(r" \1", text.lower())
        return [word for word in _PENN_WORD.findall(apart) if word not in _DROPPED]

    return split
