"""Collective operations of the hosts that fit one model together.

Every host calls the same methods in the same order, with arrays of the same type.
"""

from __future__ import annotations

from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from kmeans.arrays import Float64

Scalar = TypeVar("Scalar", bound=np.generic)


class Collectives(Protocol):
    """A group of hosts, each with its own rows; each call of a method is one exchange.

    Implementations inherit `total`, `any` and `barrier`, which are sums of one number.

    Attributes
    ----------
    rank
        Number of this host, from 0; 0 is the leader.
    size
        Number of hosts.
    """

    rank: int
    size: int

    def sum(self, values: Float64) -> Float64:
        """Return the element-wise sum of all hosts' ``values``, of one shape; the same on all of them."""

    def broadcast(self, values: NDArray[Scalar]) -> NDArray[Scalar]:
        """Return the leader's ``values``; of the other hosts' only the number of dimensions matters."""

    def gather(self, rows: NDArray[Scalar]) -> NDArray[Scalar]:
        """Return all hosts' ``rows`` (n_i, m), concatenated by rank, on the leader; no rows on the others."""

    def total(self, value: float) -> float:
        """Return the sum of all hosts' ``value``, as float64: counts are exact up to 2^53."""
        return float(self.sum(np.array([float(value)]))[0])

    def any(self, flag: bool) -> bool:
        """Return True on all hosts if ``flag`` is True on at least one."""
        return self.total(flag) > 0

    def barrier(self) -> None:
        """Wait until all hosts call this."""
        self.total(0)


class SingleHost(Collectives):
    """A job's only host: every operation returns its argument."""

    rank = 0
    size = 1

    def sum(self, values: Float64) -> Float64:
        """Return ``values``."""
        return values

    def broadcast(self, values: NDArray[Scalar]) -> NDArray[Scalar]:
        """Return ``values``."""
        return values

    def gather(self, rows: NDArray[Scalar]) -> NDArray[Scalar]:
        """Return ``rows``."""
        return rows
