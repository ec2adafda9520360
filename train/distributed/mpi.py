"""The hosts of a job as ranks of MPI: :class:`kmeans.collectives.Collectives` over mpi4py.

Only arrays are sent; nothing is pickled.

Importing this module imports MPI, which only a job on several hosts does.
"""

from __future__ import annotations

import time

import mpi4py
import numpy as np
from numpy.typing import NDArray

from kmeans.arrays import Float64
from kmeans.collectives import Scalar
from kmeans.errors import ResourceError

# :meth:`MpiCollectives.join` starts MPI, not the import, and `leave` ends it: a rank that fails must be able to end
# without the others.
mpi4py.rc.initialize = False
mpi4py.rc.finalize = False

from mpi4py import MPI  # noqa: E402

# Longest pause, in seconds, between two looks at whether all other hosts have come to the same point.
MAX_PAUSE = 0.001


class HostsError(ResourceError):
    """The connection to the other hosts broke. Why is known to them better than to this one."""


class MpiCollectives:
    """All ranks of this process's MPI job; attributes and methods as in :class:`kmeans.collectives.Collectives`.

    Before each exchange the hosts meet, and wait with pauses for the last to come: MPI itself would keep a CPU busy for
    as long, and no signal would be heard. A pause is a tenth of what has been waited, so little is lost.
    """

    def __init__(self) -> None:
        self._world = MPI.COMM_WORLD
        self.rank = self._world.Get_rank()
        self.size = self._world.Get_size()

    @classmethod
    def join(cls) -> MpiCollectives:
        """Connect to all others; wait for them.

        Raises
        ------
        HostsError
            If that can't be done.
        """
        try:
            # Calls come from the main thread only.
            MPI.Init_thread(MPI.THREAD_FUNNELED)
            MPI.COMM_WORLD.Set_errhandler(MPI.ERRORS_RETURN)
        except MPI.Exception as error:
            raise _broken(error) from None
        return cls()

    def leave(self) -> None:
        """Wait until all others leave too, and disconnect."""
        try:
            self._meet()
            MPI.Finalize()
        except MPI.Exception as error:
            raise _broken(error) from None

    def sum(self, values: Float64) -> Float64:
        """Return the element-wise sum of all hosts' ``values``, of one shape."""
        values = np.asarray(values, dtype=np.float64, order="C")
        total = np.empty_like(values)
        try:
            self._meet()
            self._world.Allreduce(values, total)
        except MPI.Exception as error:
            raise _broken(error) from None
        return total

    def broadcast(self, values: NDArray[Scalar]) -> NDArray[Scalar]:
        """Return the leader's ``values``; of what the others pass only the number of dimensions counts."""
        values = np.ascontiguousarray(values)
        try:
            self._meet()
            shape = np.array(values.shape, dtype=np.int64)
            self._world.Bcast(shape)
            content = values if self.rank == 0 else np.empty(shape, values.dtype)
            self._world.Bcast(content)
        except MPI.Exception as error:
            raise _broken(error) from None
        return content

    def gather(self, rows: NDArray[Scalar]) -> NDArray[Scalar]:
        """Return all hosts' ``rows`` (n_i, m) one below the other, by rank, on the leader; on the others none."""
        rows = np.ascontiguousarray(rows)
        try:
            self._meet()
            shapes = np.empty((self.size, 2), dtype=np.int64)
            self._world.Allgather(np.array(rows.shape, dtype=np.int64), shapes)
            # A host without rows doesn't know how many columns they have.
            width = int(shapes[:, 1].max())
            counts = shapes[:, 0] * width
            content = np.empty((int(shapes[:, 0].sum()) if self.rank == 0 else 0, width), dtype=rows.dtype)
            starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
            self._world.Gatherv(rows, [content, (counts, starts)] if self.rank == 0 else None)
        except MPI.Exception as error:
            raise _broken(error) from None
        return content

    def _meet(self) -> None:
        """Wait until all hosts are here."""
        request = self._world.Ibarrier()
        started = time.perf_counter()
        while not request.Test():
            time.sleep(min(MAX_PAUSE, 0.1 * (time.perf_counter() - started)))


def _broken(error: MPI.Exception) -> HostsError:
    return HostsError(f"the connection to the other hosts broke: {error.Get_error_string()}.")
