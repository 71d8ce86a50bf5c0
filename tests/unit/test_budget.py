"""Batches of inputs by a token budget."""

from hypothesis import given, settings
from hypothesis import strategies as st

from unilmctl.generation.budget import budgeted


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 50), max_size=40), st.integers(1, 200))
def test_every_input_once_within_the_budget_and_no_batch_could_hold_one_more(costs: list[int], budget: int) -> None:
    made = list(budgeted(costs, budget))
    assert sorted(place for batch in made for place in batch) == list(range(len(costs)))
    for batch in made:
        assert len(batch) == 1 or len(batch) * max(costs[place] for place in batch) <= budget
    for batch, after in zip(made, made[1:], strict=False):
        assert (len(batch) + 1) * costs[after[0]] > budget


def test_like_lengths_go_together_and_ties_keep_their_order() -> None:
    assert list(budgeted([9, 2, 2, 8], 18)) == [[1, 2], [3, 0]]
    assert list(budgeted([], 10)) == []
