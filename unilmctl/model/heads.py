"""Heads beside the language model's: what else a model may predict.

| kind | reads | gives |
|---|---|---|
| class | the pooled state of a slot (BERT's [CLS]) | a score for each class [N, C] |
| regression | the same | a number [N] |
| token | a slot | a score for each class [N, C] |
| span | a slot | how well an answer begins and ends there [N, 2] |
| replaced | a slot | above 0 for a token that is not the text's own [N] |
| boundary | the slots on both sides of a span, and a place in it | a score for each word there [N, V] |
| contrastive | a slot, through the pooler without its tanh | a vector of length 1 [N, D]; like texts have like ones |

Shapes: N slots, D hidden width, C classes, V vocabulary.
"""

import re
from dataclasses import dataclass
from typing import Literal, get_args

from unilmctl.errors import ModelError

NEXT_SENTENCE = "next-sentence"
"""BERT's own pair head: the one class head whose weights a plain BERT file has a name for."""

HeadKind = Literal["class", "regression", "token", "span", "replaced", "boundary", "contrastive"]

OWN_KINDS = ("class", "regression", "token", "span", "replaced", "boundary")
"""Heads with parameters of their own; a contrastive head has the pooler's."""


@dataclass(frozen=True)
class HeadConfig:
    """One head beside the language model's, see `model.heads`.

    `classes` counts what a "class" or "token" head chooses from; `labels` are their names, none or one for each.
    """

    name: str
    kind: HeadKind
    classes: int = 2
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", self.name) or self.name == "lm":
            raise ModelError(f"a head cannot be called '{self.name}'", "use letters, digits, - and _; 'lm' is taken")
        if self.kind not in get_args(HeadKind):
            raise ModelError(f"head '{self.name}' is of no known kind", f"kinds: {', '.join(get_args(HeadKind))}")
        if self.classes < 1 or (self.labels and len(self.labels) != self.classes):
            raise ModelError(f"head '{self.name}' has {self.classes} classes and {len(self.labels)} names for them")

    @property
    def pooled(self) -> bool:
        """Whether the head reads what the pooler makes of a slot."""
        return self.kind in ("class", "regression", "contrastive")
