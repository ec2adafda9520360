"""One pass over points: assign each to its nearest center, and add up what the centers are updated from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from kmeans.arrays import Float32, Float64, Int32, Int64
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
    size = _task_rows(nearest)

    def task(first: int) -> _TaskSums:
        part = slice(first, first + size)
        return _assign_and_sum(points[part], nearest, None if weights is None else weights[part])

    return _total((workers or Workers()).map(task, range(0, len(points), size)), nearest)


def assign_rows(
    points: Float32, rows: Int64, nearest: NearestCenters, workers: Workers | None = None
) -> tuple[ClusterSums, Int64]:
    """Return the sums of ``points[rows]`` by nearest center, and the nearest center of each of them, (len(rows),).

    The points are copied a task's worth at a time, but for all rows in their order, which are as they are.
    """
    size = _task_rows(nearest)
    is_all = len(rows) == len(points) and bool((np.diff(rows) == 1).all())

    def task(first: int) -> _TaskSums:
        part = slice(first, first + size)
        return _assign_and_sum(points[part] if is_all else points[rows[part]], nearest, None)

    results = list((workers or Workers()).map(task, range(0, len(rows), size)))
    labels = np.concatenate([result.labels for result in results]) if results else np.empty(0, dtype=np.int64)
    return _total(results, nearest), labels


def sum_by_label(points: Float32, labels: Int64 | Int32, clusters: int, weights: Float64 | None = None) -> LabelSums:
    """Return the sums of ``points`` (n, d), times ``weights`` if given, by their ``labels`` (n,).

    Rows sorted by label lie cluster by cluster, and each cluster is one sum. Against a one-hot GEMM that takes as long
    at k = 10 and an eighth at k = 1000 (docs/decisions.md).
    """
    order = labels.argsort(kind="stable")
    by_label = points[order] if weights is None else points[order] * weights[order, None]
    members = np.bincount(labels, minlength=clusters)
    present = np.flatnonzero(members)
    last = np.cumsum(members[present])
    sums = np.empty((len(present), points.shape[1]), dtype=by_label.dtype)
    for i, (start, stop) in enumerate(zip(last - members[present], last, strict=True)):
        by_label[start:stop].sum(axis=0, out=sums[i])
    counted = members if weights is None else np.bincount(labels, weights, clusters)
    return LabelSums(present, sums, counted.astype(np.float64))


class LabelSums(NamedTuple):
    """Sums of points by label: ``sums`` (len(present), d) of the labels ``present``; ``weights`` (k,) of all."""

    present: Int64
    sums: Float32 | Float64
    weights: Float64


class _TaskSums(NamedTuple):
    by_label: LabelSums
    labels: Int64
    inertia: float


def _task_rows(nearest: NearestCenters) -> int:
    return max(MIN_TASK_ROWS, TASK_ROWS_PER_CLUSTER * nearest.clusters)


def _total(tasks: Iterable[_TaskSums], nearest: NearestCenters) -> ClusterSums:
    total = ClusterSums.zero(nearest.clusters, nearest.features)
    for task in tasks:
        total.sums[task.by_label.present] += task.by_label.sums
        total.weights += task.by_label.weights
        total.inertia += task.inertia
    if nearest.origin is not None:
        total.sums += total.weights[:, None] * nearest.origin
    return total


def _assign_and_sum(points: Float32, nearest: NearestCenters, weights: Float64 | None) -> _TaskSums:
    labels, scores = nearest.rank(points)
    moved = nearest.from_origin(points)
    norms = squared_norms(moved).astype(np.float64)
    squared = np.maximum(scores + norms, 0)
    if squared.sum() < ROUNDING_SHOWS * norms.sum():
        squared = nearest.squared_distances(points, labels).astype(np.float64)
    inertia = float(squared.sum() if weights is None else squared @ weights)
    return _TaskSums(sum_by_label(moved, labels, nearest.clusters, weights), labels, inertia)
