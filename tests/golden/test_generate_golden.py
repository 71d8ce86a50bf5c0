"""Committed weights and sources give the committed outputs: token by token, scores to 1e-4, samples included."""

import json
from pathlib import Path

import pytest

from unilmctl.generation import GenerateOptions, Generator, open_model

HERE = Path(__file__).parent / "generate"
CASES = json.loads((HERE / "expected.json").read_text())


@pytest.mark.parametrize("name", sorted(CASES))
def test_outputs_are_what_they_were(name: str) -> None:
    case = CASES[name]
    opened = open_model(HERE / "model", objective=case["objective"])
    generator = Generator(*opened, GenerateOptions().updated(case["options"]))
    found = generator.generate([opened.tokenizer.encode(source) for source in case["sources"]])
    assert [[h.ids for h in hs] for hs in found] == [[h["ids"] for h in hs] for hs in case["outputs"]]
    scores, expected = ([h for hs in side for h in hs] for side in (found, case["outputs"]))
    assert [h.score for h in scores] == pytest.approx([h["score"] for h in expected], abs=1e-4)
