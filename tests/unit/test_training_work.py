"""No wasted work: what training leaves out changes neither losses nor gradients."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tiny_training import FRAME, feed_of, optimizer_of, options_of, tiny_encoder
from torch import Tensor
from torch.nn import functional

from unilmctl.model import Encoder, division, kernels, layers
from unilmctl.model.division import Part, Parts, reach_of
from unilmctl.model.kernels import dropout, kept, mix
from unilmctl.objectives import build
from unilmctl.rows import LANGUAGE_MODEL, Batch, Example, Row, pack, pack_into, pad
from unilmctl.training import train
from unilmctl.training.loss import likeliest, smoothed_loss, spent_loss
from unilmctl.training.scoring import Scoring, score
from unilmctl.visibility import PADDING, visible

OBJECTIVES = ("pseudo", "masked", "causal")
HALVES = tuple(Part(slice(0, 1), half, half) for half in (slice(0, 2), slice(2, 4)))
MODELS: list[dict[str, Any]] = [
    {},
    {"relative_buckets": 8},
    {"position": "relative", "relative_distance": 3},
    {"position": "interleaved"},
    {
        **{"position": "rotary", "local_base": 100.0, "global_every": 2, "window": 2},
        **{"prenorm": True, "gated": True, "linear_bias": False, "norm_bias": False},
    },
]


def rows(objective: str) -> list[Row]:
    random = np.random.default_rng(3)
    sizes = [(4, 3), (9, 1), (2, 6), (7, 5), (1, 1)]
    made = build(objective)
    return [made(Example(random.integers(5, 24, s), random.integers(5, 24, t)), FRAME, random) for s, t in sizes]


def gradients(encoder: Encoder, batches: list[Batch], labels: int, precision: str = "float32") -> dict[str, Tensor]:
    encoder.zero_grad()
    for batch in batches:
        score(encoder, batch, Scoring(0.1, precision), {LANGUAGE_MODEL: 1.0 / labels})
    return {name: p.grad.clone() for name, p in encoder.named_parameters() if p.grad is not None}


def definition(encoder: Encoder, batch: Batch, labels: int) -> dict[str, Tensor]:
    """The slow twin: hidden states of all slots, all logits, autograd."""
    encoder.zero_grad()
    wanted = batch.labels[LANGUAGE_MODEL]
    hidden, _ = encoder(batch.ids, batch.positions, batch.segments, batch.slots)
    logits = encoder.logits(hidden).flatten(0, 1)[wanted.slots]
    (smoothed_loss(logits, wanted.targets, smoothing=0.1, pad=0).sum() / labels).backward()
    return {name: p.grad.clone() for name, p in encoder.named_parameters() if p.grad is not None}


def apart(left: dict[str, Tensor], right: dict[str, Tensor]) -> float:
    """The norm of the difference over the norm of the gradient, over all parameters."""
    assert left.keys() == right.keys()
    whole = sum(float(value.double().square().sum()) for value in right.values())
    return (sum(float((left[name] - right[name]).double().square().sum()) for name in right) / whole) ** 0.5


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("switches", MODELS, ids=str)
def test_packed_padded_accumulated_and_alone_give_the_same_gradient(objective: str, switches: dict[str, Any]) -> None:
    encoder = tiny_encoder(seed=2, **switches).train()
    if encoder.relative is not None:
        torch.nn.init.normal_(encoder.relative.weight, generator=torch.Generator().manual_seed(4))
    made = rows(objective)
    labels = sum(len(row.labels[LANGUAGE_MODEL].slots) for row in made)
    padded = pad(made, pad_id=0, length=40)
    expected = definition(encoder, padded, labels)
    ways = {
        "padded": [padded],
        "packed": [pad([pack(made)], pad_id=0)],
        "packed in two": [pad([pack(made[:2]), pack(made[2:])], pad_id=0)],
        "accumulated": [pad(made[:2], pad_id=0), pad(made[2:], pad_id=0)],
        "one by one": [pad([row], pad_id=0) for row in made],
    }
    for name, batches in ways.items():
        assert apart(gradients(encoder, batches, labels), expected) < 1e-5, name


@pytest.mark.parametrize("switches", MODELS[2:], ids=str)
def test_attention_that_drops_is_the_same_attention(switches: dict[str, Any]) -> None:
    """At a rate that is rounded to nothing, so that only the way differs in which it is computed."""
    batch = pad(rows("pseudo"), pad_id=0)
    plain, dropping = (tiny_encoder(seed=2, attention_dropout=rate, **switches).train() for rate in (0.0, 1e-9))
    found, expected = gradients(dropping, [batch], 9), gradients(plain, [batch], 9)
    assert found.keys() == {name for name, _ in dropping.named_parameters()}
    assert apart(found, expected) < 1e-5


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("switches", [{}, MODELS[-1], MODELS[-2]], ids=str)
def test_recomputing_layers_changes_nothing(objective: str, switches: dict[str, Any]) -> None:
    encoder = tiny_encoder(dropout=0.2, **switches).train()
    batch, found = pad(rows(objective), pad_id=0), []
    for recompute in (False, True):
        encoder.recompute = recompute
        torch.manual_seed(5)
        found.append(gradients(encoder, [batch], 9))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_a_feed_that_packs_trains_as_one_that_does_not() -> None:
    plain, packing = feed_of(12, size=6), replace(feed_of(12, size=6), pack=30)
    found = []
    for feed in (plain, packing):
        encoder, options = tiny_encoder(), options_of(steps=3)
        found.append(list(train(encoder, optimizer_of(encoder, options), feed, options)))
    for one, other in zip(*found, strict=True):
        assert (one.labels, one.tokens) == (other.labels, other.tokens)
        assert (one.padded_tokens, other.padded_tokens) == (6 * 16, 3 * 28)
        assert one.loss == pytest.approx(other.loss, rel=1e-5)
        assert one.gradient_norm == pytest.approx(other.gradient_norm, rel=1e-5)


def lengths_packed(sizes: list[int], longest: int) -> list[list[int]]:
    """The lengths of the documents of each packed row."""
    example = [Example(np.full(size - 3, 7), np.array([8])) for size in sizes]
    packed = pack_into([build("causal")(one, FRAME, np.random.default_rng(1)) for one in example], longest)
    return [np.bincount(row.document).tolist() for row in packed]


def test_rows_are_packed_into_as_few_as_they_fit_in_and_those_evenly() -> None:
    made = rows("pseudo")
    packed = pack_into(made, 30)
    assert sorted(len(row) for row in packed) == [21, 25, 29]  # 21, 18 + 7, 15 + 14: by first fit 28, 18 and 29
    assert sum(len(row.labels[LANGUAGE_MODEL].slots) for row in packed) == sum(
        len(row.labels[LANGUAGE_MODEL].slots) for row in made
    )
    assert [len(row) for row in pack_into(made[:1], 2)] == [len(made[0])]
    assert lengths_packed([12, 11, 10, 9, 5], 40) == [[12, 9, 5], [11, 10]]
    assert lengths_packed([12, 12, 8, 8, 8], 24) == [[12, 12], [8, 8, 8]]  # the emptier one each time: 28 and 20


def test_bfloat16_gradients_are_near_those_of_float32() -> None:
    encoder, batch = tiny_encoder().train(), pad(rows("pseudo"), pad_id=0)
    assert apart(gradients(encoder, [batch], 9, "bfloat16"), gradients(encoder, [batch], 9)) < 0.03


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("count", [1, 16, 37])
def test_a_spent_loss_is_the_loss_and_its_gradient(count: int, smoothing: float) -> None:
    logits = torch.randn(count, 50, generator=torch.Generator().manual_seed(1)) * 4
    targets = torch.arange(count) % 7  # some of them are 3, the padding
    plain, spent = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    weight = torch.arange(count) + 1.0
    expected = smoothed_loss(plain * 1.0, targets, smoothing=smoothing, pad=3)
    found, first = spent_loss(spent * 1.0, targets, smoothing=smoothing, pad=3)
    assert first.tolist() == likeliest(logits, targets).tolist() == (logits.argmax(-1) == targets).tolist()
    torch.testing.assert_close(found, expected)
    (expected * weight).sum().backward()
    (found * weight).sum().backward()
    torch.testing.assert_close(spent.grad, plain.grad)


@pytest.mark.parametrize("asked", [None, torch.tensor([[4, 1], [0, 2]])])
def test_attention_by_hand_has_the_gradients_of_autograd(asked: Tensor | None) -> None:
    random = torch.Generator().manual_seed(1)
    fused = torch.randn(3, 2, 2, 5, 4, generator=random)
    mask = torch.randn(2, 2, 5 if asked is None else 2, 5, generator=random)
    weight = torch.randn(2, 2, mask.shape[2], 4, generator=random)
    found = []
    for by_hand in (True, False):
        inputs, added = fused.clone().requires_grad_(), mask.clone().requires_grad_()
        if by_hand:
            mixed = mix(inputs, added, 0.0, asked)
        else:
            query = inputs[0] if asked is None else torch.stack([inputs[0, i][:, asked[i]] for i in range(2)])
            mixed = functional.scaled_dot_product_attention(query, inputs[1], inputs[2], attn_mask=added)
        (mixed * weight).sum().backward()
        found.append((mixed.detach(), inputs.grad, added.grad))
    torch.testing.assert_close(found[0], found[1])


def divided(batch: Batch) -> int:
    return reach_of(visible(batch.slots, batch.slots), batch.slots.document != PADDING)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("worth", [1, 50, 10**4])
def test_queries_are_divided_where_none_sees_across(
    objective: str, worth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(division, "MULTIPLE", 2)
    monkeypatch.setattr(division, "WORTH", worth)
    batch = pad(rows(objective), pad_id=0)
    seen, tokens = visible(batch.slots, batch.slots), batch.ids.shape[1]
    seen[batch.slots.document == PADDING] = False
    saved = {place: place * (tokens - place) for place in range(2, tokens, 2) if not seen[:, :place, place:].any()}
    best = max(saved, key=lambda place: (saved[place], -place))
    assert divided(batch) == (best if saved[best] >= worth else 0)


def test_a_long_source_sees_itself_alone() -> None:
    random, frame = np.random.default_rng(3), replace(FRAME, max_source=300, max_target=90)
    examples = [Example(random.integers(5, 24, s), random.integers(5, 24, t)) for s, t in ((200, 88), (180, 86))]
    for objective in OBJECTIVES:
        batch = pad([build(objective)(example, frame, random) for example in examples], pad_id=0)
        assert divided(batch) == 208, objective  # the first multiple of 16 from 202 on
    short = examples[0]._replace(target=examples[0].target[:9])
    assert divided(pad([build("masked")(short, frame, random)], pad_id=0)) == 0


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_divided_queries_have_the_same_gradient(objective: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the kernel of torch over all tokens: that kernel in two parts, and the one by hand head by head."""
    encoder, batch = tiny_encoder().train(), pad(rows(objective), pad_id=0)
    monkeypatch.setattr(layers, "LONG", 0)
    expected = definition(encoder, batch, 9)
    monkeypatch.setattr(division, "MULTIPLE", 2)
    monkeypatch.setattr(division, "WORTH", 1)
    monkeypatch.setattr(kernels, "BLOCK", 1)
    assert divided(batch) > 0
    for longest in (0, 1024):
        monkeypatch.setattr(layers, "LONG", longest)
        assert apart(gradients(encoder, [batch], 9), expected) < 1e-6, longest


