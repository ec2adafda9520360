"""The centers nearest to each center.

A point that changes its cluster most likely moves to one of them.
With many clusters, comparing all pairs of centers would take as long as a pass over the rows. Then centers are
divided into about sqrt(k) groups, and each is compared only with those near its group: the work grows as k^1.5.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from kmeans.arrays import Float32, Int64
from kmeans.distance import NearestCenters
from kmeans.threads import ThreadPool

# Number of centers that a cluster's points are compared with; more find more of the labels, and cost more.
NEARBY = 32

# A cluster is close to a relocated center if that is among this number of centers nearest to its center.
CLOSEST = 8

# With more clusters than this, a group's centers are compared with the candidates nearest to the group's mean.
GROUPED_CLUSTERS, GROUP_CANDIDATES = 1024, 512

# Number of Lloyd iterations for the groups. Their quality matters little.
GROUP_MOVES = 2


class NearbyCenters(NamedTuple):
    """The centers nearest to each center.

    Attributes
    ----------
    numbers
        Numbers of at most NEARBY centers, including the center itself, ascending, (k, m).
    closest
        Numbers of at most CLOSEST of them, the nearest ones, unordered, (k, l).
    """

    numbers: Int64
    closest: Int64


def nearby_centers(nearest: NearestCenters, pool: ThreadPool) -> NearbyCenters:
    """Return the centers nearest to each of the centers of ``nearest``.

    With more than GROUPED_CLUSTERS some of the nearest are missing, more so with more columns; the closest are nearly
    always found.
    """
    clusters = nearest.clusters
    listed, close = min(NEARBY, clusters), min(CLOSEST, clusters)
    found = NearbyCenters(np.empty((clusters, listed), dtype=np.int64), np.empty((clusters, close), dtype=np.int64))
    centers = nearest.from_origin(nearest.centers)

    def task(comparison: tuple[Int64, Int64 | None]) -> None:
        own, candidates = comparison
        if candidates is None:
            table, places = centers[own] @ nearest.factor + nearest.norms, own
        else:
            factor, norms = nearest.subset(candidates)
            table, places = centers[own] @ factor + norms, np.searchsorted(candidates, own)
        table[np.arange(len(own)), places] = -np.inf
        if listed < table.shape[1]:
            order = np.argpartition(table, (close - 1, listed - 1), axis=1)[:, :listed]
        else:
            order = np.argsort(table, axis=1)
        around = order if candidates is None else candidates[order]
        found.closest[own] = around[:, :close]
        # Ascending, so that of several centers at the same distance the first is chosen, as everywhere.
        found.numbers[own] = np.sort(around, axis=1)

    if clusters <= GROUPED_CLUSTERS:
        blocks = (np.arange(i, min(i + nearest.block_rows, clusters)) for i in range(0, clusters, nearest.block_rows))
        pool.run(task, ((block, None) for block in blocks))
    else:
        pool.run(task, _by_group(centers))
    return found


def _by_group(centers: Float32) -> Iterator[tuple[Int64, Int64]]:
    """Yield the numbers of the centers of a group, and of those near it; ascending."""
    groups = _groups(centers)
    labels = groups.labels(centers)
    order = labels.argsort(kind="stable")
    last = np.cumsum(np.bincount(labels, minlength=groups.clusters))
    norms = np.einsum("ij,ij->i", centers, centers)
    for group in np.flatnonzero(np.bincount(labels, minlength=groups.clusters)).tolist():
        own = order[last[group - 1] if group else 0 : last[group]]
        distances = norms - 2 * (centers @ groups.centers[group])
        distances[own] = -np.inf
        candidates = max(GROUP_CANDIDATES, len(own) + NEARBY)
        if candidates < len(centers):
            yield own, np.sort(np.argpartition(distances, candidates - 1)[:candidates])
        else:
            yield own, np.arange(len(centers))


def _groups(centers: Float32) -> NearestCenters:
    """Return the means of about sqrt(k) groups of ``centers`` (k, d)."""
    count = int(np.sqrt(len(centers)))
    means = centers[:: len(centers) // count][:count]
    for _ in range(GROUP_MOVES):
        labels = NearestCenters(means).labels(centers)
        order, sizes = labels.argsort(kind="stable"), np.bincount(labels, minlength=count)
        present = np.flatnonzero(sizes)
        sums = np.add.reduceat(centers[order], np.cumsum(sizes[present]) - sizes[present], axis=0)
        means = means.copy()
        means[present] = sums / sizes[present, None]
    return NearestCenters(means)
