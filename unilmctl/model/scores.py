"""The parameters of heads beside the language model's (`heads` says what they are).

Shapes: N slots, D hidden width, E width of the embeddings, C classes, V vocabulary.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from unilmctl.model.config import ModelConfig
from unilmctl.model.heads import NEXT_SENTENCE, OWN_KINDS, HeadConfig
from unilmctl.model.layers import ACTIVATION, Dropout, norm

OFFSETS = 20
"""Places in a span that a boundary head tells apart; all further ones are one."""

OFFSET_WIDTH = 200


class Scores(nn.Module):
    """Numbers from a state: [N, D] gives [N, C]."""

    def __init__(self, config: ModelConfig, classes: int) -> None:
        super().__init__()
        self.dropout = Dropout(config.dropout)
        self.dense = nn.Linear(config.hidden, classes)

    def forward(self, hidden: Tensor) -> Tensor:
        """[N, D] gives [N, C]."""
        result: Tensor = self.dense(self.dropout(hidden))
        return result


class Detector(nn.Module):
    """ELECTRA's discriminator: one number a slot, above 0 for a token that was put there (arXiv 2003.10555)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden, config.hidden)
        self.dense_prediction = nn.Linear(config.hidden, 1)
        self.activation = ACTIVATION[config.activation]

    def forward(self, hidden: Tensor) -> Tensor:
        """[N, D] gives [N, 1]."""
        result: Tensor = self.dense_prediction(self.activation(self.dense(hidden)))
        return result


class Boundary(nn.Module):
    """SpanBERT's span boundary objective (arXiv 1907.10529, section 3.2): a token of a span from the span's neighbours.

    The output matrix is that of the words, with a bias of its own.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.position = nn.Embedding(OFFSETS, OFFSET_WIDTH)
        self.inner = nn.Linear(2 * config.hidden + OFFSET_WIDTH, config.hidden)
        self.inner_norm = norm(config, config.hidden)
        self.outer = nn.Linear(config.hidden, config.embedding_size)
        self.outer_norm = norm(config, config.embedding_size)
        self.bias = nn.Parameter(torch.zeros(config.vocabulary))

    def forward(self, left: Tensor, right: Tensor, offset: Tensor, words: Tensor) -> Tensor:
        """The neighbours' states [N, D], the place in the span [N] and the words [V, E] give [N, V]."""
        joined = torch.cat((left, right, self.position(offset.clamp(max=OFFSETS - 1))), -1)
        hidden = self.inner_norm(functional.gelu(self.inner(joined)))
        return functional.linear(self.outer_norm(functional.gelu(self.outer(hidden))), words, self.bias)


def build_head(config: ModelConfig, head: HeadConfig) -> nn.Module:
    """The parameters of a head that are its own."""
    if head.kind == "replaced":
        return Detector(config)
    if head.kind == "boundary":
        return Boundary(config)
    return Scores(config, {"regression": 1, "span": 2}.get(head.kind, head.classes))


def own_heads(config: ModelConfig) -> dict[str, nn.Module]:
    """The heads of a configuration that have parameters of their own, by name."""
    own = [head for head in config.heads_extra if head.kind in OWN_KINDS and head.name != NEXT_SENTENCE]
    return {head.name: build_head(config, head) for head in own}
