"""The sections of a recipe on what is written with a model, and how it is scored."""

from typing import Annotated, Literal

from pydantic import Field

from unilmctl.recipe.section import Section
from unilmctl.recipe.values import Device, Language, Metric, Task, Text, Whole


class Generate(Section):
    """Decoding: the same names as the options of `unilmctl generate`, with underscores."""

    search: Literal["beam", "greedy", "sample", "contrastive", "s2s-ft"] = Field(
        default="beam", description="`s2s-ft`: the beam search of the s2s-ft toolkit, to its last rule."
    )
    beam: Whole = Field(default=5, ge=1, le=1024, description="Hypotheses that are kept at each step.")
    nbest: Whole = Field(default=1, ge=1, le=1024, description="Hypotheses that are given out, best first.")
    beam_groups: Whole = Field(
        default=1, ge=1, le=1024, description="Groups of one size that the beam consists of, each unlike the others."
    )
    diversity: float = Field(
        default=0.0, ge=0, le=1000, description="Groups: what a token loses for each beam that has just chosen it."
    )
    length_penalty: float = Field(
        default=0.0, ge=-10, le=10, description="a in ((5 + length) / 6)^a, which divides the score; 0: none."
    )
    length_normalization: Literal["penalty", "average", "none"] = Field(
        default="penalty", description="What a score is divided by: the length penalty, the length, or nothing."
    )
    coverage_penalty: float = Field(
        default=0.0,
        ge=0,
        le=1000,
        description="Coverage: score + b * sum over source words of log(min(attention, 1)); 0: none.",
    )
    min_length: Whole = Field(default=0, ge=0, le=1048576, description="Fewest tokens before the end.")
    max_length: Whole | None = Field(
        default=None, ge=1, le=1048576, description="Most tokens; null: `tokens.max_target`."
    )
    no_repeat_ngram: Whole = Field(
        default=0, ge=0, le=100, description="No n-gram of this size twice; 0: repeats are allowed."
    )
    no_repeat_ignore: list[Text] = Field(default=[], description="Tokens that may be part of a repeated n-gram.")
    repetition_penalty: float = Field(
        default=1.0, gt=0, le=100, description="Scores of written tokens are divided by this if positive; 1: none."
    )
    forbid: list[Text] = Field(default=[], description="Tokens that are never written.")
    forbid_phrase: list[Text] = Field(default=[], description="Texts that no output holds.")
    must: list[Text] = Field(default=[], description="Texts that every output holds.")
    drafts: Whole = Field(
        default=0, ge=0, le=100, description="Greedy: most tokens that are guessed and verified in one pass; 0: none."
    )
    temperature: float = Field(default=1.0, gt=0, le=100, description="Sampling: logits are divided by this.")
    top_k: Whole | None = Field(
        default=None,
        ge=1,
        le=1000000,
        description="Sampling: only the k likeliest tokens; null: all. Contrastive: candidates; null: 4.",
    )
    top_p: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Sampling: only the likeliest tokens that hold this much probability; null: all.",
    )
    min_p: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Sampling: only tokens with this share of the likeliest one's probability; null: all.",
    )
    typical_p: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Sampling: only the most typical tokens that hold this much probability; null: all.",
    )
    alpha: float = Field(
        default=0.6,
        ge=0,
        le=1,
        description="Contrastive: how much likeness to earlier hidden states counts; 0: greedy.",
    )
    seed: Whole = Field(default=1, ge=0, le=2**32 - 1, description="Seed of the sampling.")
    attention: bool = Field(default=False, description="JSON output tells which source token each token looks at most.")
    dtype: Literal["auto", "float32", "bfloat16", "int8"] = Field(
        default="auto", description="Number format of the weights."
    )
    device: Device = Field(
        default="auto", description="Where the model is: `cpu`, `cuda`, `cuda:N`; `auto`: a GPU where there is one."
    )
    batch_tokens: Whole = Field(default=16384, ge=16, le=100000000, description="Tokens that are decoded at a time.")
    workers: Whole | None = Field(
        default=None,
        ge=1,
        le=4096,
        description="Processes that share the input; null: one per core when there is enough of it. A GPU has one.",
    )


class Evaluate(Section):
    """Scores of generated text."""

    metrics: Annotated[list[Metric], Field(min_length=1)] = Field(
        default=["bleu", "rouge"], description="Scores that are computed."
    )
    task: Task | None = Field(default=None, description="Post-processing and scoring as the papers of this task do it.")
    lowercase: bool = Field(default=False, description="Lower-case hypotheses and references first.")
    tokenize: Literal["none", "13a", "intl", "char", "zh"] | None = Field(
        default=None, description="Tokenizer of BLEU, by its name in sacrebleu; null: that of the language."
    )
    language: Language = Field(
        default="en", description="Language of the text, a code such as en, de or zh; `zh` is scored by characters."
    )
