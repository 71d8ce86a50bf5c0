"""What the C library does with freed memory: it keeps it for the next step.

A step of training or decoding takes and frees the same large tensors again and again. glibc by itself hands large
pieces back to the system, whose memory is new, and has to be cleared page by page, at the next step. Where the C
library is another one nothing here does anything.
"""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4
"""Names of glibc's malloc.h."""

NEVER = -1
"""As a trim threshold."""


def keep_freed_memory(*, all_sizes: bool) -> None:
    """From now on this process keeps what it frees.

    That is pieces of up to 32 MiB, as long as no more than 1 GiB lies idle; with `all_sizes` everything.
    """
    if library := _glibc():
        library.mallopt(M_MMAP_MAX if all_sizes else M_MMAP_THRESHOLD, 0 if all_sizes else 32 << 20)
        library.mallopt(M_TRIM_THRESHOLD, NEVER if all_sizes else 1 << 30)


def return_freed_memory() -> None:
    """Gives what is free now back to the system, small pieces too, which glibc by itself never does."""
    if library := _glibc():
        library.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    return library if hasattr(library, "malloc_trim") else None
