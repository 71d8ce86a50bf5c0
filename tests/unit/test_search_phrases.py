"""Outputs that hold phrases, and outputs that must not, against enumeration and against a plain twin."""

from collections import defaultdict
from itertools import zip_longest

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_search import END, Toy, allowed, every_output

from unilmctl.search import (
    Beam,
    Constrained,
    Hypothesis,
    Rules,
    Scoring,
    Task,
    beam_search,
    distinct,
    greedy,
    holds,
    in_order,
)

SEEDS = st.integers(0, 10_000)
PHRASE = st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=3), min_size=1, max_size=2)
SCORINGS = st.sampled_from([Scoring(), Scoring(0.9), Scoring(normalization="average")])


Phrases = list[list[list[int]]]


def fitting(phrases: Phrases, room: int) -> Phrases:
    """The first of the phrases, as many as fit beside each other in their shortest spellings."""
    while sum(min(map(len, phrase)) for phrase in distinct(phrases)) > room:
        phrases = phrases[:-1]
    return phrases


def constrained(
    toy: Toy, rules: Rules, phrases: list[Phrases], prefixes: list[list[int]] | None = None, **options: object
) -> list[list[Hypothesis]]:
    strategy = Constrained(Beam(rules, **options))  # type: ignore[arg-type]
    beginnings = prefixes or [[] for _ in phrases]
    tasks = [Task(key, prefix, wish) for key, (prefix, wish) in enumerate(zip(beginnings, phrases, strict=True))]
    return in_order(strategy, toy.step, tasks, *toy.start())


@settings(deadline=None, max_examples=60)
@given(
    seed=SEEDS,
    phrases=st.lists(st.lists(PHRASE, max_size=3), min_size=3, max_size=3),
    scoring=SCORINGS,
    nbest=st.integers(1, 4),
    limits=st.sampled_from([(4, 0, 0), (4, 2, 0), (4, 0, 2), (3, 0, 0)]),
)
def test_a_wide_beam_finds_the_best_outputs_that_hold_the_phrases(
    seed: int, phrases: list[Phrases], scoring: Scoring, nbest: int, limits: tuple[int, int, int]
) -> None:
    toy, (longest, shortest, ngram) = Toy(seed, sentences=3), limits
    rules = Rules(END, max_length=longest, min_length=shortest, no_repeat_ngram=ngram)
    wishes = [fitting(some, longest - 1) for some in phrases]
    found = constrained(toy, rules, wishes, beam=90, nbest=nbest, scoring=scoring)
    for sentence, (hypotheses, wish) in enumerate(zip(found, wishes, strict=True)):
        every = every_output(toy, sentence, rules, scoring)
        expected = [entry for entry in every if all(holds(entry[1], phrase) for phrase in wish)][:nbest]
        assert [h.ids for h in hypotheses] == [ids for _, ids in expected]
        assert [h.score for h in hypotheses] == pytest.approx([score for score, _ in expected], abs=1e-5)


@settings(deadline=None, max_examples=60)
@given(
    seed=SEEDS,
    phrases=st.lists(PHRASE, max_size=4),
    width=st.integers(1, 4),
    longest=st.integers(4, 9),
    prefix=st.lists(st.integers(1, 3), max_size=2),
)
def test_a_narrow_beam_writes_the_phrases_too(
    seed: int, phrases: Phrases, width: int, longest: int, prefix: list[int]
) -> None:
    toy, rules = Toy(seed, sentences=1, depth=5), Rules(END, max_length=longest)
    wish = fitting(phrases, longest - 1 - len(prefix))
    hypotheses = constrained(toy, rules, [wish], [prefix], beam=width, nbest=width)[0]
    assert hypotheses
    for hypothesis in hypotheses:
        assert all(holds(hypothesis.ids, phrase) for phrase in wish)
        assert hypothesis.ids[: len(prefix)] == prefix
        assert len(hypothesis.ids) < longest


