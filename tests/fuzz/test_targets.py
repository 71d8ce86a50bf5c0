"""Readers of files that anybody may have made: whatever the bytes, a value or a reason that names the file. Here some
dozens of mutated inputs each; `make fuzz` goes on for minutes, guided by which lines of a reader an input reaches.
"""

from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from targets import TARGETS, refusal

EDITS = st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 3), st.binary(max_size=4)), min_size=1, max_size=4)
"""Where, how many bytes go, and which come in their place."""

TAKEN = {
    "lines": 20,
    "streams": 20,
    "recipe": 10,
    "header": 2,
    "settings": 6,
    "vocabulary": 15,
    "tensorflow": 1,
    "weights": 3,
}
"""How many of the inputs to begin with are sound, at least: a fuzzer that begins with none finds nothing."""


@cache
def seeds(name: str) -> list[bytes]:
    return TARGETS[name].seeds()


@pytest.mark.parametrize("name", TARGETS)
def test_inputs_to_begin_with_are_read(name: str, tmp_path: Path) -> None:
    assert sum(refusal(TARGETS[name], seed, tmp_path) is None for seed in seeds(name)) >= TAKEN[name]


@pytest.mark.parametrize("name", TARGETS)
@given(st.data())
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_a_value_or_a_reason(name: str, tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(data.draw(st.sampled_from(seeds(name))))
    for place, gone, come in data.draw(EDITS):
        at = place % (len(content) + 1)
        content[at : at + gone] = come
    refusal(TARGETS[name], bytes(content), tmp_path)
