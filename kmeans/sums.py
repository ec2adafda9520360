"""One pass over points: their nearest centers, and sums by cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from kmeans.arrays import Batch, Float32, Float64, Int32, Int64, in_blocks
from kmeans.collectives import Collectives
from kmeans.distance import NearestCenters, rounding_decides, squared_norms
from kmeans.threads import Interrupted, ThreadPool

# Number of rows of one task: large enough that the addition per cluster at its end costs little, small enough that a
# mini-batch of 5,000 rows uses several cores. It depends only on d: the number of threads must not change the order of
# additions.
TASK_BYTES = 4 << 20
MIN_TASK_ROWS, MAX_TASK_ROWS = 1024, 2500

# If clusters have no more values than this on average, one call for all is faster than a call for each.
SHORT_RUN_VALUES = 200

# Inertia is a difference of two sums of squares. If it is a smaller fraction of them than this, float32 has no digits
# left of it (tight clusters, far apart).
ROUNDING_SHOWS = 1e-2


@dataclass(slots=True)
class ClusterSums:
    """Sums of the points of each cluster.

    Attributes
    ----------
    sums
        Sum of the (weighted) points of each cluster, float64 (k, d).
    weights
        Number of points of each cluster, or the sum of their weights, float64 (k,). Whole numbers stay exact to 2^53.
    inertia
        Sum over all points of (weight times) the squared distance to the nearest center.
    counts
        Number of points of each cluster, float64 (k,); None without weights, where ``weights`` is the number.
    """

    sums: Float64
    weights: Float64
    inertia: float
    counts: Float64 | None = None

    @classmethod
    def zero(cls, clusters: int, features: int, *, is_weighted: bool = False) -> ClusterSums:
        """Return the sums of no points.

        ``is_weighted`` says whether points added later have weights.
        """
        return cls(np.zeros((clusters, features)), np.zeros(clusters), 0.0, np.zeros(clusters) if is_weighted else None)

    def add(self, other: ClusterSums) -> None:
        """Add the sums of other points to these, in place."""
        self.sums += other.sums
        self.weights += other.weights
        self.inertia += other.inertia
        if self.counts is not None:
            self.counts += other.rows

    def add_labelled(self, part: LabelSums, origin: Float32 | None, sign: int = 1) -> None:
        """Add the sums of points from ``origin`` in place, without their inertia.

        With ``sign`` -1 they are subtracted.
        """
        sums = part.sums if origin is None else part.sums + part.weights[:, None] * origin.astype(np.float64)
        self.sums[part.present] += sign * sums
        self.weights[part.present] += sign * part.weights
        if self.counts is not None:
            self.counts[part.present] += sign * part.counts

    def over(self, hosts: Collectives, *, interrupted: bool = False) -> ClusterSums:
        """Return the sums of the points of all ``hosts``.

        Raises
        ------
        Interrupted
            On all hosts, if one passes ``interrupted``, as its sums are incomplete.
        """
        if hosts.size == 1 and not interrupted:
            return self
        counts = [] if self.counts is None else [self.counts]
        message = np.concatenate([self.sums.ravel(), self.weights, *counts, [self.inertia, float(interrupted)]])
        total = hosts.sum(message)
        if total[-1]:
            raise Interrupted
        sizes = [self.sums.size, len(self.weights), *map(len, counts)]
        sums, weights, *counts, last = np.split(total, np.cumsum(sizes))
        return ClusterSums(sums.reshape(self.sums.shape), weights, float(last[0]), *counts)

    @property
    def rows(self) -> Float64:
        """Number of points of each cluster, (k,)."""
        return self.weights if self.counts is None else self.counts

    @property
    def mean_squared_distance(self) -> float:
        """Inertia per point (or unit of weight); 0 for no points."""
        total = float(self.weights.sum())
        return self.inertia / total if total else 0.0

    def means(self, otherwise: Float64) -> Float64:
        """Return the mean of each cluster (k, d); of empty ones, that of ``otherwise``."""
        filled = self.weights > 0
        means = otherwise.copy()
        means[filled] = self.sums[filled] / self.weights[filled, None]
        return means


def assign_and_sum(
    points: Float32,
    nearest: NearestCenters,
    weights: Float64 | None = None,
    pool: ThreadPool | None = None,
    *,
    exact: bool = False,
) -> ClusterSums:
    """Return the sums of ``points`` (n, d) with ``weights`` (n,) by nearest center.

    The result is the same to the bit for any number of threads.

    Parameters
    ----------
    exact
        Whether near ties are decided in float64. Otherwise rounding decides, and the result may depend on the other
        points of the batch.
    """
    size = task_rows(nearest.features)

    def task(first: int) -> TaskSums:
        part = slice(first, first + size)
        return _assign_and_sum(points[part], nearest, None if weights is None else weights[part], exact=exact)

    tasks = (pool or ThreadPool()).map(task, range(0, len(points), size))
    return _total(tasks, nearest, is_weighted=weights is not None)


def assign_and_sum_blocks(
    blocks: Iterable[Batch], nearest: NearestCenters, pool: ThreadPool, *, is_weighted: bool = False
) -> ClusterSums:
    """Return the sums of all points of ``blocks`` by nearest center.

    The next blocks are read while the pool computes.
    ``is_weighted`` says whether all blocks have weights, or none.
    """
    parts = (part for block in blocks for part in _parts(block, task_rows(nearest.features)))
    tasks = pool.map(lambda part: _assign_and_sum(part.points, nearest, part.weights), parts)
    return _total(tasks, nearest, is_weighted=is_weighted)


def query_rows(points: Float32, rows: Int64, nearest: NearestCenters, pool: ThreadPool) -> tuple[Int64, Float64]:
    """Return labels and squared distances of the ``points`` (n, d) with these row numbers, (m,) each."""
    labels, squared = np.empty(len(rows), dtype=np.int64), np.empty(len(rows))
    size = task_rows(nearest.features)

    def task(first: int) -> None:
        part = slice(first, first + size)
        labels[part], squared[part] = nearest.query(points[rows[part]])

    pool.run(task, range(0, len(rows), size))
    return labels, squared


def _parts(block: Batch, size: int) -> Iterator[Batch]:
    for first, points in in_blocks(block.points, size):
        yield Batch(points, None if block.weights is None else block.weights[first : first + size])


def sum_by_label(
    points: Float32 | Float64, labels: Int64 | Int32, clusters: int, weights: Float64 | None = None
) -> LabelSums:
    """Return the sums of ``points`` (n, d), times ``weights``, by ``labels`` (n,).

    Rows are sorted by label, and each cluster is one sum: with many clusters this is faster than a one-hot GEMM
    (docs/decisions/computation.md).
    """
    order = labels.astype(np.min_scalar_type(clusters)).argsort(kind="stable")  # 16 bits: a radix sort
    by_label = points[order] if weights is None else points[order] * weights[order, None]
    members = np.bincount(labels, minlength=clusters)
    present = np.flatnonzero(members)
    last = np.cumsum(members[present])
    first = last - members[present]
    if by_label.size <= SHORT_RUN_VALUES * len(present):
        sums = np.add.reduceat(by_label, first, axis=0)
    else:
        sums = np.empty((len(present), points.shape[1]), dtype=by_label.dtype)
        for i, (start, stop) in enumerate(zip(first, last, strict=True)):
            by_label[start:stop].sum(axis=0, out=sums[i])
    counts = members[present]
    counted = counts if weights is None else np.bincount(labels, weights, clusters)[present]
    return LabelSums(present, sums, counted.astype(np.float64), counts)


class LabelSums(NamedTuple):
    """Sums (m, d), weights (m,) and counts (m,) of the m labels ``present``."""

    present: Int64
    sums: Float32 | Float64
    weights: Float64
    counts: Int64


class TaskSums(NamedTuple):
    """Sums of one task by label, of points from the origin, and their inertia."""

    by_label: LabelSums
    inertia: float


def task_rows(features: int) -> int:
    """Return the number of points of one task, for this number of ``features``."""
    return max(MIN_TASK_ROWS, min(MAX_TASK_ROWS, TASK_BYTES // (4 * features)))


def correct_rounding(
    nearest: NearestCenters, points: Float32, labels: Int64 | Int32, scores: Float32, norms: Float32
) -> Corrected:
    """Return labels and squared distances of points, corrected for rounding.

    The distances are ``scores`` plus ``norms`` (those of the points from the origin), unless float32 has no digits left
    of that sum. If it has none left to rank the centers either, the labels are computed in float64.
    """
    squared = np.maximum(scores.astype(np.float64) + norms, 0)
    is_rounded = False
    if squared.sum() < ROUNDING_SHOWS * norms.sum(dtype=np.float64):
        squared = nearest.squared_distances(points, labels).astype(np.float64)
        is_rounded = rounding_decides(squared, norms)
    if is_rounded:
        labels, distances = nearest.exact_query(points)
        squared = distances.astype(np.float64)
    return Corrected(labels, squared, is_rounded)


class Corrected(NamedTuple):
    """Labels (n,), squared distances (n,), and whether rounding decided before."""

    labels: Int64 | Int32
    squared: Float64
    is_rounded: bool


def sums_of_all_hosts(
    compute: Callable[[], ClusterSums], nothing: ClusterSums, pool: ThreadPool, hosts: Collectives
) -> ClusterSums:
    """Return the sum of ``compute()`` over all ``hosts``.

    ``nothing`` replaces it on a host that is stopped.

    Raises
    ------
    Interrupted
        On all hosts, if a stop was requested on one: a host must not wait for sums that another doesn't send.
    """
    try:
        with pool.interruptible():
            sums = compute()
    except Interrupted:
        return nothing.over(hosts, interrupted=True)
    return sums.over(hosts)


def _total(tasks: Iterable[TaskSums], nearest: NearestCenters, *, is_weighted: bool) -> ClusterSums:
    total = ClusterSums.zero(nearest.clusters, nearest.features, is_weighted=is_weighted)
    for task in tasks:
        total.add_labelled(task.by_label, nearest.origin)
        total.inertia += task.inertia
    return total


def _assign_and_sum(
    points: Float32, nearest: NearestCenters, weights: Float64 | None, *, exact: bool = False
) -> TaskSums:
    moved = nearest.from_origin(points)
    labels: Int64 | Int32
    if exact:
        labels, distances = nearest.exact_query(points)
        squared = distances.astype(np.float64)
        is_rounded = rounding_decides(squared, nearest.norms[labels])
    else:
        labels, scores = nearest.rank(points)
        labels, squared, is_rounded = correct_rounding(nearest, points, labels, scores, squared_norms(moved))
    inertia = float(squared.sum() if weights is None else squared @ weights)
    summed = moved.astype(np.float64) if is_rounded else moved
    return TaskSums(sum_by_label(summed, labels, nearest.clusters, weights), inertia)
