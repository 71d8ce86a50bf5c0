"""Every signature of the command line, on one page; those of `recipes` and `inspect` are on the next, `subcommands`.

A command here parses and calls one plain `run(...)`, imported inside the function so that `--help` answers at once and
never loads torch. What the options are called and say is in `options`.
"""

from typing import Annotated, Any

import typer

from unilmctl import __version__
from unilmctl.cli import options as o
from unilmctl.cli.subcommands import inspect_app, need_command, recipes_app

app = typer.Typer(
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Turns BERT-type encoders into text generators: convert, pre-train, fine-tune, generate, score, evaluate.",
)
app.add_typer(recipes_app, name="recipes")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"unilmctl {__version__}")
        raise typer.Exit


def _given(**options: object) -> dict[str, Any]:
    """The options that were given: the others keep what recipe and model folder say."""
    return {name: value for name, value in options.items() if value is not None and value != []}


@app.callback(invoke_without_command=True)
def everywhere(
    context: typer.Context,
    *,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No messages, no progress; errors only.")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Version.")] = False,
) -> None:
    """Options that stand before the command."""
    if quiet:
        from unilmctl import console

        console.configure(quiet=True)
    need_command(context)


@app.command()
def preprocess(recipe: o.RecipeName, *, settings: o.Settings = None, workers: o.Workers = None) -> None:
    """Text into token stores. Finetune does it by itself when they are missing or stale."""
    from unilmctl.commands import preprocess as command

    command.run(recipe=recipe, settings=settings or [], workers=workers)


@app.command()
def convert(
    source: o.Checkpoint,
    destination: o.NewFolder,
    *,
    config: o.Config = None,
    tokenizer: o.VocabularyOf = None,
    architecture: o.Architecture = None,
    positions: o.Positions = None,
    segments: o.Segments = None,
    keep_vocabulary: o.KeepVocabulary = None,
    objective: o.ObjectiveName = None,
    source_segment: o.SourceSegment = None,
    target_segment: o.TargetSegment = None,
    average: o.Average = None,
    as_json: o.Json = False,
) -> None:
    """A checkpoint into a model folder. Reports what was loaded, resized, missing and left over."""
    from unilmctl.commands import convert as command

    command.run(
        source=source,
        destination=destination,
        config=config,
        tokenizer=tokenizer,
        architecture=architecture,
        positions=positions,
        segments=segments,
        keep_vocabulary=keep_vocabulary,
        objective=objective,
        source_segment=source_segment,
        target_segment=target_segment,
        average=average or [],
        as_json=as_json,
    )


@app.command()
def pretrain(
    recipe: o.RecipeName, *, settings: o.Settings = None, fresh: o.Fresh = False, replay: o.Replay = None
) -> None:
    """Trains the recipe's mix of objectives on text. Started again, it goes on where it stopped."""
    from unilmctl.commands import pretrain as command

    if replay is not None:
        command.replay(recipe=recipe, settings=settings or [], step=replay)
    else:
        command.run(recipe=recipe, settings=settings or [], fresh=fresh)


@app.command()
def finetune(
    recipe: o.RecipeName, *, settings: o.Settings = None, fresh: o.Fresh = False, replay: o.Replay = None
) -> None:
    """Trains the recipe's model. Started again, it goes on where it stopped."""
    from unilmctl.commands import finetune as command

    if replay is not None:
        command.replay(recipe=recipe, settings=settings or [], step=replay)
    else:
        command.run(recipe=recipe, settings=settings or [], fresh=fresh)


