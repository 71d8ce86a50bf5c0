"""The schema of a recipe: every section, every key, its default, its bounds and what it is for.

A recipe is one YAML file per task with a section per command. The descriptions below are the reference page of the
documentation; the relations between keys (warm-up within the steps, heads that divide the width) are in `relations.py`,
the sections on training in `training.py`, those on what is written with a model in `decoding.py`.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, PrivateAttr, model_validator

from unilmctl.recipe.decoding import Evaluate, Generate
from unilmctl.recipe.pretraining import Pretrain
from unilmctl.recipe.rows import RowShape
from unilmctl.recipe.section import Section
from unilmctl.recipe.syntax import Document, path_of
from unilmctl.recipe.training import Finetune, Task
from unilmctl.recipe.values import Folder, Text, Whole

BASE_SHAPE: dict[str, Any] = {  # BERT-base, what is left open by a model from scratch
    "layers": 12,
    "hidden": 768,
    "heads": 12,
    "feedforward": 3072,
    "positions": 512,
    "segments": 2,
    "relative_buckets": 0,
    "activation": "gelu",
    "embedding": None,
}


class Split(Section):
    """Where the pairs of one split are, or with `pretrain` the documents."""

    files: Annotated[list[Folder], Field(min_length=1)] = Field(
        description="Files of this split, relative to the folder you start the command in; `.gz` is read as it is."
    )
    target_files: list[Folder] | None = Field(
        default=None,
        description="Parallel text: line i of these files is the target of line i of `files`; as many files.",
    )
    format: Literal["auto", "jsonl", "tsv", "csv", "text"] = Field(
        default="auto", description="Format of the files; `auto` looks at the name, then at the first byte."
    )
    source: Text = Field(default="src", description="Field or column that holds the source.")
    second: Text | None = Field(
        default=None, description="Tasks with labels: field or column of a second text, where two are judged together."
    )
    target: Text = Field(default="tgt", description="Field or column that holds the target, or the label.")
    references: Text = Field(
        default="refs", description="Field that holds the list of references of a validation or test line."
    )
    documents: Literal["blank-line", "lines"] = Field(
        default="blank-line",
        description="`pretrain`: what a document of plain text is, the lines up to a blank one or each of the lines.",
    )
    field: Text = Field(
        default="text",
        description="`pretrain`: field that holds a document of JSON lines: a text, or a list of its sentences.",
    )
    segmenter: Literal["rjieba", "given"] | None = Field(
        default=None,
        description="`pretrain`: where words come from that the vocabulary does not mark; `rjieba`: Chinese (extra "
        "`zh`), `given`: lists of words in the data.",
    )


class Data(Section):
    """The text: which files, and what to do with bad lines."""

    train: Split = Field(description="Training pairs, or with `pretrain` text.")
    valid: Split | None = Field(
        default=None, description="Validation pairs, for the loss and the scores during training."
    )
    test: Split | None = Field(default=None, description="Test pairs; training never reads them.")
    store: Folder | None = Field(
        default=None, description="Folder of the token stores; null: `store` in the run folder."
    )
    on_bad_line: Literal["fail", "skip", "replace"] = Field(
        default="fail",
        description="What a line that cannot be read does: stops the work, is left out, or becomes an empty pair.",
    )
    fetch: Text | None = Field(default=None, description="Where the data comes from; shown when a file is absent.")
    generated: Literal["numbers"] | None = Field(
        default=None,
        description="Built-in data, written to `files` when absent. `numbers`: digits to words, English and Chinese.",
    )


class TaskData(Section):
    """The text of one more task."""

    train: Split = Field(description="Training examples, as `data.train`.")
    valid: Split | None = Field(default=None, description="Validation examples, as `data.valid`.")


class FurtherTask(Section):
    """A task that the same model learns besides `finetune.task`, with a head of its own."""

    name: Text = Field(description="Name of the task, and of its head: letters, digits, `-` and `_`.")
    task: Task = Field(description="What is learnt, as `finetune.task`.")
    data: TaskData = Field(description="Its examples.")
    weight: float = Field(
        default=1.0, gt=0, le=1000, description="How often an epoch has each of its examples; those of `data` once."
    )


class Lesson(NamedTuple):
    """One of all the tasks that a recipe has: its data, the folder of its stores, its weight, its key in the recipe."""

    name: str
    task: str
    data: Data | TaskData
    store: Path
    weight: float
    where: str

    @property
    def splits(self) -> dict[str, Split]:
        """The splits that it has, by name."""
        found = {name: getattr(self.data, name, None) for name in ("train", "valid", "test")}
        return {name: split for name, split in found.items() if split is not None}


class Shape(Section):
    """Sizes of a model from scratch, all of them known."""

    architecture: Literal["bert", "electra"]
    layers: int
    hidden: int
    heads: int
    feedforward: int
    positions: int
    segments: int
    relative_buckets: int
    activation: Literal["gelu", "gelu_new", "relu"]
    embedding: int | None


class Model(Section):
    """Where the model comes from: a folder (`init`) or nothing but its sizes (`architecture`)."""

    init: Folder | None = Field(default=None, description="Model folder to start from; `unilmctl convert` writes one.")
    architecture: Literal["bert", "electra"] | None = Field(
        default=None, description="Start from random weights of this kind; open sizes are BERT-base's."
    )
    layers: Whole | None = Field(default=None, ge=1, le=200, description="Layers (from scratch only; 12 when open).")
    hidden: Whole | None = Field(default=None, ge=1, le=65536, description="Width (from scratch only; 768 when open).")
    heads: Whole | None = Field(
        default=None, ge=1, le=1024, description="Attention heads; they divide `hidden` (12 when open)."
    )
    feedforward: Whole | None = Field(
        default=None, ge=1, le=262144, description="Width of the feed-forward layer (3072 when open)."
    )
    positions: Whole | None = Field(
        default=None, ge=4, le=1048576, description="Longest row, source and target together (512 when open)."
    )
    segments: Whole | None = Field(default=None, ge=0, le=64, description="Segment types; 0: none (2 when open).")
    relative_buckets: Whole | None = Field(
        default=None,
        ge=0,
        le=1024,
        description="Buckets of UniLM 2's relative position bias; 0: no such bias (0 when open).",
    )
    activation: Literal["gelu", "gelu_new", "relu"] | None = Field(
        default=None, description="Activation (gelu when open)."
    )
    embedding: Whole | None = Field(
        default=None, ge=1, le=65536, description="Width of the word vectors (`electra` only; null: `hidden`)."
    )
    dropout: float | None = Field(
        default=None, ge=0, lt=1, description="Dropout of hidden states; null: the model's own (0.1 from scratch)."
    )
    attention_dropout: float | None = Field(
        default=None, ge=0, lt=1, description="Dropout of attention weights; null: the model's own (0.1 from scratch)."
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_shape(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("architecture") is None:
            return values
        return {**BASE_SHAPE, **{key: value for key, value in values.items() if value is not None}}

    @property
    def shape(self) -> Shape | None:
        """The sizes of a model from scratch; None when the model comes from a folder."""
        if self.architecture is None:
            return None
        return Shape(architecture=self.architecture, **{key: getattr(self, key) for key in BASE_SHAPE})


class TrainTokens(Section):
    """A vocabulary of one's own, trained on the training split."""

    kind: Literal["wordpiece", "bpe", "sentencepiece"] = Field(default="wordpiece", description="Kind of vocabulary.")
    size: Whole = Field(
        default=8000, ge=16, le=1000000, description="Entries of the vocabulary, special tokens included."
    )
    lowercase: bool = Field(
        default=False, description="Lower-case the text first; what is generated is then lower-case too."
    )


