"""A folder of somebody else is converted, writes text, scores it, and learns: one model of every family."""

from pathlib import Path

import pytest
import torch
from test_families import SIZES, random_model
from test_nezha import random_nezha
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from unilmctl.generation import GenerateOptions, Generator, Scorer
from unilmctl.generation.model import open_model
from unilmctl.visibility import FOREVER, Slots
from unilmctl.weights import ModelCard, convert, save_model

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
TEXT = "word1 word2 word3 word4 word5 word6 word7 word8 word9"
ROBERTA = ["<s>", "<pad>", "</s>", "<unk>"]


def converted(family: str, folder: Path) -> Path:
    """A model folder made of a random model of transformers, or of one that it had once."""
    if family == "nezha":  # which transformers no longer has
        save_model(folder / "theirs", random_nezha(SIZES["vocab_size"]), ModelCard(), None)
    else:
        random_model(family).save_pretrained(folder / "theirs")
    write_tokenizer(folder / "theirs", family)
    report = convert(str(folder / "theirs"), folder / "ours")
    assert (report.missing, report.notes) == ([], [])
    return folder / "ours"


def write_tokenizer(folder: Path, family: str) -> None:
    """The vocabulary of the family's kind, as large as the model's."""
    if family == "modernbert":  # bytes, and special tokens after them
        bpe = Tokenizer(models.BPE())
        bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
        bpe.train_from_iterator([TEXT] * 3, trainers.BpeTrainer(vocab_size=60, show_progress=False))
        bpe.add_special_tokens([*SPECIAL])
        bpe.add_special_tokens([f"[unused{index}]" for index in range(SIZES["vocab_size"] - bpe.get_vocab_size())])
        bpe.save(str(folder / "tokenizer.json"))
        return
    first, last = ([*ROBERTA, *SPECIAL], ["<mask>"]) if family == "mpnet" else (SPECIAL, [])
    words = [f"word{index}" for index in range(SIZES["vocab_size"] - len(first) - len(last))]
    (folder / "vocab.txt").write_text("\n".join([*first, *words, *last]))


@pytest.mark.parametrize("family", ["albert", "mpnet", "ernie-3", "nezha", "roformer", "modernbert"])
def test_a_converted_model_writes_and_scores_what_it_writes(family: str, tmp_path: Path) -> None:
    opened = open_model(converted(family, tmp_path))
    sources = [opened.tokenizer.encode(text) for text in ("word1 word2 word3", "word7", "word9 word9 word8 word4")]
    assert all(opened.tokenizer.roles.unknown not in source for source in sources)
    generator = Generator(*opened, GenerateOptions(beam=3, max_length=6))
    best = [hypotheses[0] for hypotheses in generator.generate(sources)]
    assert len({tuple(hypothesis.ids) for hypothesis in best}) > 1
    scored = Scorer(*opened, max_length=6).score([(s, h.ids) for s, h in zip(sources, best, strict=True)])
    for written, score in zip(best, scored, strict=True):
        assert score.score == pytest.approx(written.score, abs=1e-4)


@pytest.mark.parametrize("family", ["albert", "mpnet", "ernie-3", "nezha", "roformer", "modernbert"])
def test_every_weight_of_a_converted_model_learns(family: str, tmp_path: Path) -> None:
    encoder = open_model(converted(family, tmp_path)).encoder.train()
    ids = torch.arange(10, 22)[None]
    zeros = torch.zeros_like(ids)
    slots = Slots(zeros, zeros, torch.full_like(ids, FOREVER))
    hidden = encoder(ids, torch.arange(12)[None], zeros, slots)[0]
    torch.nn.functional.cross_entropy(encoder.logits(hidden)[0], ids[0].flip(0)).backward()
    gradients = {name: parameter.grad for name, parameter in encoder.named_parameters()}
    assert {name.split(".")[0] for name, found in gradients.items() if found is None} <= {"pooler", "pair"}
    assert all(bool(found.isfinite().all()) for found in gradients.values() if found is not None)
