"""Block masks: the same attention as under the dense mask, and who may train with them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_training import FRAME, feed_of, optimizer_of, options_of, tiny_encoder
from torch.nn.attention import flex_attention

from unilmctl.errors import ModelError, UsageError
from unilmctl.model import ModelConfig
from unilmctl.model.blocks import require_blocks
from unilmctl.objectives import build
from unilmctl.rows import LANGUAGE_MODEL, Example, pack_into, pad
from unilmctl.training import train

GPU = torch.device("cuda")


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("objective", ["pseudo", "masked", "causal"])
def test_blocks_see_what_the_dense_mask_sees(objective: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flex_attention, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)  # it would trace itself first
    random = np.random.default_rng(3)
    made = build(objective)
    sizes = [(4, 3), (9, 1), (2, 6), (7, 5), (1, 1)]
    rows = [made(Example(random.integers(5, 24, s), random.integers(5, 24, t)), FRAME, random) for s, t in sizes]
    batch = pad(pack_into(rows, 36), pad_id=0, length=40)
    encoder = tiny_encoder().eval().requires_grad_(requires_grad=False)  # the processor's kernel has no backward pass
    arguments = (batch.ids, batch.positions, batch.segments, batch.slots)
    real = batch.slots.document >= 0
    dense = encoder(*arguments)[0]
    chosen = encoder(*arguments, batch.labels[LANGUAGE_MODEL].slots)[0]
    encoder.blocks = True
    torch.testing.assert_close(encoder(*arguments)[0][real], dense[real], atol=1e-5, rtol=1e-5)
    found = encoder(*arguments, batch.labels[LANGUAGE_MODEL].slots)[0]
    torch.testing.assert_close(found, chosen, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "block_masks: attention dropout is 0.1, and this kernel drops nothing"),
        ({"attention_dropout": 0.0, "relative_buckets": 8}, "block_masks: scores of this model depend on distances"),
        ({"attention_dropout": 0.0, "position": "relative"}, "block_masks: scores of this model depend on distances"),
        ({"attention_dropout": 0.0, "global_every": 3}, "block_masks: scores of this model depend on distances"),
    ],
)
def test_models_that_cannot(changes: dict[str, object], message: str) -> None:
    config = replace(ModelConfig(vocabulary=24), **changes)  # type: ignore[arg-type]
    with pytest.raises(ModelError) as caught:
        require_blocks(config, GPU)
    assert caught.value.message == message


def test_who_can_and_a_processor() -> None:
    require_blocks(ModelConfig(vocabulary=24, attention_dropout=0.0, position="rotary"), GPU)
    encoder, options = tiny_encoder(), options_of(block_masks=True)
    with pytest.raises(UsageError, match="^block_masks: a processor cannot train with them$"):
        next(train(encoder, optimizer_of(encoder, options), feed_of(), options))
