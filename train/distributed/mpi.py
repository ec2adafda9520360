"""Collective operations over MPI: :class:`kmeans.collectives.Collectives` with mpi4py.

It sends arrays only, and pickles nothing. Importing this module imports MPI; only a job on several hosts does so.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import mpi4py
import numpy as np
from numpy.typing import NDArray

from kmeans.arrays import Float64
from kmeans.collectives import Collectives, Scalar
from kmeans.errors import ResourceError

# `join` starts MPI, not the import, and `leave` ends it: a rank that fails must be able to end without the others.
mpi4py.rc.initialize = False
mpi4py.rc.finalize = False

from mpi4py import MPI  # noqa: E402

# Longest pause, in seconds, between two checks whether all other hosts have called the same operation.
MAX_PAUSE = 0.001


class HostsError(ResourceError):
    """The connection to another host broke; that host knows the cause."""


class MpiCollectives(Collectives):
    """All ranks of this process's MPI job.

    Each operation first waits, with pauses, until all hosts have called it: MPI itself would keep a CPU busy meanwhile,
    and Python would handle no signal. A pause is a tenth of the time waited so far, so little time is lost.

    Raises
    ------
    HostsError
        By every method, if the connection to another host breaks.
    """

    def __init__(self) -> None:
        self._world = MPI.COMM_WORLD
        self.rank = self._world.Get_rank()
        self.size = self._world.Get_size()

    @classmethod
    def join(cls) -> MpiCollectives:
        """Start MPI, which waits for all ranks, and return their operations."""
        with _hosts_errors():
            # Calls come from the main thread only.
            MPI.Init_thread(MPI.THREAD_FUNNELED)
            MPI.COMM_WORLD.Set_errhandler(MPI.ERRORS_RETURN)
        return cls()

    def leave(self) -> None:
        """Wait until all other hosts call this too, and end MPI."""
        self.barrier()
        with _hosts_errors():
            MPI.Finalize()

    def barrier(self) -> None:
        """Wait until all hosts call this."""
        with _hosts_errors():
            self._meet()

    def sum(self, values: Float64) -> Float64:
        """Return the element-wise sum of all hosts' ``values``, of one shape."""
        values = np.asarray(values, dtype=np.float64, order="C")
        total = np.empty_like(values)
        with _hosts_errors():
            self._meet()
            self._world.Allreduce(values, total)
        return total

    def broadcast(self, values: NDArray[Scalar]) -> NDArray[Scalar]:
        """Return the leader's ``values``; of the other hosts' only the number of dimensions matters."""
        values = np.ascontiguousarray(values)
        with _hosts_errors():
            self._meet()
            shape = np.array(values.shape, dtype=np.int64)
            self._world.Bcast(shape)
            content = values if self.rank == 0 else np.empty(shape, values.dtype)
            self._world.Bcast(content)
        return content

    def gather(self, rows: NDArray[Scalar]) -> NDArray[Scalar]:
        """Return all hosts' ``rows`` (n_i, m), concatenated by rank, on the leader; no rows on the others."""
        rows = np.ascontiguousarray(rows)
        with _hosts_errors():
            self._meet()
            shapes = np.empty((self.size, 2), dtype=np.int64)
            self._world.Allgather(np.array(rows.shape, dtype=np.int64), shapes)
            # A host without rows doesn't know how many columns they have.
            width = int(shapes[:, 1].max())
            counts = shapes[:, 0] * width
            content = np.empty((int(shapes[:, 0].sum()) if self.rank == 0 else 0, width), dtype=rows.dtype)
            starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
            self._world.Gatherv(rows, [content, (counts, starts)] if self.rank == 0 else None)
        return content

    def _meet(self) -> None:
        """Wait until all hosts call this."""
        request = self._world.Ibarrier()
        started = time.perf_counter()
        while not request.Test():
            time.sleep(min(MAX_PAUSE, 0.1 * (time.perf_counter() - started)))


@contextmanager
def _hosts_errors() -> Iterator[None]:
    """Return a context that turns an error of MPI into a HostsError."""
    try:
        yield
    except MPI.Exception as error:
        raise HostsError(f"the connection to the other hosts broke: {error.Get_error_string()}.") from None