def begun(ids: list[int], spelling: list[int]) -> int:
    return max(size for size in range(len(spelling) + 1) if ids[len(ids) - size :] == spelling[:size])


def farthest(ids: list[int], phrase: list[list[int]]) -> int:
    """How many tokens of a phrase are written, if it is not whole."""
    return max(begun(ids, spelling) for spelling in phrase)


def needed(ids: list[int], phrases: Phrases) -> int:
    """Tokens that are enough for all of these phrases, of which one may have been begun."""
    fresh = [min(map(len, phrase)) for phrase in phrases]
    going = [min(len(spelling) - begun(ids, spelling) for spelling in phrase) for phrase in phrases]
    return min([sum(fresh), *(sum(fresh) - one + two for one, two in zip(fresh, going, strict=True))])


def twin(toy: Toy, sentence: int, rules: Rules, width: int, wish: Phrases) -> list[tuple[float, list[int]]]:
    """Every output that the banks ever finish, with lists, and without any early stop."""
    live: list[tuple[float, list[int]]] = [(0.0, [])]
    finished = []
    for length in range(1, rules.max_length + 1):
        banks: dict[tuple[bool, int], list[tuple[float, list[int]]]] = defaultdict(list)
        for total, ids in live:
            unmet = [phrase for phrase in wish if not holds(ids, phrase)]
            scores = {token: toy.token_scores(sentence, [*ids, token])[-1] for token in range(toy.vocabulary)}
            scores = {t: s for t, s in scores.items() if (t == END or length < rules.max_length)}
            if unmet:
                scores.pop(END)
            likely = sorted(scores, key=lambda token: -scores[token])[: width + 1]
            spelt = [spelling for phrase in unmet for spelling in phrase] if length < rules.max_length else []
            for token in {*likely, *(spelling[begun(ids, spelling)] for spelling in spelt)}:
                child = [*ids, token]
                open_ones = [phrase for phrase in wish if not holds(child, phrase)]
                sizes = [max(map(len, phrase)) for phrase in wish]
                have = [
                    farthest(child, phrase) if phrase in open_ones else size
                    for phrase, size in zip(wish, sizes, strict=True)
                ]
                bank = sum(have)
                hopeless = needed(child, open_ones) > rules.max_length - 1 - length
                banks[hopeless, -bank].append((total + scores[token], child))
        ordered = []
        for hopeless in (False, True):
            group = [sorted(banks[key], key=lambda entry: -entry[0]) for key in sorted(banks) if key[0] == hopeless]
            ordered += [entry for layer in zip_longest(*group) for entry in layer if entry is not None]
        finished += [(total, ids[:-1]) for total, ids in ordered[:width] if ids[-1] == END]
        live = [entry for entry in ordered[: 2 * width] if entry[1][-1] != END][:width]
    return sorted(finished, key=lambda entry: -entry[0])


@settings(deadline=None, max_examples=60)
@given(
    seed=SEEDS,
    phrases=st.lists(st.lists(PHRASE, max_size=3), min_size=2, max_size=2),
    width=st.integers(2, 5),
    longest=st.integers(4, 5),
)
def test_banks_equal_their_twin(seed: int, phrases: list[Phrases], width: int, longest: int) -> None:
    toy, rules = Toy(seed, vocabulary=5), Rules(END, max_length=longest)
    wishes = [fitting(some, longest - 1) for some in phrases]
    found = constrained(toy, rules, wishes, beam=width, nbest=width)
    for sentence, hypotheses in enumerate(found):
        expected = twin(toy, sentence, rules, width, [list(phrase) for phrase in distinct(wishes[sentence])])[:width]
        assert [h.ids for h in hypotheses] == [ids for _, ids in expected]
        assert [h.score for h in hypotheses] == pytest.approx([score for score, _ in expected], abs=1e-5)


