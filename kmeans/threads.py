"""A thread pool over the rows of an array.

NumPy releases the interpreter's lock inside GEMM, argmin and sums, so threads over row blocks use all cores, also in
the steps that BLAS doesn't thread. BLAS itself should run with one thread each (``train`` sets this); with more the
results are the same and only the speed differs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import islice
from types import TracebackType
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Interrupted(Exception):  # noqa: N818 - nothing is wrong
    """A stop was requested, and the current work is abandoned."""


class ThreadPool:
    """Maps a function over items with a fixed number of threads, in order.

    The order makes floating-point reductions independent of the number of threads: a reduction over the results of
    ``map`` adds the same numbers in the same order on any machine.

    Parameters
    ----------
    threads
        1 (the default) runs everything in the calling thread.
    stop_wanted
        Returns True if a stop is requested; called repeatedly in :meth:`interruptible` work.
    """

    def __init__(self, threads: int = 1, stop_wanted: Callable[[], bool] | None = None) -> None:
        if threads < 1:
            raise ValueError(f"threads must be at least 1, got {threads}")
        self.threads = threads
        self._stop_wanted = stop_wanted
        self._is_interruptible = False
        self._patience = 0.0
        self._stop_seen: float | None = None
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="kmeans") if threads > 1 else None

    @contextmanager
    def interruptible(self, patience: float = 0.0) -> Iterator[None]:
        """Raise Interrupted in this context if a stop is requested.

        The check is made on entering, and before each item of a map.
        Work continues for ``patience`` seconds after the stop was first seen, for results that are worth a short wait.
        """
        self._is_interruptible, self._patience = True, patience
        try:
            self.check_stop()
            yield
        finally:
            self._is_interruptible = False

    def interruptible_alone(self, hosts: int) -> AbstractContextManager[None]:
        """Return :meth:`interruptible` if there is one host.

        Several hosts must agree on where they stop.
        """
        return self.interruptible() if hosts == 1 else nullcontext()

    def check_stop(self) -> None:
        """Raise Interrupted in interruptible work if a stop is requested."""
        if self._is_interruptible and self._stop_wanted is not None and self._stop_wanted():
            now = time.monotonic()
            self._stop_seen = now if self._stop_seen is None else self._stop_seen
            if now >= self._stop_seen + self._patience:
                raise Interrupted

    def _until_stop(self, items: Iterable[T]) -> Iterator[T]:
        for item in items:
            self.check_stop()
            yield item

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """Yield ``function(item)`` for each item, in order.

        At most two results per thread are computed ahead of the caller.
        """
        waiting = self._until_stop(items)
        if self._pool is None:
            yield from map(function, waiting)
            return
        ahead = [self._pool.submit(function, item) for item in islice(waiting, 2 * self.threads)]
        while ahead:
            result = ahead.pop(0).result()
            ahead += [self._pool.submit(function, item) for item in islice(waiting, 1)]
            yield result

    def run(self, function: Callable[[T], None], items: Iterable[T]) -> None:
        """Call ``function(item)`` for each item."""
        for _ in self.map(function, items):
            pass

    def close(self) -> None:
        """End the threads after their current work."""
        if self._pool is not None:
            self._pool.shutdown()

    def __enter__(self) -> ThreadPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
