"""The sections of a recipe on training: what every kind of it takes, and `finetune`."""

from typing import Annotated, Literal

from pydantic import Field

from unilmctl.recipe.section import Section
from unilmctl.recipe.values import Criterion, Device, Folder, Share, Text, Whole


class Lora(Section):
    """Low-rank adapters: only they and the heads of tasks are trained; they are merged into the model that is saved."""

    rank: Whole = Field(default=8, ge=1, le=4096, description="Rank of the adapters.")
    alpha: float = Field(default=16.0, gt=0, le=65536, description="What they add is multiplied with alpha / rank.")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Dropout of their inputs.")
    targets: Annotated[list[Literal["qkv", "output", "inner", "outer"]], Field(min_length=1)] = Field(
        default=["qkv", "output", "inner", "outer"],
        description="Linear layers that get one: queries, keys and values; their output; both of the feed-forward.",
    )


class Distil(Section):
    """Learning from a larger model besides the data."""

    teacher: Folder = Field(description="Model or run folder of the teacher; it has the same vocabulary.")
    weight: Share = Field(default=0.5, description="Share of the loss that is against the teacher.")
    temperature: float = Field(default=2.0, gt=0, le=100, description="Logits are divided by it: higher is softer.")


class Training(Section):
    """What every training takes: batches, the optimiser, when to look and to save."""

    batch_tokens: Whole = Field(default=16384, ge=16, le=100000000, description="Tokens of a batch, padding included.")
    pack: Whole | None = Field(
        default=None,
        ge=8,
        le=1048576,
        description="Examples share rows of so many tokens and are taken in any order, `batch_tokens` without padding; "
        "null: a row for each, and batches of like length.",
    )
    accumulate: Whole = Field(default=1, ge=1, le=65536, description="Batches whose gradients make one step.")
    steps: Whole = Field(default=32000, ge=1, le=1000000000, description="Optimiser steps.")
    learning_rate: float = Field(
        default=7e-5, gt=0, le=1, description="Highest learning rate, at the end of the warm-up."
    )
    schedule: Literal["linear", "cosine", "inverse-sqrt", "constant"] = Field(
        default="linear", description="What the learning rate does after the warm-up; linear and cosine end at 0."
    )
    warmup: Whole = Field(
        default=500, ge=0, le=1000000000, description="Steps in which the learning rate rises from 0."
    )
    label_smoothing: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="Share of the probability that is spread over all tokens, or over all classes and tags; null: 0.1 "
        "over tokens, 0 over the others. Numbers, spans and vectors have none.",
    )
    weight_decay: float = Field(
        default=0.01, ge=0, le=1, description="Decoupled weight decay; not on biases and normalisation."
    )
    clip: float | None = Field(default=1.0, gt=0, description="Largest norm of the gradient; null: not clipped.")
    adam_epsilon: float = Field(default=1e-8, gt=0, le=1, description="Adam's epsilon.")
    adam_beta2: float = Field(default=0.999, gt=0, lt=1, description="Adam's second decay; the first is 0.9.")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto",
        description="Number format of the arithmetic; `auto`: bfloat16 where the machine is made for it.",
    )
    checkpoint_activations: bool = Field(
        default=False, description="Compute the inside of every layer twice, instead of keeping it in memory."
    )
    block_masks: bool = Field(
        default=False,
        description="On a GPU: attention skips blocks that see nothing (FlexAttention); needs `attention_dropout: 0`.",
    )
    evaluate_every: Whole = Field(default=1000, ge=1, le=1000000000, description="Steps between two validations.")
    save_every: Whole = Field(default=1000, ge=1, le=1000000000, description="Steps between two checkpoints.")
    keep_last: Whole = Field(
        default=2, ge=1, le=10000, description="Newest checkpoints that are kept, besides the best."
    )
    average_last: Whole = Field(default=0, ge=0, le=10000, description="Last checkpoints averaged at the end; 0: none.")
    log_every: Whole = Field(default=50, ge=1, le=1000000000, description="Steps between two lines of the log.")
    device: Device = Field(
        default="auto", description="Where the model is: `cpu`, `cuda`, `cuda:N`; `auto`: a GPU where there is one."
    )
    threads: Whole | None = Field(
        default=None,
        ge=1,
        le=4096,
        description="CPU threads of a process; null: as many as there are cores, shared by those of torchrun.",
    )
    sharding: Literal["none", "full"] = Field(
        default="none",
        description="What the processes of torchrun have of the model: all of it each, or a share of every tensor.",
    )
    freeze_embeddings: bool = Field(default=False, description="Leave the embeddings as they are.")
    freeze: list[Text] = Field(
        default=[],
        description="Parts that stay as they are, by name and pattern: `embeddings`, `layers.0-5`, `*.norm`.",
    )
    ema: float | None = Field(
        default=None, gt=0, lt=1, description="Decay of running averages of the weights, which become the model: 0.999."
    )
    tensorboard: bool = Field(
        default=False, description="Curves for TensorBoard as well (extra `tensorboard`), in the run folder."
    )


Task = Literal["generate", "classify", "regress", "tag", "span", "similar"]


class Pairs(Section):
    """What is learnt from the examples, and what is scored."""

    task: Task = Field(
        default="generate",
        description="`generate`: to write the target; `classify`: to choose one of the labels; `regress`: a number; "
        "`tag`: a label for every word; `span`: where `second` answers `source`; `similar`: a vector, and to write.",
    )
    objective: Literal["pseudo", "masked", "causal"] = Field(
        default="pseudo",
        description="`pseudo`: trains what decoding computes; `masked`: as UniLM 1; `causal`: next token.",
    )
    row: Text | None = Field(
        default=None,
        description="Train on the row of `rows` with this name; `objective` then says how the model writes. null: on "
        "the objective's own.",
    )
    separator_in: Literal["target", "source"] = Field(
        default="target",
        description="`causal` only: the [SEP] between them starts the target (s2s-ft) or ends the source (bert4keras).",
    )
    target_mask: Share | None = Field(
        default=None,
        description="Share of target tokens that are masked; null: 0.5 for pseudo, 0.7 for masked, 0 for causal.",
    )
    random: Share = Field(default=0.1, description="Of the masked target tokens, the share replaced by a random one.")
    keep: Share = Field(default=0.1, description="Of the masked target tokens, the share left as it is.")
    source_mask: Share = Field(default=0.0, description="Share of source tokens that are masked.")
    evaluate_examples: Whole | None = Field(
        default=None, ge=1, le=1000000000, description="Validation lines that are generated and scored; null: all."
    )
    keep_best_by: Criterion = Field(
        default="loss",
        description="What the best checkpoint is best by: the validation loss, or a score of generated text.",
    )
    head_weights: dict[Text, Annotated[float, Field(ge=0, le=1000)]] = Field(
        default={},
        description="Weights of the losses of heads: `lm` (writing), `contrastive`, names of tasks; 1 for each.",
    )
    lora: Lora | None = Field(
        default=None,
        description="Train low-rank adapters, and heads of tasks; a checkpoint holds the adapters in peft's form too. "
        "null: the whole model.",
    )
    distil: Distil | None = Field(default=None, description="Learn from a teacher as well; null: from the data alone.")


class Finetune(Training, Pairs):
    """Training: the objective, the optimiser, and when to look and to save."""
