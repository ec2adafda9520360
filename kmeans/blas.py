"""One BLAS thread for the time of a fit.

The threads of :class:`kmeans.threads.ThreadPool` call BLAS at the same time; if BLAS starts threads as well, they
compete for the CPUs. The commands of the image set ``OPENBLAS_NUM_THREADS`` before NumPy is imported; a library must
not, because the variable affects everything else that its caller computes.
"""

from __future__ import annotations

import contextlib
import ctypes
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

# The functions of OpenBLAS that get and set the number of threads, as NumPy's wheels and Linux distributions name them.
FUNCTIONS = (
    ("scipy_openblas_get_num_threads64_", "scipy_openblas_set_num_threads64_"),
    ("scipy_openblas_get_num_threads", "scipy_openblas_set_num_threads"),
    ("openblas_get_num_threads64_", "openblas_set_num_threads64_"),
    ("openblas_get_num_threads", "openblas_set_num_threads"),
)


class BlasThreads:
    """Limits BLAS to one thread as long as any thread of this process is in :meth:`one`.

    Parameters
    ----------
    get, set_to
        Return and change the number of threads of BLAS; None if there are no such functions.
    """

    def __init__(self, get: Callable[[], int] | None, set_to: Callable[[int], object] | None) -> None:
        self._get, self._set_to = get, set_to
        self._lock = threading.Lock()
        self._users, self._before = 0, 1

    def threads(self) -> int | None:
        """Return the number of threads that BLAS has now, None if it isn't known."""
        return None if self._get is None else self._get()

    @contextmanager
    def one(self) -> Iterator[None]:
        """Run BLAS with one thread in this context, also in all other threads; then as before."""
        if self._get is None or self._set_to is None:
            yield
            return
        with self._lock:
            if self._users == 0:
                self._before = self._get()
                self._set_to(1)
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if self._users == 0:
                    self._set_to(self._before)


def of_numpy() -> BlasThreads:
    """Return the threads of the BLAS that NumPy uses; with any BLAS except OpenBLAS they are not changed."""
    with contextlib.suppress(AttributeError, OSError):
        # A name that is looked up in an extension is looked up in the libraries that it is linked with, too.
        library = ctypes.CDLL(np._core._multiarray_umath.__file__)  # type: ignore[attr-defined]
        for get, set_to in FUNCTIONS:
            if hasattr(library, get) and hasattr(library, set_to):
                return BlasThreads(getattr(library, get), getattr(library, set_to))
    return BlasThreads(None, None)


BLAS = of_numpy()