class Tokens(Section):
    """How text becomes tokens."""

    max_source: Whole = Field(
        default=464, ge=3, le=1048576, description="Tokens of the source, [CLS] and [SEP] included; longer is cut."
    )
    max_target: Whole = Field(
        default=48, ge=2, le=1048576, description="Tokens of the target, [SEP] included; longer is cut."
    )
    max_length: Whole = Field(
        default=512, ge=8, le=1048576, description="`pretrain`: tokens of a passage, special ones included."
    )
    truncate: Literal["tail", "head"] = Field(default="tail", description="Which end of a long source is cut off.")
    stride: Whole = Field(
        default=128,
        ge=1,
        le=1048576,
        description="`span`: tokens between the beginnings of two windows of a long text.",
    )
    tokenizer: Folder | None = Field(default=None, description="Folder of the vocabulary; null: that of `model.init`.")
    train: TrainTokens | None = Field(
        default=None, description="Train a vocabulary on the training split (from scratch only)."
    )


class Recipe(Section):
    """A whole recipe."""

    extends: Folder | None = Field(
        default=None,
        description="Recipe that this one starts from, relative to this file; mappings merge, `run` is not taken over.",
    )
    run: Folder = Field(
        default=Path("runs/recipe"), description="Run folder; default: `runs/` and the name of the recipe file."
    )
    seed: Whole = Field(default=1, ge=0, le=2**32 - 1, description="Seed of all that is random in training.")
    data: Data = Field(description="The text.")
    model: Model = Field(default=Model(), description="Where the model comes from: one of `init` and `architecture`.")
    tokens: Tokens = Field(default=Tokens(), description="How text becomes tokens.")
    pretrain: Pretrain | None = Field(
        default=None, description="Pre-training on text; such a recipe is for `unilmctl pretrain` alone."
    )
    rows: Annotated[list[RowShape], Field(min_length=1)] | None = Field(
        default=None, description="Rows of your own, for the mix or `finetune.row`; docs/masks.md has examples."
    )
    finetune: Finetune = Field(default=Finetune(), description="Training on pairs.")
    tasks: Annotated[list[FurtherTask], Field(min_length=1)] | None = Field(
        default=None, description="Tasks that are learnt besides `finetune.task`, in the same batches."
    )
    generate: Generate = Field(default=Generate(), description="Decoding.")
    evaluate: Evaluate = Field(default=Evaluate(), description="Scoring.")
    _origin: str = PrivateAttr("the recipe")
    _document: Document = PrivateAttr(default_factory=Document)

    @property
    def origin(self) -> str:
        """The file that this recipe was read from, as it was named."""
        return self._origin

    def place(self, key: str) -> str:
        """Where the value of a key like `rows.0` was written, as messages say it: `recipe.yaml:12:5`."""
        return str(self._document.place(path_of(key)))

    @property
    def lessons(self) -> list[Lesson]:
        """Every task that fine-tuning teaches; the first one is called as what it does."""
        task = self.finetune.task
        return [
            Lesson(task, task, self.data, self.store, 1.0, "data"),
            *(
                Lesson(one.name, one.task, one.data, self.store / one.name, one.weight, f"tasks.{number}.data")
                for number, one in enumerate(self.tasks or ())
            ),
        ]

    @property
    def learnt(self) -> set[str]:
        """What the tasks are."""
        return {lesson.task for lesson in self.lessons}

    @property
    def store(self) -> Path:
        """Folder of the token stores."""
        return self.data.store or self.run / "store"

    @property
    def tokenizer(self) -> Path | None:
        """Folder that the vocabulary is read from; None when it is trained."""
        return None if self.tokens.train else self.tokens.tokenizer or self.model.init

    def row(self, name: str) -> RowShape:
        """The row of that name; KeyError where there is none, which the relations refuse."""
        return {row.name: row for row in self.rows or ()}[name]

    def resolved(self) -> dict[str, Any]:
        """The recipe with every default written out, as plain values; loading them gives the same recipe."""
        unused = {"pretrain"} if self.pretrain is None else {"finetune", "evaluate", "tasks"}
        if self.rows is None:
            unused.add("rows")
        values: dict[str, Any] = self.model_dump(mode="json", exclude={"extends", *unused})
        values["data"]["store"] = str(self.store)
        if self.pretrain is None and "similar" in self.learnt:
            values["finetune"]["objective"] = "causal"  # vectors are learnt beside it, whatever the default is
        values["generate"]["max_length"] = self.generate.max_length or self.tokens.max_target
        return values
