"""Beam search against enumeration and against a plain list-based twin."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_search import END, Toy, allowed, every_output

from unilmctl.search import Hypothesis, Prefix, Rules, Scoring, beam_search, greedy

SEEDS = st.integers(0, 10_000)
SCORINGS = st.sampled_from(
    [Scoring(), Scoring(0.6), Scoring(2.0), Scoring(-0.7), Scoring(normalization="average"), Scoring(9, "none")]
)
RULES = st.builds(
    Rules,
    end=st.just(END),
    max_length=st.integers(3, 4),
    min_length=st.integers(0, 2),
    no_repeat_ngram=st.integers(0, 2),
    no_repeat_ignore=st.sampled_from([(), (1,)]),
    forbid=st.sampled_from([(), (2,)]),
    repetition_penalty=st.sampled_from([1.0, 1.0, 1.7, 0.6]),
)


def beam(toy: Toy, rules: Rules, **options: object) -> list[list[Hypothesis]]:
    return beam_search(*toy.start(), toy.step, rules, **options)  # type: ignore[arg-type]


@settings(deadline=None, max_examples=40)
@given(seed=SEEDS, rules=RULES, scoring=SCORINGS, nbest=st.integers(1, 5))
def test_a_wide_beam_finds_what_enumeration_finds(seed: int, rules: Rules, scoring: Scoring, nbest: int) -> None:
    toy = Toy(seed, sentences=3)
    found = beam(toy, rules, beam=64, nbest=nbest, scoring=scoring)
    for sentence, hypotheses in enumerate(found):
        expected = every_output(toy, sentence, rules, scoring)[:nbest]
        assert [h.ids for h in hypotheses] == [ids for _, ids in expected]
        assert [h.score for h in hypotheses] == pytest.approx([score for score, _ in expected], abs=1e-5)


def list_based_twin(
    toy: Toy, sentence: int, rules: Rules, width: int, scoring: Scoring
) -> list[tuple[float, list[int]]]:
    """Every output that the beam of one sentence ever finishes, found without any early stop."""
    live: list[tuple[float, list[int]]] = [(0.0, [])]
    finished = []
    for length in range(1, rules.max_length + 1):
        children = []
        for total, ids in live:
            scores = [toy.token_scores(sentence, [*ids, token])[-1] for token in range(toy.vocabulary)]
            last = length == rules.max_length
            children += [(total + s, [*ids, t]) for t, s in enumerate(scores) if t == END or not last]
        children.sort(key=lambda child: -child[0])
        ended = [child for child in children[:width] if child[1][-1] == END]
        finished += [(total / scoring.divisor(length), ids[:-1]) for total, ids in ended]
        live = [child for child in children if child[1][-1] != END][:width]
    return sorted(finished, key=lambda entry: -entry[0])


@settings(deadline=None, max_examples=40)
@given(seed=SEEDS, width=st.integers(2, 4), scoring=SCORINGS)
def test_narrow_beams_equal_the_list_based_twin_and_stopping_early_changes_nothing(
    seed: int, width: int, scoring: Scoring
) -> None:
    toy, rules = Toy(seed, sentences=3), Rules(END, max_length=5)
    for sentence, hypotheses in enumerate(beam(toy, rules, beam=width, nbest=width, scoring=scoring)):
        expected = list_based_twin(toy, sentence, rules, width, scoring)[:width]
        assert [h.ids for h in hypotheses] == [ids for _, ids in expected]
        assert [h.score for h in hypotheses] == pytest.approx([score for score, _ in expected], abs=1e-5)


def diverse_twin(
    toy: Toy, sentence: int, rules: Rules, width: int, groups: int, diversity: float, scoring: Scoring
) -> list[list[tuple[float, list[int]]]]:
    """For each group every output that it ever finishes, best first, found without any early stop."""
    size = width // groups
    live: list[list[tuple[float, list[int]]]] = [[(0.0, [])] for _ in range(groups)]
    finished: list[list[tuple[float, list[int]]]] = [[] for _ in range(groups)]
    for length in range(1, rules.max_length + 1):
        taken: list[int] = []
        for group in range(groups):
            children = []
            for total, ids in live[group]:
                for token in range(toy.vocabulary) if length < rules.max_length else [END]:
                    if token != END and not allowed([*ids, token], rules):
                        continue
                    score = total + toy.token_scores(sentence, [*ids, token])[-1]
                    children.append((score - diversity * taken.count(token), score, [*ids, token]))
            children.sort(key=lambda child: -child[0])
            ended = [child for child in children[:size] if child[2][-1] == END]
            finished[group] += [(score / scoring.divisor(length), ids[:-1]) for _, score, ids in ended]
            live[group] = [(score, ids) for _, score, ids in children if ids[-1] != END][:size]
            taken += [ids[-1] for _, ids in live[group]]
    return [sorted(outputs, key=lambda entry: -entry[0]) for outputs in finished]


@settings(deadline=None, max_examples=40)
@given(
    seed=SEEDS,
    shape=st.sampled_from([(2, 2), (4, 2), (3, 3), (6, 3), (12, 2), (4, 1)]),
    limits=st.sampled_from([(0, ()), (1, ()), (1, (2, 4)), (0, (3,))]),
    diversity=st.sampled_from([0.0, 0.3, 1.0, 5.0]),
    scoring=SCORINGS,
    nbest=st.integers(1, 6),
)
def test_groups_equal_their_twin(
    seed: int,
    shape: tuple[int, int],
    limits: tuple[int, tuple[int, ...]],
    diversity: float,
    scoring: Scoring,
    nbest: int,
) -> None:
    toy, (width, groups), (ngram, forbid) = Toy(seed, sentences=2, vocabulary=5, depth=3), shape, limits
    rules = Rules(END, max_length=4, no_repeat_ngram=ngram, forbid=forbid)
    options = {"beam": width, "groups": groups, "diversity": diversity, "nbest": nbest, "scoring": scoring}
    for sentence, hypotheses in enumerate(beam(toy, rules, **options)):
        each = diverse_twin(toy, sentence, rules, width, groups, diversity, scoring)
        best = [output for outputs in each for output in outputs[: math.ceil(nbest / groups)]]
        expected = list({tuple(ids): score for score, ids in sorted(best, key=lambda entry: -entry[0])}.items())[:nbest]
        assert [tuple(h.ids) for h in hypotheses] == [ids for ids, _ in expected]
        assert [h.score for h in hypotheses] == pytest.approx([score for _, score in expected], abs=1e-5)


def test_groups_that_must_differ_begin_differently() -> None:
    toy = Toy(3, sentences=1, depth=4)
    toy.table[0, 0] = torch.tensor([-9.0, 5.0, 1.0, 0.9])
    rules = Rules(END, max_length=4)
    apart = beam(toy, rules, beam=3, groups=3, diversity=9.0, nbest=3)[0]
    assert sorted(h.ids[0] for h in apart) == [1, 2, 3]
    assert all(h.score == pytest.approx(sum(toy.token_scores(0, [*h.ids, END])), abs=1e-5) for h in apart)
    assert len(beam(toy, rules, beam=3, groups=3, diversity=0.0, nbest=3)[0]) == 1


def test_a_sentence_stops_as_soon_as_no_live_beam_can_win() -> None:
    toy = Toy(1, sentences=1, depth=4)
    toy.table[:] = 0.0
    toy.table[0, 0, END] = 5.0
    beam(toy, Rules(END, max_length=5), beam=2)
    assert toy.calls == []
    beam(toy, Rules(END, max_length=5), beam=2, nbest=2)
    assert len(toy.calls) > 0


def test_with_a_length_penalty_it_goes_on_while_a_longer_output_could_win() -> None:
    toy = Toy(1, sentences=1, vocabulary=2, depth=3)
    toy.table[:] = 0.0
    toy.table[0, 0] = torch.tensor([0.5, 0.0])
    toy.table[0, 1:, 1] = 8.0
    toy.table[0, 14, 0] = 30.0  # the history [1, 1, 1]
    plain = beam(toy, Rules(END, max_length=4), beam=2)[0][0]
    toy.calls.clear()
    rewarded = beam(toy, Rules(END, max_length=4), beam=2, scoring=Scoring(8.0))[0][0]
    assert plain.ids == []
    assert rewarded.ids == [1, 1, 1]
    assert len(toy.calls) == 3


def test_it_goes_on_while_a_much_longer_output_could_win_and_the_next_could_not() -> None:
    toy = Toy(1, sentences=1, vocabulary=3, depth=3)
    toy.table[:] = 0.0
    toy.table[0, 0] = torch.tensor([0.5, 0.3, 0.2]).log()
    toy.table[0, 1:, 1] = 20.0
    toy.table[0, 26, 0] = 40.0  # the history [1, 1, 1]
    (best,) = beam(toy, Rules(END, max_length=4), beam=2, scoring=Scoring(2.0))[0]
    assert best.ids == [1, 1, 1]
    assert best.score == pytest.approx(math.log(0.3) / 1.5**2, abs=1e-4)


def test_finished_sentences_leave_the_batch() -> None:
    toy = Toy(1, sentences=2, depth=4)
    toy.table[:] = 0.0
    toy.table[0, 0, END] = 9.0
    toy.table[1, :, END] = -9.0
    found = beam(toy, Rules(END, max_length=4), beam=2)
    assert toy.calls == [2, 2, 2]
    assert found[0][0].ids == []
    assert len(found[1][0].ids) == 3


@settings(deadline=None, max_examples=25)
@given(seed=SEEDS, order=st.permutations(range(4)), width=st.integers(2, 4))
def test_neither_batch_nor_order_matters(seed: int, order: list[int], width: int) -> None:
    toy, rules = Toy(seed, sentences=4), Rules(END, max_length=5)
    together = beam(toy, rules, beam=width, nbest=2)
    alone = [beam(toy.only([sentence]), rules, beam=width, nbest=2)[0] for sentence in range(4)]
    turned = beam(toy.only(order), rules, beam=width, nbest=2)
    assert together == alone
    assert [turned[order.index(sentence)] for sentence in range(4)] == together


@settings(deadline=None, max_examples=25)
@given(seed=SEEDS, rules=RULES)
def test_one_beam_is_greedy(seed: int, rules: Rules) -> None:
    toy = Toy(seed, sentences=3)
    first = greedy(*toy.start(), toy.step, rules)
    second = beam(toy, rules, beam=1)
    assert [[h.ids for h in hs] for hs in first] == [[h.ids for h in hs] for hs in second]


@settings(deadline=None, max_examples=25)
@given(seed=SEEDS, width=st.integers(1, 4), scoring=SCORINGS)
def test_token_scores_are_the_models_own_and_sum_to_the_score(seed: int, width: int, scoring: Scoring) -> None:
    toy = Toy(seed)
    rules = Rules(END, max_length=5, no_repeat_ngram=1, min_length=1)
    for sentence, hypotheses in enumerate(beam(toy, rules, beam=width, scoring=scoring)):
        for hypothesis in hypotheses:
            assert hypothesis.token_scores == pytest.approx(
                toy.token_scores(sentence, [*hypothesis.ids, END]), abs=1e-5
            )
            length = len(hypothesis.token_scores)
            assert sum(hypothesis.token_scores) / scoring.divisor(length) == pytest.approx(hypothesis.score, abs=1e-5)


@settings(deadline=None, max_examples=25)
@given(seed=SEEDS, prefixes=st.lists(st.lists(st.integers(1, 3), max_size=3), min_size=2, max_size=2))
def test_a_forced_beginning_is_scored_and_kept(seed: int, prefixes: list[list[int]]) -> None:
    toy, rules = Toy(seed), Rules(END, max_length=4)
    found = beam(toy, rules, beam=64, nbest=3, prefix=Prefix.of(prefixes))
    for sentence, hypotheses in enumerate(found):
        expected = every_output(toy, sentence, rules, Scoring(), prefixes[sentence])[:3]
        assert [h.ids for h in hypotheses] == [ids for _, ids in expected]
        assert [h.score for h in hypotheses] == pytest.approx([score for score, _ in expected], abs=1e-5)


@settings(deadline=None, max_examples=25)
@given(seed=SEEDS, width=st.integers(1, 4), penalty=st.sampled_from([0.5, 1.3, 4.0]))
def test_the_repetition_penalty_ranks_and_the_token_scores_stay_the_models_own(
    seed: int, width: int, penalty: float
) -> None:
    toy, rules = Toy(seed), Rules(END, max_length=5, min_length=2, repetition_penalty=penalty)
    for sentence, hypotheses in enumerate(beam(toy, rules, beam=width, nbest=width)):
        for hypothesis in hypotheses:
            ids = [*hypothesis.ids, END]
            assert hypothesis.token_scores == pytest.approx(toy.token_scores(sentence, ids), abs=1e-5)
            assert hypothesis.score == pytest.approx(sum(toy.token_scores(sentence, ids, penalty)), abs=1e-5)


def test_a_beam_wider_than_the_vocabulary_and_rules_that_allow_nothing() -> None:
    toy = Toy(3)
    assert all(beam(toy, Rules(END, max_length=3), beam=500, nbest=500))
    impossible = Rules(END, max_length=4, min_length=2, forbid=(1, 2, 3))
    assert beam(toy, impossible, beam=3) == [[], []]
    assert greedy(*toy.start(), toy.step, impossible) == [[], []]


def test_the_end_is_forced_at_the_maximal_length() -> None:
    toy = Toy(4)
    toy.table[:, :, END] = -30.0
    for hypotheses in beam(toy, Rules(END, max_length=3), beam=2, nbest=2):
        assert [len(h.ids) for h in hypotheses] == [2, 2]
        assert all(h.token_scores[-1] < -20 for h in hypotheses)


@pytest.mark.parametrize(
    ("scoring", "expected"),
    [
        (Scoring(), 1.0),
        (Scoring(1.0), 2.0),
        (Scoring(0.6), 2**0.6),
        (Scoring(3.0, "average"), 7.0),
        (Scoring(3.0, "none"), 1.0),
    ],
)
def test_divisors(scoring: Scoring, expected: float) -> None:
    assert scoring.divisor(7) == pytest.approx(expected)
    assert math.isclose(scoring.kindest(2, 7), max(scoring.divisor(2), scoring.divisor(7)))