@app.command()
def generate(
    source: o.Input = "-",
    *,
    model: o.Models = None,
    output: o.Output = None,
    as_json: o.Json = False,
    input_format: o.InputFormat = "auto",
    on_bad_line: o.OnBadLine = "fail",
    recipe: o.FromRecipe = None,
    settings: o.Settings = None,
    objective: o.HowWritten = None,
    prefix: o.Prefix = None,
    shard: o.Shard = None,
    task: o.TaskName = None,
    fill: o.Fill = False,
    order: o.Order = None,
    search: o.Search = None, beam: o.Beam = None, nbest: o.Nbest = None,
    beam_groups: o.BeamGroups = None, diversity: o.Diversity = None,
    length_penalty: o.LengthPenalty = None, length_normalization: o.LengthNormalization = None,
    coverage_penalty: o.CoveragePenalty = None, attention: o.Attention = None,
    min_length: o.MinLength = None, max_length: o.MaxLength = None,
    no_repeat_ngram: o.NoRepeatNgram = None, no_repeat_ignore: o.NoRepeatIgnore = None,
    repetition_penalty: o.RepetitionPenalty = None, forbid: o.Forbid = None,
    forbid_phrase: o.ForbidPhrase = None, must: o.Must = None,
    drafts: o.Drafts = None, temperature: o.Temperature = None, top_k: o.TopK = None, top_p: o.TopP = None,
    min_p: o.MinP = None, typical_p: o.TypicalP = None, alpha: o.Alpha = None, seed: o.Seed = None,
    dtype: o.Dtype = None, device: o.Device = None, batch_tokens: o.BatchTokens = None, workers: o.Workers = None,
) -> None:  # fmt: skip
    """One line out for every line in, in order: text, or JSON with scores."""
    from unilmctl.commands import generate as command

    asked = _given(
        search=search, beam=beam, nbest=nbest, beam_groups=beam_groups, diversity=diversity,
        length_penalty=length_penalty, length_normalization=length_normalization,
        coverage_penalty=coverage_penalty, attention=attention,
        min_length=min_length, max_length=max_length,
        no_repeat_ngram=no_repeat_ngram, no_repeat_ignore=no_repeat_ignore,
        repetition_penalty=repetition_penalty, forbid=forbid, forbid_phrase=forbid_phrase, must=must,
        drafts=drafts, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, typical_p=typical_p,
        alpha=alpha, seed=seed,
        dtype=dtype, device=device, batch_tokens=batch_tokens, workers=workers,
    )  # fmt: skip
    command.run(
        source=source,
        model=model[0] if model else None,
        others=(model or [])[1:],
        output=output,
        as_json=as_json,
        input_format=input_format,
        on_bad_line=on_bad_line,
        recipe=recipe,
        settings=settings or [],
        objective=objective,
        prefix=prefix,
        task=task,
        fill=fill,
        order=order,
        shard=shard,
        options=asked,
    )


@app.command()
def score(
    source: o.Input = "-",
    *,
    model: o.ModelFolder = None,
    output: o.Output = None,
    as_json: o.Json = False,
    input_format: o.InputFormat = "auto",
    on_bad_line: o.OnBadLine = "fail",
    objective: o.ObjectiveName = None,
    length_penalty: o.LengthPenalty = None,
    length_normalization: o.LengthNormalization = None,
    max_length: o.MaxLength = None,
    memory: o.Memory = None,
    dtype: o.Dtype = None,
    device: o.Device = None,
    batch_tokens: o.BatchTokens = None,
) -> None:
    """Log-probability of given targets. It is the score that generate prints for them."""
    from unilmctl.commands import score as command

    command.run(
        source=source,
        model=model,
        output=output,
        as_json=as_json,
        input_format=input_format,
        on_bad_line=on_bad_line,
        objective=objective,
        memory=memory,
        options=_given(
            length_penalty=length_penalty,
            length_normalization=length_normalization,
            max_length=max_length,
            dtype=dtype,
            device=device,
            batch_tokens=batch_tokens,
        ),
    )


@app.command()
def evaluate(
    hypotheses: o.Hypotheses,
    references: o.References,
    *,
    metric: o.Metric = None,
    task: o.Task = None,
    compare: o.Compare = None,
    sources: o.Sources = None,
    language: o.Language = "en",
    lowercase: o.Lowercase = False,
    tokenize: o.Tokenize = None,
    exceptions: o.Exceptions = None,
    confidence: o.Confidence = True,
    as_json: o.Json = False,
) -> None:
    """Scores with signatures and intervals."""
    from unilmctl.commands import evaluate as command

    command.run(
        hypotheses=hypotheses,
        references=references,
        metrics=metric or [],
        task=task,
        compare=compare,
        sources=sources,
        language=language,
        lowercase=lowercase,
        tokenize=tokenize,
        exceptions=exceptions,
        confidence=confidence,
        as_json=as_json,
    )


app.add_typer(inspect_app, name="inspect")
