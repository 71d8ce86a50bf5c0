"""`generate --fill`: a model that has learnt sentences by heart, by any objective that fills gaps, restores them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from unilmctl.cli import run
from unilmctl.generation.filling import FILLING
from unilmctl.model import Encoder, ModelConfig
from unilmctl.objectives import Corruption, build
from unilmctl.rows import Example, Frame
from unilmctl.tokens import Tokenizer
from unilmctl.training import Feed, TrainOptions, build_optimizer, train
from unilmctl.weights import ModelCard, save_model

pytestmark = pytest.mark.slow

TEXTS = [
    "the old cat sat on a mat .",
    "two dogs run through green fields today .",
    "we never read his long letters aloud .",
    "snow fell slowly over every quiet roof .",
    "北京是中国的首都",
    "我爱吃苹果和梨子",
    "他昨天买了三本书",
    "春风又绿江南岸边",
]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
STEPS = {"infilling": 360}
"""Training steps where 180 are not enough: there is an end to learn, and a length."""

CORRUPTION = {"block-diffusion": Corruption(), "infilling": Corruption(target=0.4, span="block")}
"""What is hidden in training, where it is not 0.4 of the text in the objective's own spans: GLM's are seldom short."""

ASKED = {
    "the old [MASK] sat on a mat .": TEXTS[0],
    "two dogs [MASK] through [MASK][MASK] today .": TEXTS[1],
    "We  never read his long letters [MASK] .": "We  never read his long letters aloud .",
    "snow fell [MASK] [MASK] every quiet [MASK] .": TEXTS[3],
    "北京是[MASK][MASK]的首都": TEXTS[4],
    "我爱吃[MASK]果和梨[MASK]": TEXTS[5],
    "": "",
    "nothing is missing": "nothing is missing",
}


def words(text: str) -> list[str]:
    return text.split() if " " in text else list(text)


def learnt(folder: Path, name: str) -> Path:
    """A model folder that knows `TEXTS` by one objective."""
    folder.mkdir()
    vocabulary = [*SPECIAL, *dict.fromkeys(word for text in TEXTS for word in words(text))]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    tokenizer = Tokenizer.load(folder)
    frame = Frame(0, 2, 3, 4, len(vocabulary), max_source=24)
    examples = [Example(np.array(tokenizer.encode(text)), np.zeros(0, dtype=np.int64)) for text in TEXTS] * 4
    shape = ModelConfig(vocabulary=len(vocabulary), hidden=64, layers=2, heads=4, feedforward=128, positions=24)
    inner = 24 if name == "infilling" else 0
    encoder = Encoder(replace(shape, dropout=0.0, attention_dropout=0.0, inner_positions=inner))
    encoder.initialize(torch.Generator().manual_seed(1))
    steps = STEPS.get(name, 180)
    options = TrainOptions(steps=steps, learning_rate=4e-3, warmup=20, weight_decay=0.0, label_smoothing=0.0)
    objective = build(name, CORRUPTION.get(name, Corruption(target=0.4)))
    feed = Feed(examples, objective, frame, lambda epoch: [np.arange(len(examples))], 1)
    for _ in train(encoder, build_optimizer(encoder, options), feed, options):
        pass
    save_model(folder, encoder, ModelCard(fills={name: [0, 1]}), tokenizer)
    return folder


@pytest.mark.parametrize("name", FILLING)
def test_what_was_learnt_by_heart_is_restored(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = learnt(tmp_path / "model", name)
    (tmp_path / "lines.txt").write_text("".join(f"{line}\n" for line in ASKED), encoding="utf-8")
    command = ["generate", str(tmp_path / "lines.txt"), "--fill", "--model", str(model)]
    assert run(command) == 0
    shown = capfd.readouterr()
    assert shown.out.splitlines() == list(ASKED.values())
    assert "1 of 8 lines have no gap: a gap is written [MASK]" in shown.err
    assert run([*command, "--search", "greedy", "--json"]) == 0
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [line["hypotheses"][0]["text"] for line in lines] == list(ASKED.values())
    assert [gap["text"] for gap in lines[1]["hypotheses"][0]["gaps"]] == ["run", "green fields"]
    assert [gap["tokens"] for gap in lines[4]["hypotheses"][0]["gaps"]] == [["中", "国"]]
