"""The hosts that fit one model together: what they tell each other, and nothing about how.

Every host calls the same methods in the same order, with arrays of the same type.
"""

from __future__ import annotations

from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from kmeans.arrays import Float64

Scalar = TypeVar("Scalar", bound=np.generic)


class Collectives(Protocol):
    """A group of hosts, each with its own rows.

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
        """Return the leader's ``values``; of what the others pass only the number of dimensions counts."""

    def gather(self, rows: NDArray[Scalar]) -> NDArray[Scalar]:
        """Return all hosts' ``rows`` (n_i, m) one below the other, by rank, on the leader; on the others none."""


class SingleHost:
    """One host."""

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
