"""One pass over points: assign each to its nearest center, and add up what the centers are updated from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kmeans.arrays import Float32, Float64, Int64
from kmeans.distance import NearestCenters, squared_norms
from kmeans.workers import Workers

# Rows that one task assigns and sums. Enough that the one addition per cluster which ends a task costs little, few
# enough that a mini-batch of 5,000 rows feeds several cores. A function of k alone: the number of threads must not
# change which rows are added together first.
MIN_TASK_ROWS = 2048
TASK_ROWS_PER_CLUSTER = 4

# Inertia is a difference of two sums of squares. Where it is a smaller share of them than this, float32 has no digits
# left of it (tight clusters, far apart).
ROUNDING_SHOWS = 1e-2


@dataclass(slots=True)
class ClusterSums:
    """What the points of each cluster add up to.

    Attributes
    ----------
    sums
        Sum of the (weighted) points of each cluster, float64 (k, d).
    weights
        Number of points of each cluster, or the sum of their weights, float64 (k,). Whole numbers stay exact to 2^53.
    inertia
        Sum over all points of (weight times) the squared distance to the nearest center.
    """

    sums: Float64
    weights: Float64
    inertia: float

    @classmethod
    def zero(cls, clusters: int, features: int) -> ClusterSums:
        """Return the sums of no points."""
        return cls(np.zeros((clusters, features)), np.zeros(clusters), 0.0)

    def add(self, other: ClusterSums) -> None:
        """Add the sums of other points to these, in place."""
        self.sums += other.sums
        self.weights += other.weights
        self.inertia += other.inertia

    @property
    def mean_squared_distance(self) -> float:
        """Inertia per point (or unit of weight); 0 for no points."""
        total = float(self.weights.sum())
        return self.inertia / total if total else 0.0

    def means(self, otherwise: Float64) -> Float64:
        """Return the mean of each cluster (k, d); where a cluster is empty, the row of ``otherwise``."""
        filled = self.weights > 0
        means = otherwise.copy()
        means[filled] = self.sums[filled] / self.weights[filled, None]
        return means


def assign_and_sum(
    points: Float32, nearest: NearestCenters, weights: Float64 | None = None, workers: Workers | None = None
) -> ClusterSums:
    """Return the sums of ``points`` (n, d) by nearest center, each point counted ``weights`` (n,) times (default 1).

    The result is the same to the bit for any number of ``workers``.
    """
    rows = max(MIN_TASK_ROWS, TASK_ROWS_PER_CLUSTER * nearest.clusters)

    def task(first: int) -> tuple[Float32 | Float64, Float64, Int64, float]:
        part = points[first : first + rows]
        part_weights = None if weights is None else weights[first : first + rows]
        return _assign_and_sum(part, nearest, part_weights)

    total = ClusterSums.zero(nearest.clusters, nearest.features)
    for sums, cluster_weights, present, inertia in (workers or Workers()).map(task, range(0, len(points), rows)):
        total.sums[present] += sums
        total.weights += cluster_weights
        total.inertia += inertia
    if nearest.origin is not None:
        total.sums += total.weights[:, None] * nearest.origin
    return total


def _assign_and_sum(
    points: Float32, nearest: NearestCenters, weights: Float64 | None
) -> tuple[Float32 | Float64, Float64, Int64, float]:
    labels, scores = nearest.rank(points)
    moved = nearest.from_origin(points)
    norms = squared_norms(moved).astype(np.float64)
    squared = np.maximum(scores + norms, 0)
    if squared.sum() < ROUNDING_SHOWS * norms.sum():
        squared = nearest.squared_distances(points, labels).astype(np.float64)
    inertia = float(squared.sum() if weights is None else squared @ weights)
    # Rows sorted by label lie cluster by cluster, and each cluster is one sum. Against a one-hot GEMM: equal at k = 10,
    # 8 times faster at k = 1000 (docs/decisions.md).
    order = labels.argsort(kind="stable")
    by_label = moved[order] if weights is None else moved[order] * weights[order, None]
    members = np.bincount(labels, minlength=nearest.clusters)
    present = np.flatnonzero(members)
    last = np.cumsum(members[present])
    sums = np.empty((len(present), nearest.features), dtype=by_label.dtype)
    for i, (start, stop) in enumerate(zip(last - members[present], last, strict=True)):
        by_label[start:stop].sum(axis=0, out=sums[i])
    in_cluster = members if weights is None else np.bincount(labels, weights, nearest.clusters)
    return sums, in_cluster.astype(np.float64), present, inertia
