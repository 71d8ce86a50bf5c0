"""Writes docs/cli.md from the command line and docs/recipes.md from the schema; `--check` fails when they differ."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from pydantic import BaseModel

from unilmctl import recipe
from unilmctl.cli import app

HERE = Path(__file__).parent

CLI_HEAD = """# The command line

Written by `make docs` from the signatures. Data goes to standard output, messages to standard error. Options of
`generate` that are not given keep what the recipe and the model folder say.

Exit codes: 0 done, 1 failure, 2 usage, 3 recipe, 4 data, 5 model, 6 not a number, 7 out of memory, 74 input/output,
75 stopped by a signal and saved, 130 interrupted, 129 and 143 hung up and terminated with nothing to save, 141 pipe
closed.
"""

RECIPES_HEAD = """# Recipes

Written by `make docs` from the schema. A recipe is one YAML file per task with a section per command. Later layers win:
defaults, `extends`, the recipe, `--set section.key=value`, the options of the command. Unknown keys are refused, and
all mistakes are reported together. Numbers and words follow YAML 1.2: `1e-4` is a number, `no` is a word.
"""


def main(arguments: list[str]) -> int:
    """Writes the pages, or with `--check` names those that are out of date; gives the exit code."""
    pages = {"cli.md": cli_page(), "recipes.md": recipes_page()}
    stale = [name for name, text in pages.items() if not _is_current(HERE / name, text)]
    if "--check" in arguments:
        for name in stale:
            print(f"docs/{name} is out of date: run make docs", file=sys.stderr)
        return 1 if stale else 0
    for name in stale:
        (HERE / name).write_text(pages[name], encoding="utf-8")
        print(f"docs/{name} written")
    return 0


def cli_page() -> str:
    """Every command with its arguments and options."""
    parts = [CLI_HEAD]
    for path, command in _commands(typer.main.get_command(app), ("unilmctl",)):
        parts.append(f"\n## `{' '.join(path)}`\n\n{(command.help or '').strip()}\n\n")
        parts += ["| argument or option | |\n|---|---|\n", *_option_rows(command)]
    return "".join(parts)


def recipes_page() -> str:
    """Every section with its keys, defaults and bounds, then the recipes that come with the program."""
    parts = [RECIPES_HEAD, *_section("", recipe.Recipe)]
    parts.append("\n## Built-in recipes\n\n| recipe | what it does |\n|---|---|\n")
    parts += [f"| `{entry.name}` | {_escaped(entry.about)} |\n" for entry in recipe.list_recipes()]
    return "".join(parts)


def _is_current(path: Path, text: str) -> bool:
    return path.exists() and path.read_text(encoding="utf-8") == text


def _commands(command: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from _commands(inner, (*path, name))


def _option_rows(command: Any) -> Iterator[str]:
    """What `--help` says about every argument and option, a row each."""
    context = typer.Context(command)
    for option in command.params:
        names, text = option.get_help_record(context)
        words = " ".join(text.split())
        yield f"| `{_escaped(names)}` | {_escaped(words)} |\n"


def _section(name: str, section: type[BaseModel]) -> Iterator[str]:
    """The table of one section, followed by those inside it."""
    yield f"\n## {f'`{name}`' if name else 'Top level'}\n\n{(section.__doc__ or '').strip()}\n\n"
    yield "| key | default | bounds | |\n|---|---|---|---|\n"
    schema = section.model_json_schema()
    definitions = schema.get("$defs", {})
    inner: list[tuple[str, type[BaseModel]]] = []
    for key, field in section.model_fields.items():
        entry = schema["properties"][key]
        models = [part for part in _types(field.annotation) if isinstance(part, type) and issubclass(part, BaseModel)]
        inner += [(f"{name}.{key}".lstrip("."), model) for model in models]
        default = "required" if field.is_required() else _default(field.get_default())
        bounds = _bounds(entry, definitions)
        yield f"| `{key}` | {default} | {bounds} | {_escaped(field.description or '')} |\n"
    described: set[type[BaseModel]] = set()
    for path, model in inner:
        if model in described:
            yield f"\n`{path}` takes the same keys.\n"
        else:
            described.add(model)
            yield from _section(path, model)


def _types(annotation: Any) -> list[Any]:
    parts = getattr(annotation, "__args__", ())
    return [annotation] if not parts else [found for part in parts for found in _types(part)]


def _default(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, BaseModel):
        return "a section"
    if isinstance(value, list):
        return f"`[{', '.join(map(str, value))}]`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _bounds(entry: dict[str, Any], definitions: dict[str, Any]) -> str:
    options = [entry, *entry.get("anyOf", [])]
    words = [str(choice) for option in options for choice in option.get("enum", option.get("const", "").split())]
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    numbers = [f"{sign} {option[key]:g}" for option in options for key, sign in signs.items() if key in option]
    return _escaped(" | ".join(words) if words else ", ".join(numbers))


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
