"""The loop: steps, accumulation, skipped steps, and going on as if nothing had happened."""

from dataclasses import replace

import pytest
import torch
from tiny_training import after, feed_of, optimizer_of, options_of, tiny_encoder, weights

from unilmctl.errors import DataError, ModelError, NumericError
from unilmctl.model import Encoder
from unilmctl.rows import LANGUAGE_MODEL
from unilmctl.training import (
    BEGINNING,
    Feed,
    Position,
    Step,
    TrainOptions,
    evaluate_loss,
    load_optimizer,
    optimizer_tensors,
    train,
)


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def run(encoder: Encoder, feed: Feed, options: TrainOptions) -> list[Step]:
    return list(train(encoder, optimizer_of(encoder, options), feed, options))


def test_steps_are_numbered_counted_and_lower_the_loss() -> None:
    steps = run(tiny_encoder(), feed_of(), options_of(steps=40))
    assert [step.number for step in steps] == list(range(1, 41))
    assert [step.after.step for step in steps] == list(range(1, 41))
    assert all((step.tokens, step.padded_tokens, step.labels) == (4 * (6 + 8), 4 * 16, 16) for step in steps)
    assert steps[-1].loss < steps[0].loss - 0.5
    assert not any(step.skipped for step in steps)


def test_text_has_no_second_position_whatever_it_learns_beside() -> None:
    encoder, beside = tiny_encoder(inner_positions=24), feed_of(12, objective="infilling")
    run(encoder, beside, options_of(warmup=0))
    inner = encoder.embeddings.inner
    assert inner is not None
    assert inner.weight[1:].abs().max() > 0
    assert inner.weight[0].abs().max() == 0
    run(encoder, feed_of(4), options_of(steps=1))
    assert inner.weight.grad is not None, "processes whose batches have no such rows have the same gradients as others"
    assert inner.weight.grad.abs().max() == 0


def test_the_first_step_of_a_warm_up_changes_nothing() -> None:
    encoder = tiny_encoder()
    before = weights(encoder)
    options = options_of(steps=2, warmup=1)
    steps = train(encoder, optimizer_of(encoder, options), feed_of(), options)
    assert next(steps).learning_rate == 0.0
    assert same(before, weights(encoder))
    next(steps)
    assert not same(before, weights(encoder))


@pytest.mark.parametrize("objective", ["pseudo", "masked", "causal"])
def test_accumulated_batches_give_the_step_of_one_large_batch(objective: str) -> None:
    small, large = tiny_encoder(), tiny_encoder()
    # In another order the batches of an epoch would hold other examples: one epoch of one or of three batches.
    few, whole = feed_of(12, size=4, objective=objective), feed_of(12, size=12, objective=objective)
    accumulated = run(small, few, options_of(steps=3, accumulate=3, warmup=0))
    at_once = run(large, whole, options_of(steps=3, accumulate=1, warmup=0))
    for left, right in zip(accumulated, at_once, strict=True):
        assert left.labels == right.labels
        assert left.loss == pytest.approx(right.loss, abs=1e-5)
        assert left.gradient_norm == pytest.approx(right.gradient_norm, rel=1e-5)
    for left_weight, right_weight in zip(weights(small).values(), weights(large).values(), strict=True):
        torch.testing.assert_close(left_weight, right_weight, atol=1e-5, rtol=1e-5)


def test_the_gradient_is_clipped_to_its_norm() -> None:
    free, clipped = tiny_encoder(), tiny_encoder()
    without = next(iter(run(free, feed_of(), options_of(steps=1, clip=None))))
    within = next(iter(run(clipped, feed_of(), options_of(steps=1, clip=0.01))))
    assert without.gradient_norm == within.gradient_norm  # what is reported is the norm before clipping
    gradient = torch.cat([p.grad.flatten() for p in clipped.parameters() if p.grad is not None])
    assert float(gradient.norm()) == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("stop_at", [1, 3, 4, 7])
def test_going_on_gives_the_same_bits_as_not_stopping(stop_at: int, accumulate: int) -> None:
    options = options_of(steps=8, accumulate=accumulate)
    straight = tiny_encoder(dropout=0.1)
    expected = run(straight, feed_of(20), options)

    first = tiny_encoder(dropout=0.1)
    optimizer = optimizer_of(first, options)
    steps = train(first, optimizer, feed_of(20), options)
    done = [next(steps) for _ in range(stop_at)]
    moments = {name: tensor.clone() for name, tensor in optimizer_tensors(first, optimizer).items()}

    second = tiny_encoder(dropout=0.1, seed=99)
    second.load_state_dict(weights(first))
    fresh = optimizer_of(second, options)
    load_optimizer(second, fresh, moments)
    torch.manual_seed(12345)  # whatever random state the process is in does not matter
    done += list(train(second, fresh, feed_of(20), options, start=done[-1].after))

    assert same(weights(straight), weights(second))
    assert [step._replace(seconds=0) for step in done] == [step._replace(seconds=0) for step in expected]


def test_training_leaves_the_random_state_of_the_process_alone() -> None:
    encoder = tiny_encoder(dropout=0.1)
    before = torch.random.get_rng_state()
    run(encoder, feed_of(), options_of(steps=2))
    assert torch.equal(before, torch.random.get_rng_state())


def test_dropout_differs_from_step_to_step_and_from_batch_to_batch() -> None:
    frozen = options_of(steps=2, learning_rate=1e-12, warmup=0)
    one = feed_of(4, size=4, objective="causal")
    first, second = run(tiny_encoder(dropout=0.5), one, frozen)
    assert first.loss != second.loss
    plain_first, plain_second = run(tiny_encoder(), one, frozen)
    assert plain_first.loss == pytest.approx(plain_second.loss, abs=1e-5)


