"""The signatures of `unilmctl recipes ...` and `unilmctl inspect ...`; the other commands are in `signatures`."""

from pathlib import Path
from typing import Annotated

import typer

from unilmctl.cli import options as o

recipes_app = typer.Typer(help="Lists, shows, copies, checks recipes.")
inspect_app = typer.Typer(help="Shows masks, models, stores and runs.")


def need_command(context: typer.Context) -> None:
    """Shows the help on standard error when no command follows: a script that forgot it must notice."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(2)


@inspect_app.callback(invoke_without_command=True)
def inspect(context: typer.Context) -> None:
    """Shows masks, models, stores and runs."""
    need_command(context)


@inspect_app.command("mask")
def inspect_mask(
    text: o.SourceText,
    target: o.TargetText = None,
    *,
    objective: o.Objectives = None,
    recipe: o.MixOf = None,
    model: o.Vocabulary = None,
    rate: o.Rate = None,
    seed: o.DrawSeed = 1,
    output: o.PictureFile = None,
    as_json: o.Json = False,
) -> None:
    """Who sees whom, for an objective and your own text."""
    from unilmctl import console
    from unilmctl.commands.inspect import mask as command

    report = command.run(
        objective=objective,
        recipe=recipe,
        source=text,
        target=target,
        model=model,
        output=output,
        rate=rate,
        seed=seed,
        json_output=as_json,
    )
    console.emit(report.text.rstrip("\n"))


@inspect_app.command("model")
def inspect_model(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Model folder or run folder.")],
    *,
    as_json: o.Json = False,
) -> None:
    """Parameters, shapes and sha256 of a model."""
    from unilmctl.commands.inspect import model as command

    command.run(folder=folder, as_json=as_json)


@inspect_app.command("store")
def inspect_store(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Token store, or run folder.")],
    *,
    as_json: o.Json = False,
) -> None:
    """Counts and lengths of a token store."""
    from unilmctl.commands.inspect import store as command

    command.run(folder=folder, as_json=as_json)


@inspect_app.command("run")
def inspect_run(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Run folder.")],
    *,
    as_json: o.Json = False,
    html: o.Page = None,
) -> None:
    """Curves of a run: loss and scores."""
    from unilmctl.commands.inspect import run as command

    command.run(folder=folder, as_json=as_json, html=html)


@recipes_app.callback(invoke_without_command=True)
def recipes(context: typer.Context) -> None:
    """Lists, shows, copies, checks recipes; alone, it lists them."""
    if context.invoked_subcommand is None:
        recipes_list()


@recipes_app.command("list")
def recipes_list() -> None:
    """The built-in recipes, a line each."""
    from unilmctl.commands import recipes as command

    command.run_list()


@recipes_app.command("show")
def recipes_show(recipe: o.RecipeName, *, settings: o.Settings = None) -> None:
    """A recipe with every default written out."""
    from unilmctl.commands import recipes as command

    command.run_show(recipe=recipe, settings=settings or [])


@recipes_app.command("copy")
def recipes_copy(recipe: o.RecipeName, destination: o.CopyTo = Path()) -> None:
    """Copies a built-in recipe, to be changed."""
    from unilmctl.commands import recipes as command

    command.run_copy(recipe=recipe, destination=destination)


@recipes_app.command("check")
def recipes_check(recipe: o.RecipeName, *, settings: o.Settings = None) -> None:
    """Reports every mistake, and which files are absent."""
    from unilmctl.commands import recipes as command

    command.run_check(recipe=recipe, settings=settings or [])
