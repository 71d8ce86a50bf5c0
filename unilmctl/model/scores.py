"""The parameters of heads beside the language model's (`heads` says what they are).

Shapes: N slots, D hidden width, C classes.
"""

from torch import Tensor, nn

from unilmctl.errors import ModelError
from unilmctl.model.config import ModelConfig
from unilmctl.model.heads import NEXT_SENTENCE, HeadConfig
from unilmctl.model.layers import Dropout


class Scores(nn.Module):
    """A score for each class from a state: [N, D] gives [N, C]."""

    def __init__(self, config: ModelConfig, classes: int) -> None:
        super().__init__()
        self.dropout = Dropout(config.dropout)
        self.dense = nn.Linear(config.hidden, classes)

    def forward(self, hidden: Tensor) -> Tensor:
        """[N, D] gives [N, C]."""
        result: Tensor = self.dense(self.dropout(hidden))
        return result


def build_head(config: ModelConfig, head: HeadConfig) -> nn.Module:
    """The parameters of a head that are its own."""
    if head.kind in ("class", "token"):
        return Scores(config, head.classes)
    raise ModelError(f"head '{head.name}': kind '{head.kind}' is not built")


def own_heads(config: ModelConfig) -> dict[str, nn.Module]:
    """The heads of a configuration that have parameters of their own, by name."""
    return {head.name: build_head(config, head) for head in config.heads_extra if head.name != NEXT_SENTENCE}
