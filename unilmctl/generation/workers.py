"""Several processes that decode, one thread each, and the desk that gives them work.

Where the system can fork, workers share the weights that were loaded; elsewhere each one opens the model folder. A
worker takes a job, a list of sources of similar length, decodes it and sends everything back. None outlives the process
that started it, however that one ends.
"""

import os
import pickle
import signal
import sys
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from queue import SimpleQueue
from threading import Thread
from types import TracebackType
from typing import cast

import torch

from unilmctl.errors import OutOfMemory, UserError
from unilmctl.generation.work import WINDOW, Alone, Decode, Found, Work

CAN_FORK = sys.platform == "linux"
"""Whether a process may be copied with what it has loaded; elsewhere system libraries forbid it, or there is no way."""

PAYING = 32
"""Sources for every process from which processes are faster than threads inside operators."""

JOBS = 4
"""Most jobs for every worker that one list of work is cut into: enough to even out, few enough to keep batches full."""

PATIENCE = 5.0
"""Seconds that a process gets to end."""


def processes_for(workers: int | None, sources: int) -> int:
    """How many processes decode so many sources: what was asked for; None: one per core if each has enough to do.

    Cores are the threads that torch would use: those that this process may run on, unless OMP_NUM_THREADS says less.
    """
    if workers is not None:
        return workers
    cores = torch.get_num_threads()
    return cores if sources >= PAYING * cores else 1


