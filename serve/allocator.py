"""The C library's heap: what is freed in it goes back to the machine, or stays for the next request.

NumPy's arrays of less than 32 MB lie in heaps. glibc opens up to eight of them per CPU for as many threads, and gives
back only what is free at a heap's end. So a server that has unloaded a model would go on holding its memory.

Elsewhere (musl, macOS) there is neither of the two functions: then nothing is done.
"""

from __future__ import annotations

import ctypes

M_ARENA_MAX = -8  # of malloc.h

_LIBC = ctypes.CDLL(None)


def keep_one() -> None:
    """Let all threads share the main heap, the only one that :func:`trim` can empty (for the start of a process)."""
    if hasattr(_LIBC, "mallopt"):
        _LIBC.mallopt(M_ARENA_MAX, 1)


def trim() -> None:
    """Give all free pages back to the machine: a few milliseconds."""
    if hasattr(_LIBC, "malloc_trim"):
        _LIBC.malloc_trim(ctypes.c_size_t(0))
