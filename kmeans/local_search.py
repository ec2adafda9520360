"""Search for better centers on a few thousand rows.

It tries several starts, and improves the best ones by breathing k-means.
Lloyd's algorithm ends in the nearest local minimum, and in skewed data most of these are poor: moves to means don't
take a center across empty space. Here the m clusters of the largest inertia are split, all centers converge, and the m
least useful ones are removed (B. Fritzke, "The k-means++ heuristic improved: breathing k-means", 2020). A better
solution is kept; otherwise m decreases, until it is 0.

All rows have weights, so that a sample drawn by distance (:mod:`kmeans.coreset`) can represent all rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from kmeans.arrays import Float32, Float64, Int64
from kmeans.seeding import seed_centers
from kmeans.splitting import split_clusters

# Number of centers that are added and removed at once, at first.
BREATH = 5

# Maximum number of starts, the fraction of the time they may take, and the number of the best that are improved.
MAX_STARTS, START_FRACTION, PURSUED = 32, 0.7, 3

# No further starts are tried when this number of them are as good as the best.
AGREEING = 10

# A solution is better only if it lowers the inertia by this fraction; Lloyd passes end when they gain less.
TOL, ROUGH_TOL = 1e-4, 1e-3
MAX_PASSES = 100

# Rough costs in nanoseconds: of a pass per row and center, per product, per row and column, per row, and per call; of
# drawing a center per call and per row; and passes of a split. They limit the search, so that its result doesn't depend
# on a clock.
PER_SCORE, PER_PRODUCT, PER_VALUE, PER_ROW, PER_CALL = 1.5, 0.04, 2.0, 40.0, 35_000.0
PER_DRAW, PER_DRAW_ROW, PASSES_PER_SPLIT = 70_000.0, 25.0, 5


class _Solution(NamedTuple):
    """Centers (k, d), the rows' labels and squared distances, and the inertia."""

    centers: Float64
    labels: Int64
    nearest: Float64
    inertia: float


def _inertia(solution: _Solution) -> float:
    return solution.inertia


def _distinct(solutions: list[_Solution]) -> list[_Solution]:
    """Return sorted ``solutions`` without those with the inertia of the one before."""
    return solutions[:1] + [
        after for before, after in pairwise(solutions) if after.inertia > before.inertia * (1 + TOL)
    ]


def passes_within(seconds: float, rows: int, columns: int, clusters: int) -> int:
    """Return the number of passes over data of this shape in about ``seconds``."""
    return int(1e9 * seconds / _pass_nanoseconds(rows, columns, clusters))


def _pass_nanoseconds(rows: int, columns: int, clusters: int) -> float:
    per_row = clusters * (PER_SCORE + PER_PRODUCT * columns) + PER_VALUE * columns + PER_ROW
    return PER_CALL + rows * per_row


