"""Learning from a teacher: the loss, its gradient in chunks, and which teachers are refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_finetune import recipe_of
from tiny_training import feed_of, options_of, tiny_encoder, weights

from unilmctl.commands.finetune.teaching import teacher_of
from unilmctl.errors import ModelError
from unilmctl.model import Encoder, HeadConfig, ModelConfig
from unilmctl.rows import LANGUAGE_MODEL
from unilmctl.tokens import Tokenizer
from unilmctl.tokens import train as train_tokenizer
from unilmctl.training import build_optimizer, loss, smoothed_loss, train
from unilmctl.training.distillation import Teacher, soft_loss
from unilmctl.training.scoring import Scoring, score
from unilmctl.weights import ModelCard, save_model


def wide_encoder() -> Encoder:
    """A teacher that is larger than the tiny encoder, and sure of what it says."""
    encoder = Encoder(ModelConfig(vocabulary=24, hidden=32, layers=3, heads=4, feedforward=48, positions=24))
    encoder.initialize(torch.Generator().manual_seed(8))
    with torch.no_grad():
        encoder.head.bias.normal_(0, 3, generator=torch.Generator().manual_seed(9))
    return encoder.eval()


def run(encoder: Encoder, teacher: Teacher | None, **values: Any) -> list[float]:
    options = options_of(**values)
    steps = train(encoder, build_optimizer(encoder, options), feed_of(), options, teacher=teacher)
    return [step.loss for step in steps]


@given(st.integers(0, 10**6), st.floats(0.1, 10))
@settings(deadline=None, max_examples=25)
def test_the_soft_loss_is_a_divergence(seed: int, temperature: float) -> None:
    random = torch.Generator().manual_seed(seed)
    student, teacher = (3 * torch.randn(4, 9, generator=random, dtype=torch.float64) for _ in range(2))
    found = soft_loss(student, teacher, temperature)
    for row in range(4):
        p, q = (torch.softmax(logits[row] / temperature, -1) for logits in (teacher, student))
        expected = sum(float(p[word] * (p[word] / q[word]).log()) for word in range(9)) * temperature**2
        assert float(found[row]) == pytest.approx(expected, rel=1e-3, abs=1e-4)
    assert float(soft_loss(teacher, teacher, temperature).abs().max()) < 1e-6


@pytest.mark.parametrize("chunk", [3, 2048])
def test_a_step_has_the_gradient_of_the_whole_loss(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss, "CHUNK", chunk)
    teacher = Teacher(wide_encoder(), weight=0.3, temperature=2.0)
    encoder, options, feed = tiny_encoder(), options_of(steps=1, clip=None), feed_of()
    (step,) = train(encoder, build_optimizer(encoder, options), feed, options, teacher=teacher)
    twin, batch = tiny_encoder(), feed.batch(0, feed.order(0)[0])
    wanted = batch.labels[LANGUAGE_MODEL]
    row = (batch.ids, batch.positions, batch.segments, batch.slots)
    logits, taught = (one.logits(one(*row)[0].flatten(0, 1)[wanted.slots]) for one in (twin, teacher.encoder))
    hard = smoothed_loss(logits, wanted.targets, smoothing=options.label_smoothing, pad=0)
    whole = (0.7 * hard + 0.3 * soft_loss(logits, taught.detach(), 2.0)).mean()
    whole.backward()
    assert step.loss == pytest.approx(float(whole.detach()), rel=1e-5)
    for (name, ours), theirs in zip(encoder.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-6, rtol=1e-4, msg=name)


def headed(encoder: Encoder) -> Encoder:
    """The encoder with a tagging head, new but for the seed."""
    made = Encoder(encoder.config.with_heads(HeadConfig("tag", "token", 5)))
    made.initialize(torch.Generator().manual_seed(encoder.config.hidden))
    return made


def test_classes_are_taught_as_words_are() -> None:
    teacher = Teacher(headed(wide_encoder()).eval(), weight=0.3, temperature=2.0)
    encoder, batch = headed(tiny_encoder()).train(), feed_of().batch(0, feed_of().order(0)[0])
    words = batch.labels[LANGUAGE_MODEL]
    batch = replace(batch, labels={"tag": words._replace(targets=words.targets % 5)})
    found = score(encoder, batch, Scoring(teacher=teacher), {"tag": 1.0})
    ours = {name: part.grad for name, part in encoder.named_parameters() if part.grad is not None}
    row = (batch.ids, batch.positions, batch.segments, batch.slots)
    encoder.zero_grad()
    wanted = batch.labels["tag"]
    scores, taught = (one.scores("tag", one(*row)[0].flatten(0, 1)[wanted.slots]) for one in (encoder, teacher.encoder))
    hard = torch.nn.functional.cross_entropy(scores, wanted.targets, reduction="none")
    whole = (0.7 * hard + 0.3 * soft_loss(scores, taught.detach(), 2.0)).sum()
    whole.backward()
    torch.testing.assert_close(sum(tally[0] for tally in found.values()), whole.detach())
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, encoder.get_parameter(name).grad, atol=1e-5, rtol=1e-4, msg=name)


def test_a_teacher_without_weight_teaches_nothing() -> None:
    alone, taught = tiny_encoder(), tiny_encoder()
    run(alone, None)
    run(taught, Teacher(wide_encoder(), weight=0.0, temperature=1.0))
    for name, tensor in weights(alone).items():
        torch.testing.assert_close(taught.state_dict()[name], tensor, atol=1e-4, rtol=1e-4)


def test_a_student_comes_nearer_and_the_teacher_stays() -> None:
    teacher = wide_encoder()
    before = weights(teacher)
    losses = run(tiny_encoder(), Teacher(teacher, weight=1.0, temperature=2.0), steps=40)
    assert losses[-1] < 0.5 * losses[0]
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(["a b c d e f"], kind="wordpiece", size=24)


def refused(
    folder: Path, tokenizer: Tokenizer, *, card: ModelCard, vocabulary: int = 24, max_source: int = 12
) -> ModelError:
    """What is said about the teacher in `folder` when the student is tiny."""
    encoder = tiny_encoder()
    encoder.config = replace(encoder.config, vocabulary=vocabulary)
    tokens = {"max_source": max_source, "max_target": 8, "train": {"size": 24}}
    plan = recipe_of(finetune={"distil": {"teacher": folder}}, tokens=tokens)
    with pytest.raises(ModelError) as caught:
        teacher_of(plan, encoder, card, tokenizer)
    return caught.value


def test_a_teacher_that_does_not_fit_is_refused(tmp_path: Path, tokenizer: Tokenizer) -> None:
    card = ModelCard(source_segment=0, target_segment=1)
    save_model(tmp_path, wide_encoder(), card, tokenizer)
    teacher = teacher_of(recipe_of(finetune={"distil": {"teacher": tmp_path}}), tiny_encoder(), card, tokenizer)
    assert teacher is not None
    assert (teacher.weight, teacher.temperature, teacher.encoder.config.hidden) == (0.5, 2.0, 32)
    assert teacher_of(recipe_of(), tiny_encoder(), card, tokenizer) is None
    other = train_tokenizer(["u v w x y z"], kind="wordpiece", size=24)
    said = f"finetune.distil.teacher: {tmp_path} has another vocabulary than the model"
    assert refused(tmp_path, other, card=card).message == said
    assert refused(tmp_path, tokenizer, card=card, vocabulary=30).message == said
    assert refused(tmp_path, tokenizer, card=replace(card, source_segment=1)).message == (
        f"finetune.distil.teacher: source_segment of {tmp_path} is 0, that of the model 1"
    )
    long = refused(tmp_path, tokenizer, card=card, max_source=40)
    assert long.message == f"finetune.distil.teacher: {tmp_path} reads 24 tokens, a row may have 48"
    assert "convert the teacher with --positions" in str(long.hint)
