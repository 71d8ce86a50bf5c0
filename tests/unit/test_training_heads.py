"""Several heads in one step: their losses, weights, tallies, and the gradient however the rows are put together."""

import math
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_training import FRAME, feed_of, optimizer_of, options_of, tiny_encoder, weights
from torch import Tensor
from torch.nn import functional

from unilmctl.model import Encoder, HeadConfig
from unilmctl.objectives import build
from unilmctl.rows import LANGUAGE_MODEL, Batch, Example, Frame, Labels, Row, Targets, pack, pad
from unilmctl.training import (
    Feed,
    Tally,
    TrainOptions,
    evaluate,
    evaluate_loss,
    load_optimizer,
    optimizer_tensors,
    train,
)
from unilmctl.training.heads import BEGINS, ENDS, contrastive_losses, span_losses
from unilmctl.training.scoring import Scoring, labels_of, score, step_loss

HEADS = (
    HeadConfig("next-sentence", "class"),
    HeadConfig("topic", "class", 3),
    HeadConfig("grade", "regression", 1),
    HeadConfig("tag", "token", 4),
    HeadConfig("answer", "span"),
    HeadConfig("replaced", "replaced"),
    HeadConfig("boundary", "boundary"),
    HeadConfig("contrastive", "contrastive"),
)
ALL = {LANGUAGE_MODEL, *(head.name for head in HEADS)}


def headed(*, dropout: float = 0.0, seed: int = 1) -> Encoder:
    encoder = Encoder(tiny_encoder(dropout=dropout).config.with_heads(*HEADS))
    encoder.initialize(torch.Generator().manual_seed(seed))
    return encoder


def rich(example: Example, frame: Frame, random: np.random.Generator) -> Row:
    """A pair of cloze rows that are partners, with labels for every head; the language model's in two groups."""
    one, other = (_rich(text, frame, random) for text in (example.source, example.target))
    row = pack([one, other])
    number, starts = np.full(2, random.integers(2**62)), np.array([0, len(one)])
    return replace(row, labels={**row.labels, "contrastive": Labels(starts, number, np.full(2, -1))})


def _rich(text: np.ndarray, frame: Frame, random: np.random.Generator) -> Row:
    row = build("bidirectional")(Example(text, text[:0]), frame, random).in_group(int(random.integers(2)))
    slots = np.arange(len(row))
    begins, ends = np.sort(random.integers(1, len(row), 2))
    bits = BEGINS * (slots == begins) + ENDS * (slots == ends)

    def labels(slots: np.ndarray, targets: np.ndarray, aside: np.ndarray | None = None) -> Labels:
        return Labels(slots, targets, np.full(len(slots), -1), aside=aside)

    first = slots[:1]
    return replace(
        row,
        labels={
            **row.labels,
            "next-sentence": labels(first, random.integers(2, size=1)),
            "topic": labels(first, random.integers(3, size=1)),
            "grade": labels(first, random.random(1)),
            "tag": labels(slots[1:], random.integers(4, size=len(row) - 1)),
            "answer": labels(slots, bits, np.zeros((len(row), 1), dtype=np.int64)),
            "replaced": labels(slots, random.integers(2, size=len(row))),
            "boundary": labels(first + 1, random.integers(5, 24, 1), np.array([[3, 2]])),
        },
    )


def rich_rows(count: int = 5) -> list[Row]:
    random = np.random.default_rng(3)
    examples = [Example(*(random.integers(5, 24, random.integers(2, 8)) for _ in range(2))) for _ in range(count)]
    return [rich(example, FRAME, random) for example in examples]


def rich_feed(count: int = 12, size: int = 4) -> Feed[Example]:
    return replace(feed_of(count, size=size), objective=rich)


def feed_of_rows(rows: list[Row], times: int = 1) -> Feed[Row]:
    """The rows as they are, in one batch, so many times an epoch."""
    return Feed(rows, lambda row, *_: row, FRAME, lambda _: [np.arange(len(rows))] * times, 0)


def weighted(batches: Iterable[Batch], encoder: Encoder) -> dict[str, float]:
    """A different weight for each head, divided by its labels."""
    counts = dict.fromkeys(sorted(ALL), 0)
    for batch in batches:
        for (_, head), count in labels_of(encoder, batch).items():
            counts[head] += count
    return {head: (1 + number) / count for number, (head, count) in enumerate(counts.items()) if count}


def gradients(encoder: Encoder, batches: list[Batch]) -> dict[str, Tensor]:
    encoder.zero_grad()
    scales = weighted(batches, encoder)
    for batch in batches:
        score(encoder, batch, Scoring(0.1), scales)
    return {name: part.grad.clone() for name, part in encoder.named_parameters() if part.grad is not None}


