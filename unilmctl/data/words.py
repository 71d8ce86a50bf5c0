"""Where words begin among the tokens of sentences: found by a Chinese segmenter, or given by the data.

The ids are those that a sentence has without a segmenter; only words that the data gives are encoded by themselves.

Shapes: T tokens of all sentences.
"""

from collections.abc import Callable, Sequence
from importlib import import_module, metadata
from itertools import accumulate, chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unilmctl.data.parsing import Text
from unilmctl.errors import UsageError
from unilmctl.tokens import Tokenizer

Marked = tuple[list[list[int]], NDArray[np.bool_]]
"""Ids of every sentence, and which of all their tokens begin a word [T]."""


def marked(tokenizer: Tokenizer, sentences: Sequence[Text], segmenter: str) -> Marked:
    """The sentences encoded, with their words. segmenter: one of `SEGMENTERS`."""
    return SEGMENTERS[segmenter](tokenizer, sentences)


def segmenter_version(segmenter: str | None) -> str | None:
    """The name of a segmenter with its version: another one finds other words. UsageError when it is not installed."""
    if segmenter != "rjieba":
        return segmenter
    _rjieba()
    return f"rjieba {metadata.version('rjieba')}"


def _by_rjieba(tokenizer: Tokenizer, sentences: Sequence[Text]) -> Marked:
    """Words as rjieba cuts them; ready-made tokens are words."""
    cut = _rjieba().cut
    raw = iter(tokenizer.encode_placed([one for one in sentences if isinstance(one, str)]))
    ids: list[list[int]] = []
    begins: list[NDArray[np.bool_]] = []
    for sentence in sentences:
        if isinstance(sentence, str):
            found, places = next(raw)
            ends = list(accumulate(map(len, cut(sentence))))
            word = np.searchsorted(ends, places, side="right")
            begins.append(np.diff(word, prepend=-1) > 0)
        else:
            found = tokenizer.encode_tokens(sentence)
            begins.append(np.ones(len(found), dtype=np.bool_))
        ids.append(found)
    return ids, np.concatenate(begins) if begins else np.zeros(0, dtype=np.bool_)


def _as_given(tokenizer: Tokenizer, sentences: Sequence[Text]) -> Marked:
    """Words and phrases that the data lists, each encoded by itself."""
    encoded = iter(tokenizer.encode_batch(list(chain.from_iterable(sentences))))
    ids: list[list[int]] = []
    begins: list[bool] = []
    for sentence in sentences:
        words = [next(encoded) for _ in sentence]
        ids.append(list(chain.from_iterable(words)))
        begins += [not place for word in words for place in range(len(word))]
    return ids, np.array(begins, dtype=np.bool_)


def _rjieba() -> Any:
    try:
        return import_module("rjieba")
    except ImportError as error:
        raise UsageError("segmenter: rjieba is not installed", "pip install 'unilmctl[zh]'") from error


SEGMENTERS: dict[str, Callable[[Tokenizer, Sequence[Text]], Marked]] = {"rjieba": _by_rjieba, "given": _as_given}
