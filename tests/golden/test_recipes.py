"""The shipped recipes: all there, all sound, with the published settings."""

from dataclasses import asdict
from pathlib import Path
from typing import get_args

import pytest
import torch

from unilmctl.decoding import FORMATS
from unilmctl.errors import DataError
from unilmctl.generation.options import NORMALIZATIONS, SEARCHES, GenerateOptions
from unilmctl.model import Encoder, ModelConfig
from unilmctl.objectives import RATES, SPANS
from unilmctl.recipe import Generate, dump_yaml, list_recipes, load, require_files, shelf

ON_TEXT = ["pretrain_bert", "pretrain_electra", "pretrain_ernie2", "pretrain_unilm1", "pretrain_unilm2"]
LABELLED = ["chnsenticorp", "e2e_answers", "e2e_tags", "sst2"]
ON_PAIRS = ["cnndm", "csl", "e2e", "gigaword", "lcsts", "multi30k", "quickstart", "squad_qg", "xsum"]
NAMES = sorted([*ON_PAIRS, *LABELLED, *ON_TEXT])

PUBLISHED = {
    # name: source and target tokens, learning rate, warm-up, steps, target mask, beam (1: greedy), longest, penalty
    "cnndm": (608, 160, 7e-5, 1000, 45_000, 0.7, 5, 160, 0.0),
    "gigaword": (128, 64, 3e-5, 29_700, 297_000, 0.7, 5, 32, 0.6),
    "xsum": (464, 48, 7e-5, 500, 32_000, 0.5, 5, 48, 0.0),
    "squad_qg": (464, 48, 2e-5, 2366, 23_660, 0.7, 1, 48, 0.0),
    "csl": (224, 32, 1e-5, 0, 3750, None, 1, 32, 0.0),
    "lcsts": (140, 32, 5e-5, 9375, 93_750, 0.5, 5, 32, 0.6),
    "multi30k": (64, 64, 5e-3, 2000, 8000, None, 5, 64, 1.0),
}


def test_all_recipes_are_on_the_shelf() -> None:
    assert [recipe.name for recipe in list_recipes()] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_is_sound_and_says_how_it_is_run(name: str, tmp_path: Path) -> None:
    text = (shelf() / f"{name}.yaml").read_text(encoding="utf-8")
    recipe = load(name)
    command = "pretrain" if name in ON_TEXT else "finetune"
    assert text.splitlines()[0] == f"# unilmctl {command} recipes/{name}.yaml"
    assert (recipe.pretrain is not None) == (name in ON_TEXT)
    assert "extends:" not in text, "a copy must stand alone"
    assert recipe.run == Path("runs") / name
    assert recipe.data.fetch or recipe.data.generated
    assert recipe.data.valid is not None
    assert max(map(len, text.splitlines())) <= 120
    copy = tmp_path / f"{name}.yaml"
    copy.write_text(dump_yaml(recipe), encoding="utf-8")
    assert load(copy).resolved() == recipe.resolved()


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_settings_are_kept(name: str) -> None:
    recipe = load(name)
    tokens, finetune, generate = recipe.tokens, recipe.finetune, recipe.generate
    beam = 1 if generate.search == "greedy" else generate.beam
    training = (finetune.learning_rate, finetune.warmup, finetune.steps, finetune.target_mask)
    decoding = (beam, generate.max_length, generate.length_penalty)
    assert (tokens.max_source, tokens.max_target, *training, *decoding) == PUBLISHED[name]


def test_the_published_pre_training_is_kept() -> None:
    first, second = load("pretrain_unilm1").pretrain, load("pretrain_unilm2").pretrain
    assert first is not None
    assert second is not None
    total = sum(entry.weight for entry in first.entries)
    mix = {entry.objective: (entry.pairing, entry.weight / total, entry.segments) for entry in first.entries}
    assert mix == {
        "bidirectional": ("next-sentence", pytest.approx(1 / 3), [0, 1]),
        "seq2seq": ("adjacent", pytest.approx(1 / 3), [4, 5]),
        "left-to-right": ("none", pytest.approx(1 / 6), [2, 2]),
        "right-to-left": ("none", pytest.approx(1 / 6), [3, 3]),
    }
    assert {
        (SPANS[name], RATES[name], entry.span, entry.rate) for name, entry in zip(mix, first.entries, strict=True)
    } == {("gram", 0.15, None, None)}
    assert (first.learning_rate, first.warmup, first.steps) == (3e-5, 40_000, 770_000)
    assert first.batch_tokens * first.accumulate == 330 * 512
    assert [(entry.objective, entry.pairing) for entry in second.entries] == [("partial", "none")]
    assert (SPANS["partial"], RATES["partial"]) == ("block", 0.15)
    assert (second.learning_rate, second.warmup, second.steps, second.adam_beta2) == (6e-4, 24_000, 500_000, 0.98)
    small = load("pretrain_electra")
    assert small.pretrain is not None
    assert [(entry.objective, entry.random, entry.keep) for entry in small.pretrain.entries] == [("replaced", 0, 0.15)]
    assert (small.pretrain.learning_rate, small.pretrain.warmup, small.pretrain.steps) == (5e-4, 10_000, 1_000_000)
    assert (small.pretrain.batch_tokens, small.tokens.max_length) == (128 * 128, 128)
    shape = load("pretrain_unilm2").model.shape
    assert shape is not None
    assert (shape.relative_buckets, ModelConfig(vocabulary=9).relative_distance) == (32, 128)


def test_tasks_are_added_and_none_is_forgotten() -> None:
    section = load("pretrain_ernie2").pretrain
    assert section is not None
    names = [[entry.label for entry in stage.mix] for stage in section.plan]
    assert names == [["words"], ["words", "order"], ["words", "order", "distance"]]
    assert section.batch_tokens * section.accumulate == 393_216
    assert (section.learning_rate, section.warmup, section.adam_beta2) == (5e-5, 4000, 0.98)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "quickstart"])
def test_absent_data_is_one_line_with_its_source(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as caught:
        require_files(load(name), ["train"])
    assert caught.value.message.startswith("data/")
    assert caught.value.message.endswith(f"recipes/{name}.yaml needs it")
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("the data: ")
    assert "\n" not in caught.value.message + caught.value.hint


@pytest.mark.parametrize(
    ("name", "most"),
    [("e2e", 8_000_000), ("quickstart", 1_000_000), ("multi30k", 2_600_000), ("pretrain_electra", 14_000_000)],
)
def test_models_from_scratch_are_as_small_as_promised(name: str, most: int) -> None:
    recipe = load(name)
    assert recipe.model.shape is not None
    assert recipe.tokens.train is not None
    sizes = recipe.model.shape.model_dump(exclude={"architecture"})
    with torch.device("meta"):
        encoder = Encoder(
            ModelConfig(vocabulary=recipe.tokens.train.size, family=recipe.model.shape.architecture, **sizes)
        )
    assert sum(parameter.numel() for parameter in encoder.parameters()) <= most


def test_a_recipe_decodes_as_the_command_line_does() -> None:
    options = {
        name: list(value) if isinstance(value, tuple) else value for name, value in asdict(GenerateOptions()).items()
    }
    assert Generate().model_dump() == options
    for name, known in (("search", SEARCHES), ("length_normalization", NORMALIZATIONS), ("dtype", FORMATS)):
        assert set(get_args(Generate.model_fields[name].annotation)) == set(known)
