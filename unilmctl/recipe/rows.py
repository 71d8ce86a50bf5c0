"""The section of a recipe that describes a row of its own: which tokens stand in it, when, and what is predicted.

What the keys mean together, and what is refused, is in `unilmctl.objectives.custom`.
"""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from unilmctl.recipe.section import Section
from unilmctl.recipe.values import Share, Text, Whole

SpanLength = Literal["token", "gram", "ngram", "ngram-5", "block", "geometric", "poisson", "suffix"]
RowField = Literal["text", "source", "target"]


def _as_text(value: Any) -> Any:
    """A formula that is a bare number is a text as well."""
    return str(value) if type(value) is int else value


Formula = Annotated[Text, BeforeValidator(_as_text)]


class Choose(Section):
    """Which tokens are chosen, for parts of chosen tokens or of all others."""

    field: RowField = Field(description="Where tokens are chosen.")
    rate: Share = Field(
        default=0.15, description="Share of the tokens that is chosen; `rate` of the entry precedes it."
    )
    span: SpanLength = Field(
        default="token", description="Lengths of what is chosen together; `span` of the entry precedes it."
    )


class RowPart(Section):
    """Some tokens of a row. One of `take`, `mask` and `corrupt` names their field."""

    take: RowField | None = Field(default=None, description="The tokens of this field as they are.")
    mask: RowField | None = Field(default=None, description="A [MASK] for each token of this field.")
    corrupt: RowField | None = Field(
        default=None, description="Each token of this field masked, replaced or kept by chance."
    )
    of: Literal["all", "chosen", "others", "last", "rest"] = Field(
        default="all", description="Which tokens of the field; `rest`: all but the last."
    )
    time: Formula = Field(
        description="When they are written: a formula of i (place in the field), n (its length), m (spans) and, for "
        "chosen tokens, k (their span)."
    )
    until: Formula | None = Field(default=None, description="When they stop being readable; null: never.")
    segment: Whole | None = Field(default=None, ge=0, lt=64, description="Segment id; null: that of the field.")
    predict: Literal["this", "next"] | None = Field(
        default=None, description="What each predicts: the token of its place, or the one after; null: nothing."
    )


class RowShape(Section):
    """A row: parts that stand side by side."""

    name: Text = Field(description="How an entry of a mix calls this row.")
    choose: Choose | None = Field(default=None, description="Which tokens are chosen; null: none.")
    parts: Annotated[list[RowPart], Field(min_length=1)] = Field(description="What stands in the row.")

    @property
    def of_pairs(self) -> bool:
        """Whether it is made of a source and a target."""
        return any("text" not in (part.take, part.mask, part.corrupt) for part in self.parts)

    def written(self) -> dict[str, Any]:
        """The keys that are not null, as `unilmctl.objectives.custom` reads them."""
        return self.model_dump(mode="json", exclude_none=True, exclude={"name"})
