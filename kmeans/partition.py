"""Points kept in their clusters while the centers move, by looking only where something may have changed.

From one Lloyd pass to the next few points change their cluster. Which ones can is known from the triangle inequality:
a point's *margin* is how much farther its second nearest center is than its nearest; while the two have moved less than
that, all told, it stays where it is. (G. Hamerly, "Making k-means even faster", SDM 2010.) And where a point is looked
at again, it goes to a center close to its own, so it is compared with the centers around its own only: a small GEMM per
cluster instead of one over all centers. Sums change by the points that moved.

Both are approximate here, and checked: exact passes begin and end the work (docs/decisions.md has the shares of labels
found, and the time).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kmeans.arrays import Float32, Float64, Int32, Int64
from kmeans.distance import NearestCenters, squared_norms, two_nearest
from kmeans.hosts import Alone, Hosts
from kmeans.sums import (
    ROUNDING_SHOWS,
    ClusterSums,
    LabelSums,
    TaskSums,
    squared_distances,
    sum_by_label,
    sums_of_all_hosts,
    task_rows,
)
from kmeans.workers import Workers

# Centers that a cluster's points are compared with; more find more of the labels, and cost more.
NEARBY = 32

# A margin shrinks by this share of what centers moved. All of it is the bound that holds for the worst direction; but a
# center seldom moves straight towards a point. At a half as many points again are spared, and none to 3 in 10,000
# labels are missed; at a quarter 1 to 50 in 10,000 are, and the loss shows it.
DRIFT_SHARE = 0.5

# What the calls for one cluster cost, in multiplications of a GEMM: with fewer points to look at, comparing them with
# all centers is cheaper.
CLUSTER_COST = 2_000_000

# Points whose mean and spread tell whether they lie far from the origin.
ORIGIN_ROWS = 1000

# Points whose scores are computed at once, and points that one task sees at least.
_BLOCK_ROWS = 2048
_TASK_ROWS = 2048


@dataclass(slots=True)
class Comparisons:
    """How often a point of this host was compared with centers: nearly all the time that phase 3 takes.

    Attributes
    ----------
    with_all
        With every center.
    with_nearby
        With those around its own.
    """

    with_all: int = 0
    with_nearby: int = 0


class Partition:
    """Some of the ``points`` (n, d), each in one of k clusters.

    Parameters
    ----------
    as_one
        Whether ``hosts`` must find the labels that one would find with the points of all: then they tell each other how
        many points are to be looked at, one number in each pass, because how these are looked at depends on that.
    comparisons
        Where comparisons are counted; several partitions may share it.

    Attributes
    ----------
    members
        Row numbers of the points taken in so far, ascending, (m,).
    labels
        Cluster of each member, int32 (m,).
    sums
        Sums of all hosts' members by cluster, for the labels as they are.
    """

    def __init__(
        self,
        points: Float32,
        centers: Float32,
        workers: Workers,
        hosts: Hosts | None = None,
        *,
        as_one: bool = False,
        comparisons: Comparisons | None = None,
    ) -> None:
        self._points = points
        self._comparisons = comparisons or Comparisons()
        self._workers = workers
        self._hosts = hosts or Alone()
        # With so few clusters all ways to look at a point find the same.
        self._as_one = as_one and len(centers) > NEARBY
        # Norms stay valid while centers move: the origin is that of the points, whatever the centers are at first.
        self._nearest = NearestCenters(centers)
        if len(points):
            like = NearestCenters(points[:: max(1, len(points) // ORIGIN_ROWS)])
            self._nearest = NearestCenters(centers, like)
        self._norms: Float32 = np.empty(0, dtype=np.float32)  # of the members, from the origin of `_nearest`
        self._margins: Float32 = np.empty(0, dtype=np.float32)
        self.members: Int64 = np.empty(0, dtype=np.int64)
        self.labels: Int32 = np.empty(0, dtype=np.int32)
        self._own = ClusterSums.zero(len(centers), points.shape[1])
        self.sums = self._own

    def share(self) -> dict[str, NDArray[Any]]:
        """Return a copy of all that :meth:`restore` needs beside the centers and the members; arrays (n, m)."""
        return {
            "labels": self.labels[:, None].copy(),
            "norms": self._norms[:, None],  # never written to
            "margins": self._margins[:, None].copy(),
            "sums": self._own.sums.copy(),
            "weights": self._own.weights[:, None].copy(),
            "inertia": np.array([[self._own.inertia]]),
        }

    def restore(self, members: Int64, share: Mapping[str, NDArray[Any]]) -> None:
        """Become the partition that had these centers and ``members``, ascending, and gave this :meth:`share`."""
        self.members, self.labels = members, share["labels"].ravel()
        self._norms, self._margins = share["norms"].ravel(), share["margins"].ravel()
        self._own = ClusterSums(share["sums"], share["weights"].ravel(), float(share["inertia"][0, 0]))
        self.sums = self._own.over(self._hosts)

    @property
    def centers(self) -> Float32:
        """The centers (k, d) that the members were last compared with."""
        return self._nearest.centers

    def points_of(self, members: Int64) -> Float32:
        """Return a copy of the members with these places in :attr:`members`."""
        return self._points[self.members[members]]

    def take_in(self, rows: Int64) -> None:
        """Add the points with these row numbers, none of them a member yet, each to its nearest center."""
        self._together(lambda: self._take_in(rows))

    def _take_in(self, rows: Int64) -> None:
        new = np.sort(rows)
        placed = self._place(new)
        members = np.concatenate([self.members, new])
        order = members.argsort(kind="stable")
        self.members = members[order]
        self._norms = np.concatenate([self._norms, placed.norms])[order]
        self._margins = np.concatenate([self._margins, placed.margins])[order]
        self.labels = np.concatenate([self.labels, placed.labels])[order]
        self._own.add(placed.sums)

    def reassign(self) -> None:
        """Move every member to its nearest center."""
        self._together(self._reassign)

    def _reassign(self) -> None:
        placed = self._place(self.members)
        self._margins, self.labels, self._own = placed.margins, placed.labels, placed.sums

    def share_misplaced(self, members: Int64) -> float:
        """Return the share of the members at these places, ascending, that aren't with their nearest center.

        It is the share of all hosts' members that were asked for.
        """
        placed = self._place(self.members[members])
        misplaced = np.count_nonzero(placed.labels != self.labels[members])
        total, looked_at = self._hosts.sum(np.array([misplaced, len(members)], dtype=np.float64))
        return float(total / looked_at)

    def follow(self, centers: Float32) -> None:
        """Let the members follow the centers, which have moved to ``centers`` (k, d): most to their nearest."""
        drift = np.sqrt(squared_norms(centers - self._nearest.centers))
        self._nearest = NearestCenters(centers, like=self._nearest)
        around = _around(self._nearest)
        self._margins -= (DRIFT_SHARE * (drift + _largest_of_others(drift, around)))[self.labels]
        due = np.flatnonzero(self._margins <= 0)
        count = int(self._hosts.sum(np.array([float(len(due))]))[0]) if self._as_one else len(due)
        self._together(lambda: self._follow(due, count, around))

    def _together(self, work: Callable[[], None]) -> None:
        """Do some ``work`` on the members of this host, and add up what all hosts have then."""

        def own_sums() -> ClusterSums:
            work()
            return self._own

        self.sums = sums_of_all_hosts(own_sums, self._own, self._workers, self._hosts)

    def _follow(self, due: Int64, count: int, around: Int64) -> None:
        """Look at the members at the places ``due``; ``count`` is the number that decides how."""
        if self._rounding_shows():
            self._reassign()
            return
        nearest = self._nearest
        if count * (nearest.clusters - NEARBY) * nearest.features <= CLUSTER_COST * nearest.clusters:
            labels = self._look_everywhere(due)
        else:
            due, last = self._by_cluster(due)
            labels = self._look_around(due, last, around)
        old = self.labels[due]
        left = np.flatnonzero(labels != old)
        self.labels[due[left]] = labels[left]
        self._correct_sums(due[left], old[left], labels[left])
        self._own.inertia = self._inertia()
        if self._rounding_shows():
            self._reassign()

    def _rounding_shows(self) -> bool:
        """Tell whether the clusters are so tight and far apart that the inertia must come from the points."""
        return self._own.inertia < ROUNDING_SHOWS * float(self._norms.sum(dtype=np.float64))

    def _place(self, rows: Int64) -> _Placed:
        """Compare the points of these row numbers, ascending, with every center."""
        nearest = self._nearest
        self._comparisons.with_all += len(rows)
        sums = ClusterSums.zero(nearest.clusters, nearest.features)
        labels = np.empty(len(rows), dtype=np.int32)
        margins, norms = np.empty(len(rows), dtype=np.float32), np.empty(len(rows), dtype=np.float32)
        is_all = len(rows) == len(self._points)
        size = task_rows(nearest.features)

        def task(first: int) -> TaskSums:
            part = slice(first, min(first + size, len(rows)))
            points = self._points[part] if is_all else self._points[rows[part]]
            moved = nearest.from_origin(points)
            scores = np.empty(len(points), dtype=np.float32)
            for begin in range(part.start, part.stop, nearest.block_rows):
                block = slice(begin, min(begin + nearest.block_rows, part.stop))
                within = slice(begin - first, block.stop - first)
                labels[block], scores[within], second = two_nearest(moved[within], nearest.factor, nearest.norms)
                norms[block] = squared_norms(moved[within])
                margins[block] = _margins(scores[within], second, norms[block])
            inertia = float(squared_distances(nearest, points, labels[part], scores, norms[part]).sum())
            return TaskSums(sum_by_label(moved, labels[part], nearest.clusters), inertia)

        for task_sums in self._workers.map(task, range(0, len(rows), size)):
            sums.add_labelled(task_sums.by_label, nearest.origin)
            sums.inertia += task_sums.inertia
        return _Placed(labels, margins, norms, sums)

    def _look_everywhere(self, due: Int64) -> Int32:
        """Compare the members at the places ``due`` with all centers; return their nearest."""
        nearest = self._nearest
        self._comparisons.with_all += len(due)
        labels = np.empty(len(due), dtype=np.int32)

        def task(first: int) -> None:
            part = slice(first, first + nearest.block_rows)
            points = nearest.from_origin(self.points_of(due[part]))
            labels[part], best, second = two_nearest(points, nearest.factor, nearest.norms)
            self._margins[due[part]] = _margins(best, second, self._norms[due[part]])

        self._workers.run(task, range(0, len(due), nearest.block_rows))
        return labels

    def _by_cluster(self, due: Int64) -> tuple[Int64, Int64]:
        """Return the places ``due`` sorted by cluster, and where those of each cluster end, (k,)."""
        own = self.labels[due]
        order = own.astype(np.min_scalar_type(self._nearest.clusters)).argsort(kind="stable")  # 16 bits: a radix sort
        return due[order], np.cumsum(np.bincount(own, minlength=self._nearest.clusters))

    def _look_around(self, due: Int64, last: Int64, around: Int64) -> Int32:
        """Compare the members at the places ``due``, sorted by cluster, with the centers around their own."""
        nearest = self._nearest
        self._comparisons.with_nearby += len(due)
        labels = np.empty(len(due), dtype=np.int32)

        def task(clusters: range) -> None:
            for cluster in clusters:
                near = around[cluster]
                factor, norms = nearest.subset(near)
                begin = last[cluster - 1] if cluster else 0
                for first in range(begin, last[cluster], _BLOCK_ROWS):
                    part = slice(first, min(first + _BLOCK_ROWS, last[cluster]))
                    places = due[part]
                    points = nearest.from_origin(self._points[self.members[places]])
                    chosen, best, second = two_nearest(points, factor, norms)
                    labels[part] = near[chosen]
                    self._margins[places] = _margins(best, second, self._norms[places])

        self._workers.run(task, _groups(last))
        return labels

    def _correct_sums(self, places: Int64, old: Int32, new: Int32) -> None:
        """Take the members at ``places`` from the sums of their ``old`` clusters and add them to those of the new."""

        def task(first: int) -> tuple[LabelSums, LabelSums]:
            part = slice(first, first + _TASK_ROWS)
            points = self._nearest.from_origin(self.points_of(places[part]))
            clusters = self._nearest.clusters
            return sum_by_label(points, old[part], clusters), sum_by_label(points, new[part], clusters)

        for gone, come in self._workers.map(task, range(0, len(places), _TASK_ROWS)):
            self._own.add_labelled(gone, self._nearest.origin, sign=-1)
            self._own.add_labelled(come, self._nearest.origin)

    def _inertia(self) -> float:
        """Return the inertia that follows from the sums: that of the labels and centers as they are."""
        origin = 0.0 if self._nearest.origin is None else self._nearest.origin.astype(np.float64)
        centers: Float64 = self.centers.astype(np.float64) - origin
        sums = self._own.sums - self._own.weights[:, None] * origin
        inertia = self._norms.sum(dtype=np.float64) - 2 * np.vdot(sums, centers)
        inertia += self._own.weights @ np.square(centers).sum(axis=1)
        return max(0.0, float(inertia))


class _Placed(NamedTuple):
    labels: Int32
    margins: Float32
    norms: Float32
    sums: ClusterSums


def _margins(best: Float32, second: Float32, norms: Float32) -> Float32:
    """Return by how much the second center is farther than the nearest, from their scores (``rank``)."""
    margins: Float32 = np.sqrt(np.maximum(second + norms, 0)) - np.sqrt(np.maximum(best + norms, 0))
    return margins


def _around(nearest: NearestCenters) -> Int64:
    """Return the numbers of the centers around each center, itself among them, ascending (k, at most NEARBY)."""
    if nearest.clusters <= NEARBY:
        return np.tile(np.arange(nearest.clusters), (nearest.clusters, 1))
    squared = nearest.from_origin(nearest.centers) @ nearest.factor
    squared += nearest.norms
    np.fill_diagonal(squared, -np.inf)
    nearby = np.argpartition(squared, NEARBY - 1, axis=1)[:, :NEARBY]
    # Ascending, so that of several centers at the same distance the first is taken, as everywhere.
    return np.sort(nearby, axis=1)


def _largest_of_others(drift: Float32, around: Int64) -> Float32:
    """Return the largest drift among the centers ``around`` each one, itself left out; (k,)."""
    others = np.where(around == np.arange(len(around))[:, None], np.float32(0), drift[around])
    largest: Float32 = others.max(axis=1)
    return largest


def _groups(last: Int64) -> Iterator[range]:
    """Yield ranges of clusters that hold at least _TASK_ROWS points each (but for the last)."""
    first = begin = 0
    for cluster, end in enumerate(last.tolist(), start=1):
        if end - begin >= _TASK_ROWS or cluster == len(last):
            yield range(first, cluster)
            first, begin = cluster, end
