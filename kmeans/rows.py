"""The rows that a model is fitted to: mini-batches for streaming, blocks for exact passes, samples for seeding."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.random import Generator

from kmeans.arrays import Float32


class Rows(Protocol):
    """A data set that can be read again and again.

    Attributes
    ----------
    features
        Number of columns, d.
    points
        All rows, float32 (n, d).
    """

    features: int
    points: Float32

    def __len__(self) -> int:
        """Return the number of rows, n."""

    def batches(self, epoch: int) -> Iterator[Float32]:
        """Yield every row once, in mini-batches (b, d), in an order of that ``epoch``'s own."""

    def blocks(self) -> Iterator[Float32]:
        """Yield every row once, in blocks (b, d) as large and as cheap as may be, always in the same order."""

    def sample(self, count: int, generator: Generator) -> Float32:
        """Return ``count`` different rows drawn at random, or all if there are no more."""


class MemoryRows:
    """Rows that lie in memory as one array.

    Mini-batches are drawn without replacement from a permutation of all rows, new for each epoch: files are often
    sorted (by label, by day), and the first centers and learning rates must not depend on that.

    Parameters
    ----------
    points
        Shape (n, d), float32, finite. Not copied, not written to.
    mini_batch_size
        Rows per mini-batch; the last one of an epoch may be smaller.
    seed
        Fixes the permutations.
    """

    def __init__(self, points: Float32, mini_batch_size: int = 5000, seed: int = 0) -> None:
        self.points = points
        self.features = points.shape[1]
        self._mini_batch_size = mini_batch_size
        self._seed = seed

    def __len__(self) -> int:
        return len(self.points)

    def batches(self, epoch: int) -> Iterator[Float32]:
        """Yield mini-batches of the permutation that belongs to ``epoch``."""
        order = np.random.default_rng((self._seed, epoch)).permutation(len(self.points))
        for first in range(0, len(order), self._mini_batch_size):
            yield self.points[order[first : first + self._mini_batch_size]]

    def blocks(self) -> Iterator[Float32]:
        """Yield the array itself."""
        yield self.points

    def sample(self, count: int, generator: Generator) -> Float32:
        """Return ``count`` different rows, or the whole array."""
        if count >= len(self.points):
            return self.points
        return self.points[np.sort(generator.choice(len(self.points), count, replace=False))]
