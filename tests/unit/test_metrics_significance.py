"""Intervals and the paired test, against sacrebleu and against all possible swaps."""

from itertools import product

import numpy as np
import pytest

from unilmctl import metrics
from unilmctl.metrics import Options, significance
from unilmctl.metrics.significance import bootstrap, compare, interval
from unilmctl.metrics.values import averaged

RANDOM = np.random.default_rng(3)
REFERENCES = [" ".join(RANDOM.choice(list("abcdefgh"), 12)) for _ in range(40)]
OUTPUTS = [" ".join(RANDOM.permutation(text.split())[:11]) if k % 2 else text for k, text in enumerate(REFERENCES)]
WORSE = [" ".join(RANDOM.permutation(text.split())) for text in REFERENCES]
TOKENS = Options(tokenize="none")


def measured(name, outputs):
    return metrics.measure([name], outputs, [[text] for text in REFERENCES], TOKENS)[name]


@pytest.mark.parametrize("name", ["bleu", "chrf"])
def test_the_interval_is_that_of_sacrebleu(name, monkeypatch):
    from sacrebleu.metrics import BLEU, CHRF

    monkeypatch.setenv("SACREBLEU_SEED", "12345")
    oracle = {"bleu": BLEU(tokenize="none", force=True), "chrf": CHRF()}[name]
    theirs = oracle.corpus_score(OUTPUTS, [REFERENCES], n_bootstrap=200)
    ours = interval(bootstrap(measured(name, OUTPUTS), resamples=200), seed=significance.SEED)
    assert ours.mean == pytest.approx(theirs._mean, rel=1e-5)
    assert (ours.high - ours.low) / 2 == pytest.approx(theirs._ci, rel=1e-5)


def test_resampling_in_blocks_changes_nothing(monkeypatch):
    whole = bootstrap(measured("bleu", OUTPUTS), resamples=30)
    monkeypatch.setattr(significance, "_CELLS", 100)
    np.testing.assert_allclose(bootstrap(measured("bleu", OUTPUTS), resamples=30), whole)


def test_the_seed_decides():
    entry = measured("rouge1", OUTPUTS)
    assert (bootstrap(entry, resamples=20, seed=1) == bootstrap(entry, resamples=20, seed=1)).all()
    assert (bootstrap(entry, resamples=20, seed=1) != bootstrap(entry, resamples=20, seed=2)).any()


def test_the_interval_holds_the_figure_and_says_how_it_was_drawn():
    score = metrics.score("rouge1", OUTPUTS, [[text] for text in REFERENCES], TOKENS, confidence=True, seed=7)
    assert score.interval.low < score.value < score.interval.high
    assert (score.interval.resamples, score.interval.seed) == (1000, 7)
    assert score.to_json()["interval"]["seed"] == 7


def test_equal_systems_do_not_differ():
    same = compare("bleu", measured("bleu", OUTPUTS), measured("bleu", OUTPUTS), trials=100, resamples=50)
    assert (same.difference, same.p_value, same.interval.low, same.interval.high) == (0, 1, 0, 0)


def test_very_different_systems_differ():
    found = compare("bleu", measured("bleu", OUTPUTS), measured("bleu", WORSE), trials=500, resamples=100)
    assert found.difference > 10
    assert found.p_value < 0.01
    assert found.interval.low > 0


def test_turning_the_systems_round_turns_the_sign():
    there = compare("rougeL", measured("rougeL", OUTPUTS), measured("rougeL", WORSE), trials=200, resamples=50)
    back = compare("rougeL", measured("rougeL", WORSE), measured("rougeL", OUTPUTS), trials=200, resamples=50)
    assert there.difference == pytest.approx(-back.difference)
    assert there.p_value == back.p_value
    assert there.interval.low == pytest.approx(-back.interval.high)


def test_p_is_the_share_of_all_swaps():
    left, right = np.array([90.0, 60, 70, 50, 80, 65, 75]), np.array([50.0, 70, 55, 50, 60, 60, 62])
    differences = [abs((left - right) @ np.array(signs)) for signs in product([1, -1], repeat=len(left))]
    exact = np.mean(np.array(differences) >= abs((left - right).sum()) - 1e-9)
    found = compare("x", averaged(list(left), ""), averaged(list(right), ""), trials=20000, resamples=10)
    assert found.p_value == pytest.approx(exact, abs=0.01)


def test_distinct_cannot_be_resampled():
    entry = measured("distinct1", OUTPUTS)
    found = compare("distinct1", entry, measured("distinct1", WORSE))
    assert (found.p_value, found.interval) == (None, None)
    assert metrics.report("distinct1", entry, resamples=100).interval is None
    assert found.to_json()["difference"] == pytest.approx(found.value - found.other)
