"""What data and token rooms need to be told: the shapes that a recipe's sections have, and anything else may have."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol


class Split(Protocol):
    """Where the pairs of one split are; a recipe's split fits."""

    @property
    def files(self) -> Sequence[Path]:
        """Files of the split."""
        ...

    @property
    def target_files(self) -> Sequence[Path] | None:
        """Targets of parallel text."""
        ...

    @property
    def format(self) -> str:
        """auto, jsonl, tsv, csv or text."""
        ...

    @property
    def source(self) -> str:
        """Name of the source field."""
        ...

    @property
    def target(self) -> str:
        """Name of the target field."""
        ...

    @property
    def references(self) -> str:
        """Name of the field of references."""
        ...


class LabelledSplit(Protocol):
    """Where the labelled texts of one split are; a recipe's split fits."""

    @property
    def files(self) -> Sequence[Path]:
        """Files of the split."""
        ...

    @property
    def format(self) -> str:
        """auto, jsonl, tsv or csv."""
        ...

    @property
    def source(self) -> str:
        """Name of the field of the text."""
        ...

    @property
    def second(self) -> str | None:
        """Name of the field of a second text; None: there is one text only."""
        ...

    @property
    def target(self) -> str:
        """Name of the field of the label."""
        ...


class TextSplit(Protocol):
    """Where the documents of one split are; a recipe's split of raw text fits."""

    @property
    def files(self) -> Sequence[Path]:
        """Files of the split."""
        ...

    @property
    def format(self) -> str:
        """auto, text or jsonl."""
        ...

    @property
    def documents(self) -> str:
        """What a document of plain text is: the lines up to a blank-line, or each of the lines."""
        ...

    @property
    def field(self) -> str:
        """Name of the field that holds a document."""
        ...

    @property
    def segmenter(self) -> str | None:
        """None, rjieba, or given: where words come from that the vocabulary does not mark."""
        ...


class Vocabulary(Protocol):
    """A vocabulary to be trained; a recipe's `tokens.train` fits."""

    @property
    def kind(self) -> str:
        """wordpiece, bpe or sentencepiece."""
        ...

    @property
    def size(self) -> int:
        """Entries at most."""
        ...

    @property
    def lowercase(self) -> bool:
        """Whether text is lower-cased."""
        ...


class Limits(Protocol):
    """Longest source and target, special tokens counted: [CLS] source [SEP] and target [SEP]."""

    @property
    def max_source(self) -> int:
        """Tokens of the source with its two special ones."""
        ...

    @property
    def max_target(self) -> int:
        """Tokens of the target with its separator."""
        ...

    @property
    def truncate(self) -> str:
        """Which end of a long source is cut off: tail or head."""
        ...


class TaskSplit(Split, LabelledSplit, Protocol):
    """Where the examples of one split are, whatever is learnt from them; a recipe's split fits."""


class TaskLimits(Limits, Protocol):
    """Limits, and how far the windows of a long text are apart."""

    @property
    def stride(self) -> int:
        """Tokens between the beginnings of two windows."""
        ...
