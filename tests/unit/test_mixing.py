"""A mix of objectives: which passage is under which one, and that batches are cut for the rows that are then made."""

from typing import cast

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from unilmctl.commands.pretrain.command import frame_of
from unilmctl.commands.pretrain.mixing import Mix, feed_of, mix_of
from unilmctl.data.passages import Passages
from unilmctl.recipe import Recipe
from unilmctl.rows import LANGUAGE_MODEL, Ints, Passage
from unilmctl.tokens import Tokenizer
from unilmctl.tokens import train as train_tokenizer

ENTRIES = [
    {"objective": "next-token", "weight": 3},
    {"objective": "block-diffusion"},
    {"objective": "next-token", "name": "near", "window": 2},
]


class Few:
    """Passages of 4 to 11 tokens in memory."""

    def __len__(self) -> int:
        return 90

    def lengths(self) -> Ints:
        return 4 + np.arange(90) % 8

    def other(self, index: int, random: np.random.Generator) -> Passage:
        return self[index - 1]

    def __getitem__(self, index: int) -> Passage:
        return Passage((np.full(4 + index % 8, 5),), None, index)


def plan_of(batch_tokens: int = 64) -> Recipe:
    return Recipe.model_validate(
        {
            "data": {"train": {"files": ["train.txt"]}},
            "model": {"architecture": "bert"},
            "tokens": {"max_length": 16, "train": {"size": 24}},
            "pretrain": {"batch_tokens": batch_tokens, "mix": ENTRIES},
        }
    )


def tokenizer() -> Tokenizer:
    return train_tokenizer(["a b c d e f"], kind="wordpiece", size=24)


def made(plan: Recipe) -> Mix:
    assert plan.pretrain is not None
    words = tokenizer()
    return mix_of(plan.pretrain.entries, frame_of(plan, words, 2), plan, words)


@given(st.integers(0, 2**32 - 1), st.integers(0, 1000), st.integers(1, 300), st.integers(1, 300))
def test_the_objective_of_a_passage_does_not_depend_on_how_many_there_are(seed: int, epoch: int, few: int, more: int):
    mix = Mix((), np.cumsum([0.5, 0.25, 0.25]))
    count = min(few, more)
    found = [mix.objectives(number, seed, epoch)[:count].tolist() for number in (few, more)]
    assert found[0] == found[1]
    assert set(found[0]) <= {0, 1, 2}


def test_objectives_have_their_shares_and_are_drawn_anew_in_every_epoch():
    mix = made(plan_of())
    first, second = (mix.objectives(20_000, 1, epoch) for epoch in (0, 1))
    np.testing.assert_allclose(np.bincount(first) / 20_000, [0.6, 0.2, 0.2], atol=0.015)
    assert np.mean(first == second) < 0.5  # 0.6 ** 2 + 2 * 0.2 ** 2 by chance


def test_every_passage_is_in_an_epoch_once_in_rows_as_long_as_batches_are_cut_for():
    plan = plan_of()
    mix = made(plan)
    feed = feed_of(plan, cast(Passages, Few()), mix)
    for epoch in (0, 3):
        drawn = mix.objectives(90, plan.seed, epoch)
        lengths = mix.lengths(Few().lengths(), drawn)
        found: list[int] = []
        for batch in feed.order(epoch):
            rows = [
                feed.objective(feed.examples[index], feed.frame, np.random.default_rng(index))
                for index in batch.tolist()
            ]
            numbers = [feed.examples[index].passage.document for index in batch.tolist()]
            assert [len(row) for row in rows] == lengths[numbers].tolist()
            assert [set(row.labels[LANGUAGE_MODEL].group) for row in rows] == [
                {group} for group in drawn[numbers].tolist()
            ]
            assert len(rows) * -(-max(map(len, rows)) // 4) * 4 <= 64
            found += numbers
        assert sorted(found) == list(range(90))