@pytest.mark.parametrize("parts", [(), HALVES], ids=("whole", "halves"))
def test_the_gradient_of_attention_with_dropout_is_that_of_what_was_kept(parts: Parts) -> None:
    """A small change of the input changes the output as the gradient says, if the same weights are dropped."""
    fused = torch.randn(3, 1, 2, 4, 4, generator=torch.Generator().manual_seed(1), requires_grad=True)
    mask, change = torch.zeros(1, 1, 4, 4), torch.randn(3, 1, 2, 4, 4, generator=torch.Generator().manual_seed(2))

    def total(values: Tensor) -> Tensor:
        torch.manual_seed(7)
        return mix(values, mask, 0.5, None, parts).square().sum()

    (gradient,) = torch.autograd.grad(total(fused), fused)
    measured = (total(fused + 1e-2 * change) - total(fused - 1e-2 * change)) / 2e-2
    assert float(measured.detach()) == pytest.approx(float((gradient * change).sum()), rel=2e-2)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_dropout_drops_its_share_and_keeps_the_mean(rate: float) -> None:
    torch.manual_seed(1)
    factors = kept(torch.empty(301, 333), rate)
    assert float((factors == 0).float().mean()) == pytest.approx(rate, abs=0.01)
    assert sorted(set(factors.flatten().tolist())) == [0.0, pytest.approx(1 / (1 - rate), rel=1e-3)]
    assert float(factors.mean()) == pytest.approx(1, abs=0.02)
    assert float(torch.corrcoef(torch.stack((factors.flatten()[:-1], factors.flatten()[1:])))[0, 1].abs()) < 0.02


def test_without_a_rate_dropout_asks_for_no_random_number() -> None:
    values, before = torch.ones(3), torch.random.get_rng_state()
    assert dropout(values, 0.0) is values
    assert torch.equal(before, torch.random.get_rng_state())
