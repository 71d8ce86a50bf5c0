"""Processes that decode: how work is cut, order, pauses, and every way in which a worker can end."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Timer
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_writer import WORDS, sentences, tiny_generator

from unilmctl.cli import as_mistake
from unilmctl.data.parsing import Record
from unilmctl.errors import OutOfMemory, UsageError, UserError
from unilmctl.generation import Answer, Hypothesis, Staff, Tally, Work, decoder_of, generate_stream
from unilmctl.generation import workers as workers_module
from unilmctl.generation.work import Found
from unilmctl.generation.workers import JOBS, cut, processes_for
from unilmctl.search import Task

Decode = Callable[[list[Work]], Iterator[Found]]


def work_of(*sources: list[int]) -> list[Work]:
    return [Work(Task(key), source) for key, source in enumerate(sources)]


def echo(work: list[Work]) -> Iterator[Found]:
    """Repeats sources, the last one first; the first token of each says how many milliseconds it takes."""
    for one in reversed(work):
        time.sleep(one.source[0] / 1000 if one.source else 0)
        yield [(one.task.key, [Hypothesis(one.source, 0.0, [0.0])])]


def staff(decode: Decode, workers: int | None = 2) -> Staff:
    return Staff(decode, lambda: decode, workers=workers)


def collected(desk: Staff, work: list[Work]) -> dict[int, list[Hypothesis]]:
    desk.submit(work)
    found: dict[int, list[Hypothesis]] = {}
    while len(found) < len(work):
        found.update(desk.collect())
    return found


@given(
    costs=st.lists(st.integers(0, 500), max_size=60), workers=st.integers(1, 9), budget=st.sampled_from([1, 100, 10**6])
)
def test_work_is_cut_into_jobs_of_like_sources(costs: list[int], workers: int, budget: int) -> None:
    work = [Work(Task(key), [cost]) for key, cost in enumerate(costs)]
    jobs = cut(work, lambda one: one.source[0], workers, budget)
    assert sorted(one.task.key for job in jobs for one in job) == list(range(len(work)))
    assert all(jobs)
    found = [one.source[0] for job in jobs for one in job]
    assert found == sorted(costs, reverse=True)
    assert len(jobs) <= workers * JOBS
    fair = sum(costs) / max(1, len(jobs))
    if len(jobs) > workers:
        assert fair >= budget
    if jobs and len(jobs) == workers * JOBS:
        assert max(sum(one.source[0] for one in job) for job in jobs) <= fair + max(costs)


@pytest.mark.parametrize(
    ("workers", "sources", "cores", "expected"),
    [(None, 1, 8, 1), (None, 255, 8, 1), (None, 256, 8, 8), (None, 10**6, 1, 1), (3, 1, 8, 3), (1, 10**6, 8, 1)],
)
def test_how_many_processes_pay(
    monkeypatch: pytest.MonkeyPatch, workers: int | None, sources: int, cores: int, expected: int
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: cores)
    assert processes_for(workers, sources) == expected


def test_workers_start_when_there_is_enough_and_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)

    def who(work: list[Work]) -> Iterator[Found]:
        yield [(one.task.key, [Hypothesis([os.getpid()], 0.0, [0.0])]) for one in work]

    def processes(desk: Staff, count: int) -> set[int]:
        return {hypothesis.ids[0] for (hypothesis,) in collected(desk, work_of(*[[1]] * count)).values()}

    with staff(who, workers=None) as desk:
        assert processes(desk, 3) == {os.getpid()}
        assert not desk.ahead
        many = processes(desk, 64)
        assert len(many) == 2
        assert os.getpid() not in many
        assert processes(desk, 2) == many
        assert desk.ahead


def record(text: str, **wishes: Any) -> Record:
    return Record(text, None, [], None, "x:1", **wishes)


@settings(deadline=None, max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pauses=st.sets(st.integers(0, 29)), workers=st.integers(2, 4))
def test_answers_of_workers_come_in_input_order(tmp_path: Path, pauses: set[int], workers: int) -> None:
    generator = tiny_generator(tmp_path)
    texts = [" ".join(WORDS[i] for i in ids) for ids in sentences(30, seed=4)]
    texts[7] = ""
    records: list[Record | None] = []
    for place, text in enumerate(texts):
        records += [None, record(text)] if place in pauses else [record(text)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workers_module, "WINDOW", 4)
        with staff(echo, workers) as desk:
            found = [one for group in generate_stream(generator, records, Tally(), desk=desk) for one in group]
    assert [answer.record.source for answer in found if isinstance(answer.record, Record)] == texts
    encoded = generator.tokenizer.encode_batch(texts)
    assert [[h.ids for h in answer.hypotheses] for answer in found] == [[ids] if ids else [] for ids in encoded]


def test_outputs_do_not_depend_on_the_number_of_workers(tmp_path: Path) -> None:
    generator = tiny_generator(tmp_path, search="sample", nbest=2, batch_tokens=100)
    records = [record(" ".join(WORDS[i] for i in ids)) for ids in sentences(20)]

    def outputs(workers: int) -> list[list[list[int]]]:
        with staff(decoder_of(generator), workers) as desk:
            answers = [one for group in generate_stream(generator, records, Tally(), desk=desk) for one in group]
        return [[h.ids for h in answer.hypotheses] for answer in answers]

    assert outputs(1) == outputs(2) == outputs(3)


@pytest.mark.parametrize("window", [2, 3])
def test_everything_is_answered_before_a_pause_is_waited_for(tmp_path: Path, window: int) -> None:
    answered: list[Answer] = []

    def arriving() -> Iterator[Record | None]:
        for count in range(1, 4):
            yield from [record("a b"), record("c")]
            yield None
            assert len(answered) == 2 * count

    with pytest.MonkeyPatch.context() as patch, staff(echo) as desk:
        patch.setattr(workers_module, "WINDOW", window)  # full just before the pause, or not
        for group in generate_stream(tiny_generator(tmp_path), arriving(), Tally(), desk=desk):
            answered += group
    assert len(answered) == 6


def test_no_more_than_two_windows_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers_module, "WINDOW", 8)
    generator = tiny_generator(tmp_path)
    gate = tmp_path / "open"
    slow = generator.tokenizer.encode("p p")
    read = 0

    def gated(work: list[Work]) -> Iterator[Found]:
        if slow in [one.source for one in work]:
            while not gate.exists():
                time.sleep(0.005)
        return echo([one._replace(source=[0]) for one in work])

    def endless() -> Iterator[Record]:
        nonlocal read
        for number in range(200):
            read += 1
            yield record("a" if number else "p p")

    with staff(gated) as desk:
        groups = generate_stream(generator, endless(), Tally(), desk=desk)
        Timer(0.5, gate.touch).start()
        first = next(groups)
        assert read == 16
        assert len(first) + sum(len(group) for group in groups) == 200


def ending(how: Callable[[], object]) -> Decode:
    def decode(work: list[Work]) -> Iterator[Found]:
        how()
        return echo(work)

    return decode


def kill(number: int) -> Callable[[], object]:
    return lambda: os.kill(os.getpid(), number)


@pytest.mark.parametrize(
    ("how", "kind", "words"),
    [
        (kill(signal.SIGKILL), OutOfMemory, "was killed, as happens when the memory runs out"),
        (kill(signal.SIGTERM), UserError, "was ended by SIGTERM before its work was done"),
        (lambda: os._exit(3), UserError, "ended with 3 before its work was done"),
    ],
)
def test_a_worker_that_dies_is_named(how: Callable[[], object], kind: type[UserError], words: str) -> None:
    with pytest.raises(UserError) as caught, staff(ending(how)) as desk:
        collected(desk, work_of([1], [2], [3]))
    assert type(caught.value) is kind
    assert caught.value.message.startswith("worker ")
    assert caught.value.message.endswith(f") {words}")
    assert caught.value.hint == "use fewer: --workers 1, or a lower --batch-tokens"


def test_a_worker_that_dies_while_it_has_nothing_to_do_is_noticed() -> None:
    with staff(echo) as desk:
        collected(desk, work_of([1]))
        assert desk._pool is not None
        idle = desk._pool._workers[1].process
        os.kill(idle.pid or 0, signal.SIGKILL)
        idle.join()
        with pytest.raises(OutOfMemory):
            collected(desk, work_of([1], [1]))


class Unsendable(Exception):  # noqa: N818 - the name is the point
    """Cannot be made again from what pickle remembers."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__("odd")


