"""Runs that take a tenth of a second: data, vocabulary and stores once, then as many run folders as there are cases."""

import json
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from stopping import contents
from torch.distributed import TCPStore

from unilmctl.cli import main
from unilmctl.commands import finetune, pretrain
from unilmctl.runs import RunFolder, StopSignals, model_folder

WORDS = ("red", "green", "blue", "one", "two", "three", "four", "old", "new", "big", "small", "cat", "dog", "bird")

HEAD = """
seed: 3
run: run
model: {architecture: bert, layers: 1, hidden: 16, heads: 2, feedforward: 32, positions: 40, dropout: 0.1}
"""
SCHEDULE = """steps: 6, learning_rate: 5e-3, warmup: 2, precision: float32, log_every: 2, evaluate_every: 3,
  save_every: 2, keep_last: 2, threads: 1, device: cpu"""
RECIPES = {
    "pairs": """
data: {store: pairs, train: {files: [pairs.jsonl]}, valid: {files: [few.jsonl]}}
tokens: {max_source: 16, max_target: 12, train: {kind: wordpiece, size: 60}}
finetune: {batch_tokens: 160, SCHEDULE}
generate: {search: greedy, max_length: 6}
evaluate: {metrics: [exact_match]}
""",
    "text": """
data: {store: text, train: {files: [train.txt]}, valid: {files: [valid.txt]}}
tokens: {max_length: 20, train: {kind: wordpiece, size: 60}}
pretrain: {batch_tokens: 160, SCHEDULE, mix: [{objective: bidirectional}]}
""",
    "labels": """
data:
  store: labels
  train: {files: [labels.jsonl], source: text, target: label}
  valid: {files: [labels.jsonl], source: text, target: label}
tokens: {max_source: 16, train: {kind: wordpiece, size: 60}}
finetune: {task: classify, batch_tokens: 120, label_smoothing: 0.0, SCHEDULE}
""",
}


def words(index: int, count: int = 4) -> list[str]:
    return [WORDS[(index * 7 + place * 5 + index * place) % len(WORDS)] for place in range(count)]


def labelled(index: int) -> dict[str, Any]:
    """A text with everything that a task asks of it: a label, a number, tags, and a question with its answer."""
    text = words(index)
    answer = {"text": text[index % 4], "start": len(" ".join([*text[: index % 4], ""]))}
    tags = ["B-LONG" if len(word) > 3 else "O" for word in text]
    asked = {"question": text[index % 4 - 1], "answers": [answer] if index % 5 else []}
    return {
        "text": " ".join(text),
        "label": WORDS[index % 3],
        "number": index % 7 - 2.5,
        "words": text,
        "tags": tags,
        **asked,
    }


def furnish(folder: Path) -> None:
    """Data and recipes of every kind in a folder."""
    pairs = [{"src": " ".join(words(i)), "tgt": " ".join(reversed(words(i)))} for i in range(24)]
    labels = [labelled(i) for i in range(24)]
    text = "".join(" ".join(words(i, 5)) + ("\n\n" if i % 4 == 3 else "\n") for i in range(60))
    for name, lines in {"pairs": pairs, "few": pairs[:4], "labels": labels}.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "train.txt").write_text(text)
    (folder / "valid.txt").write_text(text[:200])
    for name, recipe in RECIPES.items():
        (folder / f"{name}.yaml").write_text(HEAD + recipe.replace("SCHEDULE", SCHEDULE))
    adapted = (HEAD + RECIPES["pairs"].replace("SCHEDULE", SCHEDULE)).replace("store: pairs", "store: adapted")
    adapted = re.sub("model: .*", "model: {init: base, dropout: 0.1}", adapted)
    (folder / "adapted.yaml").write_text(adapted.replace(", train: {kind: wordpiece, size: 60}", ""))


def make_base() -> None:
    """A model that has learnt something, in `base`, for the recipe `adapted`."""
    Trial("pairs", ("finetune.steps=3",)).run("first")
    model_folder(Path("first")).rename("base")


@dataclass(frozen=True)
class Trial:
    """A way to train: the kind of data, and settings over its recipe. It runs in the working directory."""

    kind: str
    settings: tuple[str, ...]

    @property
    def section(self) -> str:
        return "pretrain" if self.kind == "text" else "finetune"

    def arguments(self, run: str, *more: str) -> list[str]:
        """The command line that starts the run, or goes on with it."""
        settings = [f"run={run}", *self.settings, *more]
        return [self.section, f"{self.kind}.yaml", *(part for one in settings for part in ("--set", one))]

    def run(self, run: str, *more: str) -> dict[str, Any]:
        """Starts the run, or goes on with it, to its end; returns all that it has written."""
        command = pretrain if self.kind == "text" else finetune
        command.run(recipe=f"{self.kind}.yaml", settings=[f"run={run}", *self.settings, *more])
        return contents(Path(run))


class Ended(NamedTuple):
    """How a process ended: its exit code (negative: the signal that killed it), and what it said."""

    code: int
    said: str


def forked(work: Callable[[], object], said: Path, *, killed_after: float | None = None) -> Ended:
    """Does the work in a copy of this process, which may change whatever it likes, and die."""
    child = _begun(work, said)
    if killed_after is not None:
        time.sleep(killed_after)
        os.kill(child, signal.SIGKILL)
    return _ended(child, said)


def side_by_side(work: Callable[[int], object], folder: Path, size: int = 2) -> list[Ended]:
    """Copies of this process that share a run as torchrun's do, each doing its rank's work; how each ended, by rank.

    What each says is in a file of `folder`.
    """
    table = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    shared = {"WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": table.port}
    agent = {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": 0}

    def of(rank: int) -> Callable[[], object]:
        def mine() -> None:
            found = {**shared, **agent, "RANK": rank, "LOCAL_RANK": rank}
            os.environ.update({name: str(value) for name, value in found.items()})
            work(rank)

        return mine

    said = [folder / f"said-{rank}" for rank in range(size)]
    children = [_begun(of(rank), said[rank]) for rank in range(size)]
    return [_ended(child, path) for child, path in zip(children, said, strict=True)]


def _begun(work: Callable[[], object], said: Path) -> int:
    """A copy of this process that does the work; its number."""
    child = os.fork()
    if child == 0:
        code = 98  # not even what was said could be written
        try:
            code = _alone(work, said)
        finally:
            os._exit(code)
    return child


def _ended(child: int, said: Path) -> Ended:
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return Ended(code, said.read_text() if said.exists() else "")


def _alone(work: Callable[[], object], said: Path) -> int:
    """The work's exit code, with both outputs in a file."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    with said.open("w", buffering=1) as sys.stdout:
        sys.stderr = sys.stdout
        try:
            work()
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else 0
        except BaseException:  # the parent compares the exit code, and shows what was said
            traceback.print_exc()
            return 99
    return 0


def command_line(*arguments: object) -> Callable[[], None]:
    """The whole program with these arguments, as `forked` takes it."""

    def work() -> None:
        sys.argv = ["unilmctl", *map(str, arguments)]
        main()

    return work


class Questions:
    """In the place of `StopSignals.__call__`: counts the questions, and sends a signal at one of them."""

    def __init__(self, number: int = 0, sent: int = 0) -> None:
        self.number, self.sent, self.asked = number, sent, 0

    @property
    def asking(self) -> Callable[[StopSignals], bool]:
        def ask(signals: StopSignals) -> bool:
            self.asked += 1
            if self.asked == self.number:
                os.kill(os.getpid(), self.sent)
            return signals.received is not None

        return ask


def steps_of(run: str) -> list[int]:
    return RunFolder(Path(run)).steps()
