"""The kinds of values that the keys of a recipe take."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError


def _whole(value: Any) -> Any:
    """Takes `1e5` for a whole number: YAML reads it as a float, and it is how people write step counts."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _usable_path(value: Any) -> Any:
    if value == "" or "\0" in str(value):
        raise PydanticCustomError("unusable_path", "must be a path")
    return value


Folder = Annotated[Path, Field(strict=False), BeforeValidator(_usable_path)]
Whole = Annotated[int, BeforeValidator(_whole)]
Text = Annotated[str, Field(min_length=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Device = Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:(0|[1-9][0-9]*))?)$")]
Language = Annotated[str, Field(pattern=r"^[a-z]{2,3}(-[a-z0-9]+)*$")]

Figure = Literal[
    "bleu", "bleu1", "bleu2", "bleu3", "chrf", "chrf++", "ter", "sentence_bleu", "nist", "coco_rougeL", "exact_match",
    "coqa_f1", "distinct1", "distinct2", "distinct3", "distinct4", "rouge1", "rouge2", "rouge3", "rouge4", "rougeL",
    "rougeLsum", "rouge155_1", "rouge155_2", "rouge155_L", "squad_em", "squad_f1", "accuracy", "f1", "macro_f1",
    "matthews", "pearson", "spearman", "tag_f1", "tag_precision", "tag_recall", "tag_accuracy",
]  # fmt: skip
Metric = Literal[Figure, "rouge", "rouge155", "distinct"]
Criterion = Literal["loss", Figure]
Task = Literal["cnndm", "cnndm_v1", "gigaword", "xsum", "squad_qg", "e2e", "multi30k", "coqa", "csl", "lcsts"]
