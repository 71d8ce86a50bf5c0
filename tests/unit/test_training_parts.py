"""Loss, schedules, parameter groups."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_training import optimizer_of, options_of, tiny_encoder

from unilmctl.model import Encoder, ModelConfig
from unilmctl.training import SCHEDULES, learning_rate, smoothed_loss
from unilmctl.training import loss as loss_module
from unilmctl.training.loss import chunked_loss
from unilmctl.training.optimizer import is_decayed


def divergence(logits: torch.Tensor, targets: torch.Tensor, smoothing: float, pad: int) -> torch.Tensor:
    """The slow twin: the whole matrix of target probabilities, then the definition of the divergence."""
    size = logits.shape[-1]
    wanted = torch.full(logits.shape, smoothing / (size - 2), dtype=torch.float64)
    wanted[:, pad] = 0.0
    wanted[torch.arange(len(targets)), targets] = 1 - smoothing
    predicted = logits.double().log_softmax(-1)
    terms = torch.where(wanted > 0, wanted * (wanted.clamp(min=1e-300).log() - predicted), 0.0)
    return terms.sum(-1) * (targets != pad)


@given(
    st.integers(0, 1000),
    st.sampled_from([0.0, 0.1, 0.5]),
    st.integers(4, 40),
    st.integers(1, 9),
    st.sampled_from([0, 1, 3]),
)
@settings(deadline=None, max_examples=50)
def test_the_loss_is_the_divergence_from_the_smoothed_target(
    seed: int, smoothing: float, size: int, count: int, pad: int
) -> None:
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, size, generator=random) * 3
    targets = torch.randint(0, size, (count,), generator=random)
    found = smoothed_loss(logits, targets, smoothing=smoothing, pad=pad)
    torch.testing.assert_close(found.double(), divergence(logits, targets, smoothing, pad), atol=1e-4, rtol=1e-5)


def test_the_smoothed_loss_of_the_smoothed_target_is_nothing() -> None:
    smoothing, size = 0.2, 10
    wanted = torch.full((size,), smoothing / (size - 2))
    wanted[3], wanted[0] = 1 - smoothing, 1e-30
    loss = smoothed_loss(wanted.log()[None], torch.tensor([3]), smoothing=smoothing, pad=0)
    assert float(loss) == pytest.approx(0.0, abs=1e-5)


def test_padding_as_a_label_costs_nothing() -> None:
    logits = torch.randn(3, 8, requires_grad=True)
    smoothed_loss(logits, torch.tensor([0, 5, 0]), smoothing=0.1, pad=0).sum().backward()
    assert logits.grad is not None
    assert logits.grad[[0, 2]].abs().max() == 0
    assert logits.grad[1].abs().max() > 0


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_chunks_give_the_loss_and_gradients_of_the_whole(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_module, "CHUNK", chunk)
    monkeypatch.setattr(loss_module, "MULTIPLE", 4)
    head = torch.nn.Linear(6, 11, dtype=torch.float64)
    body = torch.nn.Linear(6, 6, dtype=torch.float64)
    inputs, targets = torch.randn(7, 6, dtype=torch.float64), torch.randint(0, 11, (7,))
    seen = []

    def loss_of(hidden: torch.Tensor, wanted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append(len(wanted))
        logits = head(hidden)
        losses = torch.nn.functional.cross_entropy(logits, wanted, reduction="none")
        return losses, loss_module.likeliest(logits, wanted)

    total, losses, correct = chunked_loss(loss_of, body(inputs), targets, scale=0.25)
    assert losses.shape == correct.shape == (7,)
    assert float(losses.sum()) == pytest.approx(float(total))
    assert correct.tolist() == (head(body(inputs)).argmax(-1) == targets).tolist()
    assert max(seen) <= max(chunk, 4) + 3
    assert all(size % 4 == 0 for size in seen)
    found = [
        parameter.grad.clone() for parameter in (*body.parameters(), *head.parameters()) if parameter.grad is not None
    ]
    body.zero_grad()
    head.zero_grad()
    whole = torch.nn.functional.cross_entropy(head(body(inputs)), targets, reduction="sum")
    (whole * 0.25).backward()
    assert float(total) == pytest.approx(whole.item())
    for gradient, parameter in zip(found, (*body.parameters(), *head.parameters()), strict=True):
        torch.testing.assert_close(gradient, parameter.grad)
    with torch.no_grad():
        assert float(chunked_loss(loss_of, body(inputs), targets).total) == pytest.approx(whole.item())


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_schedule_rises_from_nothing_to_its_highest_and_never_rises_again(schedule: str) -> None:
    options = options_of(steps=50, warmup=10, learning_rate=0.5, schedule=schedule)
    rates = [learning_rate(options, step) for step in range(50)]
    assert rates[0] == 0.0
    assert rates[5] == pytest.approx(0.25)
    assert rates[10] == pytest.approx(0.5)
    assert all(later <= earlier for earlier, later in zip(rates[10:], rates[11:], strict=False))
    assert rates[-1] > 0


def test_schedules_by_hand() -> None:
    def at(schedule: str, step: int) -> float:
        return learning_rate(options_of(steps=30, warmup=10, learning_rate=1.0, schedule=schedule), step)

    assert at("linear", 20) == pytest.approx(0.5)
    assert at("linear", 29) == pytest.approx(0.05)
    assert at("cosine", 20) == pytest.approx(0.5)
    assert at("cosine", 15) == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))
    assert at("inverse-sqrt", 25) == pytest.approx(math.sqrt(10 / 25))
    assert at("constant", 29) == 1.0


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_without_warm_up_training_begins_at_the_highest_rate(schedule: str) -> None:
    options = options_of(steps=5, warmup=0, learning_rate=0.5, schedule=schedule)
    assert learning_rate(options, 0) == pytest.approx(0.5)


def test_biases_norms_and_relative_biases_do_not_decay() -> None:
    config = ModelConfig(vocabulary=24, hidden=16, layers=1, heads=2, feedforward=32, positions=24, relative_buckets=8)
    still = {name for name, parameter in Encoder(config).named_parameters() if not is_decayed(name, parameter)}
    assert "relative.weight" in still
    assert all(name.endswith("bias") or "norm" in name or name == "relative.weight" for name in still)
    assert {"embeddings.norm.weight", "layers.0.attention.qkv.bias", "head.bias"} <= still


def test_the_optimiser_holds_every_parameter_once() -> None:
    encoder = tiny_encoder()
    optimizer = optimizer_of(encoder, options_of(weight_decay=0.3))
    groups = optimizer.param_groups
    assert [group["weight_decay"] for group in groups] == [0.3, 0.0]
    held = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(held) == sorted(id(parameter) for parameter in encoder.parameters())
