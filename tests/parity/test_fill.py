"""Gaps filled as BERT was trained: the same tokens and probabilities as transformers, from the same folder."""

import json
from pathlib import Path

import pytest
import torch
from tiny_writer import WORDS, model_folder
from transformers import BertForMaskedLM, BertTokenizer

from unilmctl.commands import generate

LINES = ["a b [MASK] c", "[MASK]d, e [MASK] [MASK] f.", "abc [MASK]"]
NEVER = [WORDS.index(token) for token in ("[PAD]", "[CLS]", "[SEP]", "[MASK]")]


def test_gaps_are_filled_as_transformers_fills_them(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "model")
    model, tokenizer = BertForMaskedLM.from_pretrained(folder).eval(), BertTokenizer.from_pretrained(folder)
    (tmp_path / "lines.txt").write_text("".join(f"{line}\n" for line in LINES))
    options = {"beam": 6, "nbest": 6}
    paths = {"source": str(tmp_path / "lines.txt"), "model": folder, "output": tmp_path / "out.jsonl"}
    generate.run(**paths, as_json=True, fill=True, order="at-once", options=options)
    for line, written in zip(LINES, (tmp_path / "out.jsonl").read_text().splitlines(), strict=True):
        inputs = tokenizer(line, return_tensors="pt")
        with torch.no_grad():
            scores = model(**inputs).logits[inputs.input_ids == tokenizer.mask_token_id].log_softmax(-1)
        scores[:, NEVER] = -torch.inf
        hypotheses = json.loads(written)["hypotheses"]
        for number, best in enumerate(scores):
            tokens = [[token for gap in one["gaps"] for token in gap["tokens"]][number] for one in hypotheses]
            told = [[score for gap in one["gaps"] for score in gap["token_scores"]][number] for one in hypotheses]
            assert told == pytest.approx([float(best[WORDS.index(token)]) for token in tokens], abs=1e-5)
            assert tokens[0] == WORDS[int(best.argmax())]
            if len(scores) == 1:
                assert tokens == [WORDS[place] for place in best.topk(6).indices.tolist()]
