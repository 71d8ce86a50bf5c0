"""On a GPU: tokens a second of our training, and what share of the GPU's own speed at matrices that is.

The work of a step is what the model's definition asks for (2 operations for each weight and token, those of attention,
the vocabulary for labelled slots, and twice as much again for the gradient), not what the program does: slots and
blocks that it leaves out make the share larger. The GPU's speed is that of one large product in bfloat16.

Shapes: B rows of T tokens with N labels in all; D hidden width, F feed-forward width, V vocabulary.
"""

import time
from collections.abc import Iterator
from statistics import median

import numpy as np
import torch

from unilmctl.model import Encoder, ModelConfig
from unilmctl.objectives import build
from unilmctl.rows import Example, Frame, Ints
from unilmctl.training import Feed, TrainOptions, build_optimizer, train

SOURCE, TARGET, ROWS, STEPS, FIRST = 464, 48, 32, 16, 6
MODELS = {
    "BERT-base": ModelConfig(vocabulary=30522),
    "BERT-large": ModelConfig(vocabulary=30522, hidden=1024, layers=24, heads=16, feedforward=4096),
}
SIDE = 8192
FRAME = Frame(pad=0, start=101, separator=102, mask=103, vocabulary=30522, max_source=SOURCE, max_target=TARGET)


def lines() -> Iterator[str]:
    """What was measured, a line for each model; or that there is no GPU."""
    if not torch.cuda.is_available():
        yield "no GPU here: nothing was measured on one"
        return
    device = torch.device("cuda")
    peak = _products(device)
    yield f"{torch.cuda.get_device_name()}: {peak / 1e12:.0f} TFLOP/s in bfloat16 products of side {SIDE}"
    for name, config in MODELS.items():
        tokens, work = _trained(config, device)
        memory = torch.cuda.max_memory_allocated() / 2**30
        yield f"{name}: {tokens:,.0f} tokens/s, {work / peak:.0%} of that speed, {memory:.1f} GiB"


def operations(config: ModelConfig, *, rows: int, tokens: int, labels: int) -> int:
    """Floating-point operations of a forward pass over B rows of T tokens, with N labels."""
    width, inner = config.hidden, config.feedforward
    weights = 4 * width * width + 2 * width * inner
    layer = 2 * rows * tokens * weights + 4 * rows * tokens * tokens * width
    return config.layers * layer + 2 * labels * (width * width + width * config.vocabulary)


def _trained(config: ModelConfig, device: torch.device) -> tuple[float, float]:
    """Tokens of examples and operations a second, in the median step."""
    torch.cuda.reset_peak_memory_stats()
    encoder = Encoder(config)
    encoder.initialize()
    encoder.to(device)
    options = TrainOptions(steps=STEPS, precision="bfloat16", warmup=0, label_smoothing=0.1)
    random = np.random.default_rng(1)
    examples = [
        Example(*(random.integers(1000, 30000, size) for size in (SOURCE - 2, TARGET - 1))) for _ in range(ROWS)
    ]
    feed = Feed(examples, build("pseudo"), FRAME, _one_batch, 1)
    steps = list(train(encoder, build_optimizer(encoder, options), feed, options))[FIRST:]
    seconds = median(step.seconds for step in steps)
    work = 3 * operations(config, rows=ROWS, tokens=SOURCE + 2 * TARGET, labels=steps[0].labels)
    return ROWS * (SOURCE + TARGET) / seconds, work / seconds


def _one_batch(epoch: int) -> list[Ints]:
    return [np.arange(ROWS)]


def _products(device: torch.device) -> float:
    """Operations a second of a product of two large matrices in bfloat16."""
    left, right = (torch.randn(SIDE, SIDE, dtype=torch.bfloat16, device=device) for _ in range(2))
    took = []
    for _ in range(8):
        torch.cuda.synchronize()
        began = time.perf_counter()
        torch.mm(left, right)
        torch.cuda.synchronize()
        took.append(time.perf_counter() - began)
    return 2 * SIDE**3 / median(took[3:])