def by_definition(encoder: Encoder, batch: Batch) -> dict[str, Tensor]:
    """The slow twin: all hidden states, autograd, one loss after the other (without those that have tests below)."""
    encoder.zero_grad()
    hidden = encoder(batch.ids, batch.positions, batch.segments, batch.slots)[0].flatten(0, 1)
    scales, total = weighted([batch], encoder), torch.zeros(())
    for head, wanted in batch.labels.items():
        states, targets = hidden[wanted.slots], wanted.targets
        if head == LANGUAGE_MODEL:
            loss = functional.cross_entropy(encoder.logits(states), targets, reduction="sum")
        elif head == "boundary":
            logits = encoder.scores(head, states, hidden[wanted.aside[:, 0]], wanted.aside[:, 1])
            loss = functional.cross_entropy(logits, targets, reduction="sum")
        elif head == "grade":
            loss = functional.mse_loss(encoder.scores(head, states), targets.float(), reduction="sum")
        elif head == "replaced":
            scores = encoder.scores(head, states)
            loss = -(torch.where(targets == 1, scores.sigmoid(), 1 - scores.sigmoid())).log().sum()
        elif head == "answer":
            loss = span_losses(encoder.scores(head, states), wanted)[0].sum()
        elif head == "contrastive":
            loss = contrastive_losses(encoder.scores(head, states), wanted)[0].sum()
        else:
            loss = functional.cross_entropy(encoder.scores(head, states), targets, reduction="sum")
        total = total + scales[head] * loss
    total.backward()
    return {name: part.grad.clone() for name, part in encoder.named_parameters() if part.grad is not None}