@pytest.mark.parametrize("calls", [0, 1, 2, 5])
def test_a_stop_leaves_no_trace_of_an_unfinished_step(calls: int) -> None:
    options = options_of(steps=8, accumulate=3)
    stopped, straight = tiny_encoder(), tiny_encoder()
    done = list(train(stopped, optimizer_of(stopped, options), feed_of(), options, stop=after(calls)))
    steps = train(straight, optimizer_of(straight, options), feed_of(), options)
    for _ in done:
        next(steps)
    assert len(done) == calls // 4  # asked once before every step, and before each of its three batches
    assert same(weights(stopped), weights(straight))


def poisoned(encoder: Encoder, steps: set[int]) -> Encoder:
    """The encoder with a hook that makes its output infinite in these forward passes, counted from 0."""
    made = 0

    def hook(
        module: torch.nn.Module, inputs: object, output: tuple[torch.Tensor, object]
    ) -> tuple[torch.Tensor, object]:
        nonlocal made
        made += 1
        return (output[0] * torch.inf, output[1]) if made - 1 in steps else output

    encoder.register_forward_hook(hook)
    return encoder


def test_a_step_that_is_no_number_is_skipped_and_counted() -> None:
    encoder = poisoned(tiny_encoder(), {2})
    options = options_of(steps=5, warmup=0)
    optimizer = optimizer_of(encoder, options)
    seen = []
    for step in train(encoder, optimizer, feed_of(), options):
        seen.append((step.skipped, weights(encoder)))
        assert step.after.skipped == (1 if step.number >= 3 else 0)
    assert [skipped for skipped, _ in seen] == [False, False, True, False, False]
    assert same(seen[1][1], seen[2][1])
    assert not same(seen[2][1], seen[3][1])
    assert all(tensor.isfinite().all() for tensor in weights(encoder).values())


def test_too_many_skipped_steps_end_training() -> None:
    encoder = poisoned(tiny_encoder(), set(range(100)))
    options = options_of(steps=50, skip_budget=3)
    with pytest.raises(NumericError) as caught:
        run(encoder, feed_of(), options)
    assert caught.value.message == "step 4: loss or gradient is not a number, as in 3 steps before"
    assert caught.value.hint is not None
    assert "finetune.learning_rate" in caught.value.hint
    assert caught.value.exit_code == 6


def test_the_budget_counts_steps_before_a_stop() -> None:
    encoder = poisoned(tiny_encoder(), {0})
    options = options_of(steps=50, skip_budget=3)
    with pytest.raises(NumericError):
        list(train(encoder, optimizer_of(encoder, options), feed_of(), options, start=Position(7, 0, 1, 3)))


def test_nothing_to_train_on_is_said() -> None:
    empty = replace(feed_of(), order=lambda epoch: [])
    with pytest.raises(DataError, match="not a single training example"):
        run(tiny_encoder(), empty, options_of())


def test_bfloat16_trains_float32_weights() -> None:
    encoder = tiny_encoder()
    steps = run(encoder, feed_of(), options_of(steps=30, precision="bfloat16"))
    assert steps[-1].loss < steps[0].loss - 0.3
    assert {tensor.dtype for tensor in weights(encoder).values()} == {torch.float32}


def test_frozen_embeddings_stay_as_they_are() -> None:
    encoder = tiny_encoder()
    before = weights(encoder)
    run(encoder, feed_of(), options_of(freeze_embeddings=True))
    changed = {name for name, tensor in weights(encoder).items() if not torch.equal(tensor, before[name])}
    assert changed
    assert not any(name.startswith("embeddings.") for name in changed)


def test_moments_of_another_model_are_refused() -> None:
    encoder = tiny_encoder()
    optimizer = optimizer_of(encoder, options_of())
    with pytest.raises(ModelError, match=r"does not fit the model: layers\.7\.norm\.bias"):
        load_optimizer(encoder, optimizer, {"exp_avg.layers.7.norm.bias": torch.zeros(16)})


def test_validation_loss_is_per_label_and_without_dropout() -> None:
    encoder = tiny_encoder(dropout=0.5)
    feed = feed_of(6, size=4)
    batches = [feed.batch(0, indices) for indices in feed.order(0)]
    found = evaluate_loss(encoder, feed, options_of(label_smoothing=0.1))
    assert found == evaluate_loss(encoder, feed, options_of())
    total, labels = 0.0, 0
    with torch.no_grad():
        for batch in batches:
            hidden, _ = encoder.eval()(batch.ids, batch.positions, batch.segments, batch.slots)
            wanted = batch.labels[LANGUAGE_MODEL]
            logits = encoder.logits(hidden.flatten(0, 1)[wanted.slots])
            total += float(torch.nn.functional.cross_entropy(logits, wanted.targets, reduction="sum"))
            labels += len(wanted.targets)
    assert found == pytest.approx(total / labels, rel=1e-5)
    assert evaluate_loss(encoder, feed, options_of(), stop=after(1)) is None


def test_a_feed_begins_where_it_is_told() -> None:
    feed = feed_of(12, size=4)
    stream = feed.batches(BEGINNING)
    expected = [next(stream) for _ in range(8)]
    assert [place for _, *place in expected[:4]] == [[0, 1], [0, 2], [1, 0], [1, 1]]
    for index, (_, epoch, number) in enumerate(expected[:-1]):
        batch, *_ = next(feed.batches(Position(0, epoch, number)))
        assert torch.equal(batch.ids, expected[index + 1][0].ids)
