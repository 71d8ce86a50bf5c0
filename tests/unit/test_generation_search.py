"""What the options of the search do to the outputs of a generator."""

from pathlib import Path
from typing import Any

import pytest
from tiny_writer import sentences, tiny_generator


@pytest.mark.parametrize(
    ("plain", "changed"),
    [
        ({"beam": 4, "nbest": 4}, {"beam_groups": 2, "diversity": 0.7}),
        ({"beam": 4, "nbest": 4, "beam_groups": 2, "diversity": 0.7}, {"diversity": 3.0}),
        ({}, {"repetition_penalty": 1.5}),
        ({"search": "greedy"}, {"repetition_penalty": 1.5}),
        ({"search": "sample"}, {"min_p": 0.5}),
        ({"search": "sample"}, {"typical_p": 0.2}),
        ({"search": "contrastive"}, {"alpha": 0.1}),
        ({"search": "contrastive"}, {"top_k": 8}),
        ({"search": "contrastive"}, {"repetition_penalty": 3.0}),
    ],
    ids=str,
)
def test_the_option_changes_what_is_written(tmp_path: Path, plain: dict[str, Any], changed: dict[str, Any]) -> None:
    sources = sentences(8)
    without = tiny_generator(tmp_path, **plain).generate(sources)
    found = tiny_generator(tmp_path, **{**plain, **changed}).generate(sources)
    assert [[h.ids for h in hs] for hs in found] != [[h.ids for h in hs] for hs in without]


def test_groups_that_differ_give_outputs_that_differ_more(tmp_path: Path) -> None:
    sources = sentences(20)

    def beginnings(**options: Any) -> int:
        found = tiny_generator(tmp_path, beam=4, nbest=4, **options).generate(sources)
        return sum(len({tuple(h.ids[:2]) for h in hs}) for hs in found)

    assert beginnings(beam_groups=4, diversity=3.0) > beginnings()


def test_a_repetition_penalty_makes_words_rarer(tmp_path: Path) -> None:
    sources = sentences(20)

    def repeats(**options: Any) -> int:
        found = tiny_generator(tmp_path, **options).generate(sources)
        return sum(len(hs[0].ids) - len(set(hs[0].ids)) for hs in found)

    assert repeats(repetition_penalty=2.0) < repeats()
