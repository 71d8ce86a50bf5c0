"""What a model is made of: one configuration for every family of BERT-type encoders."""

from dataclasses import dataclass, replace

from unilmctl.errors import ModelError
from unilmctl.model.heads import NEXT_SENTENCE, HeadConfig

ACTIVATIONS = ("gelu", "gelu_new", "relu")

POSITIONS = ("absolute", "rotary", "interleaved", "relative", "none")
"""How a model knows positions: a learnt table; queries and keys turned (RoPE), the two numbers of a pair half a head
apart or side by side; NEZHA's fixed vectors of distances; not at all but by a relative bias."""


@dataclass(frozen=True)
class ModelConfig:
    """Sizes and switches of one encoder.

    `family` decides how the weights are named on disk, and little else (the properties below). `embedding` differs from
    `hidden` in ELECTRA and ALBERT, whose embeddings are projected. `relative_buckets` > 0 adds a bias to the scores, by
    T5's buckets, one table for all layers (UniLM 2, MPNet). `segments` may be 0: no segment table. `tasks` > 0 is
    ERNIE's table of tasks, of which the first is used. `layer_groups` > 0 are ALBERT's: the layers are cut into so many
    runs of neighbours, and those of a run are one and the same. Positions count from 0 in every family; `position` is
    one of `POSITIONS`, and with "relative" distances are told apart up to `relative_distance`.

    `prenorm` normalises what goes into each half of a layer instead of what comes out, and once more at the end; the
    first layer then takes the embeddings as they are, normalised already. `gated` multiplies the activation with as
    many linear outputs (GeGLU). Every `global_every`-th layer from the first on sees all that the rule lets it see, the
    others no further than `window` positions, and turn by `local_base` instead of `rotary_base`.

    `heads_extra` are heads beside the language model's; see `with_heads`. `inner_positions` > 0 adds a table of second
    positions (GLM). `generator` is a smaller encoder that borrows the embeddings of this one, while ELECTRA trains.
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
    position: str = "absolute"
    relative_buckets: int = 0
    relative_distance: int = 128
    tasks: int = 0
    layer_groups: int = 0
    rotary_base: float = 10_000.0
    local_base: float = 10_000.0
    global_every: int = 1
    window: int = 64
    prenorm: bool = False
    gated: bool = False
    linear_bias: bool = True
    norm_bias: bool = True
    initializer_range: float = 0.02
    pad: int = 0
    pooler: bool = False
    pair_head: bool = False
    heads_extra: tuple[HeadConfig, ...] = ()
    inner_positions: int = 0
    generator: "ModelConfig | None" = None

    def __post_init__(self) -> None:
        names = [head.name for head in self.heads_extra]
        if len(names) != len(set(names)):
            raise ModelError(f"two heads of one name: {', '.join(names)}")
        if self.activation not in ACTIVATIONS:
            raise ModelError(f"activation '{self.activation}' is not supported", f"supported: {', '.join(ACTIVATIONS)}")
        if self.position not in POSITIONS:
            raise ModelError(f"position '{self.position}' is not supported", f"supported: {', '.join(POSITIONS)}")
        if self.position == "relative" and self.relative_buckets:
            raise ModelError("a relative bias and vectors of distances do not go together")
        if self.generator is not None and self.generator.tables != self.tables:
            raise ModelError("a generator has other embeddings than the model whose embeddings it shall borrow")
        if self.hidden % self.heads:
            raise ModelError(f"hidden size {self.hidden} is not a multiple of {self.heads} attention heads")
        if self.position in ("rotary", "interleaved", "relative") and self.head_width % 2:
            raise ModelError(f"heads of width {self.head_width} cannot be divided into pairs, as their positions ask")
        if not 0 <= self.layer_groups <= self.layers:
            raise ModelError(f"{self.layers} layers cannot be shared in {self.layer_groups} groups")

    @property
    def head_width(self) -> int:
        """d = hidden / heads."""
        return self.hidden // self.heads

    def local(self, layer: int) -> bool:
        """Whether a layer sees no further than `window`."""
        return layer % self.global_every != 0

    @property
    def has_local(self) -> bool:
        """Whether any layer does."""
        return self.global_every > 1 and self.layers > 1

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
        return 2 if self.family in ("roberta", "xlm-roberta", "mpnet") else 0

    @property
    def projected(self) -> bool:
        """Whether the embeddings go through a projection to the hidden width; ALBERT's do whatever the widths."""
        return self.family == "albert" or self.embedding_size != self.hidden

    @property
    def head_activation(self) -> str:
        """These families' language-model heads use GELU whatever the layers use."""
        return (
            "gelu" if self.family in ("roberta", "xlm-roberta", "electra", "mpnet", "modernbert") else self.activation
        )

    @property
    def embedding_size(self) -> int:
        """Width of the word embeddings."""
        return self.hidden if self.embedding is None else self.embedding

    @property
    def tables(self) -> tuple[object, ...]:
        """What the embeddings are made of, up to the projection."""
        sizes = (self.vocabulary, self.positions, self.segments, self.inner_positions, self.embedding_size)
        return (*sizes, self.family, self.position, self.pad)

    def smaller(self, share: float) -> "ModelConfig":
        """A generator's configuration: as deep as this one and a share of its width, on the same embeddings."""
        heads = max(1, round(self.heads * share))
        return replace(
            self,
            hidden=heads * self.head_width,
            heads=heads,
            feedforward=max(1, round(self.feedforward * share)),
            embedding=self.embedding_size,
            pooler=False,
            pair_head=False,
            heads_extra=(),
            generator=None,
        )

    def head(self, name: str) -> HeadConfig:
        """The extra head of this name; KeyError when there is none."""
        return {head.name: head for head in self.heads_extra}[name]

    def with_heads(self, *heads: HeadConfig) -> "ModelConfig":
        """With these heads in the place of its own, and what they stand on: a pooler, BERT's pair head."""
        return replace(
            self,
            heads_extra=heads,
            pooler=self.pooler or any(head.pooled for head in heads),
            pair_head=self.pair_head or any(head.name == NEXT_SENTENCE for head in heads),
        )
