"""Runs every case of reliability and writes docs/reliability.md with the results; `--check` compares the cases alone.

A group is some test files: the first paragraph of each file says what is promised, the names of its tests are what is
checked, and their parameters are the cases.
"""

import ast
import contextlib
import io
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = Path(__file__).parent / "reliability.md"

GROUPS: dict[str, tuple[str, ...]] = {
    "Stopped and gone on with": ("tests/reliability/test_resume.py", "tests/reliability/test_shared_runs.py"),
    "Killed at any moment": ("tests/reliability/test_crashes.py",),
    "Disks that refuse": ("tests/reliability/test_full_disks.py",),
    "Signals": ("tests/reliability/test_signals.py",),
    "Text as it comes": ("tests/reliability/test_bad_text.py",),
    "Models from strangers": (
        "tests/reliability/test_hostile_models.py",
        "tests/unit/test_weights_pickles.py",
        "tests/unit/test_weights_safety.py",
        "tests/reliability/test_advisories.py",
    ),
    "Numbers that are none, memory that is short": ("tests/reliability/test_numbers_and_memory.py",),
    "Pipes and terminals": ("tests/reliability/test_pipes.py",),
    "The same answer in any company": ("tests/reliability/test_same_answers.py",),
    "Recipes with mistakes": (
        "tests/reliability/test_bad_recipes.py",
        "tests/unit/test_recipe_schema.py",
        "tests/unit/test_recipe_yaml.py",
    ),
    "Any bytes": ("tests/fuzz/test_targets.py",),
    "Old checkpoints": ("tests/golden/test_old_checkpoints.py",),
}
"""Title of a group -> the files that hold its cases."""

HEAD = """# Reliability

Written by `make reliability`, which runs every case below, the long ones too; `make test` runs those that are short.
"""

COUNTS = re.compile(r"^\| together \| (\d+) cases \| (\d+) passed \|$", re.M)

Cases = dict[str, dict[str, str]]
"""`file::test` -> case -> result; a test without parameters has one case, called "". """


class Watch:
    """A pytest plugin that notes every case and how it ended."""

    def __init__(self) -> None:
        self.cases: Cases = {}

    def note(self, name: str, result: str) -> None:
        """Keeps the first result that is not a pass."""
        test, _, case = name.partition("[")
        found = self.cases.setdefault(test, {})
        if found.get(case.removesuffix("]"), "") in ("", "passed"):
            found[case.removesuffix("]")] = result

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Every case, before any has run."""
        for item in session.items:
            self.note(item.nodeid, "")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Every result; a case has three phases."""
        if report.when == "call" or not report.passed:
            self.note(report.nodeid, report.outcome)


def main(arguments: Sequence[str]) -> int:
    """Writes the page, or with `--check` says whether it lists the cases that there are; gives the exit code.

    Named files are run alone, and the page keeps what it says of the others.
    """
    watch = Watch()
    named = [argument for argument in arguments if not argument.startswith("-")]
    known = [file for files in GROUPS.values() for file in files]
    old = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    options = ["--rootdir", str(ROOT), "-m", "", "-p", "no:cacheprovider"]
    if "--check" in arguments:
        with contextlib.redirect_stdout(io.StringIO()):
            pytest.main(["--collect-only", *options, *(str(ROOT / file) for file in known)], plugins=[watch])
        if _without_results(old) != _without_results(page({file: block(file, watch.cases) for file in known})):
            print("docs/reliability.md lists other cases than there are: run make reliability", file=sys.stderr)
            return 1
        return 0
    wanted = named or known
    code = pytest.main([*options, *(str(ROOT / file) for file in wanted)], plugins=[watch])
    new = {file: block(file, watch.cases) for file in wanted}
    PAGE.write_text(page(blocks(old) | new), encoding="utf-8")
    return int(code)


def page(written: dict[str, str]) -> str:
    """The page of what is written of each file."""
    parts = [HEAD, "\n| group | cases | passed |\n|---|---|---|\n"]
    for title, files in GROUPS.items():
        counts = [match.groups() for file in files for match in COUNTS.finditer(written.get(file, ""))]
        cases, passed = (sum(int(pair[place]) for pair in counts) for place in (0, 1))
        parts.append(f"| {title} | {cases} | {passed} |\n")
    for title, files in GROUPS.items():
        parts += [f"\n## {title}\n", *(written.get(file, "") for file in files)]
    return "".join(parts)


def block(file: str, cases: Cases) -> str:
    """What the page says of a file."""
    mine = {test: found for test, found in cases.items() if test.startswith(f"{file}::")}
    results = [result for found in mine.values() for result in found.values()]
    rows = "".join(_row(test, found) for test, found in mine.items())
    head = f"\n### `{file}`\n\n{_promise(ROOT / file)}\n\n| what is checked | cases | |\n|---|---|---|\n"
    return f"{head}{rows}| together | {len(results)} cases | {results.count('passed')} passed |\n"


def blocks(text: str) -> dict[str, str]:
    """What a page says of each file."""
    parts = re.split(r"\n(?=##)", text)
    return {part.split("`")[1]: f"\n{part.rstrip()}\n" for part in parts if part.startswith("### ")}


def _row(test: str, found: dict[str, str]) -> str:
    sentence = test.rpartition("::")[2].removeprefix("test_").replace("_", " ")
    names = ", ".join(f"`{_escaped(case)}`" for case in found if case)
    listed = f"{len(found)}: {names}" if names else "1"
    return f"| {sentence} | {listed} | {_summary(found.values())} |\n"


def _summary(results: Iterable[str]) -> str:
    """`all passed`, or how many ended otherwise."""
    others = [result for result in results if result != "passed"]
    return ", ".join(f"{others.count(kind)} {kind}" for kind in sorted(set(others))) or "passed"


def _promise(file: Path) -> str:
    return (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").split("\n\n")[0]


def _without_results(text: str) -> list[str]:
    """The page without its last column, nor the count of what passed."""
    return [line.rpartition(" | ")[0] if line.startswith("|") else line for line in text.splitlines()]


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("`", "'").replace("\n", " ")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
