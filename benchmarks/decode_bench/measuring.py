"""Engines interleaved, each in a process of its own; medians of what they do become rows."""

import re
import statistics
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from beside import Row

from decode_bench import goals
from decode_bench.goals import Candidate, Cell, Comparison
from decode_bench.process import Process
from decode_bench.work import Engine, Work

ENOUGH = 60.0
"""CPU seconds after which an engine is not run again in a cell."""

FEW, SOME = 2, 6
"""Tokens that the twin writes; the time between the two is that of its steps."""

SENTENCES, FEWER, TRIAL = 512, 48, 128
"""Sentences of the mixture, of the quick one, and of the trial that finds the best ways to run each engine."""

NEAR = 0.85
"""Part of the best rate of a trial that a way must reach to be measured."""


class Bench:
    """Runs engines on demand and keeps their processes for the next time."""

    def __init__(self, folder: Path, *, repeats: int, wanted: str) -> None:
        self.folder, self.repeats = folder, repeats
        self.wanted = re.compile(wanted)
        self.processes: dict[Engine, Process] = {}
        self.missing: set[str] = set()
        self.heard: set[tuple[Engine, int]] = set()

    def compare(self, comparisons: Iterable[Comparison], cell: Cell) -> Iterator[Row]:
        """Rows of the comparisons in one cell, engines interleaved."""
        source, batch = cell
        chosen = [
            (name, comparison)
            for comparison in comparisons
            for name in [f"{comparison.name}, source {source}, batch {batch}: ours {_short(comparison.ours)}"]
            if self.wanted.search(name) and self.installed(comparison.peers)
        ]
        engines = dict.fromkeys(engine for _, one in chosen for engine in (one.ours, *one.peers))
        rates = self.rates(list(engines), Work.even(source, batch))
        for name, one in chosen:
            peers = [rates[peer] for peer in one.peers]
            yield goals.row(name, rates[one.ours], peers, one.goals.get(cell))

    def rates(self, engines: Sequence[Engine], work: Work) -> dict[Engine, list[float]]:
        """Output tokens a CPU second of each engine on one thread, one figure a repeat."""
        found: dict[Engine, list[float]] = {engine: [] for engine in engines}
        spent = dict.fromkeys(engines, 0.0)
        for engine in engines:
            self.check(engine, work)
        for _ in range(self.repeats):
            for engine in engines:
                if spent[engine] < ENOUGH:
                    rate, seconds = self.rate(engine, work)
                    found[engine].append(rate)
                    spent[engine] += seconds
        for engine, figures in found.items():
            tell(f"    {statistics.median(figures):8.1f} tokens/s  {engine.label}")
        return found

    def rate(self, engine: Engine, work: Work) -> tuple[float, float]:
        """Tokens a CPU second, and the CPU seconds that were needed to know it."""
        if engine.program != goals.TWIN.program:
            seconds = self.decode(engine, work)["cpu"]
            return len(work.lengths) * work.tokens / seconds, seconds
        short, long = replace(work, tokens=FEW), replace(work, tokens=SOME)
        few, some = self.decode(engine, short), self.decode(engine, long)
        if some["ids"] != self.decode(goals.PSEUDO_EXACT, long)["ids"]:
            raise SystemExit(f"{engine.label} does not write what we write")
        whole = few["cpu"] + (some["cpu"] - few["cpu"]) / (SOME - FEW) * (work.tokens - FEW)
        return len(work.lengths) * work.tokens / whole, few["cpu"] + some["cpu"]

    def check(self, engine: Engine, work: Work) -> None:
        """That an engine reads the first and the last word of its sources. It is the engine's warm-up too."""
        if engine.program == goals.TWIN.program:
            return  # too slow; what it writes is compared with ours
        few = replace(work, tokens=FEW)
        self.decode(engine, few)
        if (engine, work.lengths[0]) in self.heard:
            return
        self.heard.add((engine, work.lengths[0]))
        one = replace(few, lengths=work.lengths[:1], batch=1, scored=True)
        changed = [replace(one, changed=place) for place in (0, work.lengths[0] - 3)]
        before, again, first, last = (self.decode(engine, each)["scores"] for each in (one, one, *changed))
        if before != again:
            raise SystemExit(f"{engine.label} does not write the same twice")
        if before in (first, last):
            raise SystemExit(f"{engine.label} does not read its whole source")

    def decode(self, engine: Engine, work: Work) -> dict[str, Any]:
        """What an engine did; it must have written all tokens of every sentence."""
        done = self.process(engine).ask("decode", work)
        if [len(ids) for ids in done["ids"]] != [work.tokens] * len(work.lengths):
            raise SystemExit(f"{engine.label} did not write {work.tokens} tokens for every sentence")
        return done

    def roofline(self, cell: Cell) -> Iterator[Row]:
        """Ours against its own bare matrix products."""
        source, batch = cell
        work = Work.even(source, batch)
        for engine in (goals.CAUSAL, goals.PSEUDO):
            name = f"bare matrix products, source {source}, batch {batch}: ours {_short(engine)}"
            if not self.wanted.search(name):
                continue
            self.check(engine, work)
            ours, weights, everything = [], [], []
            tokens = len(work.lengths) * work.tokens
            for _ in range(self.repeats):
                ours.append(self.rate(engine, work)[0])
                found = self.process(engine).ask("products", work)["found"]
                weights.append(tokens / found["weights"])
                everything.append(tokens / found["all"])
            goal = goals.ROOFLINE_GOALS[cell] if engine == goals.CAUSAL else None
            yield goals.row(name, ours, [weights], goal)
            yield goals.row(name.replace("products,", "products and attention,"), ours, [everything], None)

    def profile(self, cell: Cell, engines: Iterable[Engine]) -> None:
        """Says where our time goes."""
        source, batch = cell
        for engine in engines:
            if self.wanted.search(f"profile, source {source}, batch {batch}: ours {_short(engine)}"):
                shares = self.process(engine).ask("profile", Work.even(source, batch))["found"]
                parts = ", ".join(f"{kind} {share:.0%}" for kind, share in shares.items())
                tell(f"profile, source {source}, batch {batch}: ours {_short(engine)}: {parts}")

    def memory(self, peers: Iterable[Engine], tokens: int) -> Iterator[Row]:
        """Peak memory of fresh processes, loading included."""
        source, batch = goals.MEMORY_CELL
        against = f"source {source}, batch {batch}: ours {_short(goals.CAUSAL)}"
        names = {peer: f"peak GB of {peer.label}, {against}" for peer in peers}
        wanted = [peer for peer, name in names.items() if self.wanted.search(name) and self.installed([peer])]
        if not wanted:
            return
        work = Work.even(source, batch, tokens)
        self.close()
        ours = self._peak(goals.CAUSAL, work)
        for peer in wanted:
            yield goals.memory_row(names[peer], ours, self._peak(peer, work), goals.MEMORY_GOALS[peer])

    def _peak(self, engine: Engine, work: Work) -> float:
        found: float = self.decode(engine, work)["memory"]
        self.close()
        return found

    def mixture(self, sentences: int, ours: Sequence[Candidate], peers: Sequence[Candidate]) -> Iterator[Row]:
        """Sentences of mixed length on both cores: the best way to run ours, and the best of all others."""
        name = f"{sentences} sentences of mixed length, both cores: ours {_short(goals.CAUSAL)}"
        present = [peer for peer in peers if self.installed([peer.engine])]
        if not self.wanted.search(name) or not present:
            return
        sides = [list(ours), present]
        if sentences > TRIAL:
            sides = [self._promising(side) for side in sides]
        found: dict[Candidate, list[float]] = {way: [] for side in sides for way in side}
        for _ in range(self.repeats):
            for way, rates in found.items():
                rates.append(self._wall_rate(way, sentences))
        for way, rates in found.items():
            tell(f"    {statistics.median(rates):8.1f} tokens/s  {_way(way)}")
        best = max(sides[0], key=lambda way: statistics.median(found[way]))
        yield goals.row(name, found[best], [found[way] for way in sides[1]], goals.MIXTURE_GOAL)

    def _promising(self, side: Sequence[Candidate]) -> list[Candidate]:
        """The ways that come near the side's best with fewer sentences."""
        rates = {way: self._wall_rate(way, TRIAL) for way in side}
        for way, rate in rates.items():
            tell(f"    {rate:8.1f} tokens/s  {_way(way)}, trial of {TRIAL} sentences")
        return [way for way, rate in rates.items() if rate > NEAR * max(rates.values())]

    def _wall_rate(self, way: Candidate, sentences: int) -> float:
        """Tokens a second; what other engines' threads might do meanwhile is excluded by ending them."""
        for engine in [one for one in self.processes if one != way.engine]:
            self.processes.pop(engine).close()
        work = Work.mixed(sentences, way.batch)
        if way.engine not in self.processes:
            self.decode(way.engine, replace(work, lengths=work.lengths[-2 * way.batch :], tokens=FEW))
        return sentences * work.tokens / float(self.decode(way.engine, work)["wall"])

    def installed(self, engines: Iterable[Engine]) -> bool:
        """Whether the libraries of all engines are there; those that are not are named, once."""
        absent = {
            package
            for engine in engines
            for package in goals.PACKAGES.get(engine.program, ())
            if find_spec(package) is None
        }
        for package in absent - self.missing:
            tell(f"missing: {package}; rows that need it are left out (pip install -e '.[bench]')")
        self.missing |= absent
        return not absent

    def process(self, engine: Engine) -> Process:
        """The engine's process, started if need be."""
        if engine not in self.processes:
            self.processes[engine] = Process(engine, self.folder)
        return self.processes[engine]

    def close(self) -> None:
        """Ends all processes."""
        for process in self.processes.values():
            process.close()
        self.processes.clear()


def tell(line: str) -> None:
    """Progress and details, on standard error."""
    print(line, file=sys.stderr, flush=True)


def _short(engine: Engine) -> str:
    return f"{engine.model} {engine.dtype}"


def _way(way: Candidate) -> str:
    return f"{way.engine.label}, {way.engine.threads} threads a worker, batch {way.batch}"