class LocalSearch:
    """The search on some ``points`` (n, d) with ``weights`` (n,) for k centers.

    Parameters
    ----------
    seconds
        Approximate time of the search, converted to a number of operations by the shape of the data.
    check_stop
        Called before each pass; an exception ends the search.
    """

    def __init__(
        self,
        points: Float32,
        weights: Float64,
        k: int,
        generator: Generator,
        *,
        seconds: float,
        check_stop: Callable[[], None] = lambda: None,
    ) -> None:
        self._origin: Float64 = np.average(points, axis=0, weights=weights).astype(np.float64)
        self._points: Float64 = points - self._origin
        self._narrow = self._points.astype(np.float32)
        self._norms = np.einsum("ij,ij->i", self._points, self._points)
        self._weights = weights
        self._rows = np.arange(len(points))
        self._k = k
        self._generator = generator
        self._nanoseconds = 1e9 * seconds
        self._per_pass = _pass_nanoseconds(len(points), points.shape[1], k)
        self._check_stop = check_stop

    def best(self, starts: Sequence[Float32], *, max_starts: int = MAX_STARTS) -> Float32:
        """Return the best centers found, float32 (k, d).

        Parameters
        ----------
        starts
            Centers to begin with, (k, d) each.
        max_starts
            Further starts are drawn from the rows up to this number.
        """
        last = (1 - START_FRACTION) * self._nanoseconds
        rough = [self._lloyd(start.astype(np.float64) - self._origin, ROUGH_TOL) for start in starts]
        while len(rough) < max_starts and (self._nanoseconds > last or not rough):
            rough.append(self._lloyd(self._drawn(), ROUGH_TOL))
            best = min(map(_inertia, rough))
            if sum(each.inertia <= best * (1 + ROUGH_TOL) for each in rough) == AGREEING:
                break
        tried = _distinct(sorted(rough, key=_inertia))[:PURSUED]
        per_start = self._nanoseconds / len(tried)
        found = min((self._breathe(self._lloyd(each.centers, TOL), per_start) for each in tried), key=_inertia)
        return (found.centers + self._origin).astype(np.float32)

    def _drawn(self) -> Float64:
        rows, columns = self._points.shape
        self._nanoseconds -= self._k * (PER_DRAW + rows * (PER_DRAW_ROW + columns))
        return seed_centers(self._narrow, self._k, "kmeans++", self._generator, self._weights).astype(np.float64)

    def _assign(self, centers: Float64) -> _Solution:
        self._check_stop()
        self._nanoseconds -= self._per_pass
        table = self._scores(centers)
        labels = table.argmin(axis=1)
        nearest = np.maximum(table[self._rows, labels] + self._norms, 0)
        return _Solution(centers, labels, nearest, float(self._weights @ nearest))

    def _scores(self, centers: Float64) -> Float64:
        table: Float64 = self._points @ (-2 * centers.T)
        table += np.einsum("ij,ij->i", centers, centers)
        return table

    def _second(self, solution: _Solution) -> Float64:
        """Return the squared distance of each row to the second nearest center, (n,)."""
        table = self._scores(solution.centers)
        table[self._rows, solution.labels] = np.inf
        second: Float64 = np.maximum(table.min(axis=1) + self._norms, 0)
        return second

    def _lloyd(self, centers: Float64, tol: float) -> _Solution:
        solution = self._assign(centers)
        for _ in range(MAX_PASSES):
            before = solution.inertia
            solution = self._assign(self._means(solution))
            if before - solution.inertia <= tol * before:
                break
        return solution

    def _means(self, solution: _Solution) -> Float64:
        """Return the means of the clusters.

        An empty one gets the row with the largest loss.
        """
        centers = solution.centers.copy()
        # A product with the membership matrix: for few rows it is the fastest way to sum by label.
        membership = np.zeros((len(centers), len(self._points)))
        membership[solution.labels, self._rows] = self._weights
        sizes = membership.sum(axis=1)
        centers[sizes > 0] = (membership @ self._points)[sizes > 0] / sizes[sizes > 0, None]
        empty = np.flatnonzero(sizes == 0)
        if len(empty):
            costly = np.argsort(-self._weights * solution.nearest, kind="stable")[: len(empty)]
            centers[empty[: len(costly)]] = self._points[costly]
        return centers

    def _breathe(self, best: _Solution, nanoseconds: float) -> _Solution:
        last = self._nanoseconds - nanoseconds
        breath = min(BREATH, self._k)
        while breath and self._nanoseconds > last and best.inertia > 0:
            self._nanoseconds -= PASSES_PER_SPLIT * self._per_pass
            more = self._inhaled(best, breath)
            if len(more) == self._k:  # nothing can be split
                break
            candidate = self._lloyd(self._exhaled(self._lloyd(more, ROUGH_TOL)), TOL)
            if candidate.inertia < best.inertia * (1 - TOL):
                best = candidate
            else:
                breath -= 1
        return best

    def _inhaled(self, solution: _Solution, count: int) -> Float64:
        """Return the centers with ``count`` clusters split, or fewer.

        These are the clusters with the largest gains.
        """
        inertias = np.bincount(solution.labels, self._weights * solution.nearest, minlength=self._k)
        chosen = np.argsort(-inertias, kind="stable")[: max(2 * count, 10)]
        chosen = np.sort(chosen[inertias[chosen] > 0])
        number = np.full(self._k, -1)
        number[chosen] = np.arange(len(chosen))
        groups = number[solution.labels]
        order = groups.argsort(kind="stable")[np.count_nonzero(groups < 0) :]
        if not len(order):
            return solution.centers
        splits = split_clusters(self._points[order], self._weights[order], groups[order], len(chosen), self._generator)
        largest = np.argsort(-splits.gains, kind="stable")[:count]
        largest = largest[splits.gains[largest] > 0]
        centers = solution.centers.copy()
        centers[chosen[largest]] = splits.first[largest]
        return np.concatenate([centers, splits.second[largest]])

    def _exhaled(self, solution: _Solution) -> Float64:
        """Return k of the centers, without the least useful ones.

        No two removed centers are neighbors.
        """
        surplus = len(solution.centers) - self._k
        utilities = np.bincount(
            solution.labels,
            self._weights * (self._second(solution) - solution.nearest),
            minlength=len(solution.centers),
        )
        gone: list[int] = []
        kept: set[int] = set()
        for center in np.argsort(utilities, kind="stable").tolist():
            if len(gone) == surplus:
                break
            if center in kept:
                continue
            gone.append(center)
            # The nearest center gets its rows, so it stays; but enough centers must remain removable.
            if len(kept) + surplus < len(solution.centers):
                to = solution.centers - solution.centers[center]
                distances = np.einsum("ij,ij->i", to, to)
                distances[gone] = np.inf
                kept.add(int(distances.argmin()))
        return np.delete(solution.centers, gone, axis=0)