def close(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    assert left.keys() == right.keys()
    for name, tensor in right.items():
        torch.testing.assert_close(left[name], tensor, atol=1e-5, rtol=1e-5, msg=lambda text, name=name: name + text)


def test_every_head_has_its_definitions_gradient() -> None:
    encoder, batch = headed().train(), pad(rich_rows(), pad_id=0)
    assert batch.labels.keys() == ALL
    encoder.zero_grad()
    score(encoder, batch, Scoring(0.0), weighted([batch], encoder))
    found = {name: part.grad.clone() for name, part in encoder.named_parameters() if part.grad is not None}
    assert found.keys() == dict(encoder.named_parameters()).keys()
    close(found, by_definition(encoder, batch))


def learnt(encoder: Encoder, batch: Batch, head: str, how: Scoring) -> dict[str, Tensor]:
    """The summed loss of one head, and its gradient."""
    encoder.zero_grad()
    found = score(encoder, replace(batch, labels={head: batch.labels[head]}), how, {head: 1.0})
    loss = torch.stack(list(found.values()))[:, 0].sum()
    return {"loss": loss, **{name: part.grad for name, part in encoder.named_parameters() if part.grad is not None}}


def test_classes_and_tags_are_smoothed_as_torch_does_it_and_nothing_else_is() -> None:
    encoder, batch = headed().train(), pad(rich_rows(), pad_id=0)
    smoothed = torch.nn.CrossEntropyLoss(label_smoothing=0.3, reduction="sum")
    for head in ("next-sentence", "topic", "tag"):
        found = learnt(encoder, batch, head, Scoring(class_smoothing=0.3))
        encoder.zero_grad()
        hidden = encoder(batch.ids, batch.positions, batch.segments, batch.slots)[0].flatten(0, 1)
        loss = smoothed(encoder.scores(head, hidden[batch.labels[head].slots]), batch.labels[head].targets)
        loss.backward()
        close(
            found,
            {"loss": loss.detach()} | {name: encoder.get_parameter(name).grad for name in found.keys() - {"loss"}},
        )
        assert abs(found["loss"] - learnt(encoder, batch, head, Scoring())["loss"]) > 1e-3
    for head in sorted(ALL - {"next-sentence", "topic", "tag"}):
        close(learnt(encoder, batch, head, Scoring(class_smoothing=0.3)), learnt(encoder, batch, head, Scoring()))


def test_rows_packed_padded_and_one_by_one_have_the_same_gradient() -> None:
    """But for the contrastive head, whose loss is over a batch: its rows are compared with those beside them."""
    encoder = headed().train()
    rows = [
        replace(row, labels={h: known for h, known in row.labels.items() if h != "contrastive"}) for row in rich_rows()
    ]
    expected = gradients(encoder, [pad(rows, pad_id=0)])
    close(gradients(encoder, [pad([pack(rows)], pad_id=0, length=128)]), expected)
    close(gradients(encoder, [pad([row], pad_id=0) for row in rows]), expected)


def test_a_packed_batch_has_the_contrastive_gradient_too() -> None:
    encoder, rows = headed().train(), rich_rows()
    close(gradients(encoder, [pad([pack(rows)], pad_id=0)]), gradients(encoder, [pad(rows, pad_id=0)]))


def test_a_head_that_this_batch_lacks_gets_a_gradient_of_nothing() -> None:
    encoder = headed().train()
    plain = replace(rich_rows()[0], labels={})
    scales = weighted([pad(rich_rows(), pad_id=0)], encoder)
    encoder.zero_grad()
    assert score(encoder, pad([plain], pad_id=0), Scoring(), scales) == {}
    assert all(part.grad is not None and not part.grad.any() for part in encoder.parameters())
    encoder.zero_grad()
    words = replace(plain, labels={"lm": rich_rows()[0].labels["lm"]})
    score(encoder, pad([words], pad_id=0), Scoring(), {"lm": 1.0})
    assert encoder.extra["topic"].dense.weight.grad is None
    assert encoder.pooler.weight.grad is None


def run(encoder: Encoder, feed: Feed[Example], options: TrainOptions) -> list[dict]:
    steps = train(encoder, optimizer_of(encoder, options), feed, options)
    return [step._replace(seconds=0)._asdict() for step in steps]


def test_a_step_tells_of_every_group_and_head() -> None:
    options = options_of(steps=20, accumulate=2, head_weights={"replaced": 0.5, "grade": 2.0})
    steps = run(headed(), rich_feed(), options)
    first, last = steps[0], steps[-1]
    assert {head for _, head in first["tallies"]} == ALL
    assert {group for group, head in first["tallies"] if head == LANGUAGE_MODEL} == {0, 1}
    assert first["labels"] == sum(tally.labels for tally in first["tallies"].values())
    assert first["tallies"][0, "answer"].labels == first["tallies"][0, "topic"].labels == 16
    assert first["loss"] == pytest.approx(step_loss(first["tallies"], options.head_weights))
    words = [tally for (_, head), tally in first["tallies"].items() if head == LANGUAGE_MODEL]
    parts = [tally for (_, head), tally in first["tallies"].items() if head != LANGUAGE_MODEL]
    weight = {"replaced": 0.5, "grade": 2.0}
    named = {head: tally for (_, head), tally in first["tallies"].items() if head != LANGUAGE_MODEL}
    by_hand = sum(tally.loss_sum for tally in words) / sum(tally.labels for tally in words)
    by_hand += sum(weight.get(head, 1.0) * tally.loss for head, tally in named.items())
    assert len(parts) == len(HEADS)
    assert first["loss"] == pytest.approx(by_hand)
    assert last["loss"] < first["loss"] - 1
    assert math.isnan(first["tallies"][0, "grade"].correct)
    assert first["tallies"][0, "grade"].accuracy is None


def test_accuracy_is_the_share_of_first_choices() -> None:
    encoder, batch = headed().eval(), pad(rich_rows(), pad_id=0)
    found = evaluate(encoder, feed_of_rows(rich_rows(), times=2), options_of())
    with torch.no_grad():
        hidden = encoder(batch.ids, batch.positions, batch.segments, batch.slots)[0].flatten(0, 1)
        for head, scores in (("lm", encoder.logits), ("tag", lambda states: encoder.scores("tag", states))):
            wanted = batch.labels[head]
            right = scores(hidden[wanted.slots]).argmax(-1) == wanted.targets
            for group in (0, 1) if head == "lm" else (0,):
                mine = right if head == "tag" else right[wanted.group == group]
                assert found[group, head].accuracy == pytest.approx(float(mine.float().mean()))
                assert found[group, head].labels == 2 * len(mine)


def test_accumulated_batches_give_the_step_of_one_large_one() -> None:
    def without(example: Example, frame: Frame, random: np.random.Generator) -> Row:
        row = rich(example, frame, random)
        return replace(row, labels={head: known for head, known in row.labels.items() if head != "contrastive"})

    small, large = headed(), headed()
    few = replace(rich_feed(12, 4), objective=without)
    whole = replace(rich_feed(12, 12), objective=without)
    left = run(small, few, options_of(steps=2, accumulate=3, warmup=0))
    right = run(large, whole, options_of(steps=2, accumulate=1, warmup=0))
    for few_, whole_ in zip(left, right, strict=True):
        assert few_["loss"] == pytest.approx(whole_["loss"], abs=1e-5)
        labels = [{place: tally.labels for place, tally in step["tallies"].items()} for step in (few_, whole_)]
        assert labels[0] == labels[1]
    ours, theirs = weights(small), weights(large)
    for name in ours.keys() - {"extra.answer.dense.bias"}:  # a softmax does not see it: its gradient is all rounding
        torch.testing.assert_close(ours[name], theirs[name], atol=1e-5, rtol=1e-5)


def test_going_on_gives_the_same_bits() -> None:
    options = options_of(steps=6, accumulate=2)
    straight = headed(dropout=0.1)
    expected = run(straight, rich_feed(20), options)
    first = headed(dropout=0.1)
    optimizer = optimizer_of(first, options)
    steps = train(first, optimizer, rich_feed(20), options)
    done = [next(steps) for _ in range(3)]
    moments = {name: tensor.clone() for name, tensor in optimizer_tensors(first, optimizer).items()}
    second = headed(dropout=0.1, seed=9)
    second.load_state_dict(weights(first))
    fresh = optimizer_of(second, options)
    load_optimizer(second, fresh, moments)
    done += list(train(second, fresh, rich_feed(20), options, start=done[-1].after))
    # A measure has no accuracy, and what is no number is not equal to itself.
    assert str([step._replace(seconds=0)._asdict() for step in done]) == str(expected)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(
        weights(straight).values(), weights(second).values(), strict=True))  # fmt: skip


