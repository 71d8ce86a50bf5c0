"""Every objective can be learnt: a tiny model brings the loss of 64 rows near zero in all heads, and writes them again.

Writing follows the times of a row, whatever the objective (`decoding.moments`): `generate` does the same for the
objectives that it knows, and `generate --fill` for those that fill gaps.
"""

from dataclasses import replace
from typing import cast

import numpy as np
import pytest
import torch

from unilmctl.decoding import Moments, Plan
from unilmctl.model import Encoder, HeadConfig, ModelConfig
from unilmctl.model.heads import HeadKind
from unilmctl.objectives import (
    BOUNDARY,
    CONTRASTIVE,
    OBJECTIVES,
    PAIRINGS,
    REPLACED,
    Corruption,
    build,
    with_pair_label,
)
from unilmctl.objectives.sentences import CLASSES
from unilmctl.rows import LANGUAGE_MODEL, Example, Frame, Labels, Passage, Row
from unilmctl.search import Rules, greedy
from unilmctl.training import Feed, Step, TrainOptions, build_optimizer, train

pytestmark = pytest.mark.slow

ROWS, STEPS = 64, 170
FRAME = Frame(pad=0, start=1, separator=2, mask=3, vocabulary=4 + ROWS, separator_in="source")
ON_PAIRS = ("pseudo", "masked", "causal", "seq2seq", "block-diffusion", "similar")
HEADS = {"span-boundary": BOUNDARY, "replaced": REPLACED, "similar": CONTRASTIVE}
"""Heads that rows have labels for beside those of the language model; each is called like its kind."""

FIRST = {"left-to-right": 1, "right-to-left": 7}
"""Where nothing tells the texts apart yet: the slot of their first token to be written, which is theirs alone."""


def rows_of(name: str) -> list[Row]:
    """Rows of texts of seven tokens, or of pairs of four and three; the first and the last token are the text's own.

    The target of `pseudo` is read as it is: what is overwritten in training is never read in writing.
    """
    random = np.random.default_rng(3)
    objective = build(name, Corruption(target={"pseudo": 0.0, "partial": 0.4, "bidirectional": 0.4}.get(name)))
    made: list[Row] = []
    while len(made) < ROWS:
        text = np.array([4 + len(made), *random.integers(4, 4 + ROWS, 5), 3 + ROWS - len(made)])
        cut = 4 if name in ON_PAIRS else 7
        row = objective(Example(text[:cut], text[cut:]), FRAME, random)
        told_apart = name != "span-boundary" or np.isin(text[[0, -1]], row.ids).any()
        if told_apart and FIRST.get(name) not in row.labels[LANGUAGE_MODEL].slots:
            made.append(_given_a_beginning(row) if name == "next-token" else row)
    return made


def _given_a_beginning(row: Row) -> Row:
    """The row without the label of its first token, which then has to be given."""
    slots, targets, answers, *_ = row.labels[LANGUAGE_MODEL]
    return replace(row, labels={LANGUAGE_MODEL: Labels(slots[1:], targets[1:], answers[1:])})


def learn(rows: list[Row], *heads: HeadConfig, steps: int = STEPS, rate: float = 5e-3) -> tuple[Encoder, Step]:
    """A model with these heads trained on all rows at once, and its last step."""
    shape = ModelConfig(vocabulary=FRAME.vocabulary, hidden=64, layers=2, heads=4, feedforward=128, positions=32)
    encoder = Encoder(replace(shape, dropout=0.0, attention_dropout=0.0).with_heads(*heads))
    encoder.initialize(torch.Generator().manual_seed(1))
    options = TrainOptions(steps=steps, learning_rate=rate, warmup=20, weight_decay=0.0, label_smoothing=0.0)
    feed = Feed(rows, lambda row, frame, random: row, FRAME, lambda epoch: [np.arange(len(rows))], 1)
    *_, last = train(encoder, build_optimizer(encoder, options), feed, options)
    return encoder.eval(), last


def documents(row: Row) -> list[Row]:
    """The documents of a row, each as a row of its own with its labels for words."""
    found = []
    labels = row.labels[LANGUAGE_MODEL]
    for document in range(int(row.document.max()) + 1):
        slots = np.flatnonzero(row.document == document)
        mine = np.isin(labels.slots, slots)
        asked = Labels(np.searchsorted(slots, labels.slots[mine]), labels.targets[mine], labels.answers[mine])
        columns = {
            name: getattr(row, name)[slots] for name in ("ids", "positions", "segments", "time", "until", "shows")
        }
        inner = None if row.inner is None else row.inner[slots]
        whole = np.zeros(len(slots), dtype=np.int64)
        found.append(Row(**columns, document=whole, labels={LANGUAGE_MODEL: asked}, inner=inner))
    return found


def write(encoder: Encoder, rows: list[Row]) -> list[list[int]]:
    """What the model writes for the labels of each row."""
    moments, plans = Moments(encoder, FRAME.vocabulary, FRAME.pad), [Plan.of(row) for row in rows]
    rules = Rules(end=moments.end, max_length=1 + max(plan.size for plan in plans))
    found = greedy(*moments.start(plans), moments.step, rules)
    return [np.array(one.ids)[np.argsort(plan.order)].tolist() for (one,), plan in zip(found, plans, strict=True)]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_tiny_model_learns_its_rows_by_heart_and_writes_them(name: str):
    rows = rows_of(name)
    head = [HeadConfig(HEADS[name], cast(HeadKind, HEADS[name]))] if name in HEADS else []
    encoder, last = learn(rows, *head)
    assert last.loss < 0.1
    assert set(last.tallies) == {(0, head) for head in {LANGUAGE_MODEL, HEADS.get(name, LANGUAGE_MODEL)}}
    assert {tally.accuracy for tally in last.tallies.values()} == {1.0}
    alone = [document for row in rows for document in documents(row)]
    assert write(encoder, alone) == [row.labels[LANGUAGE_MODEL].targets.tolist() for row in alone]


def passage(number: int) -> Passage:
    """Four sentences of two tokens, of which the first and the last are the passage's own."""
    random = np.random.default_rng(number)
    text = np.array([4 + number, *random.integers(4, 4 + ROWS, 6), 3 + ROWS - number])
    return Passage(tuple(np.split(text, 4)), None, number)


@pytest.mark.parametrize("task", CLASSES)
def test_a_tiny_model_learns_what_a_sentence_task_drew_for_its_passages(task: str):
    random, rows = np.random.default_rng(3), []
    for number in range(ROWS):
        example, label = PAIRINGS[task](passage(number), passage((number + 9) % ROWS), FRAME, random)
        row = with_pair_label(build("bidirectional")(example, FRAME, random), task, label)
        rows.append(replace(row, labels={task: row.labels[task]}))  # the words have their test above
    assert {int(row.labels[task].targets[0]) for row in rows} == set(range(CLASSES[task]))
    _, last = learn(rows, HeadConfig(task, "class", CLASSES[task]), steps=15 * CLASSES[task] + 30, rate=3e-3)
    assert last.loss < 0.1
    assert last.tallies[0, task].accuracy == 1.0
