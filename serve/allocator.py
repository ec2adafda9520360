"""The C library's allocator: returns freed memory to the system.

NumPy's arrays of less than 32 MB are in heaps of the allocator. glibc opens up to eight heaps per CPU, one per thread,
and returns only free memory at the end of a heap. Without these functions a server would keep the memory of unloaded
models. Other C libraries (musl, macOS) lack both functions; there they do nothing.
"""

from __future__ import annotations

import ctypes

M_ARENA_MAX = -8  # of malloc.h

_LIBC = ctypes.CDLL(None)


def keep_one() -> None:
    """Make all threads share the main heap, the only one that :func:`trim` can empty; call it at process start."""
    if hasattr(_LIBC, "mallopt"):
        _LIBC.mallopt(M_ARENA_MAX, 1)


def trim() -> None:
    """Return all free pages to the system."""
    if hasattr(_LIBC, "malloc_trim"):
        _LIBC.malloc_trim(ctypes.c_size_t(0))
