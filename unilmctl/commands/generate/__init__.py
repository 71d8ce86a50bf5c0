"""`unilmctl generate`: lines in, lines out, in order and without waiting for the end of input.

`writing` writes text; `labelling` says what a model with a head for it says of each line. This file chooses.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unilmctl.commands.generate import labelling, writing
from unilmctl.commands.generate.writing import merged_options, opened_decoder, to_json
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
    options: Mapping[str, Any] | None = None,
) -> Tally:
    """Answers every line of `source` ("-": standard input) on `output` (None: standard output); returns the counts.

    `task` is the name of one of the model's heads, or "generate"; None: what the model was last fine-tuned for. The
    rest is as in `writing.run`, of which labels need little: `labelling.run` refuses what means nothing to them.
    """
    section, run_folder = writing.from_recipe(recipe, settings)
    folder = writing.folder_of(model, run_folder)
    name = labelling.chosen(folder, task, objective)
    if name is None:
        return writing.run(
            folders=[folder, *map(model_folder, others)],
            section=section,
            source=source,
            output=output,
            as_json=as_json,
            input_format=input_format,
            on_bad_line=on_bad_line,
            objective=objective,
            prefix=prefix,
            shard=shard,
            options=options,
        )
    stray = {"--model (a second one)": others, "--prefix": prefix, "--shard": shard or os.environ.get("WORLD_SIZE")}
    labelling.refuse(name, stray, options or {})
    return labelling.run(
        folder,
        name,
        source=source,
        output=output,
        as_json=as_json,
        input_format=input_format,
        on_bad_line=on_bad_line,
        options=options or {},
    )
