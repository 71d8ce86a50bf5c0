"""s2s-ft's search against a list-based twin of its written-down rules."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_search import END, Toy, allowed

from unilmctl.search import Hypothesis, Rules, Scoring, s2s_ft

SEEDS = st.integers(0, 10_000)
BAN = -10000.0


def search(toy: Toy, rules: Rules, **options: object) -> list[list[Hypothesis]]:
    return s2s_ft(*toy.start(), toy.step, rules, **options)  # type: ignore[arg-type]


def own_score(toy: Toy, sentence: int, ids: list[int], token: int, rules: Rules) -> float:
    """A token's log-probability with the bans."""
    if (token == END and len(ids) < rules.min_length) or token in rules.forbid:
        return BAN
    grams = Rules(END, rules.max_length, 0, rules.no_repeat_ngram)
    repeats = len(ids) >= rules.no_repeat_ngram and not allowed([*ids, token], grams) and allowed(ids, grams)
    return toy.token_scores(sentence, [*ids, token])[-1] + BAN * repeats


def twin(toy: Toy, sentence: int, rules: Rules, beam: int, scoring: Scoring) -> tuple[float, list[int]]:
    """The winner, with every frame of the beam written out."""
    frames: list[list[tuple[float, list[int]]]] = []
    live: list[tuple[float, list[int]]] = [(0.0, [])]
    for _ in range(rules.max_length):
        children = []
        for total, ids in live:
            own = sorted(((own_score(toy, sentence, ids, t, rules), t) for t in range(toy.vocabulary)), reverse=True)
            dead = BAN if ids and ids[-1] == END else 0.0
            children += [(total + score + dead, [*ids, token]) for score, token in own[:beam]]
        live = sorted(children, key=lambda child: -child[0])[:beam]
        frames.append(live)
        if all(ids[-1] == END for _, ids in live):
            break
    best: tuple[float, list[int]] = (float("-inf"), [])
    for time, frame in enumerate(frames):
        for total, ids in frame:
            score = total / scoring.divisor(time + 1)
            if (ids[-1] == END or time == len(frames) - 1) and score > best[0]:
                best = (score, ids)
    return best


@settings(deadline=None, max_examples=50)
@given(
    seed=SEEDS,
    beam=st.integers(2, 4),
    min_length=st.integers(0, 4),
    ngram=st.integers(0, 3),
    penalty=st.sampled_from([0.0, 0.6, 1.0]),
)
def test_the_winner_is_that_of_the_twin(seed: int, beam: int, min_length: int, ngram: int, penalty: float) -> None:
    toy = Toy(seed, sentences=2, vocabulary=5, depth=4)
    rules = Rules(END, max_length=4, min_length=min_length, no_repeat_ngram=ngram)
    scoring = Scoring(penalty)
    for sentence, (best,) in enumerate(search(toy, rules, beam=beam, scoring=scoring)):
        score, ids = twin(toy, sentence, rules, beam, scoring)
        assert best.ids == (ids[: ids.index(END)] if END in ids else ids)
        assert best.score == pytest.approx(score, abs=1e-3)


def test_greedy_knows_neither_minimal_length_nor_ngrams_and_runs_to_the_end() -> None:
    toy = Toy(1, sentences=1, depth=4)
    toy.table[0, :] = 0.0
    toy.table[0, :, 1] = 1.0
    rules = Rules(END, max_length=5, min_length=5, no_repeat_ngram=1)
    (best,) = search(toy, rules, beam=1)[0]
    assert best.ids == [1, 1, 1, 1, 1]
    assert len(toy.calls) == 4
    toy.table[0, 0, END] = 9.0
    (best,) = search(toy, rules, beam=1)[0]
    assert best.ids == []
    assert len(best.token_scores) == 1
    assert len(toy.calls) == 8


def test_text_is_cut_at_padding_and_the_score_is_not() -> None:
    toy = Toy(1, sentences=1, depth=4)
    toy.table[0, :, 3] = 5.0
    (best,) = search(toy, Rules(END, max_length=4), beam=2, pad=3)[0]
    assert best.ids == []
    assert best.score == pytest.approx(sum(toy.token_scores(0, [3, 3, 3, 3])), abs=1e-4)


def test_finished_beams_are_given_out_before_dead_ones() -> None:
    toy = Toy(9, sentences=2, depth=4)
    for hypotheses in search(toy, Rules(END, max_length=5), beam=3, nbest=3):
        assert all(h.score > -100 for h in hypotheses)
        assert [h.score for h in hypotheses] == sorted((h.score for h in hypotheses), reverse=True)


def test_sentences_whose_beams_all_ended_leave_the_batch() -> None:
    toy = Toy(2, sentences=2, vocabulary=2, depth=4)
    toy.table[:] = 0.0
    rules = Rules(END, max_length=3, forbid=(1,))
    search(toy, rules, beam=2)
    assert toy.calls == [4]
