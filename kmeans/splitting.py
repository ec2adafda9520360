"""Split clusters in two, and compute how much that lowers the loss.

A cluster of weight W with parts of weights A and B and means a and b loses A B / W |a - b|^2 of its inertia when each
part gets a center. The parts come from two-means, started in the direction of a row that is drawn by its squared
distance: once by the sign of the projection (which halves a compact cluster of many columns, where a single row is not
a useful center) and once by the nearer of row and mean (which cuts off a few distant rows).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from kmeans.arrays import Float32, Float64, Int64

# Two-means iterations per start. The following Lloyd passes improve the two centers.
ITERATIONS = 3


class Splits(NamedTuple):
    """Proposed splits of some clusters.

    Attributes
    ----------
    gains
        Decrease of the inertia, float64 (m,); 0 where no split was found.
    first, second
        Means of the two parts, float64 (m, d); both the mean of the cluster where no split was found.
    """

    gains: Float64
    first: Float64
    second: Float64


def split_clusters(
    points: Float32 | Float64, weights: Float64, groups: Int64, count: int, generator: Generator
) -> Splits:
    """Return the best split found of each of ``count`` clusters.

    Parameters
    ----------
    points, weights
        Rows of the clusters, (n, d), and their weights, positive, (n,).
    groups
        Number of each row's cluster, from 0 to ``count`` - 1, ascending, (n,); a cluster may have no rows.
    """
    gains, means = np.zeros(count), np.zeros((count, points.shape[1]))
    splits = Splits(gains, means, means.copy())
    present, first = np.unique(groups, return_index=True)
    for number, begin, end in zip(present.tolist(), first.tolist(), [*first[1:].tolist(), len(groups)], strict=True):
        _split(points[begin:end], weights[begin:end], number, splits, generator)
    return splits


def _split(points: Float32 | Float64, weights: Float64, number: int, splits: Splits, generator: Generator) -> None:
    """Write the best split found of one cluster into ``splits``."""
    total = weights.sum()
    center = weights @ points / total
    splits.first[number] = splits.second[number] = center
    offsets = points - center.astype(points.dtype)
    lengths = np.einsum("ij,ij->i", offsets, offsets)
    potential = np.cumsum(weights * lengths)
    if not potential[-1] > 0:
        return
    drawn = min(int(np.searchsorted(potential, generator.random() * potential[-1], side="right")), len(points) - 1)
    projections = offsets @ offsets[drawn]
    for threshold in (0.0, lengths[drawn] / 2):
        is_first = projections > threshold
        for _ in range(ITERATIONS):
            own = np.where(is_first, weights, 0.0)
            size = own.sum()
            if not 0 < size < total:
                break
            # The offsets add up to 0, so the two means are on a line through it.
            mean = own @ offsets / size
            other = -mean * (size / (total - size))
            between = mean - other
            gain = size * (total - size) / total * (between @ between)
            if gain > splits.gains[number]:
                splits.gains[number] = gain
                splits.first[number], splits.second[number] = center + mean, center + other
            narrow = between.astype(points.dtype)
            is_nearer = offsets @ narrow > (mean @ mean - other @ other) / 2
            if (is_nearer == is_first).all():
                break
            is_first = is_nearer
