"""Positions as attention feels them: turning, windows, vectors of distances."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_checkpoints import SWITCHES, tiny

from unilmctl.errors import ModelError
from unilmctl.model import ModelConfig
from unilmctl.model.positions import turn_of, turned, within
from unilmctl.weights.adapting import with_positions


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 60), st.booleans())
def test_scores_of_turned_queries_and_keys_depend_on_their_distance(
    query: int, key: int, shift: int, interleaved: bool
) -> None:
    left, right = torch.randn(2, 1, 1, 8, generator=torch.Generator().manual_seed(query + key))
    scores = []
    for places in ((query, key), (query + shift, key + shift)):
        cosine, sine, _ = turn_of(torch.tensor([places]), 8, 100.0, interleaved=interleaved)
        sides = zip((left, right), cosine[0], sine[0], strict=True)
        one, two = (turned(side, c, s, interleaved=interleaved) for side, c, s in sides)
        scores.append(float((one * two).sum()))
    assert scores[0] == pytest.approx(scores[1], abs=1e-4)


def test_pairs_are_side_by_side_or_half_a_head_apart() -> None:
    cosine, sine, _ = turn_of(torch.tensor([[1]]), 4, 100.0, interleaved=False)
    values = torch.tensor([1.0, 0.0, 0.0, 0.0])
    assert turned(values, cosine, sine, interleaved=False)[0, 0].tolist() == pytest.approx([0.5403, 0, 0.8415, 0], 1e-3)
    assert turned(values, cosine, sine, interleaved=True)[0, 0].tolist() == pytest.approx([0.5403, 0.8415, 0, 0], 1e-3)


def test_a_window_counts_positions_and_leaves_no_query_blind() -> None:
    mask = torch.tensor([[[[1, 0, 0], [1, 1, 0], [1, 0, 0]]]]).bool()  # the third sees the first alone
    found = within(mask, torch.tensor([[0, 3, 9]]), 3)
    assert found.int().tolist() == [[[[1, 0, 0], [1, 1, 0], [1, 0, 0]]]]
    assert within(mask, torch.tensor([[0, 4, 9]]), 3).int().tolist() == [[[[1, 0, 0], [0, 1, 0], [1, 0, 0]]]]


def test_positions_without_a_table_are_only_a_number() -> None:
    encoder = tiny(family="roformer", **SWITCHES["roformer"])
    changed, resized = with_positions(encoder, 99)
    assert changed.config.positions == 99
    assert resized is not None
    assert tuple(resized) == ("positions", 10, 99, "this family has no table of them")
    assert changed.state_dict().keys() == encoder.state_dict().keys()


@pytest.mark.parametrize(
    ("switches", "message"),
    [
        ({"position": "learnt"}, "position 'learnt' is not supported"),
        ({"position": "rotary", "hidden": 9, "heads": 3}, "heads of width 3 cannot be divided into pairs"),
        (
            {"position": "relative", "relative_buckets": 8},
            "a relative bias and vectors of distances do not go together",
        ),
    ],
)
def test_positions_that_make_no_sense_are_refused(switches: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        ModelConfig(**{"vocabulary": 9, "hidden": 8, "heads": 2, **switches})  # type: ignore[arg-type]
