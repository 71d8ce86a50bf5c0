"""unilmctl inspect mask: who sees whom, for any objective on your own text.

The row is made by the very function that training calls, so the picture cannot be wrong about it. Without a model, the
text is cut at blanks and around Chinese, Japanese and Korean characters.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from unilmctl import recipe as recipes
from unilmctl.errors import UsageError
from unilmctl.files import write_atomically
from unilmctl.fitting.options import custom_row
from unilmctl.objectives import (
    BOUNDARY,
    CONTRASTIVE,
    OBJECTIVES,
    REPLACED,
    SEGMENTS,
    Corruption,
    Objective,
    build,
)
from unilmctl.recipe import Recipe
from unilmctl.rows import LANGUAGE_MODEL, Example, Frame, Row
from unilmctl.tokens import Roles, Tokenizer
from unilmctl.visibility import FOREVER, Picture, Slots, draw_png, draw_svg, draw_text, visible

PAIRS = ("pseudo", "masked", "causal", "seq2seq", "similar")
"""Objectives that need a target."""

LONGEST = 512
"""Tokens of a row beyond which no picture is drawn."""

DRAWERS: dict[str, Callable[[Picture], bytes]] = {".svg": lambda picture: draw_svg(picture).encode(), ".png": draw_png}
"""How a picture is written, by the ending of the file."""

QUESTIONS = {REPLACED: "replaced?", CONTRASTIVE: "its pair"}
"""What heads ask that predict no token; any other asks by its name."""

_SPECIAL = ["[PAD]", "[CLS]", "[SEP]", "[MASK]"]
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff]")


@dataclass(frozen=True)
class MaskReport:
    """A row of T tokens, what is predicted in it, and the report as text or JSON."""

    row: Row
    picture: Picture
    text: str


def run(  # noqa: PLR0913 - the options of the command
    *,
    objective: str | None = None,
    recipe: Path | None = None,
    source: str | None = None,
    target: str | None = None,
    text: str | None = None,
    model: Path | None = None,
    output: Path | None = None,
    rate: float | None = None,
    seed: int = 1,
    json_output: bool = False,
) -> MaskReport:
    """Draws the row that an objective makes of the text (`text`, or `source` and `target`).

    `objective` is `pseudo` unless it is named. With a recipe it is the row that it fine-tunes on, or an entry of
    its mix, by name; unless it is named, the first with a row of the recipe's own, or the first of all. `model` is
    a folder whose tokenizer cuts the text; `rate` replaces the objective's own share of predicted tokens, which is
    small for a short text. The picture is written to `output` (.svg or .png) if one is named; `.text` of the report
    is the picture in characters, or one JSON object. UsageError for a wrong choice, RecipeError for a wrong recipe,
    ModelError for a wrong folder, WriteError where nothing can be written.
    """
    chosen = _known(objective or "pseudo", rate) if recipe is None else _entry(recipe, objective, rate)
    _check_text(chosen, source, target, text)
    _check_options(rate, output)
    parts = [text or source or "", target or ""]
    cut = _words(parts) if model is None else _pieces(parts, model)
    row = chosen.make(cut.example, cut.frame(chosen.segments), np.random.default_rng(seed))
    if len(row) > LONGEST:
        raise UsageError(f"a row of {len(row)} tokens is too long to draw (at most {LONGEST})", "give a shorter text")
    picture = _picture(chosen.name, row, cut.name)
    if output is not None:
        with write_atomically(output) as file:
            file.write(DRAWERS[output.suffix.lower()](picture))
    return MaskReport(row, picture, _json(chosen.name, row, picture) if json_output else draw_text(picture))


class _Chosen(NamedTuple):
    """What is drawn: an objective with its segment ids, and whether it needs a target."""

    name: str
    make: Objective
    segments: tuple[int, int]
    of_pairs: bool


def _known(objective: str, rate: float | None) -> _Chosen:
    """An objective by its own name."""
    if objective not in OBJECTIVES:
        raise UsageError(f"there is no objective '{objective}'", _guess(objective, list(OBJECTIVES)))
    segments = SEGMENTS.get(objective, (0, 1))
    return _Chosen(objective, build(objective, Corruption(target=rate)), segments, objective in PAIRS)


def _entry(recipe: Path, name: str | None, rate: float | None) -> _Chosen:
    """An entry of a recipe's mix, as training makes its rows, but for spans that consist of units."""
    plan = recipes.load(recipe)
    if plan.finetune.row is not None and name in (None, plan.finetune.row):
        return _tuned(plan, plan.finetune.row, rate)
    mix = [] if plan.pretrain is None else plan.pretrain.entries
    if not mix:
        raise UsageError(f"{recipe} has no mix of objectives to draw from", "name an objective instead of the recipe")
    described = next((entry for entry in mix if entry.row is not None), mix[0])
    entry = next((entry for entry in mix if entry.label == name), described if name is None else None)
    if entry is None:
        raise UsageError(f"the mix of {recipe} has no '{name}'", _guess(str(name), [entry.label for entry in mix]))
    corruption = Corruption(rate or entry.rate, entry.random, entry.keep, span=entry.span, together=entry.together)
    segments = (0, 1) if entry.segments is None else (entry.segments[0], entry.segments[1])
    if entry.row is None:
        return _Chosen(entry.label, build(entry.objective, corruption), segments, entry.objective in PAIRS)
    return _Chosen(entry.label, custom_row(plan, entry.row, corruption), segments, plan.row(entry.row).of_pairs)


