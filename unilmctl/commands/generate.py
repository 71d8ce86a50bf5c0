"""`unilmctl generate`: lines in, lines out, in order and without waiting for the end of input.

Decoding options come from the library's defaults, the model card, the recipe's `generate` section and the command line,
the later ones over the earlier ones.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unilmctl import console
from unilmctl import recipe as recipes
from unilmctl.data.parsing import Record
from unilmctl.errors import UsageError
from unilmctl.generation import (
    Answer,
    GenerateOptions,
    Generator,
    Opened,
    Tally,
    generate_stream,
    open_lines,
    open_model,
    read_records,
)
from unilmctl.runs import latest_run, model_folder
from unilmctl.tokens import Tokenizer

SAMPLING = ("temperature", "top_k", "top_p")


def run(  # noqa: PLR0913 - the options of one command line, one by one
    *,
    source: str = "-",
    model: Path | None = None,
    output: Path | None = None,
    as_json: bool = False,
    input_format: str = "auto",
    on_bad_line: str = "fail",
    recipe: str | None = None,
    settings: Sequence[str] = (),
    objective: str | None = None,
    prefix: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Tally:
    """Answers every line of `source` ("-": standard input) on `output` (None: standard output); returns the counts.

    `model` is a model folder or a run folder; None: the recipe's run, or the last run. `options` are those of
    `GenerateOptions` that were given. With `nbest` n, text output has n lines for every line of input.
    """
    section, run_folder = _from_recipe(recipe, settings)
    folder = _model_folder(model, run_folder)
    opened = open_model(folder, objective=objective)
    if not opened.card.head_trained:
        console.warn(f"{folder}: the language-model head was never trained; what follows is noise")
    settled = merged_options(opened.card.generate, section, options or {})
    generator = Generator(*opened.packed(settled.dtype), settled)
    tally = Tally()
    records = read_records(source, format=input_format, on_bad_line=on_bad_line)
    with open_lines(output) as write, console.progress("generate") as advance:
        for answers in generate_stream(generator, records, tally, prefix=prefix):
            write([line for answer in answers for line in _lines(answer, opened, settled.nbest, as_json=as_json)])
            advance(len(answers))
    report(tally, generator.longest_source)
    return tally


def merged_options(card: Mapping[str, Any], section: Mapping[str, Any], given: Mapping[str, Any]) -> GenerateOptions:
    """The library's defaults < the model card's < the recipe's < those that were given.

    UsageError when sampling options are given to a search that does not sample.
    """
    settled = GenerateOptions().updated({**card, **section, **given})
    stray = [name for name in SAMPLING if name in given]
    if stray and settled.search != "sample":
        flag = stray[0].replace("_", "-")
        raise UsageError(f"--{flag} has no meaning for {settled.search} search", "--search sample")
    return settled


def to_json(answer: Answer, tokenizer: Tokenizer) -> dict[str, Any]:
    """One output line of `--json`; `token_scores` end with that of the final separator, which `tokens` leave out."""
    hypotheses = [
        {
            "text": tokenizer.decode(hypothesis.ids),
            "tokens": tokenizer.tokens(hypothesis.ids),
            "score": hypothesis.score,
            "token_scores": hypothesis.token_scores,
        }
        for hypothesis in answer.hypotheses
    ]
    if isinstance(answer.record, Record):
        return {"id": answer.record.id, "hypotheses": hypotheses}
    mended = answer.record.replacement
    return {"id": mended and mended.id, "hypotheses": hypotheses, "error": answer.record.message}


def report(tally: Tally, longest: int) -> None:
    """Says on standard error what was cut or could not be read."""
    if tally.cut:
        console.warn(f"{tally.cut:,} of {tally.records:,} sources were cut to {longest} tokens")
    if tally.bad:
        console.warn(f"{tally.bad:,} of {tally.records:,} lines could not be read as they are")


def _lines(answer: Answer, opened: Opened, nbest: int, *, as_json: bool) -> list[str]:
    if as_json:
        return [json.dumps(to_json(answer, opened.tokenizer), ensure_ascii=False)]
    texts = [opened.tokenizer.decode(hypothesis.ids).replace("\n", " ") for hypothesis in answer.hypotheses]
    return texts + [""] * (nbest - len(texts))


def _from_recipe(recipe: str | None, settings: Sequence[str]) -> tuple[dict[str, Any], Path | None]:
    """The `generate` section as far as it was written, and the run folder."""
    if recipe is None:
        if settings:
            raise UsageError("--set overrides a recipe, and no recipe is given", "--recipe RECIPE")
        return {}, None
    loaded = recipes.load(recipe, settings)
    return loaded.generate.model_dump(exclude_unset=True), Path(loaded.run)


def _model_folder(model: Path | None, run_folder: Path | None) -> Path:
    if model is not None:
        return model_folder(model)
    found = model_folder(run_folder or latest_run())
    console.say(f"model: {found}")
    return found
