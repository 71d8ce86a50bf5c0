"""ELECTRA's step: what the generator draws, what the detector learns from it, and the embeddings that both read."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_weights_heads import saved
from tiny_checkpoints import same
from tiny_training import FRAME, examples, feed_of, optimizer_of, options_of, tiny_encoder
from torch import Tensor
from torch.nn import functional

from unilmctl.errors import ModelError, RecipeError
from unilmctl.model import Encoder, HeadConfig
from unilmctl.objectives import build
from unilmctl.rows import LANGUAGE_MODEL, Batch, Example, pack, pad
from unilmctl.training import Feed, evaluate, load_optimizer, optimizer_tensors, train
from unilmctl.training.averages import Averages, shown
from unilmctl.training.distributed import ALONE
from unilmctl.training.replaced import DETECTING, drawn, generated, with_replacements
from unilmctl.training.scoring import Scoring, score
from unilmctl.training.sharding import shard
from unilmctl.weights import load_model
from unilmctl.weights.adapting import generator_of, with_generator
from unilmctl.weights.folder import load_generator

WEIGHTS = {"replaced": DETECTING}


def electra(*, dropout: float = 0.0, seed: int = 1) -> Encoder:
    config = replace(tiny_encoder(dropout=dropout).config, embedding=12, family="electra")
    config = config.with_heads(HeadConfig("replaced", "replaced"))
    encoder = Encoder(replace(config, generator=config.smaller(0.5)))
    encoder.initialize(torch.Generator().manual_seed(seed))
    return encoder


def replaced_feed(count: int = 12) -> Feed[Example]:
    return replace(feed_of(count), objective=build("replaced"))


def batch_of(count: int = 4) -> Batch:
    rows = [build("replaced")(one, FRAME, np.random.default_rng(7)) for one in examples(count)]
    return pad(rows, pad_id=0, length=16)


def test_a_draw_follows_its_distribution() -> None:
    logits = torch.tensor([0.0, 1.0, 2.0, -1.0]).repeat(20_000, 1)
    torch.manual_seed(1)
    share = torch.bincount(drawn(logits), minlength=4) / 20_000
    torch.testing.assert_close(share, logits[0].softmax(0), atol=0.015, rtol=0)


def test_the_detector_reads_what_was_drawn_and_calls_the_right_token_the_texts_own() -> None:
    batch = batch_of()
    wanted = batch.labels[LANGUAGE_MODEL]
    tokens = wanted.targets.clone()
    tokens[1] = (tokens[1] + 1) % 24
    made = with_replacements(batch, tokens)
    assert made.labels.keys() == {"replaced"}
    assert torch.equal(made.ids.flatten()[wanted.slots], tokens)
    others = torch.ones(made.ids.numel(), dtype=torch.bool).index_fill(0, wanted.slots, value=False)
    assert torch.equal(made.ids.flatten()[others], batch.ids.flatten()[others])
    false = made.labels["replaced"].slots[made.labels["replaced"].targets == 1]
    assert false.tolist() == [int(wanted.slots[1])]
    assert len(made.labels["replaced"].targets) == batch.tokens


def test_both_read_one_table_and_have_a_projection_each() -> None:
    encoder = electra()
    names = [name for name, _ in encoder.named_parameters()]
    assert encoder.generator.embeddings.word is encoder.embeddings.word
    assert set(names) == set(encoder.state_dict())
    assert {name for name in names if name.startswith("generator.embeddings.")} == {
        "generator.embeddings.project.weight", "generator.embeddings.project.bias"
    }  # fmt: skip
    assert encoder.generator.config.hidden == 8


def gradients(encoder: Encoder, batch: Batch) -> dict[str, Tensor]:
    encoder.zero_grad()
    torch.manual_seed(3)
    counts = {head: len(targets.targets) for head, targets in batch.labels.items()}
    score(encoder, batch, Scoring(), {"lm": 1 / counts["lm"], "replaced": DETECTING / counts["replaced"]})
    return {name: part.grad.clone() for name, part in encoder.named_parameters() if part.grad is not None}


def test_the_gradient_is_that_of_the_two_losses() -> None:
    encoder, batch = electra().train(), batch_of()
    found = gradients(encoder, batch)
    torch.manual_seed(3)
    read = generated(encoder.generator, batch, smoothing=0.0, precision="float32", scale=None)[1]
    encoder.zero_grad()
    words, real = batch.labels["lm"], read.labels["replaced"]
    place = (batch.positions, batch.segments, batch.slots)
    hidden = encoder.generator(batch.ids, *place)[0].flatten(0, 1)
    loss = functional.cross_entropy(encoder.generator.logits(hidden[words.slots]), words.targets)
    states = encoder(read.ids, *place)[0].flatten(0, 1)[real.slots]
    scores = encoder.scores("replaced", states)
    loss = loss + DETECTING * functional.binary_cross_entropy_with_logits(scores, real.targets.float())
    loss.backward()
    expected = {name: part.grad for name, part in encoder.named_parameters() if part.grad is not None}
    assert found.keys() == expected.keys()
    assert not any(name.startswith("head.") for name in found)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, atol=1e-4, rtol=1e-4)


def test_packed_rows_are_read_as_rows() -> None:
    encoder = electra().eval()
    rows = [build("replaced")(one, FRAME, np.random.default_rng(7)) for one in examples(3)]
    words = [score(encoder, pad(made, pad_id=0), Scoring())[0, "lm"] for made in (rows, [pack(rows)])]
    torch.testing.assert_close(*words)


def test_generator_and_detector_learn() -> None:
    encoder, options = electra(), options_of(steps=60, head_weights=WEIGHTS)
    steps = list(train(encoder, optimizer_of(encoder, options), replaced_feed(), options))
    first, last = steps[0].tallies, steps[-1].tallies
    assert first.keys() == {(0, "lm"), (0, "replaced")}
    assert last[0, "lm"].loss < first[0, "lm"].loss
    assert last[0, "replaced"].loss < first[0, "replaced"].loss
    assert steps[0].loss == pytest.approx(first[0, "lm"].loss + DETECTING * first[0, "replaced"].loss)


def test_going_on_from_what_was_saved_gives_the_same_bits(tmp_path: Path) -> None:
    options = options_of(steps=6, accumulate=2, head_weights=WEIGHTS)
    straight = electra(dropout=0.1)
    list(train(straight, optimizer_of(straight, options), replaced_feed(20), options))
    first = electra(dropout=0.1)
    optimizer = optimizer_of(first, options)
    steps = train(first, optimizer, replaced_feed(20), options)
    done = [next(steps) for _ in range(3)]
    moments = {name: tensor.clone() for name, tensor in optimizer_tensors(first, optimizer).items()}
    folder = saved(tmp_path, first)
    second = load_generator(folder, load_model(folder).encoder)
    assert second.config == first.config
    assert same(first, second)
    fresh = optimizer_of(second, options)
    load_optimizer(second, fresh, moments)
    list(train(second, fresh, replaced_feed(20), options, start=done[-1].after))
    assert same(straight, second)


def test_the_folder_is_the_detectors_and_the_generator_a_model_of_its_own(tmp_path: Path) -> None:
    encoder = electra()
    folder = saved(tmp_path, encoder)
    alone = load_model(folder).encoder
    assert alone.generator is None
    assert alone.config == replace(encoder.config, generator=None)
    small, ids = load_model(folder / "generator").encoder, torch.randint(5, 24, (1, 6))
    batch = batch_of()
    place = (batch.positions[:1, :6], batch.segments[:1, :6], batch.slots.select(slice(6)))
    place = (place[0], place[1], type(batch.slots)(*(part[:1] for part in place[2])))
    with torch.no_grad():
        assert torch.equal(small(ids, *place)[0], encoder.eval().generator(ids, *place)[0])
    assert same(generator_of(encoder), small)


def test_averages_are_of_the_shared_table_too() -> None:
    encoder = electra()
    averages = Averages(encoder, 0.5)
    with torch.no_grad():
        encoder.embeddings.word.weight.add_(1)
    plain = shown(encoder, averages)
    assert torch.equal(plain.generator.embeddings.word.weight, averages.weights["embeddings.word.weight"])


def test_validation_draws_the_same_every_time() -> None:
    encoder, feed = electra(), replaced_feed(8)
    found = evaluate(encoder, feed, options_of())
    assert found
    assert evaluate(encoder, feed, options_of()) == found


def test_what_does_not_go_together_is_refused() -> None:
    encoder = electra()
    with pytest.raises(ModelError) as caught:
        with_generator(encoder, tiny_encoder())
    assert caught.value.message == "a generator has other embeddings than the model whose embeddings it shall borrow"
    with pytest.raises(RecipeError, match="a model with a generator cannot be shared out"):
        shard(encoder, ALONE)
