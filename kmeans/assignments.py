"""Labels of points while centers move.

Only points whose nearest center may have changed are compared again.
From one Lloyd pass to the next few points change their cluster. The triangle inequality limits which ones can: a
point's *Hamerly bound* is how much farther its second nearest center is than its nearest. While the two have moved less
than that in total, the point stays in its cluster. (G. Hamerly, "Making k-means even faster", SDM 2010.) A point that
is compared again usually moves to a center near its own, so in most data the nearby centers are enough: a small GEMM
per cluster instead of one over all centers. Sums change by the points that moved.

Both are approximate here, and checked: the first and the last pass are exact (docs/decisions/refinement.md has the
fractions of labels found, and the time).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kmeans.arrays import Float32, Float64, Int32, Int64
from kmeans.collectives import Collectives, SingleHost
from kmeans.distance import NearestCenters, squared_norms, two_nearest
from kmeans.nearby import NEARBY, NearbyCenters, nearby_centers
from kmeans.sums import (
    ClusterSums,
    LabelSums,
    correct_rounding,
    sum_by_label,
    sums_of_all_hosts,
    task_rows,
)
from kmeans.threads import ThreadPool

# A bound shrinks by this fraction of the center movement. The whole movement is correct for the worst direction, but a
# center seldom moves straight towards a point (docs/decisions/refinement.md).
MOVEMENT_FRACTION = 0.5

# Cost of the calls for one cluster, in multiplications of a GEMM: with fewer points, comparing them with all centers is
# cheaper.
CLUSTER_COST = 10_000_000

# From this number of clusters on, a pass sums its rows cluster by cluster after all have their labels: fewer and longer
# sums than task by task.
MANY_CLUSTERS = 512

# If more than this fraction of the members changes its cluster, sums are computed again instead of corrected.
RECOMPUTED_FRACTION = 0.05

# The inertia is a difference of sums of squares. Where it is a smaller fraction of them than this, it and the labels
# are computed from the points in each pass. (Norms are rounded once, so their error is the same in all passes.)
TIGHT = 1e-4

# Number of points from which the origin is chosen.
ORIGIN_ROWS = 1000

# Points whose scores are computed at once, and minimum number of points of a task.
_BLOCK_ROWS = 2048
_TASK_ROWS = 2048


@dataclass(slots=True)
class Comparisons:
    """Number of comparisons of this host's points with centers.

    They take most of the time of phase 3.

    Attributes
    ----------
    with_all
        Comparisons with all centers.
    with_nearby
        Comparisons with the centers nearest to the point's own.
    """

    with_all: int = 0
    with_nearby: int = 0


class Assignments:
    """Labels of some of the ``points`` (n, d), updated while the k centers move.

    Parameters
    ----------
    weights
        Weight of each point, (n,); None for 1.
    as_one
        Whether ``hosts`` must find the labels that one host with all points would find. The number of points to be
        compared decides how they are compared, so the hosts then exchange that number in each pass.
    comparisons
        Counts the comparisons; several assignments may use one.

    Attributes
    ----------
    members
        Row numbers of the points added so far, ascending, (m,).
    labels
        Cluster of each member, int32 (m,).
    sums
        Sums of all hosts' members by cluster, for the current labels.
    """

    def __init__(
        self,
        points: Float32,
        centers: Float32,
        pool: ThreadPool,
        hosts: Collectives | None = None,
        *,
        weights: Float64 | None = None,
        as_one: bool = False,
        comparisons: Comparisons | None = None,
    ) -> None:
        self._points = points
        self._weights = weights
        self._comparisons = comparisons or Comparisons()
        self._pool = pool
        self._hosts = hosts or SingleHost()
        # With few clusters all ways to compare a point have the same result.
        self._as_one = as_one and len(centers) > NEARBY
        # The origin is that of the points, not of the first centers, so norms stay valid while centers move.
        self._nearest = NearestCenters(centers)
        if len(points):
            like = NearestCenters(points[:: max(1, len(points) // ORIGIN_ROWS)])
            self._nearest = NearestCenters(centers, like)
        self._norms: Float32 = np.empty(0, dtype=np.float32)  # of the members, from the origin of `_nearest`
        self._bounds: Float32 = np.empty(0, dtype=np.float32)  # Hamerly bounds at the last comparison
        self._movements: Float32 = np.empty(0, dtype=np.float32)  # center movement since then
        self.members: Int64 = np.empty(0, dtype=np.int64)
        self.labels: Int32 = np.empty(0, dtype=np.int32)
        self._local_sums = self._no_sums()
        self.sums = self._local_sums

    @property
    def compares_all(self) -> bool:
        """Whether points are always compared with all centers, as there are few."""
        return self._nearest.clusters <= NEARBY

    def _no_sums(self) -> ClusterSums:
        return ClusterSums.zero(self._nearest.clusters, self._nearest.features, is_weighted=self._weights is not None)

    def per_host_state(self) -> dict[str, NDArray[Any]]:
        """Return a copy of this host's state, for :meth:`restore`: arrays (n, m).

        Centers and members aren't included.
        """
        # The names are those in saved checkpoints.
        return {
            "labels": self.labels[:, None].copy(),
            "norms": self._norms[:, None],  # never written to
            "margins": self._bounds[:, None].copy(),
            "drifts": self._movements[:, None].copy(),
            "sums": self._local_sums.sums.copy(),
            "weights": self._local_sums.weights[:, None].copy(),
            **({} if self._local_sums.counts is None else {"counts": self._local_sums.counts[:, None].copy()}),
            "inertia": np.array([[self._local_sums.inertia]]),
        }

    def restore(self, members: Int64, state: Mapping[str, NDArray[Any]]) -> None:
        """Restore the state of :meth:`per_host_state`.

        The centers are the same, and ``members`` are those of the state, ascending.
        """
        self.members, self.labels = members, state["labels"].ravel()
        self._norms, self._bounds = state["norms"].ravel(), state["margins"].ravel()
        self._movements = state["drifts"].ravel()
        counts = state["counts"].ravel() if "counts" in state else None
        self._local_sums = ClusterSums(state["sums"], state["weights"].ravel(), float(state["inertia"][0, 0]), counts)
        self.sums = self._local_sums.over(self._hosts)

    @property
    def centers(self) -> Float32:
        """The centers (k, d) that the members were last compared with."""
        return self._nearest.centers

    def points_of(self, members: Int64) -> Float32:
        """Return a copy of the points at these positions in :attr:`members`."""
        return self._points[self.members[members]]

    def add_points(self, rows: Int64) -> None:
        """Add the points with these row numbers to their nearest centers.

        None of them is a member yet.
        """
        self._update_sums(lambda: self._add_points(rows))

    def _add_points(self, rows: Int64) -> None:
        new = np.sort(rows)
        placed = self._place(new)
        members = np.concatenate([self.members, new])
        order = members.argsort(kind="stable")
        self.members = members[order]
        self._norms = np.concatenate([self._norms, placed.norms])[order]
        self._bounds = np.concatenate([self._bounds, placed.bounds])[order]
        self._movements = np.concatenate([self._movements, np.zeros(len(new), dtype=np.float32)])[order]
        self.labels = np.concatenate([self.labels, placed.labels])[order]
        self._local_sums.add(placed.sums)

    def reassign(self) -> None:
        """Move every member to its nearest center."""
        self._update_sums(self._reassign)

    def _reassign(self) -> None:
        placed = self._place(self.members)
        self._bounds, self.labels, self._local_sums = placed.bounds, placed.labels, placed.sums
        self._movements = np.zeros_like(self._bounds)

    def excess(self, members: Int64) -> float:
        """Return the fraction of some members' inertia that exact labels would save.

        ``members`` are positions in :attr:`members`, ascending. The fraction is that of all hosts' such members; 0 if
        they have no inertia.
        """
        placed, points = self._place(self.members[members]), self.points_of(members)
        own = self._nearest.squared_distances(points, self.labels[members]).astype(np.float64)
        # Both are computed in the same way, so that rounding doesn't appear as an excess.
        saved = own - self._nearest.squared_distances(points, placed.labels)
        weights = self._weights_of(members)
        sums = [own.sum(), saved.sum()] if weights is None else [own @ weights, saved @ weights]
        total, missed = self._hosts.sum(np.array(sums))
        return max(0.0, float(missed / total)) if total else 0.0

    def distances(self) -> tuple[Float32, Float32]:
        """Return each member's squared distances to its and the second center, (m,).

        The second is computed from the Hamerly bound.
        """
        nearest = np.empty(len(self.members), dtype=np.float32)
        size = task_rows(self._nearest.features)

        def task(first: int) -> None:
            part = slice(first, first + size)
            points = self._points[self.members[part]]
            nearest[part] = self._nearest.squared_distances(points, self.labels[part])

        self._pool.run(task, range(0, len(nearest), size))
        second = np.square(np.sqrt(nearest) + self._bounds)
        return nearest, second

    @property
    def local_counts(self) -> Float64:
        """Number of this host's members of each cluster, (k,)."""
        return self._local_sums.rows

    def weights_of_members(self) -> Float64 | None:
        """Return the weights of the members, (m,); None if each counts once."""
        return None if self._weights is None else self._weights[self.members]

    def follow(self, centers: Float32, relocated: Int64 | None = None, *, everywhere: bool = False) -> None:
        """Update the labels after the centers have moved to ``centers`` (k, d).

        Most labels are exact then.

        Parameters
        ----------
        relocated
            Numbers of the centers that were relocated instead of moved.
        everywhere
            Whether members are compared with all centers, not only with those nearest to their own.

        Raises
        ------
        Interrupted
            If a stop was requested.
        """
        before, self._nearest = self._nearest, NearestCenters(centers, like=self._nearest)
        movement = np.sqrt(squared_norms(centers - before.centers))
        has_jumped = np.zeros(len(centers), dtype=np.bool_)
        if relocated is not None:
            has_jumped[relocated] = True
            movement[relocated] = 0
        with self._pool.interruptible_alone(self._hosts.size):
            around = nearby_centers(self._nearest, self._pool)
        self._movements += (MOVEMENT_FRACTION * (movement + _largest_of_others(movement, around)))[self.labels]
        is_due = self._bounds <= self._movements
        if relocated is not None and len(relocated):
            is_due |= _is_near(has_jumped, around)[self.labels]
        due = np.flatnonzero(is_due)
        self._movements[due] = 0
        count = int(self._hosts.total(len(due))) if self._as_one else len(due)
        lists = None if everywhere else around.numbers
        self._update_sums(lambda: self._follow(due, count, lists, has_jumped))

    def _update_sums(self, work: Callable[[], None]) -> None:
        """Call ``work``, which updates local members, and sum all hosts' results."""

        def local_sums() -> ClusterSums:
            work()
            return self._local_sums

        self.sums = sums_of_all_hosts(local_sums, self._local_sums, self._pool, self._hosts)

    def _follow(self, due: Int64, count: int, lists: Int64 | None, has_jumped: NDArray[np.bool_]) -> None:
        """Compare the members at positions ``due`` again.

        ``count`` decides between all and nearby centers.
        """
        if self._rounding_shows():
            self._reassign()
            return
        nearest = self._nearest
        if lists is None or count * (nearest.clusters - NEARBY) * nearest.features <= CLUSTER_COST * nearest.clusters:
            labels = self._compare_with_all(due)
        else:
            # The nearby centers of a relocated one are those at its new place.
            is_far = has_jumped[self.labels[due]]
            far, close = due[is_far], due[~is_far]
            order, last = _by_cluster(self.labels[close], nearest.clusters)
            close = close[order]
            labels = np.concatenate([self._compare_with_all(far), self._compare_with_nearby(close, last, lists)])
            due = np.concatenate([far, close])
        old = self.labels[due]
        left = np.flatnonzero(labels != old)
        self.labels[due[left]] = labels[left]
        if nearest.clusters >= MANY_CLUSTERS and len(left) > RECOMPUTED_FRACTION * len(self.members):
            self._local_sums = self._no_sums()
            self._add_by_cluster(self._local_sums, self.members, self.labels)
        else:
            self._correct_sums(due[left], old[left], labels[left])
        self._local_sums.inertia = self._inertia()
        if self._rounding_shows():
            self._reassign()

    def _rounding_shows(self) -> bool:
        """Return whether the inertia must be computed from the points.

        That is the case for clusters that are tight and far apart.
        """
        return self._local_sums.inertia < TIGHT * self._squares()

    def _squares(self) -> float:
        """Return the (weighted) sum of the members' squared norms from the origin."""
        weights = self.weights_of_members()
        return float(self._norms.sum(dtype=np.float64) if weights is None else self._norms @ weights)

    def _weights_of(self, members: Int64 | slice) -> Float64 | None:
        return None if self._weights is None else self._weights[self.members[members]]

    def _place(self, rows: Int64) -> _Placed:
        """Compare the points with these row numbers, ascending, with all centers."""
        nearest = self._nearest
        self._comparisons.with_all += len(rows)
        sums = self._no_sums()
        labels = np.empty(len(rows), dtype=np.int32)
        bounds, norms = np.empty(len(rows), dtype=np.float32), np.empty(len(rows), dtype=np.float32)
        is_all = len(rows) == len(self._points)
        size = task_rows(nearest.features)
        sums_later = nearest.clusters >= MANY_CLUSTERS

        def task(first: int) -> tuple[LabelSums | None, float, bool]:
            part = slice(first, min(first + size, len(rows)))
            points = self._points[part] if is_all else self._points[rows[part]]
            moved = nearest.from_origin(points)
            scores = np.empty(len(points), dtype=np.float32)
            for begin in range(part.start, part.stop, nearest.block_rows):
                block = slice(begin, min(begin + nearest.block_rows, part.stop))
                within = slice(begin - first, block.stop - first)
                labels[block], scores[within], second = two_nearest(moved[within], nearest.factor, nearest.norms)
                norms[block] = squared_norms(moved[within])
                bounds[block] = _hamerly_bounds(scores[within], second, norms[block])
            corrected = correct_rounding(nearest, points, labels[part], scores, norms[part])
            labels[part] = corrected.labels
            weights = None if self._weights is None else self._weights[rows[part]]
            inertia = float(corrected.squared.sum() if weights is None else corrected.squared @ weights)
            if sums_later:
                return None, inertia, corrected.is_rounded
            summed = moved.astype(np.float64) if corrected.is_rounded else moved
            return sum_by_label(summed, labels[part], nearest.clusters, weights), inertia, corrected.is_rounded

        is_wide = False
        for by_label, inertia, is_rounded in self._pool.map(task, range(0, len(rows), size)):
            if by_label is not None:
                sums.add_labelled(by_label, nearest.origin)
            sums.inertia += inertia
            is_wide |= is_rounded
        if sums_later:
            self._add_by_cluster(sums, rows, labels, is_wide=is_wide)
        return _Placed(labels, bounds, norms, sums)

    def _add_by_cluster(self, sums: ClusterSums, rows: Int64, labels: Int32, *, is_wide: bool = False) -> None:
        """Add the points of ``rows`` to the ``sums`` of their ``labels``.

        Each task sums some clusters.
        With ``is_wide`` they are added in float64.
        """
        order, last = _by_cluster(labels, self._nearest.clusters)

        def task(clusters: range) -> list[LabelSums]:
            begin, end = last[clusters.start - 1] if clusters.start else 0, last[clusters.stop - 1]
            found = []
            for first in range(begin, end, _BLOCK_ROWS):
                places = order[first : min(first + _BLOCK_ROWS, end)]
                moved = self._nearest.from_origin(self._points[rows[places]])
                points = moved.astype(np.float64) if is_wide else moved
                weights = None if self._weights is None else self._weights[rows[places]]
                found.append(sum_by_label(points, labels[places], self._nearest.clusters, weights))
            return found

        for found in self._pool.map(task, cluster_ranges(last)):
            for by_label in found:
                sums.add_labelled(by_label, self._nearest.origin)

    def _compare_with_all(self, due: Int64) -> Int32:
        """Compare the members at positions ``due`` with all centers; return their labels."""
        nearest = self._nearest
        self._comparisons.with_all += len(due)
        labels = np.empty(len(due), dtype=np.int32)

        def task(first: int) -> None:
            part = slice(first, first + nearest.block_rows)
            points = nearest.from_origin(self.points_of(due[part]))
            labels[part], best, second = two_nearest(points, nearest.factor, nearest.norms)
            self._bounds[due[part]] = _hamerly_bounds(best, second, self._norms[due[part]])

        self._pool.run(task, range(0, len(due), nearest.block_rows))
        return labels

    def _compare_with_nearby(self, due: Int64, last: Int64, around: Int64) -> Int32:
        """Compare the members at positions ``due`` with nearby centers; return labels.

        The positions are sorted by cluster.
        """
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
                    self._bounds[places] = _hamerly_bounds(best, second, self._norms[places])

        self._pool.run(task, cluster_ranges(last))
        return labels

    def _correct_sums(self, places: Int64, old: Int32, new: Int32) -> None:
        """Move the members at ``places`` from ``old`` to ``new`` clusters in the sums."""

        def task(first: int) -> tuple[LabelSums, LabelSums]:
            part = slice(first, first + _TASK_ROWS)
            points = self._nearest.from_origin(self.points_of(places[part]))
            clusters, weights = self._nearest.clusters, self._weights_of(places[part])
            return sum_by_label(points, old[part], clusters, weights), sum_by_label(
                points, new[part], clusters, weights
            )

        for gone, come in self._pool.map(task, range(0, len(places), _TASK_ROWS)):
            self._local_sums.add_labelled(gone, self._nearest.origin, sign=-1)
            self._local_sums.add_labelled(come, self._nearest.origin)

    def _inertia(self) -> float:
        """Return the inertia of the current labels and centers, computed from the sums."""
        origin = 0.0 if self._nearest.origin is None else self._nearest.origin.astype(np.float64)
        centers: Float64 = self.centers.astype(np.float64) - origin
        sums = self._local_sums.sums - self._local_sums.weights[:, None] * origin
        inertia = self._squares() - 2 * np.vdot(sums, centers)
        inertia += self._local_sums.weights @ np.square(centers).sum(axis=1)
        return max(0.0, float(inertia))


