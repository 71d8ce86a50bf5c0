"""The parts of the decoding benchmarks that need neither a model nor a peer: work, goals, medians, rows."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import quality
import torch
from beside import missed
from decode_bench import goals, measuring
from decode_bench.goals import Comparison, row
from decode_bench.measuring import ENOUGH, Bench
from decode_bench.twin import Twin
from decode_bench.work import FIRST_WORD, LAST_WORD, Engine, Work
from tiny_writer import FRAME, sentences, tiny_encoder

from unilmctl.decoding import Decoder
from unilmctl.search import Rules, beam_search

ROOT = Path(__file__).parent.parent.parent
CELL = (128, 2)
OURS, PEER, OTHER = goals.CAUSAL, Engine("some", "peer", "int8"), Engine("some", "peer", "float32")


class FakeProcess:
    """An engine that needs `seconds(work)` for its work and notes who was asked."""

    def __init__(self, engine: Engine, log: list[Engine], seconds: Callable[[Work], float] = lambda work: 1.0) -> None:
        self.engine, self.log, self.seconds = engine, log, seconds
        self.word, self.short = 7, 0
        self.heard = slice(0, None)

    def ask(self, asked: str, work: Work) -> dict[str, Any]:
        if asked == "products":
            return {"found": {"weights": 0.5, "all": 0.8}}
        self.log.append(self.engine)
        ids = [[self.word] * (work.tokens - self.short) for _ in work.lengths]
        scores = [float(sum(source[self.heard])) for source in work.sources()]
        seconds = self.seconds(work)
        return {"cpu": seconds, "wall": seconds, "memory": seconds, "ids": ids, "scores": scores}

    def close(self) -> None:
        pass


class FakeBench(Bench):
    """Engines that are quick to start."""

    def __init__(self, seconds: dict[Engine, Callable[[Work], float]], *, repeats: int = 1, wanted: str = "") -> None:
        super().__init__(Path(), repeats=repeats, wanted=wanted)
        self.log: list[Engine] = []
        self.fakes = {engine: FakeProcess(engine, self.log, needed) for engine, needed in seconds.items()}

    def process(self, engine: Engine) -> Any:
        return self.fakes[engine]


def constant(seconds: float) -> Callable[[Work], float]:
    return lambda work: seconds


def test_the_table_of_goals_is_complete() -> None:
    asked = {
        "s2s-ft's way": ((8, 40, 40), (20, 120, 120)),
        "Hugging Face GPT-2 bfloat16": ((3, 6, 9), (3, 6, 9)),
        "CTranslate2 GPT-2 best": ((1.6, 4.5, 14), (2.4, 6.75, 21)),
        "CTranslate2 12+12 int8": ((1.0, 1.4, 1.6), (1.0, 1.4, 1.6)),
        "CTranslate2 BART size int8": ((0.6, 1.0, 1.4), (0.6, 1.0, 1.4)),
    }
    with_goals = {one.name: one for one in goals.COMPARISONS if one.goals}
    assert set(with_goals) == set(asked)
    for name, by_source in asked.items():
        found = with_goals[name].goals
        assert found == {
            (source, batch): goal
            for source, by_batch in zip((128, 448), by_source, strict=True)
            for batch, goal in zip((1, 8, 32), by_batch, strict=True)
        }
        assert with_goals[name].ours.dtype == "auto"
    assert [goals.ROOFLINE_GOALS[128, batch] for batch in (1, 8, 32)] == [0.6, 0.7, 0.7]
    assert goals.MIXTURE_GOAL == 1.5
    assert sorted(goals.MEMORY_GOALS.values()) == [1.0, 2.0, 2.0, 2.0]


def test_both_readings_and_float32_are_compared_with_every_peer_of_that_kind() -> None:
    readings: dict[str, set[str]] = {}
    for one in goals.COMPARISONS:
        readings.setdefault(one.name, set()).add(one.ours.model)
    assert [name for name, models in readings.items() if models != {"causal", "pseudo"}] == [
        "CTranslate2 GPT-2 float32",
        "CTranslate2 12+12 float32",
    ]
    assert all(peer.dtype == one.ours.dtype for one in goals.COMPARISONS if "float32" in one.name for peer in one.peers)


def test_the_quick_comparisons_leave_no_peer_out() -> None:
    assert {one.name for one in goals.QUICK_COMPARISONS} == {one.name for one in goals.COMPARISONS if one.goals}
    assert all(len(one.peers) == 1 for one in goals.QUICK_COMPARISONS)


def test_a_row_compares_medians_with_the_best_peer() -> None:
    found = row("x", [30.0, 10.0, 20.0], [[5.0, 100.0, 4.0], [8.0, 8.0, 8.0]], 2.0)
    assert found == {"name": "x", "ours": 20.0, "peer": 8.0, "ratio": 2.5, "goal": 2.0}
    assert set(found) == set(goals.memory_row("y", 1.0, 2.0, None))


def test_less_memory_is_a_higher_ratio() -> None:
    assert goals.memory_row("x", 1.0, 2.5, 2.0)["ratio"] == 2.5


def test_a_goal_is_missed_below_it_and_rows_without_one_never() -> None:
    rows = [row("at", [2.0], [[1.0]], 2.0), row("below", [1.9], [[1.0]], 2.0), row("free", [0.1], [[1.0]], None)]
    assert [one["name"] for one in missed(rows)] == ["below"]


def test_every_engine_gets_the_same_sources() -> None:
    work = Work.even(128, 3)
    assert work.sources() == Work.even(128, 3, tokens=2).sources()
    assert [len(source) + 2 for source in work.sources()] == [128] * 3
    assert all(FIRST_WORD <= word < LAST_WORD for source in work.sources() for word in source)


@pytest.mark.parametrize("place", [0, 125])
def test_one_changed_word_in_every_source(place: int) -> None:
    before, after = Work((128,) * 20, 20).sources(), Work((128,) * 20, 20, changed=place).sources()
    differing = [[at for at in range(126) if one[at] != two[at]] for one, two in zip(before, after, strict=True)]
    assert differing == [[place]] * 20


def test_mixed_sentences_come_longest_first_in_batches() -> None:
    work = Work.mixed(512, 48)
    assert sorted(work.lengths, reverse=True) == list(work.lengths)
    assert 16 <= work.lengths[-1] < 40
    assert 300 < work.lengths[0] <= 448
    assert 70 < work.lengths[256] < 110
    assert [len(batch) for batch in work.batches()] == [48] * 10 + [32]
    assert [source for batch in work.batches() for source in batch] == work.sources()


def test_engines_take_turns_and_medians_are_compared() -> None:
    bench = FakeBench({OURS: constant(1.0), PEER: constant(4.0), OTHER: constant(2.0)}, repeats=3)
    (found,) = bench.compare([Comparison("peer", OURS, (PEER, OTHER), {CELL: 1.5})], CELL)
    assert found["name"] == "peer, source 128, batch 2: ours causal auto"
    assert (found["ours"], found["peer"], found["ratio"], found["goal"]) == (64.0, 32.0, 2.0, 1.5)
    assert bench.log[-9:] == [OURS, PEER, OTHER] * 3


def test_a_slow_engine_is_not_repeated() -> None:
    bench = FakeBench({OURS: constant(1.0), PEER: constant(ENOUGH)}, repeats=3)
    list(bench.compare([Comparison("peer", OURS, (PEER,), {})], CELL))
    assert bench.log[-4:] == [OURS, PEER, OURS, OURS]


def test_only_rows_that_are_wanted_are_measured() -> None:
    bench = FakeBench({OURS: constant(1.0), PEER: constant(1.0)}, wanted="^b.*batch 2")
    comparisons = [Comparison("a", OURS, (OTHER,), {}), Comparison("b", OURS, (PEER,), {})]
    assert [one["name"][0] for one in bench.compare(comparisons, CELL)] == ["b"]
    assert list(bench.compare(comparisons, (128, 8))) == []


def test_an_engine_that_writes_too_little_is_refused() -> None:
    bench = FakeBench({OURS: constant(1.0), PEER: constant(1.0)})
    bench.fakes[PEER].short = 1
    with pytest.raises(SystemExit, match="some peer int8 did not write 2 tokens for every sentence"):
        list(bench.compare([Comparison("peer", OURS, (PEER,), {})], CELL))


@pytest.mark.parametrize("heard", [slice(1, None), slice(0, 125)])
def test_an_engine_that_skips_words_of_the_source_is_refused(heard: slice) -> None:
    bench = FakeBench({OURS: constant(1.0), PEER: constant(1.0)})
    bench.fakes[PEER].heard = heard
    with pytest.raises(SystemExit, match="some peer int8 does not read its whole source"):
        list(bench.compare([Comparison("peer", OURS, (PEER,), {})], CELL))


TWINS: dict[Engine, Callable[[Work], float]] = {
    goals.TWIN: lambda work: 3.0 + 0.5 * work.tokens,
    goals.PSEUDO: constant(1.0),
    goals.PSEUDO_EXACT: constant(1.0),
}


def test_the_time_of_the_twin_is_extrapolated_from_its_steps() -> None:
    (found,) = FakeBench(TWINS).compare([Comparison("twin", goals.PSEUDO, (goals.TWIN,), {})], CELL)
    assert found["peer"] == pytest.approx(2 * 32 / (3.0 + 0.5 * 32))


def test_a_twin_that_writes_something_else_is_refused() -> None:
    bench = FakeBench(TWINS)
    bench.fakes[goals.TWIN].word = 8
    with pytest.raises(SystemExit, match="does not write what we write"):
        list(bench.compare([Comparison("twin", goals.PSEUDO, (goals.TWIN,), {})], CELL))


def test_ours_against_its_own_products() -> None:
    bench = FakeBench({goals.CAUSAL: constant(1.0), goals.PSEUDO: constant(2.0)})
    found = list(bench.roofline((128, 8)))
    assert [one["goal"] for one in found] == [0.7, None, None, None]
    assert [one["ratio"] for one in found] == pytest.approx([0.5, 0.8, 0.25, 0.4])


def test_memory_of_each_engine_against_ours() -> None:
    needed = {engine: constant(3.0) for engine in goals.MEMORY_GOALS}
    bench = FakeBench({**needed, goals.CAUSAL: constant(1.0)})
    bench.installed = lambda engines: True  # type: ignore[method-assign]
    rows = bench.memory(goals.MEMORY_GOALS, 4)
    assert [(one["ratio"], one["goal"]) for one in rows] == [
        (3.0, 2.0),
        (3.0, 2.0),
        (3.0, 2.0),
        (3.0, 1.0),
    ]


def test_each_side_of_the_mixture_runs_in_its_best_way() -> None:
    bench = FakeBench({OURS: lambda work: 64 / work.batch, PEER: constant(8.0), OTHER: constant(20.0)}, repeats=2)
    ways = [goals.Candidate(OURS, batch) for batch in (8, 32)]
    (found,) = bench.mixture(64, ways, [goals.Candidate(PEER, 8), goals.Candidate(OTHER, 8)])
    assert (found["ours"], found["peer"]) == (64 * 32 / 2.0, 64 * 32 / 8.0)
    assert found["goal"] == 1.5


def test_ways_that_fail_a_trial_are_not_measured_again() -> None:
    bench = FakeBench({OURS: constant(1.0), PEER: constant(8.0), OTHER: constant(20.0)}, repeats=2)
    (found,) = bench.mixture(512, [goals.Candidate(OURS, 8)], [goals.Candidate(PEER, 8), goals.Candidate(OTHER, 8)])
    assert found["peer"] == 512 * 32 / 8.0
    assert (bench.log.count(OTHER), bench.log.count(PEER)) == (2, 6)  # a warm-up before each run, as none stays loaded


def test_a_missing_peer_is_named_once_and_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(measuring, "find_spec", lambda name: None if name == "ctranslate2" else object())
    bench = FakeBench({OURS: constant(1.0), goals.HUGGING_FACE: constant(2.0)})
    comparisons = [one for one in goals.COMPARISONS if one.ours == OURS and one.name != "s2s-ft's way"]
    assert [one["name"].split(",")[0] for one in bench.compare(comparisons, CELL)] == ["Hugging Face GPT-2 bfloat16"]
    assert capsys.readouterr().err.count("missing: ctranslate2") == 1


def test_the_benchmark_itself_stays_small() -> None:
    program = "import decode_speed, sys; print({'torch', 'numpy', 'transformers', 'ctranslate2'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT / "benchmarks", capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"


def test_quality_may_differ_a_little_either_way() -> None:
    rows = [quality.row(dtype, bleu, 72.0) for dtype, bleu in (("a", 71.8), ("b", 72.2), ("c", 71.7), ("d", 72.3))]
    assert [one["name"] for one in quality.missed(rows)] == ["BLEU, c", "BLEU, d"]


def test_quality_without_a_model_measures_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["quality.py", str(tmp_path / "model"), str(tmp_path)])
    quality.main()
    assert capsys.readouterr().out == f"nothing measured: {tmp_path / 'model'} does not exist\n"


def test_the_slow_twin_writes_what_we_write() -> None:
    encoder = tiny_encoder()
    sources = [np.array(source) for source in sentences(4)]
    rules = Rules(end=FRAME.separator, max_length=8)

    def written(engine: Decoder | Twin) -> list[list[int]]:
        with torch.inference_mode():
            first, state = engine.start(sources)
            found = beam_search(first, state, engine.step, rules, beam=3)  # type: ignore[arg-type, misc]
        return [outputs[0].ids for outputs in found]

    assert written(Twin(encoder, FRAME)) == written(Decoder(encoder, FRAME, "mask"))
