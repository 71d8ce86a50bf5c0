"""What a model is made of: one configuration for every family of BERT-type encoders."""

from dataclasses import dataclass

from unilmctl.errors import ModelError

ACTIVATIONS = ("gelu", "gelu_new", "relu")


@dataclass(frozen=True)
class ModelConfig:
    """Sizes and switches of one encoder.

    `family` only decides how the weights are named on disk. `embedding` differs from `hidden` in ELECTRA, whose
    embeddings are projected. `relative_buckets` > 0 adds UniLM 2's bias (T5's buckets, one table for all layers).
    `segments` may be 0: no segment table. Positions count from 0 in every family. `layer_groups` > 0 are ALBERT's: the
    layers are cut into so many runs of neighbours, and those of a run are one and the same.
    """

    vocabulary: int
    hidden: int = 768
    layers: int = 12
    heads: int = 12
    feedforward: int = 3072
    positions: int = 512
    segments: int = 2
    embedding: int | None = None
    family: str = "bert"
    activation: str = "gelu"
    norm_epsilon: float = 1e-12
    dropout: float = 0.1
    attention_dropout: float = 0.1
    relative_buckets: int = 0
    relative_distance: int = 128
    layer_groups: int = 0
    initializer_range: float = 0.02
    pad: int = 0
    pooler: bool = False
    pair_head: bool = False

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise ModelError(f"activation '{self.activation}' is not supported", f"supported: {', '.join(ACTIVATIONS)}")
        if self.hidden % self.heads:
            raise ModelError(f"hidden size {self.hidden} is not a multiple of {self.heads} attention heads")

        if not 0 <= self.layer_groups <= self.layers:
            raise ModelError(f"{self.layers} layers cannot be shared in {self.layer_groups} groups")

    @property
    def order(self) -> tuple[int, ...]:
        """Which of the distinct layers each step of a pass goes through."""
        if not self.layer_groups:
            return tuple(range(self.layers))
        return tuple(step * self.layer_groups // self.layers for step in range(self.layers))

    @property
    def distinct_layers(self) -> int:
        """How many layers have weights of their own."""
        return self.layer_groups or self.layers

    @property
    def reserved_positions(self) -> int:
        """Rows that the family's file keeps before position 0 and never reads for a word (RoBERTa: two)."""
        return 2 if self.family in ("roberta", "xlm-roberta") else 0

    @property
    def head_activation(self) -> str:
        """RoBERTa's and ELECTRA's language-model heads use GELU whatever the layers use."""
        return self.activation if self.family == "bert" else "gelu"

    @property
    def embedding_size(self) -> int:
        """Width of the word embeddings."""
        return self.hidden if self.embedding is None else self.embedding
