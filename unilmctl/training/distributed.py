"""Many processes, one run: who does which part of a step, and what they tell each other.

`torchrun` starts the processes, torch.distributed carries what they say (gloo between CPUs, NCCL between GPUs). A step
is what the recipe says, however many share it: its batches are dealt out whole where that comes out even, else each is
cut into parts. The first process alone writes, evaluates and speaks; an error of any process ends all of them, and
is told once.
"""

import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, NamedTuple, Protocol, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous
from torch.distributed.tensor import DTensor

from unilmctl.errors import OutOfMemory, UsageError, UserError, ran_out_of_memory
from unilmctl.model.devices import device_named
from unilmctl.rows import Ints

ValueT = TypeVar("ValueT")

PATIENCE = timedelta(hours=24)
"""How long a process waits for the others: one of them may be reading a corpus, or evaluating."""

BUCKET = 1 << 24
"""Numbers that are summed over the processes at a time."""


class Piece(NamedTuple):
    """Part `part` of `parts` of a step's batch `batch`, all counted from 0."""

    batch: int
    part: int
    parts: int

    def of(self, indices: Ints) -> Ints:
        """The examples of this part, every `parts`-th: rows of one batch are of like length, so parts are too."""
        return indices[self.part :: self.parts]

    @property
    def key(self) -> tuple[int, ...]:
        """What its dropout is drawn from, within a step: of a whole batch, the same for any number of processes."""
        return (self.batch,) if self.parts == 1 else (self.batch, self.part, self.parts)


@dataclass(frozen=True)
class Processes:
    """Those that share a run: this one is `rank` of `size`, number `local` of its machine, and computes on `device`."""

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")
    local: int = 0

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.rank == 0

    def on(self, name: str) -> "Processes":
        """The same on the device of this name. UsageError when it is not there, or is one for several processes."""
        if ":" in name and self.size > 1:
            raise UsageError(f"{name} is one device, and {self.size} processes share the run", "`cuda`: one for each")
        device = device_named(name, number=self.local)
        if device.type == "cuda":
            torch.cuda.set_device(device)
        return replace(self, device=device)

    def dealt(self, batches: int) -> list[Piece]:
        """What this process does of a step of so many batches; everyone does as many pieces."""
        parts = self.size // math.gcd(self.size, batches)
        pieces = [Piece(batch, part, parts) for batch in range(batches) for part in range(parts)]
        return pieces[self.rank :: self.size]

    def total(self, *values: float) -> list[float]:
        """Each value summed over all processes."""
        if self.size == 1:
            return list(values)
        summed = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(summed)
        return cast(list[float], summed.tolist())

    def gathered(self, value: ValueT) -> list[ValueT]:
        """The values of all processes, by rank."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value)
        return found

    def largest(self, value: int) -> int:
        """The largest value that a process has."""
        if self.size == 1:
            return value
        found = torch.tensor(value)
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return int(found)

    def from_first(self, work: Callable[[], ValueT]) -> ValueT:
        """The first process does the work while the others wait; all have its result."""
        if self.size == 1:
            return work()
        told: list[Any] = [work() if self.first else None]
        dist.broadcast_object_list(told, src=0, device=torch.device("cpu"))
        return cast(ValueT, told[0])

    def in_turn(self, work: Callable[[], ValueT]) -> ValueT:
        """Every process does the work for itself, the first one before the others, who find what it has written."""
        if not self.first:
            self.wait()
            return work()
        done = work()
        self.wait()
        return done

    def wait(self) -> None:
        """Until everyone is here."""
        self.total(0.0)

    def add_gradients(self, module: nn.Module) -> None:
        """Sums the gradients of the module over the processes; those of a sharded one are summed already."""
        if self.size == 1:
            return
        found = (part.grad for part in module.parameters() if part.grad is not None)
        for bucket in _buckets([gradient for gradient in found if not isinstance(gradient, DTensor)]):
            flat = torch.cat([gradient.flatten() for gradient in bucket])
            dist.all_reduce(flat)
            summed = torch.split(flat, [gradient.numel() for gradient in bucket])
            for gradient, part in zip(bucket, summed, strict=True):
                gradient.copy_(part.view_as(gradient))


ALONE = Processes()


class Table(Protocol):
    """What all processes can read and write, even when some have gone: a store of torch.distributed."""

    def add(self, key: str, amount: int, /) -> int:
        """Adds to a number and returns it."""
        ...

    def set(self, key: str, value: str, /) -> None:
        """Writes a value."""
        ...

    def get(self, key: str, /) -> bytes:
        """Waits for a value and returns it."""
        ...


class EndedElsewhere(UserError):
    """Another process met an error and has said so: this one ends with its exit code, and says nothing."""

    def __init__(self, exit_code: int) -> None:
        super().__init__("")
        self.exit_code = exit_code


@contextmanager
def together(environment: Mapping[str, str]) -> Iterator[Processes]:
    """The processes that torchrun has started, or this one alone.

    When one of them leaves with an error, it ends all: whoever comes first raises its own, the others EndedElsewhere
    with the same exit code. UsageError when the environment is not torchrun's.
    """
    local = int(environment.get("LOCAL_RANK", "0"))
    size = int(environment.get("WORLD_SIZE", "1")) if "RANK" in environment else 1
    device = device_named(number=local)
    if size == 1:
        yield Processes(device=device)
        return
    store, rank = _meet(environment, device)
    try:
        yield Processes(rank, size, device, local)
    except Exception as error:
        raise _ending(error, store) from error
    finally:
        dist.destroy_process_group()


def cores() -> int:
    """Cores for this process: those that it may use, shared with its neighbours under torchrun."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, usable // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def _meet(environment: Mapping[str, str], device: torch.device) -> tuple[Table, int]:
    """Joins the others. Returns the table of all, and our rank."""
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE") if name not in environment]
    if missing:
        raise UsageError(
            f"RANK is set, but not {' and '.join(missing)}", "start many processes with torchrun, or unset RANK"
        )
    store, rank, size = next(rendezvous("env://", timeout=PATIENCE))
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)
    return store, rank


def _ending(error: Exception, store: Table) -> Exception:
    """What this process raises when it has met `error`: only the first of all tells its own."""
    try:
        if store.add("unilmctl errors", 1) > 1:
            return EndedElsewhere(int(store.get("unilmctl exit code")))
        store.set("unilmctl exit code", str(_exit_code(error)))
    except RuntimeError:  # whoever kept the table has gone
        return EndedElsewhere(1)
    lost = isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))
    return UserError("another process of this run has ended without a word", "was it killed?") if lost else error


def _exit_code(error: Exception) -> int:
    if ran_out_of_memory(error):
        return OutOfMemory.exit_code
    return error.exit_code if isinstance(error, UserError) else 1


def _buckets(tensors: list[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    for tensor in tensors:
        bucket.append(tensor)
        if sum(map(torch.numel, bucket)) >= BUCKET:
            yield bucket
            bucket = []
    if bucket:
        yield bucket
