"""Sharing a step among processes: every example once, the same for any number of them; what ends all of them."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import zip_longest
from typing import cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_training import feed_of, optimizer_of, options_of, tiny_encoder, weights
from torch import nn

from unilmctl.errors import DataError, ModelError, OutOfMemory, UsageError, UserError
from unilmctl.model import Encoder
from unilmctl.runs import StopSignals
from unilmctl.training import distributed, train
from unilmctl.training.distributed import ALONE, EndedElsewhere, Processes, ValueT, cores, together
from unilmctl.training.state import empty_tensors


@given(size=st.integers(1, 9), batches=st.integers(1, 12), rows=st.integers(1, 20))
def test_every_example_of_a_step_is_dealt_once_and_everyone_does_as_much(size: int, batches: int, rows: int) -> None:
    dealt = [Processes(rank, size).dealt(batches) for rank in range(size)]
    assert len({len(pieces) for pieces in dealt}) == 1
    found = [(piece.batch, row) for pieces in dealt for piece in pieces for row in piece.of(np.arange(rows)).tolist()]
    assert sorted(found) == [(batch, row) for batch in range(batches) for row in range(rows)]
    keys = [piece.key for pieces in dealt for piece in pieces]
    assert len(set(keys)) == len(keys)


def test_whole_batches_are_dealt_where_that_comes_out_even() -> None:
    assert [Processes(rank, 2).dealt(4) for rank in (0, 1)] == [[(0, 0, 1), (2, 0, 1)], [(1, 0, 1), (3, 0, 1)]]
    assert [piece.key for piece in ALONE.dealt(3)] == [(0,), (1,), (2,)]
    assert [Processes(rank, 2).dealt(1) for rank in (0, 1)] == [[(0, 0, 2)], [(0, 1, 2)]]


class Recorded(Processes):
    """One of several processes that hears of the others only what was written down: sums of labels and the like."""

    def total(self, *values: float) -> list[float]:
        return list(values)

    def gathered(self, value: ValueT) -> list[ValueT]:
        return [value]

    def add_gradients(self, module: nn.Module) -> None:
        """They stay its own."""


@pytest.mark.parametrize(("size", "accumulate"), [(2, 2), (2, 1), (3, 2), (8, 1)])
def test_the_gradients_of_all_processes_are_those_of_one(size: int, accumulate: int) -> None:
    """Each process divides by its own labels here, so its gradient counts as many times."""
    options = options_of(steps=1, accumulate=accumulate, clip=None, warmup=0, learning_rate=1e-12)

    def gradients(processes: Processes) -> tuple[int, dict[str, torch.Tensor]]:
        encoder = tiny_encoder()
        (step,) = train(encoder, optimizer_of(encoder, options), feed_of(12, size=4), options, processes=processes)
        return step.labels, {name: part.grad for name, part in encoder.named_parameters() if part.grad is not None}

    labels, expected = gradients(ALONE)
    shares = [gradients(Recorded(rank, size)) for rank in range(size) if rank < 4 * accumulate]
    assert sum(count for count, _ in shares) == labels
    for name, tensor in expected.items():
        found = sum(found[name] * count for count, found in shares) / labels
        torch.testing.assert_close(found, tensor, atol=1e-6, rtol=1e-5)


def test_alone_nobody_is_waited_for() -> None:
    with together({}) as processes:
        assert (processes.rank, processes.size, processes.first) == (0, 1, True)
        assert (processes.total(1.5, 2), processes.largest(-3), processes.gathered("x")) == ([1.5, 2], -3, ["x"])
        assert processes.from_first(lambda: "done") == processes.in_turn(lambda: "done") == "done"
    with together({"RANK": "0", "WORLD_SIZE": "1"}) as processes:
        assert processes.size == 1


def test_half_of_torchruns_environment_is_a_mistake() -> None:
    with pytest.raises(UsageError) as caught, together({"RANK": "0", "WORLD_SIZE": "2"}):
        pass
    assert caught.value.message == "RANK is set, but not MASTER_ADDR and MASTER_PORT"
    assert caught.value.hint == "start many processes with torchrun, or unset RANK"


class Written:
    """A table in one process."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    def add(self, key: str, amount: int, /) -> int:
        self.values[key] = str(int(self.values.get(key, "0")) + amount)
        return int(self.values[key])

    def set(self, key: str, value: str, /) -> None:
        self.values[key] = value

    def get(self, key: str, /) -> bytes:
        return self.values[key].encode()


@pytest.mark.parametrize(
    ("error", "told", "code"),
    [
        (DataError("a line is wrong"), "a line is wrong", DataError.exit_code),
        (MemoryError("much"), "much", OutOfMemory.exit_code),
        (ValueError("a bug"), "a bug", 1),
        (RuntimeError("[gloo/transport/tcp/pair.cc] Connection closed"), "another process of this run has ended", 1),
    ],
)
def test_an_error_is_told_once_and_its_exit_code_is_everyones(error: Exception, told: str, code: int) -> None:
    table = Written()
    assert told in str(distributed._ending(error, table))
    for later in (RuntimeError("Connection closed"), DataError("a line is wrong")):
        other = distributed._ending(later, table)
        assert isinstance(other, EndedElsewhere)
        assert (other.exit_code, other.message, other.hint) == (code, "", None)


def test_when_the_table_has_gone_the_end_is_silent() -> None:
    class Gone(Written):
        def add(self, key: str, amount: int, /) -> int:
            raise RuntimeError("broken pipe")

    found = distributed._ending(UserError("x"), Gone())
    assert isinstance(found, EndedElsewhere)
    assert found.exit_code == 1


def test_processes_of_one_machine_share_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    assert cores() == 8
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    assert cores() == 2
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "30")
    assert cores() == 1


def test_buckets_hold_every_gradient_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "BUCKET", 100)
    tensors = [torch.zeros(size) for size in (30, 80, 5, 200, 1)]
    sizes = [[len(tensor) for tensor in bucket] for bucket in distributed._buckets(tensors)]
    assert sizes == [[30, 80], [5, 200], [1]]


@contextmanager
def handlers_kept() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        for number, handler in zip_longest((signal.SIGTERM, signal.SIGINT), before):
            signal.signal(number, handler)


def test_with_patience_a_second_signal_changes_nothing() -> None:
    with handlers_kept():
        with StopSignals(patience=True) as signals:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
                os.kill(os.getpid(), number)
            assert signals()
            assert signals.received is signal.SIGTERM
        os.kill(os.getpid(), signal.SIGTERM)  # this process is still here
        assert signals.stopped("done").exit_code == 75


def test_room_for_moments_is_made_where_the_parameters_are() -> None:
    encoder = tiny_encoder()
    room = empty_tensors(encoder, ["exp_avg.head.bias", "step.head.bias"])
    assert [(name, tuple(tensor.shape)) for name, tensor in room.items()] == [
        ("exp_avg.head.bias", (24,)),
        ("step.head.bias", ()),
    ]
    with pytest.raises(ModelError, match=r"does not fit the model: layers\.9\.norm\.bias"):
        empty_tensors(cast(Encoder, encoder), ["step.layers.9.norm.bias"])
    assert weights(encoder)["head.bias"].sum() == 0
