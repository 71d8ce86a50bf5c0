"""The rules of what may be written."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_search import END, allowed

from unilmctl.search import Prefix, Rules, repeated

NEVER = float("-inf")
WRITTEN = st.lists(st.lists(st.integers(1, 4), min_size=5, max_size=5), min_size=1, max_size=4)


def banned(written: list[int], rules: Rules, vocabulary: int = 6) -> set[int]:
    scores = torch.zeros(1, 1, vocabulary)
    room = [*written, *[vocabulary - 1] * (rules.max_length - len(written))]
    rules.apply(scores, torch.tensor([[room]]), torch.tensor([len(written)]), rules.forced([[]]))
    return set((scores[0, 0] == NEVER).nonzero()[:, 0].tolist())


@settings(deadline=None, max_examples=50)
@given(
    written=WRITTEN,
    length=st.integers(0, 5),
    size=st.integers(1, 4),
    ignore=st.sets(st.integers(1, 4), max_size=2).map(tuple),
)
def test_repeated_ngrams_are_those_that_a_plain_search_finds(
    written: list[list[int]], length: int, size: int, ignore: tuple[int, ...]
) -> None:
    rows, tokens = repeated(torch.tensor(written)[:, :length], size, ignore)
    found = set(zip(rows.tolist(), tokens.tolist(), strict=True))
    assert found == {(row, token) for row, ids in enumerate(written) for token in repeats(ids[:length], size, ignore)}


def repeats(ids: list[int], size: int, ignore: tuple[int, ...]) -> list[int]:
    """The tokens 1 to 4 that would repeat an n-gram if they came next."""
    grams = {tuple(ids[place : place + size]) for place in range(len(ids) - size + 1)}
    last = tuple(ids[max(0, len(ids) - size + 1) :])
    return [token for token in range(1, 5) if (*last, token) in grams and not {*last, token} & set(ignore)]


@settings(deadline=None, max_examples=50)
@given(written=WRITTEN, lengths=st.lists(st.integers(0, 5), min_size=4, max_size=4), size=st.integers(1, 4))
def test_rows_of_different_length_repeat_their_own_ngrams_only(
    written: list[list[int]], lengths: list[int], size: int
) -> None:
    lengths = lengths[: len(written)]
    rows, tokens = repeated(torch.tensor(written), size, lengths=torch.tensor(lengths))
    found = set(zip(rows.tolist(), tokens.tolist(), strict=True))
    plain = enumerate(zip(written, lengths, strict=True))
    assert found == {(row, token) for row, (ids, length) in plain for token in repeats(ids[:length], size, ())}


def test_sentences_of_different_age_have_their_own_limits() -> None:
    rules = Rules(END, max_length=4, min_length=2, no_repeat_ngram=1)
    scores = torch.zeros(3, 2, 5)
    written = torch.tensor([1, 2, 3, 4]).expand(3, 2, 4)
    rules.apply(scores, written, torch.tensor([0, 2, 3]), rules.forced([[4], [], []]))
    allowed_now = [[(row != NEVER).nonzero()[:, 0].tolist() for row in rows] for rows in scores]
    assert allowed_now == [[[4], [4]], [[END, 3, 4]] * 2, [[END]] * 2]


def test_the_repetition_penalty_divides_what_is_positive_and_multiplies_what_is_negative() -> None:
    rules = Rules(END, max_length=4, repetition_penalty=2.0)
    logits = torch.tensor([[[1.0, 4.0, -1.0, 0.5]], [[1.0, 4.0, -1.0, 0.5]]])
    written = torch.tensor([[[1, 2, 3, 3]], [[1, 2, 3, 3]]])
    found = rules.scores(logits.clone(), written, torch.tensor([2, 0]), rules.forced([[], []]))
    expected = torch.tensor([[[1.0, 2.0, -2.0, 0.5]], [[1.0, 4.0, -1.0, 0.5]]]).log_softmax(-1)
    assert torch.allclose(found.ranked, expected)
    assert torch.allclose(found.own, logits.log_softmax(-1))


def test_the_twin_of_the_other_tests_agrees_with_itself() -> None:
    rules = Rules(END, max_length=9, no_repeat_ngram=2, no_repeat_ignore=(3,), min_length=2, forbid=(4,))
    assert allowed([1, 2, 1], rules)
    assert not allowed([1, 2, 1, 2], rules)
    assert allowed([1, 3, 1, 3], rules)
    assert not allowed([1], rules)
    assert not allowed([1, 4], rules)


def test_forbidden_tokens_and_the_minimal_length() -> None:
    rules = Rules(END, max_length=9, min_length=2, forbid=(4, 5))
    assert banned([], rules) == {END, 4, 5}
    assert banned([1], rules) == {END, 4, 5}
    assert banned([1, 2], rules) == {4, 5}


def test_the_last_place_belongs_to_the_end() -> None:
    rules = Rules(END, max_length=3, forbid=(1,))
    assert banned([2, 2], rules) == {1, 2, 3, 4, 5}


def test_a_prefix_overrules_every_other_rule_and_keeps_its_score() -> None:
    rules = Rules(END, max_length=5, min_length=3, forbid=(1,))
    scores = torch.arange(12.0).view(2, 1, 6)
    rules.apply(scores, torch.ones(2, 1, 5, dtype=torch.long), torch.tensor([1, 1]), rules.forced([[1, 1], []]))
    assert scores[0, 0].tolist() == [NEVER, 1.0, NEVER, NEVER, NEVER, NEVER]
    assert scores[1, 0].tolist() == [NEVER, NEVER, 8.0, 9.0, 10.0, 11.0]


def test_no_prefix_at_all_is_none() -> None:
    assert Prefix.of([[], []]) is None
