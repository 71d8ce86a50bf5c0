"""Rows that write one text in an order of their own: predicted tokens exist twice, as written and as to be predicted.

| | to be predicted | written |
|---|---|---|
| `partial` | [P]s of one block together, at 2t+1 | at 2t+2 |
| `permuted` | a query that nobody reads, at 2t+1 | at 2t+2 |
| `permuted-compensated` | the same, and a [MASK] in its place until 2t+2 | at 2t+2 |
| `block-diffusion` | a noisy copy of the block, at 2t+1 | at 2t+2 |

Shapes: T tokens of the text, N predicted ones.
"""

import numpy as np
from numpy.typing import NDArray

from unilmctl.objectives.cloze import one_segment
from unilmctl.objectives.corruption import DEFAULT, Corruption, choose, corrupt
from unilmctl.objectives.layout import Columns, assemble, joined, ranks
from unilmctl.rows import Example, Frame, Ints, Row

BLOCK = 4
"""Tokens of a diffusion block."""


def partial(example: Example, frame: Frame, random: np.random.Generator, *, corruption: Corruption = DEFAULT) -> Row:
    """Autoencoding and partially autoregressive in one pass. UniLMv2 (arXiv 2002.12804), Algorithm 1."""
    text = one_segment(example, frame)
    return partial_row(text.tokens, choose("partial", text, random, corruption), frame, random, corruption)


def partial_row(
    text: Ints, blocks: list[Ints], frame: Frame, random: np.random.Generator, corruption: Corruption
) -> Row:
    """The text [T] with [MASK] in every block, then block by block [P]s and originals; both predict.

    The in-place slots are always [MASK]: one kept token there would show its answer to every [P].
    """
    picks, step = joined(blocks), ranks(blocks)
    hidden = np.zeros(len(text), dtype=bool)
    hidden[picks] = True
    segment = frame.source_segment
    return assemble(
        text,
        [
            Columns(np.where(hidden, frame.mask, text), np.arange(len(text)), 0, segment=segment, predicts=hidden),
            Columns(
                corrupt(text[picks], frame, random, corruption, step), picks, 2 * step + 1, 2 * step + 2, segment, True
            ),
            Columns(text[picks], picks, 2 * step + 2, segment=segment),
        ],
    )


def permuted(example: Example, frame: Frame, random: np.random.Generator, *, corruption: Corruption = DEFAULT) -> Row:
    """The chosen tokens are predicted one after another in a random order. XLNet (arXiv 1906.08237)."""
    text = one_segment(example, frame)
    order = random.permutation(joined(choose("permuted", text, random, corruption)))
    return permuted_row(text.tokens, order, frame)


def permuted_row(text: Ints, order: Ints, frame: Frame, steps: Ints | None = None) -> Row:
    """The text [T] as content, then a [MASK] query for every token of `order` [N]; nobody reads a query.

    `steps` [N] number those that are written together; None: each alone.
    """
    written = _written(text, order, steps)
    asked = written[order] - 1
    segment = frame.source_segment
    return assemble(
        text,
        [
            Columns(text, np.arange(len(text)), written, segment=segment),
            Columns(np.full(len(order), frame.mask), order, asked, asked, segment, predicts=True),
        ],
    )


def _written(text: Ints, order: Ints, steps: Ints | None) -> Ints:
    """When each token of the text [T] is written: 0, or those of `order` [N] in their steps."""
    written = np.zeros(len(text), dtype=np.int64)
    written[order] = 2 * (np.arange(len(order)) if steps is None else steps) + 2
    return written


def permuted_compensated(
    example: Example, frame: Frame, random: np.random.Generator, *, corruption: Corruption = DEFAULT
) -> Row:
    """As `permuted`, but every slot reads each position of the text exactly once. MPNet (arXiv 2004.09297)."""
    text = one_segment(example, frame)
    order = random.permutation(joined(choose("permuted-compensated", text, random, corruption)))
    return compensated_row(text.tokens, order, frame, random, corruption)


def compensated_row(
    text: Ints,
    order: Ints,
    frame: Frame,
    random: np.random.Generator,
    corruption: Corruption,
    steps: Ints | None = None,
) -> Row:
    """Content [T], a [MASK] for every token of `order` [N] that is readable until the token is, and the queries.

    Queries are corrupted; the readable [MASK]s are not: one kept token there would show its answer. `steps` as in
    `permuted_row`.
    """
    written = _written(text, order, steps)
    asked, masks = written[order] - 1, np.full(len(order), frame.mask)
    segment = frame.source_segment
    return assemble(
        text,
        [
            Columns(text, np.arange(len(text)), written, segment=segment),
            Columns(masks, order, 0, written[order], segment),
            Columns(corrupt(text[order], frame, random, corruption), order, asked, asked, segment, predicts=True),
        ],
    )


def block_diffusion(
    example: Example, frame: Frame, random: np.random.Generator, *, corruption: Corruption = DEFAULT, block: int = BLOCK
) -> Row:
    """Blocks of `block` tokens, each restored from a copy with a random share of [MASK]s. BD3-LM (arXiv 2503.09573).

    The share is uniform in (0, 1] per block, or `corruption.target` where that is set; one token is masked at least.
    Labels carry no weights: BD3-LM's factor 1/share is the caller's. With a target, the source is read by everything.
    """
    if len(example.target) == 0:
        source, target = np.array([frame.start]), frame.source(example.source)[1:]
    else:
        source, target = frame.source(example.source), frame.target(example.target)
    step = np.arange(len(target)) // block
    share = (
        1 - random.random(int(step[-1]) + 1) if corruption.target is None else np.full(step[-1] + 1, corruption.target)
    )
    noisy = random.random(len(target)) < share[step]
    noisy[random.integers(len(target))] = True
    return block_row(source, target, step, noisy, frame)


def block_row(source: Ints, target: Ints, step: Ints, noisy: NDArray[np.bool_], frame: Frame) -> Row:
    """Source, noisy copy and original of the target [T]; `step` [T] numbers blocks, `noisy` [T] says what is masked."""
    place = np.arange(len(target)) + len(source)
    time, segment = 2 * step + 1, frame.target_segment
    return assemble(
        np.concatenate((source, target)),
        [
            Columns(source, np.arange(len(source)), 0, segment=frame.source_segment),
            Columns(np.where(noisy, frame.mask, target), place, time, time + 1, segment, predicts=noisy),
            Columns(target, place, time + 1, segment=segment),
        ],
    )
