"""Every mix that docs/objectives.md names is read, and takes a step."""

import math
import re
from pathlib import Path

import pytest
from text_runs import prepared

from unilmctl import recipe as recipes
from unilmctl.commands.pretrain import command
from unilmctl.preparation import PreparedText
from unilmctl.runs import RunFolder, StopSignals
from unilmctl.training import train
from unilmctl.training.distributed import ALONE

PAGE = Path(__file__).parents[2] / "docs" / "objectives.md"
LINE = re.compile(r"^\| (?P<system>[^|]+) \| [^|]+ \| `(?P<mix>\[.*\])` \| (`(?P<writes>[\w-]+)`|-) \|$", re.MULTILINE)
LINES = [line.groupdict() for line in LINE.finditer(PAGE.read_text())]

NO_GAPS = ("ELECTRA", "GPT", "Transformer-XL, in part", "Prefix language model", "s2s-ft")
"""Systems that were not taught to restore what is hidden."""


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PreparedText]:
    """A folder with a recipe, and its text as token stores."""
    folder = tmp_path_factory.mktemp("objectives")
    prepared(folder, "[{objective: next-token}]")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        return folder, command.prepare(recipes.load("recipe.yaml"))


def test_no_line_of_the_tables_is_passed_over() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| ") and not line.startswith("| system")]
    assert len(rows) == len(LINES) > 15


@pytest.mark.parametrize("line", LINES, ids=lambda line: line["system"])
def test_a_mix_of_the_tables_takes_a_step(
    line: dict[str, str], text: tuple[Path, PreparedText], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, store = text
    monkeypatch.chdir(folder)
    plan = recipes.load("recipe.yaml", [f"pretrain.mix={line['mix']}"])
    assert plan.pretrain is not None
    with StopSignals() as signals:
        fitting = command.assemble(plan, plan.pretrain, RunFolder(plan.run), store, signals, ALONE)
    (stage,) = fitting.stages
    step = next(train(fitting.encoder, fitting.optimizer, stage.feed, fitting.options))
    heads = {head for entry in plan.pretrain.entries for head in ("lm", *entry.heads)}
    assert {head for _, head in step.tallies} <= heads
    assert all(tally.labels > 0 and math.isfinite(tally.loss) for tally in step.tallies.values())
    assert fitting.card.objective == (line["writes"] or "pseudo")
    assert bool(fitting.card.fills) == (line["system"] not in NO_GAPS)
