"""The hosts of a job as ranks of MPI: :class:`kmeans.hosts.Hosts` over mpi4py. Arrays only, nothing is pickled.

Importing this module imports MPI, which only a job on several hosts does.
"""

from __future__ import annotations

import time

import mpi4py
import numpy as np

from kmeans.arrays import Float32, Float64
from kmeans.errors import ResourceError

# MPI starts when :meth:`MpiHosts.join` says so, not when it is imported, and ends when `leave` says so: a rank that
# fails must be able to end without the others.
mpi4py.rc.initialize = False
mpi4py.rc.finalize = False

from mpi4py import MPI  # noqa: E402

# Longest pause, in seconds, between two looks at whether all other hosts have come to the same point.
MAX_PAUSE = 0.001


class HostsError(ResourceError):
    """The connection to the other hosts broke. Why is known to them better than to this one."""


class MpiHosts:
    """All ranks of this process's MPI job; attributes and methods as in :class:`kmeans.hosts.Hosts`.

    Before each exchange the hosts meet, and wait with pauses for the last to come: MPI itself would keep a CPU busy for
    as long, and no signal would be heard. A pause is a tenth of what has been waited, so little is lost.
    """

    def __init__(self) -> None:
        self._world = MPI.COMM_WORLD
        self.rank = self._world.Get_rank()
        self.size = self._world.Get_size()

    @classmethod
    def join(cls) -> MpiHosts:
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

    def broadcast(self, points: Float32) -> Float32:
        """Return the leader's ``points`` (n, d); what the others pass is ignored."""
        try:
            self._meet()
            shape = np.array(points.shape if self.rank == 0 else (0, 0), dtype=np.int64)
            self._world.Bcast(shape)
            content = np.ascontiguousarray(points, dtype=np.float32) if self.rank == 0 else np.empty(shape, np.float32)
            self._world.Bcast(content)
        except MPI.Exception as error:
            raise _broken(error) from None
        return content

    def gather(self, points: Float32) -> Float32:
        """Return all hosts' ``points`` (n_i, d) one below the other, by rank."""
        points = np.ascontiguousarray(points, dtype=np.float32)
        try:
            self._meet()
            shapes = np.empty((self.size, 2), dtype=np.int64)
            self._world.Allgather(np.array(points.shape, dtype=np.int64), shapes)
            # A host without rows doesn't know how many columns they have.
            features = int(shapes[:, 1].max())
            counts = shapes[:, 0] * features
            content = np.empty((int(shapes[:, 0].sum()), features), dtype=np.float32)
            starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
            self._world.Allgatherv(points, [content, (counts, starts), MPI.FLOAT])
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
