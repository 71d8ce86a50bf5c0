"""Text for every line, by one model or several that write together.

Processes share the work of one command; shards are commands, started by hand or by torchrun, that share one input.
Decoding options come from the library's defaults, the model card, the recipe's `generate` section and the command line,
the later ones over the earlier ones.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from unilmctl import __version__, console
from unilmctl import recipe as recipes
from unilmctl.data.parsing import Record
from unilmctl.errors import UsageError
from unilmctl.files import MANIFEST, sha256
from unilmctl.generation import (
    CAN_FORK,
    Answer,
    Decode,
    Digest,
    GenerateOptions,
    Generator,
    Opened,
    Shard,
    Staff,
    Tally,
    Work,
    decoder_of,
    generate_stream,
    merged,
    open_lines,
    open_models,
    open_part,
    read_records,
    shard_of,
    text_ids,
)
from unilmctl.model.devices import device_named
from unilmctl.runs import latest_run, model_folder
from unilmctl.tokens import Tokenizer

OF_THE_MACHINE = ("batch_tokens", "workers", "device")
"""Options that do not change what is written."""


class Lines(NamedTuple):
    """Where lines come from ("-": standard input), where theirs go (None: standard output), and how they look."""

    source: str
    output: Path | None
    as_json: bool
    input_format: str
    on_bad_line: str


def run(
    folders: Sequence[Path],
    lines: Lines,
    *,
    section: Mapping[str, Any],
    objective: str | None = None,
    prefix: str | None = None,
    shard: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Tally:
    """Answers every line of `lines`; returns the counts.

    The models of `folders` write together; the first one's card has the decoding defaults, and `objective` holds for
    all. `section` is a recipe's, `options` are those of `GenerateOptions` that were given. With `nbest` n, text output
    has n lines for every line of input. `shard` i/n, or torchrun: only records i, i+n, i+2n, ... are answered, and the
    last shard to finish writes the output.
    """
    output = lines.output
    part = shard_of(shard, lines.source, output, os.environ)
    models = open_models(folders, objective=objective)
    for folder, one in zip(folders, models, strict=True):
        if not one.card.head_trained:
            console.warn(f"{folder}: the language-model head was never trained; what follows is noise")
    settled = merged_options(models[0].card.generate, section, options or {})
    if settled.attention and not lines.as_json:
        raise UsageError("attention is shown in JSON lines only", "--json, or --no-attention")
    generator = _generator(models, settled)
    tally = Tally()
    show = partial(_lines, opened=models[0], nbest=settled.nbest, as_json=lines.as_json)
    identities = [_identity(folder) for folder in folders]
    digest = Digest(__version__, identities, *_facts(settled), objective, prefix, lines.as_json, lines.on_bad_line)
    records = digest.watched(read_records(lines.source, format=lines.input_format, on_bad_line=lines.on_bad_line))
    staff = _staff(generator, partial(opened_decoder, folders, objective, settled))
    with staff, _opened_output(output, part, digest) as write, console.progress("generate") as advance:
        for answers in generate_stream(
            generator, records, tally, desk=staff, prefix=prefix, shard=part, forgiving=lines.on_bad_line != "fail"
        ):
            write([line for answer in answers for line in show(answer)])
            advance(len(answers))
    if output is not None and part.count > 1:
        whole = merged(output, part.count, digest, 1 if lines.as_json else settled.nbest)
        console.say(f"{output} is whole" if whole else f"{part.part(output)} waits for the other parts")
    report(tally, generator.longest_source)
    return tally


def opened_decoder(folders: Sequence[Path], objective: str | None, options: GenerateOptions) -> Decode:
    """What decodes in a process that has not loaded the models."""
    return decoder_of(_generator(open_models(folders, objective=objective), options))


def merged_options(card: Mapping[str, Any], section: Mapping[str, Any], given: Mapping[str, Any]) -> GenerateOptions:
    """The library's defaults < the model card's < the recipe's < those that were given.

    UsageError for options that are given to a search that has no use for them.
    """
    settled = GenerateOptions().updated({**card, **section, **given})
    settled.refuse_strangers(given)
    return settled


def to_json(answer: Answer, tokenizer: Tokenizer) -> dict[str, Any]:
    """One output line of `--json`; `token_scores` end with that of the final separator, which `tokens` leave out.

    An `alignment` names places in the tokens of `source`.
    """
    hypotheses = [
        {
            "text": tokenizer.decode(hypothesis.ids),
            "tokens": tokenizer.tokens(hypothesis.ids),
            "score": hypothesis.score,
            "token_scores": hypothesis.token_scores,
        }
        | ({} if hypothesis.alignment is None else {"alignment": hypothesis.alignment})
        for hypothesis in answer.hypotheses
    ]
    record = answer.record if isinstance(answer.record, Record) else answer.record.replacement
    shown: dict[str, Any] = {"id": record and record.id}
    if record is not None and any(hypothesis.alignment is not None for hypothesis in answer.hypotheses):
        shown["source"] = tokenizer.tokens(text_ids(tokenizer, [record.source])[0])
    shown["hypotheses"] = hypotheses
    return shown if isinstance(answer.record, Record) else shown | {"error": answer.record.message}


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


def _generator(models: Sequence[Opened], options: GenerateOptions) -> Generator:
    device = device_named(options.device, number=int(os.environ.get("LOCAL_RANK", "0")))
    first, *others = [model.packed(options.dtype, device) for model in models]
    return Generator(*first, options, others)


def _staff(generator: Generator, opener: Callable[[], Decode]) -> Staff:
    """The processes that decode for this command."""
    options, here = generator.options, decoder_of(generator)

    def cost(work: Work) -> int:
        return generator.costs([work.source])[0]

    make = (lambda: here) if CAN_FORK else opener
    workers = options.workers if generator.device.type == "cpu" else 1  # a GPU is no faster for being shared
    return Staff(here, make, workers=workers, cost=cost, budget=options.batch_tokens)


def _opened_output(
    output: Path | None, shard: Shard, digest: Digest
) -> AbstractContextManager[Callable[[list[str]], None]]:
    return open_lines(output) if output is None or shard.count == 1 else open_part(output, shard, digest)


def _facts(options: GenerateOptions) -> list[tuple[str, Any]]:
    """The options that change what is written."""
    return [(name, value) for name, value in asdict(options).items() if name not in OF_THE_MACHINE]


def _identity(folder: Path) -> str:
    """What tells the model of a folder from others: its manifest, or what the files look like from outside."""
    if (folder / MANIFEST).is_file():
        return sha256(folder / MANIFEST)
    seen = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in folder.iterdir() if path.is_file()]
    return repr(sorted(seen))


def from_recipe(recipe: str | None, settings: Sequence[str]) -> tuple[dict[str, Any], Path | None]:
    """The `generate` section of a recipe as far as it was written, and the run folder."""
    if recipe is None:
        if settings:
            raise UsageError("--set overrides a recipe, and no recipe is given", "--recipe RECIPE")
        return {}, None
    loaded = recipes.load(recipe, settings)
    return loaded.generate.model_dump(exclude_unset=True), Path(loaded.run)


def folder_of(model: Path | None, run_folder: Path | None) -> Path:
    """The model folder that is asked for, of the recipe's run, or of the last run."""
    if model is not None:
        return model_folder(model)
    found = model_folder(run_folder or latest_run())
    console.say(f"model: {found}")
    return found
