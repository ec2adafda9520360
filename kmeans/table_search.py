"""Better first centers for phase 3 of a table, by searches on some rows.

Many starts on a few rows, then the best of them on more rows. This is for tables: with hundreds of columns or clusters
a fraction of a second allows too few passes, and there the mini-batch phase finds the clusters.
"""

from __future__ import annotations

import contextlib
from typing import NamedTuple

import numpy as np

from kmeans.arrays import Float32
from kmeans.collectives import Collectives
from kmeans.coreset import draw_coreset
from kmeans.dataset import MemoryRows
from kmeans.local_search import MAX_STARTS, LocalSearch, passes_within
from kmeans.random_streams import RandomStreams
from kmeans.threads import Interrupted, ThreadPool


class SearchScope(NamedTuple):
    """How one search proceeds.

    Attributes
    ----------
    rows, rows_per_cluster
        Minimum number of rows: in all, and for each cluster.
    seconds, min_passes
        Approximate time on one CPU, and the number of passes that must fit into it.
    max_starts
        Maximum number of starts.
    """

    rows: int
    rows_per_cluster: int
    seconds: float
    min_passes: int
    max_starts: int


SEARCHES = (SearchScope(2000, 40, 0.1, 60, MAX_STARTS), SearchScope(20_000, 200, 0.06, 20, 1))

# If clusters have few rows, the centers of the mini-batch phase are random ones: a start by k-means++ is tried too.
FEW_ROWS, FEW_ROWS_PER_CLUSTER = SearchScope(4096, 0, 0.3, 0, 2), 8

# Maximum number of multiplications for comparing all rows with the centers, which drawing rows by distance needs.
MAX_MULTIPLICATIONS = 2e9


class TableSearch:
    """The searches that the shape of the ``rows`` allows, for ``k`` clusters.

    Parameters
    ----------
    total
        Number of rows in the memory of all ``hosts``.
    """

    def __init__(self, rows: MemoryRows, k: int, total: int, *, pool: ThreadPool, hosts: Collectives) -> None:
        self._rows = rows
        self._k = k
        self._pool = pool
        self._hosts = hosts
        self._scopes: list[tuple[int, SearchScope]] = []
        if k == 1 or total * k * rows.features > MAX_MULTIPLICATIONS:
            return
        for scope in SEARCHES:
            size = min(max(scope.rows, scope.rows_per_cluster * k), total)
            passes = passes_within(scope.seconds, size, rows.features, k)
            if passes >= scope.min_passes and (not self._scopes or size > self._scopes[-1][0]):
                self._scopes.append((size, scope))
        if not self._scopes and total <= min(FEW_ROWS.rows, FEW_ROWS_PER_CLUSTER * k):
            self._scopes.append((total, FEW_ROWS))

    @property
    def is_affordable(self) -> bool:
        """Whether at least one search is allowed; the same on all hosts."""
        return bool(self._scopes)

    def improve(self, centers: Float32, random_streams: RandomStreams) -> Float32:
        """Return the best centers found, starting also from ``centers`` (k, d).

        The result is the same on all hosts.
        """
        for size, scope in self._scopes:
            centers = self._search(centers, size, scope, random_streams)
        return centers

    def _search(self, centers: Float32, size: int, scope: SearchScope, random_streams: RandomStreams) -> Float32:
        generator, best = random_streams.next(), centers
        points, weights = draw_coreset(self._rows, centers, size, generator, pool=self._pool, hosts=self._hosts)
        if self._hosts.rank == 0:
            search = LocalSearch(
                points,
                weights,
                self._k,
                generator,
                seconds=scope.seconds,
                check_stop=self._pool.check_stop,
            )
            with contextlib.suppress(Interrupted), self._pool.interruptible():
                found = search.best([centers], max_starts=scope.max_starts).astype(np.float64)
                best = self._rows.metric.normalize_centers(found, centers.astype(np.float64)).astype(np.float32)
        return self._hosts.broadcast(best)