def test_one_head_has_the_loss_that_it_had() -> None:
    encoder, feed = tiny_encoder(), feed_of()
    (step,) = train(encoder, optimizer_of(encoder, options_of(steps=1)), feed, options_of(steps=1))
    ((place, tally),) = step.tallies.items()
    assert (place, tally.labels) == ((0, LANGUAGE_MODEL), step.labels)
    assert tally.loss_sum / step.labels == step.loss
    assert 0 <= tally.correct <= tally.labels


def test_the_validation_loss_weighs_the_heads() -> None:
    encoder, batch = headed(), pad(rich_rows(), pad_id=0)
    options = options_of(head_weights=dict.fromkeys(ALL - {"topic"}, 0.0))
    wanted = batch.labels["topic"]
    with torch.no_grad():
        hidden = encoder.eval()(batch.ids, batch.positions, batch.segments, batch.slots)[0].flatten(0, 1)
        expected = functional.cross_entropy(encoder.scores("topic", hidden[wanted.slots]), wanted.targets)
    assert evaluate_loss(encoder, feed_of_rows(rich_rows()), options) == pytest.approx(float(expected), rel=1e-5)


def test_bfloat16_is_near() -> None:
    encoder, batch = headed().train(), pad(rich_rows(), pad_id=0)
    exact = {place: values.tolist() for place, values in score(encoder, batch, Scoring()).items()}
    near = {place: values.detach() for place, values in score(encoder, batch, Scoring(precision="bfloat16")).items()}
    assert near.keys() == exact.keys()
    for place, (loss, _) in exact.items():
        assert float(near[place][0]) == pytest.approx(loss, rel=0.05, abs=0.1)


# ------------------------------------------------------------------------------------------------ one head at a time


def targets(values: list[int], aside: list[int] | None = None) -> Targets:
    beside = None if aside is None else torch.tensor(aside)[:, None]
    return Targets(torch.arange(len(values)), torch.tensor(values), None, beside)


def test_an_answer_is_chosen_among_the_slots_of_its_example() -> None:
    scores = torch.tensor([[2.0, 0.0], [1.0, 3.0], [0.0, 1.0], [5.0, 5.0], [0.0, 0.0]])
    wanted = targets([BEGINS, ENDS, 0, 0, BEGINS | ENDS], [7, 7, 7, 30, 30])
    losses, correct = span_losses(scores, wanted)
    start, end, other = scores[:3, 0], scores[:3, 1], scores[3:, 0]
    first = -(start.log_softmax(0)[0] + end.log_softmax(0)[1]) / 2
    torch.testing.assert_close(losses[:3].sum(), first)
    torch.testing.assert_close(losses[3:].sum(), -other.log_softmax(0)[1])
    assert correct.tolist() == [True, False, False, False, False]


def test_vectors_are_compared_with_all_but_themselves() -> None:
    vectors = functional.normalize(torch.randn(5, 4, generator=torch.Generator().manual_seed(1)), dim=-1)
    losses, correct = contrastive_losses(vectors, targets([8, 9, 8, 9, 5]))
    for mine, partner in ((0, 2), (2, 0), (1, 3), (3, 1)):
        others = [index for index in range(5) if index != mine]
        similar = 30 * vectors[others] @ vectors[mine]
        torch.testing.assert_close(losses[mine], -similar.log_softmax(0)[others.index(partner)])
        assert bool(correct[mine]) == (others[int(similar.argmax())] == partner)
    assert losses[4] == 0
    assert not correct[4]


def test_a_tally_of_nothing_divides_by_nothing() -> None:
    assert (Tally(0.0, 0, 0.0).loss, Tally(0.0, 0, 0.0).accuracy) == (0.0, 0.0)
    assert step_loss({(0, "answer"): Tally(0.0, 0, 0.0)}, {}) == 0.0
