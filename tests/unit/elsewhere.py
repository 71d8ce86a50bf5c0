"""Training, decoding and scoring on a device that is not the processor; test_devices runs this in a fresh process."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_writer
import torch
from far_device import FAR, Far, reachable
from tiny_training import feed_of, optimizer_of, options_of, tiny_encoder, weights
from tiny_writer import sentences, tiny_generator, tiny_tokenizer

from unilmctl.commands.generate.writing import _staff
from unilmctl.errors import UsageError
from unilmctl.generation import GenerateOptions, Generator, Opened, Scorer, decoder_of
from unilmctl.generation.work import WINDOW
from unilmctl.model import Encoder
from unilmctl.model.adapters import Adapting, adapt
from unilmctl.training import Step, TrainOptions, evaluate_loss, train
from unilmctl.training.averages import Averages, shown
from unilmctl.training.distillation import Teacher
from unilmctl.weights import ModelCard


@pytest.fixture(autouse=True)
def far() -> Iterator[None]:
    with reachable():
        yield


def trained(device: torch.device, objective: str, *, buckets: int, options: TrainOptions) -> tuple[Encoder, list[Step]]:
    encoder = Encoder(replace(tiny_encoder().config, relative_buckets=buckets))
    encoder.initialize(torch.Generator().manual_seed(1))
    encoder.to(device)
    feed = replace(feed_of(objective=objective), pack=48)
    return encoder, list(train(encoder, optimizer_of(encoder, options), feed, options))


def test_the_two_devices_do_not_mix() -> None:
    there, here = torch.ones(2, device=FAR), torch.ones(2)
    with pytest.raises(RuntimeError, match="meets tensors of both devices"):
        there + here
    with pytest.raises(RuntimeError, match="meets tensors of both devices"):
        there[torch.tensor([0])]
    assert there.cpu().equal(here)
    assert isinstance(there, Far)


@pytest.mark.parametrize(
    ("objective", "buckets", "checkpointed"), [("pseudo", 0, True), ("masked", 8, True), ("causal", 0, False)]
)
def test_training_elsewhere_is_training_here(objective: str, buckets: int, *, checkpointed: bool) -> None:
    options = options_of(accumulate=2, checkpoint_activations=checkpointed, label_smoothing=0.1, steps=3, warmup=0)
    there, steps = trained(FAR, objective, buckets=buckets, options=options)
    here, expected = trained(torch.device("cpu"), objective, buckets=buckets, options=options)
    assert [step.loss for step in steps] == pytest.approx([step.loss for step in expected], abs=1e-5)
    assert all(isinstance(parameter, Far) for parameter in there.parameters())
    for name, tensor in weights(here).items():
        torch.testing.assert_close(there.state_dict()[name].cpu(), tensor, atol=1e-4, rtol=1e-3)


def test_a_teacher_adapters_and_averages_elsewhere() -> None:
    encoder, options = tiny_encoder().to(FAR), options_of(steps=2, warmup=0)
    adapt(encoder, Adapting(2, 4.0, 0.1, ("qkv", "inner")), seed=1)
    teacher = Teacher(tiny_encoder(seed=2).to(FAR), 0.5, 2.0)
    averages = Averages(encoder, 0.9)
    for step in train(encoder, optimizer_of(encoder, options), feed_of(), options, teacher=teacher):
        averages.update(encoder, step.number)
        found = evaluate_loss(shown(encoder, averages), feed_of(6), options)
        assert found is not None
        assert found > 0


SEARCHES: list[dict[str, Any]] = [
    {"no_repeat_ngram": 2, "nbest": 2, "batch_tokens": 120, "length_penalty": 0.6, "min_length": 2},
    {"search": "greedy", "repetition_penalty": 1.3, "forbid_phrase": ("a b",)},
    {"search": "greedy", "drafts": 3},
    {"search": "sample", "nbest": 2, "top_k": 5, "top_p": 0.9, "min_p": 0.01, "typical_p": 0.95, "temperature": 0.8},
    {"search": "contrastive", "top_k": 3, "no_repeat_ngram": 3},
    {"search": "s2s-ft", "no_repeat_ngram": 2},
    {"beam_groups": 3, "diversity": 0.5},
    {"must": ("c d",), "forbid": ("e",)},
    {"coverage_penalty": 0.3, "attention": True},
]


@pytest.mark.parametrize(
    ("objective", "options"),
    [*(("pseudo", options) for options in SEARCHES), *(("causal", options) for options in SEARCHES[::4])],
)
def test_decoding_elsewhere_writes_what_it_writes_here(objective: str, options: dict[str, Any], tmp_path: Path) -> None:
    wanted = {"objective": objective, "dtype": "float32", "max_length": 6, **options}
    expected = tiny_generator(tmp_path, **wanted).generate(sentences(5))
    generator = tiny_generator(tmp_path, **wanted)
    generator.decoder.encoder.to(FAR)
    assert [[one.ids for one in some] for some in generator.generate(sentences(5))] == [
        [one.ids for one in some] for some in expected
    ]


def test_scoring_and_models_together_elsewhere(tmp_path: Path) -> None:
    models = [Opened(tiny_writer.tiny_encoder(seed), ModelCard(), tiny_tokenizer(tmp_path)) for seed in (3, 4)]
    pairs = [(source, source[::-1]) for source in sentences(4)]
    options = GenerateOptions(max_length=6, dtype="float32")
    scores = Scorer(*models[0]).score(pairs)
    texts = Generator(*models[0], options, models[1:]).generate(sentences(4))
    for model in models:
        model.encoder.to(FAR)
    for found, expected in zip(Scorer(*models[0]).score(pairs), scores, strict=True):
        assert found.token_scores == pytest.approx(expected.token_scores, abs=1e-5)
    assert [
        [one.ids for one in some] for some in Generator(*models[0], options, models[1:]).generate(sentences(4))
    ] == [[one.ids for one in some] for some in texts]


def test_the_format_that_auto_means_elsewhere(tmp_path: Path) -> None:
    opened = Opened(tiny_writer.tiny_encoder(), ModelCard(), tiny_tokenizer(tmp_path)).packed("auto", FAR)
    assert {(tensor.dtype, tensor.device) for tensor in opened.encoder.parameters()} == {(torch.bfloat16, FAR)}
    generator = Generator(*opened, GenerateOptions(max_length=6, min_length=2, workers=4))
    found = generator.generate(sentences(4))
    assert all(some[0].ids for some in found)
    assert _staff(generator, lambda: decoder_of(generator)).window == WINDOW  # one process, whatever was asked for
    with pytest.raises(UsageError, match="^far has no kernels for int8$"):
        opened.packed("int8", FAR)
