"""Centers in two levels: about sqrt(k) groups of rows, then clusters within each group.

A pass over n rows costs n x sqrt(k) distances instead of n x k, so thousands of clusters are found in seconds. Their
loss is some percent above that of centers that all rows were compared with, because no row leaves its group. With few
clusters there is one group: a random sample of the rows.

The leader fits the groups, a group in each thread. It gets the rows of as many groups at a time as fit in a buffer.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from kmeans.arrays import Float32, Float64, Int64
from kmeans.collectives import Collectives
from kmeans.dataset import MemoryRows
from kmeans.distance import NearestCenters
from kmeans.metric import Metric
from kmeans.random_streams import RandomStreams
from kmeans.seeding import Method, seed_centers
from kmeans.sums import assign_and_sum, query_rows
from kmeans.threads import Interrupted, ThreadPool

# Rows per group that the means of the groups are computed from.
GROUP_ROWS = 256

# Rows that the leader gathers at a time, in values (64 MB), unless one group has more.
GATHERED_VALUES = 16 << 20


class _Plan(NamedTuple):
    """How the rows of a group become clusters.

    Attributes
    ----------
    rows_per_cluster
        Rows that are used of each cluster. A mean of m rows has an error of about 1/m of the loss.
    method, seed_rows
        How first centers are drawn, and from how many rows per cluster.
    starts
        Sets of first centers; the one that ends best is kept.
    passes, tol
        Passes of Lloyd's algorithm, at most, and the fraction of the loss that each must gain.
    """

    rows_per_cluster: int
    method: Method
    seed_rows: int
    starts: int
    passes: int
    tol: float


# Many clusters are divided among groups. k-means++ in each would take longer than all passes.
GROUPED_CLUSTERS = 400
GROUPED = _Plan(rows_per_cluster=128, method="random", seed_rows=128, starts=1, passes=10, tol=8e-3)

# Few clusters have one group, and the fewer the more a single start may miss.
UNGROUPED = _Plan(rows_per_cluster=512, method="kmeans++", seed_rows=10, starts=1, passes=20, tol=1e-3)
FEW_CLUSTERS = 40
FEW = UNGROUPED._replace(seed_rows=50, starts=4)

# The means of the groups need not be good.
MEANS = GROUPED._replace(passes=4)


class _Group(NamedTuple):
    """Rows (m, d) of a group, how often each counts (m,), and how many clusters they become."""

    points: Float32
    weights: Float64 | None
    clusters: int
    generator: Generator


def two_level_centers(
    rows: MemoryRows, k: int, *, total: int, random_streams: RandomStreams, pool: ThreadPool, hosts: Collectives
) -> Float32:
    """Return ``k`` centers (k, d) of a sample of all hosts' ``rows``, the same on all ``hosts``.

    After a stop, groups that were not fitted yet get random rows as centers.

    Parameters
    ----------
    total
        Number of rows in memory of all hosts, at least ``k``.
    """
    plan = GROUPED if k >= GROUPED_CLUSTERS else UNGROUPED if k > FEW_CLUSTERS else FEW
    sampled = min(total, plan.rows_per_cluster * k)
    numbers = rows.order(epoch=0)[: math.ceil(sampled * rows.ordered / total)]
    own, positions = rows.own(numbers), rows.positions(numbers)
    labels, errors = np.zeros(len(own), dtype=np.int64), np.zeros(1)
    if plan is GROUPED:
        groups = math.isqrt(k)
        some = numbers[: math.ceil(len(numbers) * min(1.0, GROUP_ROWS * groups / sampled))]
        means = _group_means(rows, some, groups, generator=random_streams.next(), pool=pool, hosts=hosts)
        labels, distances = query_rows(rows.points, own, NearestCenters(means), pool)
        weights = distances if rows.weights is None else distances * rows.weights[own]
        errors = hosts.sum(np.bincount(labels, weights, minlength=len(means)).astype(np.float64))
    groups = len(errors)
    local_counts = np.bincount(labels, minlength=groups)
    counts = hosts.sum(local_counts.astype(np.float64)).astype(np.int64)
    clusters = _apportion(errors, counts, k, rows.features)
    generators = random_streams.next().spawn(groups)
    by_group = labels.argsort(kind="stable")
    ends = np.cumsum(local_counts)
    centers = [rows.points[:0]]
    for first, last in _bunches(counts, rows.features):
        members = by_group[ends[first - 1] if first else 0 : ends[last - 1]]
        points, weighted = _gather(rows, own[members], positions[members], labels[members], hosts)
        if hosts.rank == 0:
            bunch = slice(first, last)
            parts = _groups_of(points, weighted, counts[bunch], clusters[bunch], generators[bunch])
            centers += _fit_groups(parts, plan, rows.metric, pool)
    return hosts.broadcast(np.concatenate(centers))


def _group_means(
    rows: MemoryRows, numbers: Int64, groups: int, *, generator: Generator, pool: ThreadPool, hosts: Collectives
) -> Float32:
    """Return the means of ``groups`` clusters of the rows with these ``numbers``, the same on all hosts."""
    points, weights = rows.gather(numbers, hosts), rows.gather_weights(numbers, hosts)
    means = points[:0]
    if hosts.rank == 0:
        [means] = _fit_groups([_Group(points, weights, groups, generator)], MEANS, rows.metric, pool)
    return hosts.broadcast(means)


def _apportion(errors: Float64, counts: Int64, k: int, features: int) -> Int64:
    """Return how many of ``k`` clusters each group gets, (g,), at most one per row.

    Of a group of error E in d dimensions about E / c^(2/d) is left by c clusters; the sum of that over all groups is
    smallest where c is proportional to E^(d / (d + 2)).
    """
    wanted = errors ** (features / (features + 2))
    clusters = np.minimum(1, counts)
    while missing := k - int(clusters.sum()):
        is_open = clusters < counts
        # Groups without error take what the others have no rows for.
        shares = np.where(is_open, np.maximum(wanted, 1e-9 * wanted.sum() or 1.0), 0)
        ideal = missing * shares / shares.sum()
        more = np.minimum(np.floor(ideal).astype(np.int64), counts - clusters)
        if not more.any():
            largest = np.argsort(-ideal, kind="stable")[:missing]
            more[largest[is_open[largest]]] = 1
        clusters = clusters + more
    return clusters


def _bunches(counts: Int64, features: int) -> Iterator[tuple[int, int]]:
    """Yield ranges of groups, first and last + 1, that together have at most GATHERED_VALUES values, or are one."""
    first, values = 0, 0
    for group, size in enumerate((counts * features).tolist()):
        if group > first and values + size > GATHERED_VALUES:
            yield first, group
            first, values = group, 0
        values += size
    yield first, len(counts)


def _gather(
    rows: MemoryRows, own: Int64, positions: Int64, labels: Int64, hosts: Collectives
) -> tuple[Float32, Float64 | None]:
    """Return all hosts' rows at the places ``own``, and their weights, on the leader.

    They are sorted by group, and within each by their ``positions`` in the order of all rows.
    """
    weights = np.ones(len(own)) if rows.weights is None else rows.weights[own]
    points, notes = rows.gather_local(own, np.stack([positions, labels, weights], axis=1), hosts)
    if hosts.size > 1:  # one host passes them sorted
        order = notes[:, 1].argsort(kind="stable")
        points, notes = points[order], notes[order]
    return points, None if rows.weights is None else notes[:, 2]


def _groups_of(
    points: Float32, weights: Float64 | None, counts: Int64, clusters: Int64, generators: list[Generator]
) -> list[_Group]:
    """Return the groups that have clusters; their ``points`` are in the order of the groups, ``counts`` of each."""
    found, begin = [], 0
    for count, number, generator in zip(counts.tolist(), clusters.tolist(), generators, strict=True):
        part = slice(begin, begin + count)
        begin += count
        if number:
            found.append(_Group(points[part], None if weights is None else weights[part], number, generator))
    return found


def _fit_groups(groups: list[_Group], plan: _Plan, metric: Metric, pool: ThreadPool) -> list[Float32]:
    """Return the centers of each of the ``groups``; after a stop, random rows of those that were not fitted yet."""
    found: list[Float32] = []
    with contextlib.suppress(Interrupted), pool.interruptible():
        if len(groups) == 1:
            found.append(_centers(groups[0], plan, metric, pool))
        else:
            found.extend(pool.map(lambda group: _centers(group, plan, metric), groups))
    rest = groups[len(found) :]
    return found + [seed_centers(group.points, group.clusters, "random", group.generator) for group in rest]


def _centers(group: _Group, plan: _Plan, metric: Metric, pool: ThreadPool | None = None) -> Float32:
    """Return the centers of a ``group``, float32 (c, d): those of the best start."""
    found = [_lloyd(group, plan, metric, pool) for _ in range(plan.starts)]
    return min(found, key=lambda result: result[1])[0]


def _lloyd(group: _Group, plan: _Plan, metric: Metric, pool: ThreadPool | None) -> tuple[Float32, float]:
    """Return centers after some passes of Lloyd's algorithm, and the inertia before the last move."""
    points, weights, clusters, generator = group
    seeds = np.sort(generator.choice(len(points), min(len(points), plan.seed_rows * clusters), replace=False))
    centers = seed_centers(points[seeds], clusters, plan.method, generator, None if weights is None else weights[seeds])
    before = np.inf
    for number in range(1, plan.passes + 1):
        sums = assign_and_sum(points, NearestCenters(centers), weights, pool)
        wide = centers.astype(np.float64)
        centers = metric.normalize_centers(sums.means(otherwise=wide), wide).astype(np.float32)
        if number == plan.passes or sums.inertia >= (1 - plan.tol) * before:
            break
        before = sums.inertia
        starved = np.flatnonzero(sums.rows <= 1)
        if len(starved) and clusters < len(points):
            centers[starved] = seed_centers(points, len(starved), "random", generator, weights)
    return centers, sums.inertia
