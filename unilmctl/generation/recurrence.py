"""Log-probabilities in a text of any length, in bounded memory: piece by piece, each reading the one before it.

What is carried over are keys and values, as in Transformer-XL (Dai et al. 2019, arXiv 1901.02860): layer by layer,
tokens know of text that lies further and further back. In terms of the rule, a token of piece p can be read until
piece p + 2 begins.

Shapes: T tokens of a row, M of a piece, X labels of a piece.
"""

import torch
from torch import Tensor

from unilmctl.model import Cache, Encoder
from unilmctl.rows import LANGUAGE_MODEL, Ints, Row
from unilmctl.visibility import Slots


@torch.inference_mode()
def scores_in_pieces(encoder: Encoder, row: Row, memory: int) -> list[float]:
    """The log-probability of each label of a row that is written from left to right, in pieces of `memory` tokens."""
    bias, labels, found = encoder.head.bias, row.labels[LANGUAGE_MODEL], []
    cache = Cache.empty(encoder.config, 1, 2 * memory, dtype=bias.dtype, device=bias.device)
    for first in range(0, len(row), memory):
        piece = slice(first, first + memory)

        def cut(column: Ints, piece: slice = piece) -> Tensor:
            return torch.from_numpy(column[piece])[None].to(bias.device)

        slots = Slots(cut(row.document), cut(row.time), cut(row.until))
        ids = cut(row.ids)
        size = ids.shape[1]
        hidden, _ = encoder.step(
            ids, cut(row.positions), cut(row.segments), slots, cache, kept=size, asked=size
        )  # [1, M, D]
        cache.seen &= (cache.positions[:1] >= first)[:, None]
        mine = (labels.slots >= first) & (labels.slots < first + memory)
        wanted, targets = (torch.from_numpy(part[mine]).to(bias.device) for part in (labels.slots, labels.targets))
        logits = encoder.logits(hidden[0, wanted - first]).float()  # [X, V]
        found += (logits.gather(1, targets[:, None])[:, 0] - logits.logsumexp(-1)).tolist()
    return found
