"""Where our time goes: the matrix products alone, and a profile.

Shapes: N sentences, B beams, R = N x B rows, S source tokens, L columns that a step attends to, A heads, d head width.
"""

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from decode_bench.work import Work
from unilmctl.decoding import Decoder

GROUP = 1024
"""Source tokens that are encoded at a time."""

REPEATS = 5

KINDS = {
    "matrix products": ("linear", "addmm", "mm", "matmul"),
    "attention": ("bmm", "baddbmm", "attention", "softmax"),
}
"""Which operators are what, by parts of their names; attention is looked for first."""


def products(decoder: Decoder, work: Work) -> dict[str, float]:
    """CPU seconds of the products of weights alone (`weights`), and with those of attention (`all`).

    They have the shapes, number format and packing of the decoder, and none finds its weights in the processor's
    cache: the layers' weights take their turns. In int8 a product includes the rounding of its input.
    """
    batch, source = len(work.lengths), work.lengths[0]
    slots = 2 if decoder.reading == "mask" else 1
    rows, together = batch * work.beam, max(1, GROUP // source)
    groups = [min(together, batch - start) for start in range(0, batch, together)]
    steps = work.tokens - 1
    weights = steps * _linears(decoder, rows * slots, rows) + _linears(decoder, batch, batch)
    weights += sum(_linears(decoder, group * source, 0) for group in groups)
    columns = source + work.beam * work.tokens // 2
    attention = steps * _attention(decoder, batch, work.beam * slots, columns)
    attention += sum(_attention(decoder, group, source, source) for group in groups)
    return {"weights": weights, "all": weights + attention}


def _linears(decoder: Decoder, rows: int, predicted: int) -> float:
    """Seconds of all layers' products for `rows` tokens, and of the head's for `predicted` of them."""
    config, kind = decoder.encoder.config, decoder.encoder.head.bias.dtype
    chain = [child for child in decoder.encoder.layers.modules() if _multiplies(child)]
    wide = {id(layer.outer) for layer in decoder.encoder.layers}
    inputs = {width: torch.randn(rows, width).to(kind) for width in (config.hidden, config.feedforward)}
    few = torch.randn(max(predicted, 1), config.hidden).to(kind)
    head = [child for child in decoder.encoder.head.modules() if _multiplies(child)] if predicted else []

    def once() -> None:
        for child in chain:
            child(inputs[config.feedforward if id(child) in wide else config.hidden])
        for child in head:
            child(few)

    return _median_seconds(once)


def _multiplies(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or hasattr(module, "packed")


def _attention(decoder: Decoder, sentences: int, queries: int, columns: int) -> float:
    """Seconds of both products of attention in all layers: queries [N, A, Q, d], keys and values [N, A, L, d]."""
    config, kind = decoder.encoder.config, decoder.memory or decoder.encoder.head.bias.dtype
    width = config.hidden // config.heads
    query = torch.randn(sentences * config.heads, queries, width).to(kind)
    tables = [torch.randn(2, sentences * config.heads, columns, width).to(kind) for _ in range(config.layers)]

    def once() -> None:
        for keys, values in tables:
            query @ keys.transpose(1, 2) @ values

    return _median_seconds(once)


@torch.inference_mode()
def _median_seconds(call: Callable[[], None]) -> float:
    call()
    seconds = []
    for _ in range(REPEATS):
        began = time.process_time()
        call()
        seconds.append(time.process_time() - began)
    return sorted(seconds)[REPEATS // 2]


def profile(decoder: Decoder, decode: Callable[[Callable, Callable], None]) -> dict[str, float]:
    """Shares of the time of `decode(start, step)`: matrix products, attention, search, and the rest of the model."""
    inside = [0.0]  # CPU seconds in the model

    def timed(method: Callable) -> Callable:
        def call(*arguments: object) -> tuple[Tensor, object]:
            began = time.process_time()
            result: tuple[Tensor, object] = method(*arguments)
            inside[0] += time.process_time() - began
            return result

        return call

    began = time.process_time()
    decode(timed(decoder.start), timed(decoder.step))
    search = 1 - inside[0] / (time.process_time() - began)
    seconds = dict.fromkeys((*KINDS, "rest of the model"), 0.0)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as found:
        decode(_marked(decoder.start), _marked(decoder.step))
    for event in found.events():
        if _in_model(event):
            seconds[_kind(event.name)] += event.self_cpu_time_total
    total = sum(seconds.values())
    return {kind: part / total * (1 - search) for kind, part in seconds.items()} | {"search": search}


def _marked(method: Callable) -> Callable:
    def call(*arguments: object) -> object:
        with torch.profiler.record_function("model"):
            return method(*arguments)

    return call


def _in_model(event: object) -> bool:
    while event is not None:
        if event.name == "model":  # type: ignore[attr-defined]
            return True
        event = event.cpu_parent  # type: ignore[attr-defined]
    return False


def _kind(name: str) -> str:
    """What an operator does, by its name."""
    if any(part in name for part in KINDS["attention"]):
        return "attention"
    return "matrix products" if any(part in name for part in KINDS["matrix products"]) else "rest of the model"
