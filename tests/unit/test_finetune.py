"""The parts of `finetune`: the starting model, what the recipe means, what is better."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_training import tiny_encoder

from unilmctl.commands.finetune.ingredients import frame_of
from unilmctl.commands.finetune.starting import starting_model
from unilmctl.errors import ModelError
from unilmctl.fitting import better, decoding_defaults, train_options
from unilmctl.fitting.ending import average
from unilmctl.recipe import Recipe
from unilmctl.tokens import Tokenizer
from unilmctl.tokens import train as train_tokenizer
from unilmctl.training import TrainOptions, prefers_bfloat16
from unilmctl.weights import ModelCard, save_model

SHAPE = {"architecture": "bert", "layers": 1, "hidden": 16, "heads": 2, "feedforward": 32, "positions": 20}


def recipe_of(**sections: Any) -> Recipe:
    data = {"train": {"files": ["train.jsonl"]}}
    tokens = {"max_source": 12, "max_target": 8, "train": {"size": 24}}
    return Recipe.model_validate({"data": data, "model": SHAPE, "tokens": tokens, **sections})


def options_of(**sections: Any) -> TrainOptions:
    recipe = recipe_of(**sections)
    return train_options(recipe.finetune, recipe.seed)


@pytest.mark.parametrize(("given", "words", "classes"), [(None, 0.1, 0.0), (0.2, 0.2, 0.2), (0.0, 0.0, 0.0)])
def test_label_smoothing_is_of_words_unless_it_is_asked_for(given: float | None, words: float, classes: float) -> None:
    options = options_of(finetune={"label_smoothing": given})
    assert (options.label_smoothing, options.class_smoothing) == (words, classes)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(["a b c d e f"], kind="wordpiece", size=24)


def test_a_model_from_scratch_is_a_function_of_the_seed(tokenizer: Tokenizer) -> None:
    (first, card), notes = starting_model(recipe_of(seed=5), tokenizer)
    torch.manual_seed(7)
    (second, _), _ = starting_model(recipe_of(seed=5), tokenizer)
    (third, _), _ = starting_model(recipe_of(seed=6), tokenizer)
    states = [encoder.state_dict() for encoder in (first, second, third)]
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())
    assert not torch.equal(states[0]["embeddings.word.weight"], states[2]["embeddings.word.weight"])
    assert notes == []
    assert first.config.vocabulary == tokenizer.size
    assert (card.source_segment, card.target_segment) == (0, 1)
    assert (card.max_source, card.max_target, card.objective, card.head_trained) == (12, 8, "pseudo", True)


def test_dropout_of_the_recipe_replaces_that_of_the_model(tokenizer: Tokenizer) -> None:
    model = {**SHAPE, "dropout": 0.3, "attention_dropout": 0.0}
    (encoder, _), _ = starting_model(recipe_of(model=model), tokenizer)
    assert (encoder.config.dropout, encoder.config.attention_dropout) == (0.3, 0.0)
    assert {module.p for module in encoder.modules() if isinstance(module, torch.nn.Dropout)} == {0.3}


def test_one_segment_serves_source_and_target(tokenizer: Tokenizer) -> None:
    (_, card), _ = starting_model(recipe_of(model={**SHAPE, "segments": 0}), tokenizer)
    assert (card.source_segment, card.target_segment) == (0, 0)


def test_a_model_folder_is_grown_and_its_head_is_looked_at(tokenizer: Tokenizer, tmp_path: Path) -> None:
    encoder = tiny_encoder()
    save_model(tmp_path, encoder, ModelCard(head_trained=False, source_segment=1, target_segment=0), tokenizer)
    tokens = {"max_source": 30, "max_target": 10}
    (grown, card), notes = starting_model(recipe_of(model={"init": tmp_path}, tokens=tokens), tokenizer)
    assert grown.config.positions == 40
    old, new = encoder.embeddings.position.weight, grown.embeddings.position.weight
    assert torch.equal(new, torch.cat((old, old[:16])))
    assert notes == [
        f"{tmp_path}: its language-model head was never trained; it starts untrained",
        "positions grown from 24 to 40: the old rows repeated from the first",
    ]
    assert (card.source_segment, card.target_segment, card.head_trained) == (1, 0, True)


def test_a_vocabulary_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    large = train_tokenizer(
        ["a b c d e f g h i j k l m n o p q r s t u v w x y z 0 1 2 3 4 5"] * 5, kind="wordpiece", size=60
    )
    save_model(tmp_path, tiny_encoder(), ModelCard(), large)
    with pytest.raises(ModelError) as caught:
        starting_model(recipe_of(model={"init": tmp_path}, tokens={"max_source": 12, "max_target": 8}), large)
    assert caught.value.message == f"the vocabulary has {large.size} entries, the model 24"
    assert caught.value.hint == "use the tokenizer that belongs to the model"


def test_a_model_carries_decoding_options_but_not_those_of_the_machine() -> None:
    found = decoding_defaults(recipe_of(generate={"beam": 3, "forbid": ["x"], "dtype": "bfloat16"}))
    assert (found["beam"], found["forbid"], found["max_length"]) == (3, ["x"], 8)
    assert not {"batch_tokens", "workers", "dtype", "device"} & found.keys()


def test_the_frame_takes_special_tokens_from_the_vocabulary(tokenizer: Tokenizer) -> None:
    frame = frame_of(recipe_of(), tokenizer, ModelCard(source_segment=0, target_segment=1))
    roles = tokenizer.roles
    assert (frame.pad, frame.start, frame.separator, frame.mask) == (
        roles.pad,
        roles.start,
        roles.separator,
        roles.mask,
    )
    assert (frame.vocabulary, frame.max_source, frame.max_target) == (tokenizer.size, 12, 8)


def test_options_are_those_of_the_recipe() -> None:
    section = {"steps": 9, "warmup": 3, "schedule": "cosine", "clip": None, "accumulate": 4, "precision": "float32"}
    options = options_of(seed=11, finetune=section)
    assert (options.steps, options.warmup, options.schedule, options.clip) == (9, 3, "cosine", None)
    assert (options.accumulate, options.precision, options.seed) == (4, "float32", 11)


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        ({"amx_bf16": True}, "bfloat16"),
        ({"avx512_bf16": True}, "bfloat16"),
        ({"avx512_bf16": False, "avx2": True}, "float32"),
        ({}, "float32"),
    ],
)
def test_auto_is_bfloat16_where_the_processor_multiplies_it(
    features: dict[str, bool], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: features)
    assert prefers_bfloat16(torch.device("cpu")) == (expected == "bfloat16")
    assert options_of().precision == expected


@pytest.mark.parametrize(
    ("name", "value", "than", "expected"),
    [
        ("loss", 1.0, 2.0, True),
        ("loss", 2.0, 1.0, False),
        ("ter", 30.0, 40.0, True),
        ("bleu", 30.0, 40.0, False),
        ("rougeL", 40.0, 30.0, True),
        ("bleu", 40.0, 40.0, False),
        ("loss", 1.0, 1.0, False),
        ("bleu", 0.0, None, True),
        ("loss", math.nan, None, False),
        ("loss", math.nan, 3.0, False),
    ],
)
def test_better(name: str, value: float, than: float | None, *, expected: bool) -> None:
    assert better(name, value, than) is expected


def test_an_average_is_the_mean_of_the_weights(tmp_path: Path, tokenizer: Tokenizer) -> None:
    encoders = [tiny_encoder(seed=seed) for seed in (1, 2, 3)]
    folders = [tmp_path / str(index) for index in range(3)]
    for folder, encoder in zip(folders, encoders, strict=True):
        save_model(folder, encoder, ModelCard(), tokenizer)
    result = tiny_encoder(seed=9)
    average(folders, result)
    for name, tensor in result.state_dict().items():
        parts = [encoder.state_dict()[name].double() for encoder in encoders]
        torch.testing.assert_close(tensor, (sum(parts, torch.zeros_like(parts[0])) / 3).float(), atol=0, rtol=0)