class _Placed(NamedTuple):
    labels: Int32
    bounds: Float32
    norms: Float32
    sums: ClusterSums


def _hamerly_bounds(best: Float32, second: Float32, norms: Float32) -> Float32:
    """Return how much farther the second center is than the nearest.

    ``best`` and ``second`` are scores of ``NearestCenters.rank``.
    """
    bounds: Float32 = np.sqrt(np.maximum(second + norms, 0)) - np.sqrt(np.maximum(best + norms, 0))
    return bounds


def _largest_of_others(movement: Float32, around: NearbyCenters) -> Float32:
    """Return the largest movement among the other centers near each center, (k,)."""
    others = np.where(around.numbers == np.arange(len(movement))[:, None], np.float32(0), movement[around.numbers])
    largest: Float32 = others.max(axis=1)
    return largest


def _is_near(has_jumped: NDArray[np.bool_], around: NearbyCenters) -> NDArray[np.bool_]:
    """Return whether each center, or one of those nearest to it, was relocated; (k,)."""
    return np.asarray(has_jumped[around.closest].any(axis=1), dtype=np.bool_)


def _by_cluster(labels: Int32, clusters: int) -> tuple[Int64, Int64]:
    """Return positions of ``labels`` sorted by cluster, and the clusters' ends (k,)."""
    order = labels.astype(np.min_scalar_type(clusters)).argsort(kind="stable")  # 16 bits: a radix sort
    return order, np.cumsum(np.bincount(labels, minlength=clusters))


def cluster_ranges(last: Int64) -> Iterator[range]:
    """Yield ranges of clusters of at least _TASK_ROWS points, except the last one.

    Cluster j ends at ``last[j]``.
    """
    first = begin = 0
    for cluster, end in enumerate(last.tolist(), start=1):
        if end - begin >= _TASK_ROWS or cluster == len(last):
            yield range(first, cluster)
            first, begin = cluster, end
