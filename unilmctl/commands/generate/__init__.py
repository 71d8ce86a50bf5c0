"""`unilmctl generate`: lines in, lines out, in order and without waiting for the end of input.

`writing` writes text; `labelling` says what a model with a head for it says of each line; `filling` fills its gaps.
This file chooses.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unilmctl.commands.generate import filling, labelling, writing
from unilmctl.commands.generate.writing import Lines, merged_options, opened_decoder, to_json
from unilmctl.errors import UsageError
from unilmctl.generation import Tally
from unilmctl.runs import model_folder

__all__ = ["merged_options", "opened_decoder", "run", "to_json"]

WRITE = "generate"
"""The name of the task that is writing."""


def run(  # noqa: PLR0913 - the options of one command line, one by one
    *,
    source: str = "-",
    model: Path | None = None,
    others: Sequence[Path] = (),
    output: Path | None = None,
    as_json: bool = False,
    input_format: str = "auto",
    on_bad_line: str = "fail",
    recipe: str | None = None,
    settings: Sequence[str] = (),
    objective: str | None = None,
    prefix: str | None = None,
    shard: str | None = None,
    task: str | None = None,
    fill: bool = False,
    order: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Tally:
    """Answers every line of `source` ("-": standard input) on `output` (None: standard output); returns the counts.

    `task` is the name of one of the model's heads, or "generate"; None: what the model was last fine-tuned for. The
    rest is as in `writing.run`, of which labels need little: `labelling.run` refuses what means nothing to them. With
    `fill` gaps are filled, in an `order` of `generation.filling`.
    """
    if order is not None and not fill:
        raise UsageError("--order is the order in which gaps are filled", "--fill fills gaps")
    section, run_folder = writing.from_recipe(recipe, settings)
    folder = writing.folder_of(model, run_folder)
    lines = Lines(source, output, as_json, input_format, on_bad_line)
    part = shard or os.environ.get("WORLD_SIZE")
    stray = {"--model (a second one)": others, "--prefix": prefix, "--shard": part}
    if fill:
        filling.refuse({**stray, "--task": task})
        return filling.run(folder, lines, objective=objective, order=order, options=options or {})
    name = labelling.chosen(folder, task, objective)
    if name is None:
        folders = [folder, *map(model_folder, others)]
        return writing.run(
            folders, lines, section=section, objective=objective, prefix=prefix, shard=shard, options=options
        )
    labelling.refuse(name, stray, options or {})
    return labelling.run(folder, name, lines, options=options or {})
