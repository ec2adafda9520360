"""The hosts that fit one model together: what they tell each other, and nothing about how.

Every host calls the same methods in the same order; each method returns the same on all of them.
"""

from __future__ import annotations

from typing import Protocol

from kmeans.arrays import Float32, Float64


class Hosts(Protocol):
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
        """Return the element-wise sum of all hosts' ``values``, of one shape."""

    def broadcast(self, points: Float32) -> Float32:
        """Return the leader's ``points`` (n, d); what the others pass is ignored."""

    def gather(self, points: Float32) -> Float32:
        """Return all hosts' ``points`` (n_i, d) one below the other, by rank."""


class Alone:
    """One host."""

    rank = 0
    size = 1

    def sum(self, values: Float64) -> Float64:
        """Return ``values``."""
        return values

    def broadcast(self, points: Float32) -> Float32:
        """Return ``points``."""
        return points

    def gather(self, points: Float32) -> Float32:
        """Return ``points``."""
        return points