class Staff:
    """A desk that decodes alone until it is given enough to do, then with workers. A context manager: they end with it.

    `alone` decodes in this process; `make` gives what decodes in a worker. Where processes are not forked, it is
    pickled. `cost` tells the tokens that a source keeps busy, `budget` how many are decoded at a time.
    """

    def __init__(
        self,
        alone: Decode,
        make: Callable[[], Decode],
        *,
        workers: int | None,
        cost: Callable[[Work], int] = lambda work: len(work.source),
        budget: int = 1,
        fork: bool = CAN_FORK,
    ) -> None:
        self._alone = Alone(alone)
        self._make, self._workers, self._cost, self._budget, self._fork = make, workers, cost, budget, fork
        self._pool: _Pool | None = None

    @property
    def window(self) -> int:
        """Most records that are worth reading at once: 512 for every worker there may be, and 1024 at least."""
        return WINDOW * max(1, processes_for(self._workers, sys.maxsize) // 2)

    @property
    def ahead(self) -> bool:
        """Whether there are workers that go on while this process does something else."""
        return self._pool is not None

    def __enter__(self) -> "Staff":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.close()

    def submit(self, work: list[Work]) -> None:
        """Takes work in; workers start when they pay. UserError when one of them has died."""
        if self._pool is None:
            count = processes_for(self._workers, len(work))
            if count == 1:
                self._alone.submit(work)
                return
            self._pool = _Pool(self._make, count, fork=self._fork)
        self._pool.submit(cut(work, self._cost, self._pool.size, self._budget))

    def collect(self) -> Found:
        """The results of one job. UserError when a worker has died, and whatever a worker raised."""
        return self._alone.collect() if self._pool is None else self._pool.collect()


def cut(work: list[Work], cost: Callable[[Work], int], workers: int, budget: int) -> list[list[Work]]:
    """Work in jobs of like sources and about the same cost, the dearest first: one to `JOBS` for every worker.

    There is more than one each as soon as every job still costs `budget` tokens.
    """
    costs = {one.task.key: cost(one) for one in work}
    total = sum(costs.values())
    count = workers * max(1, min(JOBS, total // (workers * budget)))
    jobs: list[list[Work]] = [[] for _ in range(count)]
    before = 0
    for one in sorted(work, key=lambda one: -costs[one.task.key]):
        jobs[min(count - 1, before * count // total) if total else 0].append(one)
        before += costs[one.task.key]
    return [job for job in jobs if job]


@dataclass
class _Worker:
    """A process, the way to it, and how many jobs it has."""

    name: str
    process: BaseProcess
    connection: "Connection[list[Work], Found | Exception]"
    jobs: int = 0


class _Pool:
    """Workers that run from now until `close`."""

    def __init__(self, make: Callable[[], Decode], count: int, *, fork: bool) -> None:
        self._context = get_context("fork" if fork else "spawn")
        self._jobs: deque[list[Work]] = deque()
        self._workers: list[_Worker] = []
        try:
            for number in range(count):
                self._workers.append(self._started(number + 1, make))
        except BaseException:
            self.close()
            raise

    @property
    def size(self) -> int:
        """How many workers there are."""
        return len(self._workers)

    def submit(self, jobs: list[list[Work]]) -> None:
        """Takes jobs in."""
        self._jobs.extend(jobs)
        self._hand_out()

    def collect(self) -> Found:
        """The results of the job that is ready first."""
        ready = wait([worker.connection for worker in self._workers])
        worker = next(worker for worker in self._workers if worker.connection in ready)
        try:
            answer = worker.connection.recv()
        except (EOFError, OSError) as error:
            raise self._death(worker) from error
        if isinstance(answer, Exception):
            raise answer
        worker.jobs -= 1
        self._hand_out()
        return answer

    def close(self) -> None:
        """Ends all workers, whatever they do."""
        for worker in self._workers:
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join(PATIENCE)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
            worker.connection.close()
        self._workers = []

    def _started(self, number: int, make: Callable[[], Decode]) -> _Worker:
        mine, theirs = self._context.Pipe()
        process = cast(BaseProcess, self._context.Process(target=_serve, args=(theirs, make), daemon=True))  # type: ignore[attr-defined]
        process.start()
        theirs.close()  # so that the end of the worker is the end of the connection
        return _Worker(f"worker {number} (process {process.pid})", process, mine)

    def _hand_out(self) -> None:
        """Gives each worker a job, and one in reserve while enough others are left to keep all busy until the end."""
        for held in range(2):
            for worker in self._workers:
                if worker.jobs == held and len(self._jobs) > held * self.size:
                    try:
                        worker.connection.send(self._jobs.popleft())
                    except OSError as error:
                        raise self._death(worker) from error
                    worker.jobs += 1

    def _death(self, worker: _Worker) -> UserError:
        """The error of a worker that ended by itself."""
        worker.process.join(PATIENCE)
        code = worker.process.exitcode
        hint = f"use fewer: --workers {max(1, self.size // 2)}, or a lower --batch-tokens"
        if code == -getattr(signal, "SIGKILL", 9):
            return OutOfMemory(f"{worker.name} was killed, as happens when the memory runs out", hint)
        how = f"was ended by {signal.Signals(-code).name}" if code is not None and code < 0 else f"ended with {code}"
        return UserError(f"{worker.name} {how} before its work was done", hint)


def _serve(connection: "Connection[Found | Exception, list[Work]]", make: Callable[[], Decode]) -> None:
    """What a worker does all its life: decodes the jobs that come and sends back what it found, or what went wrong."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # A moving progress line may stand in for the streams, and another thread may have held its lock during the fork.
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
    torch.set_num_threads(1)
    jobs: SimpleQueue[list[Work]] = SimpleQueue()
    Thread(target=_listen, args=(connection, jobs), daemon=True).start()
    decode: Decode | None = None
    while True:
        job = jobs.get()
        answer: Found | Exception
        try:
            decode = decode or make()
            answer = [one for found in decode(job) for one in found]
        except Exception as error:
            answer = _portable(error)
        try:
            connection.send(answer)
        except OSError:
            os._exit(1)  # nobody is there to hear it


def _listen(connection: "Connection[Found | Exception, list[Work]]", jobs: "SimpleQueue[list[Work]]") -> None:
    """Takes jobs while others are worked on, so that sending them never blocks; ends the process with its parent."""
    parent = parent_process()
    assert parent is not None
    while parent.sentinel not in wait([connection, parent.sentinel]):
        try:
            jobs.put(connection.recv())
        except (EOFError, OSError):
            break
    os._exit(1)


def _portable(error: Exception) -> Exception:
    """The error as it can be sent; a bug takes its traceback along as a note."""
    if not isinstance(error, UserError):
        error.add_note("in a worker:\n" + "".join(traceback.format_exception(error)))
    try:
        return cast(Exception, pickle.loads(pickle.dumps(error)))
    except Exception:  # whatever its class makes of it
        return RuntimeError(f"{type(error).__name__}: {error}")