@settings(deadline=None, max_examples=30)
@given(seed=SEEDS, width=st.integers(1, 4), wish=st.lists(PHRASE, max_size=2))
def test_a_sentence_without_phrases_gets_what_a_plain_beam_gives_it(seed: int, width: int, wish: Phrases) -> None:
    toy, rules = Toy(seed, depth=5), Rules(END, max_length=8)
    found = constrained(toy, rules, [[], wish], beam=width, nbest=width)
    assert found[0] == beam_search(*toy.start(), toy.step, rules, beam=width, nbest=width)[0]


def test_a_phrase_that_another_holds_is_no_further_wish() -> None:
    assert distinct([[[2]], [[1, 2, 3]], [[2, 3]], [[3, 2]], [[3, 2]]]) == [[[3, 2]], [[1, 2, 3]]][::-1]
    assert distinct([]) == []
    assert distinct([[[1], [2]], [[1, 3], [3, 2]]]) == [[[1, 3], [3, 2]]]
    assert distinct([[[1], [2]], [[1, 3], [3, 3]]]) == [[[1, 3], [3, 3]], [[1], [2]]]


def test_phrases_may_overlap_each_other_and_themselves() -> None:
    toy, rules = Toy(1, sentences=1, depth=4), Rules(END, max_length=5)
    toy.table[:] = 0.0
    toy.table[:, :, END] = 3.0
    (best,) = constrained(toy, rules, [[[[1, 2]], [[2, 3]]]], beam=40)[0]
    assert best.ids == [1, 2, 3]
    toy.table[0, 0, 1], toy.table[0, 2, 1] = 9.0, 9.0
    (best,) = constrained(toy, rules, [[[[1, 1, 2]]]], beam=2)[0]
    assert best.ids == [1, 1, 2]


def test_a_token_that_two_phrases_need_is_one_candidate() -> None:
    strategy = Constrained(Beam(Rules(END, max_length=6), 3))
    table = strategy.begin([Task(0, phrases=[[[3, 1]], [[3, 2]]])], torch.device("cpu"))
    logits = torch.tensor([0.0, 8.0, 7.0, -9.0, 6.0, 5.0, -1.0, -1.0]).expand(1, 3, -1).clone()
    assert strategy.choose(logits, table, Toy(1).start()[1]).tokens.tolist() == [[3, 1, 2]]


def test_any_spelling_will_do_and_the_likeliest_is_taken() -> None:
    toy, rules = Toy(1, sentences=1, depth=4), Rules(END, max_length=5)
    toy.table[:] = 0.0
    toy.table[:, :, END] = 2.0
    toy.table[:, :, 3] = 1.0
    (best,) = constrained(toy, rules, [[[[1], [3]]]], beam=4)[0]
    assert best.ids == [3]
    (best,) = constrained(toy, rules, [[[[1], [3, 3]]]], beam=40)[0]
    assert best.ids == [1]


def test_rules_that_forbid_a_phrase_leave_nothing() -> None:
    toy, rules = Toy(1, sentences=1), Rules(END, max_length=4, forbid=(2,))
    assert constrained(toy, rules, [[[[1, 2]]]], beam=3) == [[]]


@settings(deadline=None, max_examples=60)
@given(
    seed=SEEDS,
    phrases=st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=3), min_size=1, max_size=3),
    longest=st.integers(2, 4),
)
def test_forbidden_phrases_are_never_written(seed: int, phrases: list[list[int]], longest: int) -> None:
    toy = Toy(seed, sentences=3)
    rules = Rules(END, max_length=longest, forbid_phrases=tuple(map(tuple, phrases)))
    found = beam_search(*toy.start(), toy.step, rules, beam=64, nbest=3)
    single = greedy(*toy.start(), toy.step, rules)
    for sentence, hypotheses in enumerate(found):
        every = every_output(toy, sentence, Rules(END, max_length=longest), Scoring())
        expected = [entry for entry in every if not holds(entry[1], phrases)][:3]
        assert [h.ids for h in hypotheses] == [ids for _, ids in expected]
        assert not any(holds(h.ids, phrases) for h in single[sentence])
        assert all(allowed(ids, rules) for _, ids in expected)
