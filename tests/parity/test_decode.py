"""Every recorded decoding case of s2s-ft: tokens, scores, n-best lists and the trace of the beam."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unilmctl.commands import generate
from unilmctl.decoding import Decoder
from unilmctl.generation import open_model
from unilmctl.generation.generator import frame_of
from unilmctl.search import Hypothesis, Rules, Scoring, Trace, s2s_ft, s2s_ft_trace

PARITY = Path(__file__).parents[2].parent / "shared" / "parity"
pytestmark = pytest.mark.skipif(not PARITY.is_dir(), reason="the recorded results (../shared/parity) are not here")

FOLDER = PARITY / "models" / "tiny_type2"
RECORDED = PARITY / "decode" / "tiny_type2.json"
CASES: list[dict[str, Any]] = json.loads(RECORDED.read_text())["cases"] if RECORDED.is_file() else []
EACH = pytest.mark.parametrize("case", CASES, ids=[str(case["id"]) for case in CASES])
BEAMS = [case for case in CASES if case["beam_size"] > 1]
END, ALIVE, EXACT = 22, -5000, 2e-5


def prepared(case: dict[str, Any]) -> tuple[Any, Any, Decoder, Rules]:
    encoder, card, tokenizer = open_model(FOLDER)
    decoder = Decoder(
        encoder,
        frame_of(encoder, card, tokenizer.roles, case["max_tgt_length"]),
        "next" if case["pos_shift"] else "mask",
    )
    first, state = decoder.start([np.array(source) for source in case["source_tokens"]])
    ngram = case["ngram_size"] if case["forbid_duplicate_ngrams"] else 0
    ignore = tuple(case["forbid_ignore_ids"] or ())
    return first, state, decoder, Rules(END, case["max_tgt_length"], case["min_len"], ngram, ignore)


def whole(hypothesis: Hypothesis) -> list[int]:
    return hypothesis.ids + [END] * (len(hypothesis.token_scores) - len(hypothesis.ids))


def test_all_cases_are_here() -> None:
    assert len(CASES) == 57


@pytest.mark.parametrize("case", BEAMS, ids=[str(case["id"]) for case in BEAMS])
def test_winners_and_nbest(case: dict[str, Any]) -> None:
    first, state, decoder, rules = prepared(case)
    beam, scoring = case["beam_size"], Scoring(float(case["length_penalty"]))
    found = s2s_ft(first, state, decoder.step, rules, beam=beam, nbest=beam, scoring=scoring, pad=0)
    for hypotheses, recorded in zip(found, case["outputs"], strict=True):
        assert whole(hypotheses[0]) == recorded["pred_seq"]
        assert [whole(h) for h in hypotheses] == [entry["tokens"] for entry in recorded["nbest"]]
        for hypothesis, entry in zip(hypotheses, recorded["nbest"], strict=True):
            assert hypothesis.score == pytest.approx(entry["score"], abs=EXACT)
            assert sum(hypothesis.token_scores) == pytest.approx(entry["raw_score"], abs=EXACT)


@EACH
def test_traces(case: dict[str, Any]) -> None:
    first, state, decoder, rules = prepared(case)
    trace = s2s_ft_trace(first, state, decoder.step, rules, beam=case["beam_size"])
    for sentence, recorded in enumerate(case["outputs"]):
        if case["beam_size"] == 1:
            assert trace.tokens[sentence, :, 0].tolist() == recorded["pred_seq"]
        else:
            compare_live(trace, sentence, recorded["trace"])


def compare_live(trace: Trace, sentence: int, recorded: dict[str, Any]) -> None:
    """Scores, tokens and back pointers of every live beam at every step that was run."""
    frames = int(trace.frames[sentence])
    scores = torch.tensor(recorded["scores"])[:frames]
    live = scores > ALIVE
    assert torch.equal(trace.totals[sentence, :frames] > ALIVE, live)
    torch.testing.assert_close(trace.totals[sentence, :frames][live], scores[live], rtol=0, atol=EXACT)
    assert torch.equal(trace.tokens[sentence, :frames][live], torch.tensor(recorded["wids"])[:frames][live])
    after = live & (torch.arange(frames) > 0)[:, None]
    assert torch.equal(trace.parents[sentence, :frames][after], torch.tensor(recorded["ptrs"])[:frames][after])


@EACH
def test_the_command(case: dict[str, Any], tmp_path: Path) -> None:
    tokenizer = open_model(FOLDER).tokenizer
    lines = [json.dumps({"src": tokenizer.tokens(source)}) for source in case["source_tokens"]]
    (tmp_path / "in.jsonl").write_text("\n".join(lines) + "\n")
    options = {
        "search": "s2s-ft",
        "beam": case["beam_size"],
        "length_penalty": float(case["length_penalty"]),
        "min_length": case["min_len"],
        "max_length": case["max_tgt_length"],
        "no_repeat_ngram": case["ngram_size"] if case["forbid_duplicate_ngrams"] else 0,
        "no_repeat_ignore": tokenizer.tokens(case["forbid_ignore_ids"] or []),
    }
    objective = "causal" if case["pos_shift"] else None
    files = {"source": str(tmp_path / "in.jsonl"), "output": tmp_path / "out.jsonl"}
    generate.run(model=FOLDER, as_json=True, objective=objective, options=options, **files)  # type: ignore[arg-type]
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    for answer, recorded in zip(found, case["outputs"], strict=True):
        best = answer["hypotheses"][0]
        assert best["tokens"] == recorded["tokens"]
        assert best["text"] == recorded["text"]
        if "score" in recorded:
            assert best["score"] == pytest.approx(recorded["score"], abs=EXACT)