def _tuned(plan: Recipe, name: str, rate: float | None) -> _Chosen:
    """The row that a recipe fine-tunes on."""
    section = plan.finetune
    corruption = Corruption(rate or section.target_mask, section.random, section.keep)
    return _Chosen(name, custom_row(plan, name, corruption), (0, 1), plan.row(name).of_pairs)


def _guess(wrong: str, known: list[str]) -> str:
    close = get_close_matches(wrong, known, n=1)
    return f"did you mean '{close[0]}'?" if close else f"one of {', '.join(known)}"


def _check_text(chosen: _Chosen, source: str | None, target: str | None, text: str | None) -> None:
    if text is not None and (source is not None or target is not None):
        raise UsageError("--text excludes a source and a target", "give one text, or a source and a target")
    if not (text or source or "").strip():
        raise UsageError("there is no text to draw", "give one text, or a source and a target")
    if chosen.of_pairs and not (target or "").strip():
        raise UsageError(f"objective '{chosen.name}' needs a source and a target", "give the target too")


def _check_options(rate: float | None, output: Path | None) -> None:
    if rate is not None and not 0 <= rate <= 1:
        raise UsageError(f"--rate {rate}: a share of tokens lies between 0 and 1")
    if output is not None and output.suffix.lower() not in DRAWERS:
        raise UsageError(f"{output}: a picture ends in {' or '.join(DRAWERS)}", "name the file so")


class _Cut(NamedTuple):
    """Texts as ids, the name of each id, and the special ids of their vocabulary."""

    example: Example
    name: Callable[[int], str]
    roles: Roles
    vocabulary: int

    def frame(self, segments: tuple[int, int]) -> Frame:
        """The frame in which nothing is cut, with these segment ids of source and target."""
        source, target = len(self.example.source), len(self.example.target)
        return Frame(
            pad=self.roles.pad,
            start=self.roles.start,
            separator=self.roles.separator,
            mask=self.roles.mask,
            vocabulary=self.vocabulary,
            source_segment=segments[0],
            target_segment=segments[1],
            max_source=source + target + 2,
            max_target=target + 1,
        )


def _words(texts: list[str]) -> _Cut:
    """Words and CJK characters as tokens, over a vocabulary of their own."""
    cut = [_CJK.sub(lambda found: f" {found.group()} ", text).split() for text in texts]
    vocabulary = [*_SPECIAL, *dict.fromkeys(word for words in cut for word in words)]
    ids = {word: index for index, word in enumerate(vocabulary)}
    parts = (np.array([ids[word] for word in words], dtype=np.int64) for words in cut)
    return _Cut(Example(*parts), vocabulary.__getitem__, Roles(0, 0, 1, 2, 3), len(vocabulary))


def _pieces(texts: list[str], model: Path) -> _Cut:
    """The pieces that the tokenizer of a model folder makes."""
    tokenizer = Tokenizer.load(model)
    parts = (np.array(tokenizer.encode(text), dtype=np.int64) for text in texts)
    return _Cut(Example(*parts), lambda token: tokenizer.tokens([token])[0], tokenizer.roles, tokenizer.size)


def _picture(objective: str, row: Row, name: Callable[[int], str]) -> Picture:
    predicts = _predicts(row, name)
    title = f"{objective}: {len(row)} tokens, {len(predicts)} predicted"
    slots = Slots(*(torch.from_numpy(column) for column in (row.document, row.time, row.until)))
    return Picture(title, [name(token) for token in row.ids.tolist()], slots, predicts)


def _predicts(row: Row, name: Callable[[int], str]) -> dict[int, str]:
    """What is asked at each slot: a token for the language model, else the question of the head."""
    asked: dict[int, list[str]] = {}
    for head, labels in row.labels.items():
        if head == BOUNDARY:
            for slot in set(labels.slots.tolist()):
                asked.setdefault(slot, []).append("boundary of:")
        for slot, target in zip(labels.slots.tolist(), labels.targets.tolist(), strict=True):
            token = name(int(target)) if head in (LANGUAGE_MODEL, BOUNDARY) else QUESTIONS.get(head, head)
            asked.setdefault(slot, []).append(token)
    return {slot: " ".join(questions) for slot, questions in asked.items()}


def _json(objective: str, row: Row, picture: Picture) -> str:
    """One JSON object on one line; `until` is null for a lasting token, `sees` lists the keys of each query."""
    sees = [torch.nonzero(keys).flatten().tolist() for keys in visible(picture.slots, picture.slots)]
    report = {
        "objective": objective,
        "tokens": picture.tokens,
        "positions": row.positions.tolist(),
        "segments": row.segments.tolist(),
        "time": row.time.tolist(),
        "until": [None if until == FOREVER else until for until in row.until.tolist()],
        "predicts": [{"slot": slot, "token": token} for slot, token in sorted(picture.predicts.items())],
        "sees": sees,
    }
    return json.dumps(report, ensure_ascii=False) + "\n"
