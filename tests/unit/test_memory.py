"""Freed memory is kept: what is taken again is not new."""

import ctypes
import multiprocessing
import resource
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection

import pytest
import torch

from unilmctl.model.memory import M_MMAP_MAX, M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, keep_freed_memory, return_freed_memory

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="another C library"
)
PAGE = resource.getpagesize()


def new_pages(megabytes: int, rounds: int = 10) -> int:
    """How many pages are new when a tensor is filled for the last time of several: aligned pieces first fit by luck."""
    for _ in range(rounds):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(megabytes << 18)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def like_a_new_process() -> None:
    library = ctypes.CDLL(None)
    for name, value in ((M_MMAP_MAX, 65536), (M_MMAP_THRESHOLD, 128 << 10), (M_TRIM_THRESHOLD, 128 << 10)):
        library.mallopt(name, value)


def in_a_process(work: Callable[[], list[int]]) -> list[int]:
    """What `work` returns in a process of its own, whose allocator is nobody else's."""

    def child(end: Connection) -> None:
        end.send(work())

    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    process = context.Process(target=child, args=(there,))
    process.start()
    found: list[int] = here.recv()
    process.join()
    return found


def test_what_a_step_frees_is_not_new_to_the_next() -> None:
    def work() -> list[int]:
        torch.set_num_threads(1)
        like_a_new_process()
        before = new_pages(48)
        keep_freed_memory(all_sizes=False)
        small = new_pages(24)
        keep_freed_memory(all_sizes=True)
        return [before, small, new_pages(48)]

    before, small, all_sizes = in_a_process(work)
    assert before > (48 << 20) // PAGE / 2
    assert small < 100
    assert all_sizes < 100


def test_freed_memory_goes_back_on_request() -> None:
    def work() -> list[int]:
        torch.set_num_threads(1)
        keep_freed_memory(all_sizes=True)
        kept = new_pages(48)
        return_freed_memory()
        return [kept, new_pages(48, rounds=1)]

    kept, returned = in_a_process(work)
    assert kept < 100
    assert returned > (48 << 20) // PAGE / 2