def fail(error: Exception) -> Callable[[], object]:
    def raiser() -> None:
        raise error

    return raiser


def raised(error: Exception) -> Exception:
    with pytest.raises(type(error) if not isinstance(error, Unsendable) else RuntimeError) as caught:  # noqa: SIM117
        with staff(ending(fail(error))) as desk:
            collected(desk, work_of([1], [2]))
    return caught.value


def test_errors_of_workers_arrive_as_they_are() -> None:
    mistake = raised(UsageError("what is wrong", "what to do"))
    assert isinstance(mistake, UsageError)
    assert (mistake.message, mistake.hint, mistake.exit_code) == ("what is wrong", "what to do", 2)
    bug = raised(ValueError("odd"))
    assert "test_workers" in "".join(bug.__notes__)
    assert str(raised(Unsendable(1, 2))) == "Unsendable: odd"
    memory = as_mistake(raised(MemoryError()))
    assert memory is not None
    assert memory.exit_code == 7


def test_no_worker_is_left_whatever_it_was_doing() -> None:
    with staff(echo) as desk:
        desk.submit(work_of([60_000], [60_000]))
        assert desk._pool is not None
        processes = [worker.process for worker in desk._pool._workers]
        time.sleep(1)  # a fork that has not begun its work yet is interrupted as its parent would be
        for process in processes:
            os.kill(process.pid or 0, signal.SIGINT)  # as Ctrl-C does to all; only the parent answers it
        time.sleep(0.2)
        assert all(process.is_alive() for process in processes)
    assert [process.exitcode for process in processes] == [-signal.SIGTERM] * 2


def test_large_jobs_and_large_results_do_not_block_each_other() -> None:
    work = work_of(*([0] * 100_000 for _ in range(16)))
    with Staff(echo, lambda: echo, workers=2) as desk:
        found = collected(desk, work)
    assert all(len(found[key][0].ids) == 100_000 for key in range(16))
