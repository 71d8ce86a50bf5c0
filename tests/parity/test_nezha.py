"""NEZHA, which transformers no longer has, against its formula written out: one query, one key, one distance at a time.

e_ij = q_i (k_j + a_ij) / sqrt(d),  z_i = sum_j softmax(e_i)_j (v_j + a_ij),  a_ij: sinusoids of clip(j - i, -k, k) + k.
(Wei et al. 2019, arXiv 1909.00204, equations 3 to 6.)

Shapes: T tokens, d width of a head.
"""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from unilmctl.model import Encoder, ModelConfig
from unilmctl.visibility import FOREVER, Slots

Floats = NDArray[np.float64]
FURTHEST = 5


def random_nezha(vocabulary: int = 31) -> Encoder:
    sizes = {"hidden": 24, "layers": 2, "heads": 3, "feedforward": 40, "positions": 64}
    encoder = Encoder(
        ModelConfig(vocabulary=vocabulary, family="nezha", position="relative", relative_distance=FURTHEST, **sizes)
    )
    generator = torch.Generator().manual_seed(5)
    for tensor in encoder.state_dict().values():
        tensor.copy_(0.3 * torch.randn(tensor.shape, generator=generator))
    return encoder.eval()


def vector(distance: int, width: int) -> Floats:
    place = min(max(distance, -FURTHEST), FURTHEST) + FURTHEST
    angles = [place / 10000 ** (2 * (index // 2) / width) for index in range(width)]
    return np.array([math.cos(a) if index % 2 else math.sin(a) for index, a in enumerate(angles)])


def normalised(values: Floats, weights: dict[str, Floats], name: str) -> Floats:
    centred = values - values.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12)
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def linear(values: Floats, weights: dict[str, Floats], name: str) -> Floats:
    return values @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def attended(fused: Floats, positions: list[int], times: list[int], width: int) -> Floats:
    """Queries, keys, values of one head side by side [T, 3 * d] give [T, d]; a token sees none of a later time."""
    query, key, value = fused[:, :width], fused[:, width : 2 * width], fused[:, 2 * width :]
    rows = []
    for i, here in enumerate(positions):
        seen = [j for j, time in enumerate(times) if time <= times[i]]
        vectors = {j: vector(positions[j] - here, width) for j in seen}
        weights = np.exp([query[i] @ (key[j] + vectors[j]) / math.sqrt(width) for j in seen])
        rows.append(sum(w / weights.sum() * (value[j] + vectors[j]) for w, j in zip(weights, seen, strict=True)))
    return np.array(rows)


def written_out(encoder: Encoder, ids: list[int], positions: list[int], times: list[int]) -> Floats:
    """Logits [T, V] of one row in segment 1."""
    weights = {name: tensor.double().numpy() for name, tensor in encoder.state_dict().items()}
    hidden, width = weights["embeddings.word.weight"][ids] + weights["embeddings.segment.weight"][1], 8
    hidden = normalised(hidden, weights, "embeddings.norm")
    for layer in ("layers.0", "layers.1"):
        parts = linear(hidden, weights, f"{layer}.attention.qkv").reshape(len(ids), 3, 3, width)
        heads = [attended(parts[:, :, head].reshape(len(ids), -1), positions, times, width) for head in range(3)]
        mixed = linear(np.concatenate(heads, 1), weights, f"{layer}.attention.output")
        hidden = normalised(hidden + mixed, weights, f"{layer}.attention.norm")
        inner = torch.nn.functional.gelu(torch.from_numpy(linear(hidden, weights, f"{layer}.inner"))).numpy()
        hidden = normalised(hidden + linear(inner, weights, f"{layer}.outer"), weights, f"{layer}.norm")
    head = torch.nn.functional.gelu(torch.from_numpy(linear(hidden, weights, "head.dense"))).numpy()
    return normalised(head, weights, "head.norm") @ weights["embeddings.word.weight"].T + weights["head.bias"]


@pytest.mark.parametrize("causal", [False, True])
def test_logits_are_those_of_the_formula(causal: bool) -> None:
    encoder = random_nezha()
    ids = [1, 7, 30, 4, 9, 9, 2, 15, 3, 8, 21, 6]
    positions = [0, 1, 2, 3, 4, 5, 6, 7, 7, 8, 8, 20]
    times = list(range(len(ids))) if causal else [0] * len(ids)
    row = [torch.tensor([one]) for one in (ids, positions, [1] * len(ids))]
    slots = Slots(torch.zeros_like(row[0]), torch.tensor([times]), torch.full_like(row[0], FOREVER))
    with torch.no_grad():
        logits = encoder.logits(encoder(*row, slots)[0])[0]
    expected = torch.from_numpy(written_out(encoder, ids, positions, times))
    torch.testing.assert_close(logits.double(), expected, rtol=0, atol=1e-5)
