"""The sections of a recipe on pre-training: a mix of objectives on text, in one stage or several."""

from fractions import Fraction
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field

from unilmctl.recipe.rows import SpanLength
from unilmctl.recipe.section import Section
from unilmctl.recipe.training import Training
from unilmctl.recipe.values import Share, Text, Whole

TextObjective = Literal[
    "bidirectional", "left-to-right", "right-to-left", "seq2seq", "partial", "permuted", "permuted-compensated",
    "infilling", "infilling-in-place", "block-diffusion", "span-boundary", "replaced", "next-token", "pseudo", "masked",
    "causal", "custom",
]  # fmt: skip
Segments = Annotated[list[Annotated[int, Field(ge=0, lt=64)]], Field(min_length=2, max_length=2)]

SentenceTask = Literal["next-sentence", "sentence-order", "sentence-reorder", "sentence-distance"]
Pair = Literal["none", "adjacent", SentenceTask]

ALLOWED: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("seq2seq", "pseudo", "masked", "causal"), ("adjacent",)),
    **dict.fromkeys(("block-diffusion", "custom"), ("none", "adjacent")),
    "bidirectional": ("none", "adjacent", *get_args(SentenceTask)),
}
"""What a passage can be made for an objective, the default first; for all others it is `none`."""

HEADED = {"span-boundary": "boundary", "replaced": "replaced"}
"""Objectives with a head of their own."""

WITH_WINDOW = ("next-token", "causal", "custom")
"""Objectives in which every token is written at a moment of its own, so that a window has a meaning."""


def _ratio(value: Any) -> Any:
    """Takes `1/3` for a number: shares are written so."""
    try:
        return float(Fraction(value)) if isinstance(value, str) and "/" in value else value
    except (ValueError, ZeroDivisionError):
        return value


Weight = Annotated[float, BeforeValidator(_ratio)]


class Entry(Section):
    """One objective of a mix."""

    objective: TextObjective = Field(description="What is learnt from a passage; docs/masks.md draws each.")
    row: Text | None = Field(default=None, description="For `custom`: the name of one of `rows`.")
    weight: Weight = Field(
        default=1.0, gt=0, description="Share of the passages, by proportion to the others: 2 and 1, or 1/3 and 1/6."
    )
    name: Text | None = Field(default=None, description="Name in the log; null: that of the objective.")
    pair: Pair | None = Field(
        default=None,
        description="What a passage is made: `none`, one text; `adjacent`, a source and a target that goes on; "
        "or two texts whose relation [CLS] must tell. null: `adjacent` for what needs a target, else `none`.",
    )
    segments: Segments | None = Field(
        default=None, description="Segment ids of source and target; null: 0 and 1. A model is given those it lacks."
    )
    span: SpanLength | None = Field(
        default=None, description="Lengths of what is chosen together; null: the objective's own."
    )
    rate: float | None = Field(
        default=None, gt=0, le=1, description="Share of the tokens that is predicted; null: the objective's own."
    )
    random: Share = Field(default=0.1, description="Of the predicted tokens, the share replaced by a random one.")
    keep: Share = Field(default=0.1, description="Of the predicted tokens, the share left as it is.")
    units: Literal["token", "word", "given", "sentence"] = Field(
        default="token",
        description="What spans consist of; `word`: by the segmenter, else the vocabulary; `given`: by the data.",
    )
    together: bool = Field(default=False, description="All tokens of a span are masked, replaced or kept alike.")
    window: Whole | None = Field(
        default=None, ge=1, le=1048576, description="Left to right: how far back a token is read; null: all the way."
    )

    @property
    def label(self) -> str:
        """The name in the log."""
        return self.name or self.objective

    @property
    def pairing(self) -> str:
        """What a passage is made, defaults included."""
        return self.pair or ALLOWED.get(self.objective, ("none",))[0]

    @property
    def heads(self) -> list[str]:
        """The heads beside the language model's that it trains."""
        own = [HEADED[self.objective]] if self.objective in HEADED else []
        return [self.pairing, *own] if self.pairing in get_args(SentenceTask) else own


class Stage(Section):
    """Some steps with a mix of their own."""

    steps: Whole = Field(ge=1, le=1000000000, description="Steps of this stage.")
    mix: Annotated[list[Entry], Field(min_length=1)] = Field(
        description="All objectives of this stage: those of earlier ones are forgotten unless they stand here too."
    )


class Pretrain(Training):
    """Pre-training: which objectives, the optimiser, and when to look and to save."""

    mix: Annotated[list[Entry], Field(min_length=1)] | None = Field(
        default=None,
        description="Objectives; each passage is given one by weight, anew in every epoch. null: `bidirectional`.",
    )
    stages: Annotated[list[Stage], Field(min_length=1)] | None = Field(
        default=None, description="Mixes one after another, in the place of `mix`; together they take `steps` steps."
    )
    head_weights: dict[Text, Annotated[float, Field(ge=0, le=1000)]] = Field(
        default={},
        description="Weights of the losses of heads, `lm` and those of objectives; 50 for `replaced`, else 1.",
    )
    generator_size: float = Field(
        default=0.25, gt=0, le=1, description="`replaced`: width of the generator as a share of the model's."
    )
    across_documents: bool = Field(
        default=False, description="A passage that its document does not fill goes on with the next one (RoBERTa)."
    )
    evaluate_examples: Whole | None = Field(
        default=None, ge=1, le=1000000000, description="Validation passages that are measured; null: all."
    )
    steps: Whole = Field(default=100000, ge=1, le=1000000000, description="Optimiser steps.")
    learning_rate: float = Field(
        default=1e-4, gt=0, le=1, description="Highest learning rate, at the end of the warm-up."
    )
    warmup: Whole = Field(
        default=1000, ge=0, le=1000000000, description="Steps in which the learning rate rises from 0."
    )
    label_smoothing: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Share of the probability that is spread over all tokens, and over the answers of sentence tasks.",
    )

    @property
    def plan(self) -> list[Stage]:
        """The stages; one where the recipe has a mix."""
        return self.stages or [Stage(steps=self.steps, mix=self.mix or [Entry(objective="bidirectional")])]

    @property
    def replaces(self) -> bool:
        """Whether a generator is trained too."""
        return any(entry.objective == "replaced" for entry in self.entries)

    @property
    def entries(self) -> list[Entry]:
        """The objectives of all stages."""
        return [entry for stage in self.plan for entry in stage.mix]
