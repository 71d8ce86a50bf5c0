"""Every objective can be learnt: a tiny model brings the loss of 64 rows near zero in all heads, and writes them again.

Writing follows the times of a row, whatever the objective: every token that a label asks for is hidden wherever the row
shows it, then moment by moment the likeliest token is predicted and put where the row would show it. A slot reads
nothing that is written later, so what is still hidden cannot matter. `generate` does the same for the objectives it
knows; for the others this is the whole of their decoding.
"""

from dataclasses import replace
from typing import cast

import numpy as np
import pytest
import torch

from unilmctl.model import Encoder, HeadConfig, ModelConfig
from unilmctl.model.heads import HeadKind
from unilmctl.objectives import BOUNDARY, CONTRASTIVE, OBJECTIVES, REPLACED, Corruption, build
from unilmctl.rows import LANGUAGE_MODEL, Example, Frame, Ints, Labels, Row, pad
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


def learn(name: str, rows: list[Row]) -> tuple[Encoder, Step]:
    """A model trained on all rows at once, and its last step."""
    extra = (HeadConfig(HEADS[name], cast(HeadKind, HEADS[name])),) if name in HEADS else ()
    shape = ModelConfig(vocabulary=FRAME.vocabulary, hidden=64, layers=2, heads=4, feedforward=128, positions=32)
    encoder = Encoder(replace(shape, dropout=0.0, attention_dropout=0.0, pooler=name in HEADS, heads_extra=extra))
    encoder.initialize(torch.Generator().manual_seed(1))
    options = TrainOptions(steps=STEPS, learning_rate=5e-3, warmup=20, weight_decay=0.0, label_smoothing=0.0)
    feed = Feed(rows, lambda row, frame, random: row, FRAME, lambda epoch: [np.arange(len(rows))], 1)
    *_, last = train(encoder, build_optimizer(encoder, options), feed, options)
    return encoder.eval(), last


@torch.no_grad()
def write(encoder: Encoder, row: Row) -> Ints:
    """What the model writes for the labels of a row, moment by moment, [N]."""
    labels = row.labels[LANGUAGE_MODEL]
    ids = row.ids.copy()
    # Answers are numbered within a document; a slot may show its own (what `keep` left there), and nothing is lost.
    shown = np.where(row.shows < 0, -1, row.document * len(row) + row.shows)
    answers = row.document[labels.slots] * len(row) + labels.answers
    shown[labels.slots[shown[labels.slots] == answers]] = -1
    ids[np.isin(shown, answers)] = FRAME.pad
    written = np.zeros_like(labels.targets)
    times = row.time[labels.slots]
    for moment in np.unique(times):
        asked = np.flatnonzero(times == moment)
        batch = pad([replace(row, ids=ids)], pad_id=FRAME.pad)
        slots = torch.from_numpy(labels.slots[asked])
        hidden, _ = encoder(batch.ids, batch.positions, batch.segments, batch.slots, slots)
        written[asked] = encoder.logits(hidden).argmax(-1).numpy()
        for label in asked:
            ids[shown == answers[label]] = written[label]
    return written


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_tiny_model_learns_its_rows_by_heart_and_writes_them(name: str):
    rows = rows_of(name)
    encoder, last = learn(name, rows)
    assert last.loss < 0.1
    assert set(last.tallies) == {(0, head) for head in {LANGUAGE_MODEL, HEADS.get(name, LANGUAGE_MODEL)}}
    assert {tally.accuracy for tally in last.tallies.values()} == {1.0}
    for row in rows:
        assert write(encoder, row).tolist() == row.labels[LANGUAGE_MODEL].targets.tolist()
