"""Rows that learn to write a target after reading a source, or a text after nothing.

| | row | predicted | one decoding step reads |
|---|---|---|---|
| `pseudo` | source, target, one [P] per target | every target, at its [P] | previous token, [MASK] |
| `masked` | source, target with [MASK]s in place | the masked targets | previous token, [MASK] |
| `causal` | source, target | every target, at the slot before it | previous token |
| `next-token` | `causal` of a text without a source | every token, at the slot before it | previous token |

The source is read by everything (time 0). Of each row, `shows` numbers the tokens of source and target in order.

Shapes: S source tokens, N target tokens, both with their special tokens.
"""

from dataclasses import replace

import numpy as np

from unilmctl.objectives.corruption import DEFAULT, Corruption, corrupt, drop_words, rate
from unilmctl.rows import LANGUAGE_MODEL, Example, Frame, Ints, Labels, Row
from unilmctl.visibility import FOREVER


def pseudo(example: Example, frame: Frame, random: np.random.Generator, *, corruption: Corruption = DEFAULT) -> Row:
    """Pseudo masks: S + 2N tokens; training computes exactly what decoding computes.

    Target i is written at time 2i+2; its [P] shares its position, lives at 2i+1 only, and predicts it. With probability
    `corruption.target` the written target is overwritten with whatever stands at its [P], so that the model learns to
    go on from imperfect text. UniLMv2 (arXiv 2002.12804), s2s-ft (arXiv 2110.13640) `mask_way=v2`.
    """
    source = drop_words(frame.source(example.source), frame, random, corruption)
    target = frame.target(example.target)
    size, count = len(source), len(target)
    masks = corrupt(target, frame, random, corruption)
    content = np.where(random.random(count) < rate(corruption, "pseudo"), masks, target)
    steps = np.arange(count)
    written = np.arange(size + count)
    return Row(
        ids=np.concatenate((source, content, masks)),
        positions=np.concatenate((written, written[size:])),
        segments=_segments(size, 2 * count, frame),
        document=np.zeros(size + 2 * count, dtype=np.int64),
        time=np.concatenate((np.zeros(size, dtype=np.int64), 2 * steps + 2, 2 * steps + 1)),
        until=np.concatenate((np.full(size + count, FOREVER), 2 * steps + 2)),
        labels={LANGUAGE_MODEL: Labels(steps + (size + count), target, written[size:])},
        shows=np.concatenate((written, np.full(count, -1))),
    )


def masked(example: Example, frame: Frame, random: np.random.Generator, *, corruption: Corruption = DEFAULT) -> Row:
    """Masked targets in place: S + N tokens, of which max(1, int(rate * N)) are predicted.

    Later targets read the [MASK]s of earlier ones, which decoding never does: this gap is what `pseudo` closes.
    UniLM v1 fine-tuning (arXiv 1905.03197), s2s-ft `mask_way=v1`.
    """
    source = drop_words(frame.source(example.source), frame, random, corruption)
    target = frame.target(example.target)
    size, count = len(source), len(target)
    chosen = np.sort(random.permutation(count)[: max(1, int(rate(corruption, "masked") * count))])
    content = target.copy()
    content[chosen] = corrupt(target[chosen], frame, random, corruption)
    slots = chosen + size
    labels = {LANGUAGE_MODEL: Labels(slots, target[chosen], slots)}
    return _left_to_right(np.concatenate((source, content)), size, labels, frame)


def causal(example: Example, frame: Frame, random: np.random.Generator, *, corruption: Corruption = DEFAULT) -> Row:
    """Next-token labels without any [MASK]: every target is predicted at the slot before it.

    The [SEP] between source and target starts the target (s2s-ft `mask_way=v0`), or closes the source (bert4keras
    `application='unilm'`), as `frame.separator_in` says. The final [SEP] is predicted and not read. With probability
    `corruption.target` a target is corrupted where it is read.
    """
    target = frame.target(example.target)
    if frame.separator_in == "source":
        source, read = frame.source(example.source), target[:-1]
    else:
        source = np.concatenate(([frame.start], frame.cut(example.source, special=1))).astype(np.int64)
        read = np.concatenate((target[-1:], target[:-1]))
    source = drop_words(source, frame, random, corruption)
    share = rate(corruption, "causal")
    if share > 0:
        noisy = random.random(len(read)) < share
        noisy[: len(read) + 1 - len(target)] = False  # the start symbol, where it is part of the target
        read = np.where(noisy, corrupt(read, frame, random, corruption), read)
    slots = np.arange(len(target)) + (len(source) + len(read) - len(target))
    labels = {LANGUAGE_MODEL: Labels(slots, target, slots + 1)}
    return _left_to_right(np.concatenate((source, read)), len(source), labels, frame)


def next_token(example: Example, frame: Frame, random: np.random.Generator, *, corruption: Corruption = DEFAULT) -> Row:
    """[CLS] [SEP] text: the row of `causal` without a source, every token of the text predicted before it is read.

    What such a model generates from is the beginning of its target. GPT (Radford et al. 2018).
    """
    text = frame.cut(np.concatenate((example.source, example.target)), special=2)
    whole = Example(np.zeros(0, dtype=np.int64), text)
    return causal(whole, replace(frame, max_target=len(text) + 1), random, corruption=corruption)


def _left_to_right(ids: Ints, size: int, labels: dict[str, Labels], frame: Frame) -> Row:
    """A row whose first `size` tokens are read by everything and whose others are written one after another."""
    index = np.arange(len(ids))
    return Row(
        ids=ids,
        positions=index,
        segments=_segments(size, len(ids) - size, frame),
        document=np.zeros(len(ids), dtype=np.int64),
        time=np.maximum(index - (size - 1), 0),
        until=np.full(len(ids), FOREVER),
        labels=labels,
        shows=index,
    )


def _segments(source: int, target: int, frame: Frame) -> Ints:
    return np.repeat([frame.source_segment, frame.target_segment], [source, target])
