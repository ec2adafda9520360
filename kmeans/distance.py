"""Nearest centers of a batch of points: the kernel of fits and predictions.

The squared distance of a point x to a center c is |x|^2 - 2 x.c + |c|^2. The first term doesn't affect which center
is nearest, so one GEMM per batch (and one addition) ranks the centers; the distance to the nearest is computed on
request.

In float32 the three terms cancel if the data are far from the origin compared with their spread (years, temperatures in
Kelvin, a large constant column). Then both sides are moved to the centers' mean first.

Where the scores of two centers differ by less than the error bound of float32 (near ties), callers that need exact
labels recompute them in float64 (:meth:`NearestCenters.exact_query`).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from kmeans.arrays import Float32, Float64, Int32, Int64, in_blocks

# A batch of points and its scores should stay in a core's cache while they are used (docs/decisions/computation.md).
BLOCK_BYTES = 4 << 20
MIN_BLOCK_ROWS, MAX_BLOCK_ROWS = 64, 4096

# Offset against spread (both squared) from which float32 would lose more than two of its seven digits.
FAR_FROM_ORIGIN = 100.0

# Error of a sum of d products in float32, relative to the sum of their magnitudes: d of these, and a few more for the
# subtraction of the origin and the last additions.
UNIT_ROUNDOFF = 2.0**-24
ROUNDED_TERMS = 8

# Inertia against the sum of the squared norms below which rounding decides labels, not only digits of the inertia:
# clusters that are tight compared with their distance from the origin, and close to each other
# (docs/decisions/exact-distances.md).
LABELS_ROUND = 1e-5


def squared_norms(points: Float32) -> Float32:
    """Return |x|^2 of each row of ``points`` (n, d), shape (n,)."""
    norms: Float32 = np.einsum("ij,ij->i", points, points)
    return norms


def rounding_decides(squared: Float32 | Float64, norms: Float32) -> bool:
    """Return whether rounding to float32 decides the labels of some points.

    ``squared`` are their squared distances to the nearest center, ``norms`` those to the origin, both (n,).
    """
    return bool(squared.sum(dtype=np.float64) < LABELS_ROUND * norms.sum(dtype=np.float64))


def block_rows(features: int, clusters: int) -> int:
    """Return the number of rows whose scores for ``clusters`` centers stay in cache."""
    fitting = BLOCK_BYTES // (4 * (features + clusters))
    return max(MIN_BLOCK_ROWS, min(MAX_BLOCK_ROWS, fitting))


class NearestCenters:
    """Centers prepared for many nearest-center queries.

    Parameters
    ----------
    centers
        Shape (k, d), float32 or float64.
    like
        Earlier centers whose origin is used, so that norms of points stay valid.

    Attributes
    ----------
    origin
        Subtracted from points and centers before they are multiplied, float32 (d,); None if it isn't needed.
    factor, norms
        The scores of points x from the origin are ``x @ factor + norms``; (d, k) and (k,).
    block_rows
        Number of points whose scores stay in cache.
    """

    def __init__(self, centers: Float32 | Float64, like: NearestCenters | None = None) -> None:
        self.centers: Float32 = np.ascontiguousarray(centers, dtype=np.float32)
        self.clusters: int = self.centers.shape[0]
        self.features: int = self.centers.shape[1]
        self.origin: Float32 | None = _origin(self.centers) if like is None else like.origin
        moved = self.centers if self.origin is None else self.centers - self.origin
        # Scaled and transposed once, so that scores are one GEMM and one addition.
        self._scaled: Float32 = moved * np.float32(-2)
        self.factor: Float32 = np.ascontiguousarray(self._scaled.T)
        self.norms: Float32 = squared_norms(moved)
        self.block_rows = block_rows(self.features, self.clusters)
        # The error of a score |c|^2 - 2 x.c, both from the origin, is at most this times 2 |x| |c| + |c|^2.
        self._error: float = (self.features + ROUNDED_TERMS) * UNIT_ROUNDOFF

    def rank(self, points: Float32) -> tuple[Int64, Float32]:
        """Return the nearest center of each point, and its score; both (n,).

        The score is |x - c|^2 - |x - origin|^2.
        Of several centers at the same distance the first is chosen.
        """
        labels = np.empty(len(points), dtype=np.int64)
        scores = np.empty(len(points), dtype=np.float32)
        for first, block in in_blocks(points, self.block_rows):
            table = self._score_table(block)
            nearest = table.argmin(axis=1)
            labels[first : first + len(block)] = nearest
            scores[first : first + len(block)] = np.take_along_axis(table, nearest[:, None], axis=1)[:, 0]
        return labels, scores

    def labels(self, points: Float32) -> Int64:
        """Return the nearest center of each point, (n,), as :meth:`rank` does."""
        labels = np.empty(len(points), dtype=np.int64)
        for first, block in in_blocks(points, self.block_rows):
            self._score_table(block).argmin(axis=1, out=labels[first : first + len(block)])
        return labels

    def _score_table(self, block: Float32) -> Float32:
        """Return the score of each point for each center, (b, k)."""
        table: Float32 = self.from_origin(block) @ self.factor
        table += self.norms
        return table

    def from_origin(self, points: Float32) -> Float32:
        """Return ``points - origin`` (n, d); the same array without an origin."""
        return points if self.origin is None else points - self.origin

    def subset(self, centers: Int64) -> tuple[Float32, Float32]:
        """Return :attr:`factor` and :attr:`norms` of some ``centers``, (d, m) and (m,)."""
        return self._scaled[centers].T, self.norms[centers]

    def query(self, points: Float32) -> tuple[Int64, Float32]:
        """Return the nearest center of each point, and its squared distance; both (n,).

        The distance is computed from the difference, not from the three terms: it is 0 if the point is a center, and
        exact to float32 however far both are from the origin. If clusters are so tight that rounding would decide the
        labels, they are those of :meth:`exact_query`.
        """
        labels = self.labels(points)
        squared = self.squared_distances(points, labels)
        # Points close to their centers have nearly the norms of the centers.
        if rounding_decides(squared, self.norms[labels]):
            return self.exact_query(points)
        return labels, squared

    def exact_query(self, points: Float32) -> tuple[Int64, Float32]:
        """Return the same as :meth:`query`, with near ties decided in float64.

        The result is never a center that is farther than another because of rounding. It takes a little longer, and
        most of training doesn't need it.
        """
        if len(points) == 1 and (found := self._exact_query_of_one(points)):
            return found
        labels = np.empty(len(points), dtype=np.int64)
        distances = np.empty(len(points), dtype=np.float32)
        near_ties = []
        for first, block in in_blocks(points, self.block_rows):
            nearest, squared = labels[first : first + len(block)], distances[first : first + len(block)]
            table = self._score_table(block)
            table.argmin(axis=1, out=nearest)
            squared[:] = squared_norms(block - self.centers[nearest])
            # One bound for the whole batch: the check must be cheap for batches without near ties.
            best = table[np.arange(len(block)), nearest]
            error_bound = self._error_bound(float((squared - best).max()), float(squared.max()))
            near = table <= (best + error_bound)[:, None]
            if np.count_nonzero(near) > len(block):
                near_ties.append(first + _several(near))
        if near_ties:
            for _, rows in in_blocks(np.concatenate(near_ties), self.block_rows):
                self._resolve_near_ties(points, rows, labels, distances)
        return labels, distances

    def _exact_query_of_one(self, points: Float32) -> tuple[Int64, Float32] | None:
        """Return :meth:`exact_query` of one point, (1, d); None for a near tie.

        The same numbers in half the time: for one point, the other steps of a batch take as long as the computation.
        """
        table = self._score_table(points)
        nearest = int(table.argmin())
        best = float(table[0, nearest])
        squared = squared_norms(points - self.centers[nearest])
        distance = float(squared[0])
        if np.count_nonzero(table <= best + self._error_bound(distance - best, distance)) > 1:
            return None
        return np.array([nearest]), squared

    def _error_bound(self, squared_length: float, squared_distance: float) -> float:
        """Return the error bound within which another center may still be the nearest.

        It holds for points with at most these squared lengths and distances, and is doubled for the rounding of these
        lengths. A center that is nearer than the chosen one, at distance r, has a |c| of at most |x| + r.
        """
        length = math.sqrt(max(squared_length, 0.0))
        reach = length + math.sqrt(squared_distance)
        return 4 * self._error * reach * (2 * length + reach)

    def _resolve_near_ties(self, points: Float32, rows: Int64, labels: Int64, distances: Float32) -> None:
        """Correct labels and squared distances of ``rows`` of ``points``.

        Those change that are nearer to another center.
        """
        some = points[rows]
        table = self._score_table(some)
        lengths = np.sqrt(squared_norms(self.from_origin(some)))
        errors = self._error * (2 * np.outer(lengths, np.sqrt(self.norms)) + self.norms)
        chosen = np.arange(len(rows)), labels[rows]
        near = table - errors <= (table[chosen] + errors[chosen])[:, None]
        several = _several(near)
        if len(several):
            rows, some = rows[several], some[several]
            labels[rows] = self._nearest_of(np.flatnonzero(near[several].any(axis=0)), some)
            distances[rows] = squared_norms(some - self.centers[labels[rows]])

    def _nearest_of(self, some: Int64, points: Float32) -> Int64:
        """Return which of ``some`` centers is nearest to each point, (n,).

        It is computed in float64.
        """
        # Only the first of equal centers: the product may round two equal columns differently.
        some = np.sort(list({self.centers[center].tobytes(): center for center in some[::-1]}.values()))
        origin = self.centers[some[0]].astype(np.float64)
        moved = points - origin
        best, labels = np.full(len(points), np.inf), np.empty(len(points), dtype=np.int64)
        for first, centers in in_blocks(self.centers[some], max(1, BLOCK_BYTES // (8 * self.features))):
            to = centers - origin
            table = moved @ (-2 * to.T) + np.einsum("ij,ij->i", to, to)
            nearest = table.argmin(axis=1)
            scores = table[np.arange(len(points)), nearest]
            is_nearer = scores < best
            best[is_nearer] = scores[is_nearer]
            labels[is_nearer] = some[first + nearest[is_nearer]]
        return labels

    def squared_distances(self, points: Float32, labels: Int64 | Int32) -> Float32:
        """Return the squared distance of each point to the center of its label, (n,)."""
        distances = np.empty(len(points), dtype=np.float32)
        for first, block in in_blocks(points, self.block_rows):
            last = first + len(block)
            distances[first:last] = squared_norms(block - self.centers[labels[first:last]])
        return distances


def two_nearest(points: Float32, factor: Float32, norms: Float32) -> tuple[Int64, Float32, Float32]:
    """Return each point's nearest center, its score and the second score, (b,).

    ``points`` (b, d) are those from the origin, ``factor`` (d, k) and ``norms`` (k,) those of a NearestCenters; scores
    are those of :meth:`NearestCenters.rank`. With one center the second score is infinite.
    """
    table = points @ factor
    table += norms
    nearest = table.argmin(axis=1)
    rows = np.arange(len(points))
    best = table[rows, nearest]
    table[rows, nearest] = np.inf
    return nearest, best, table.min(axis=1)


def _several(marks: NDArray[np.bool_]) -> Int64:
    """Return the rows of ``marks`` (b, k) with several marks.

    Each row has at least one.
    """
    rows = np.flatnonzero(marks) // marks.shape[1]
    repeated = rows[1:][rows[1:] == rows[:-1]]
    # The rows ascend, so np.unique and its sort aren't needed.
    several: Int64 = repeated[np.diff(repeated, prepend=-1) != 0]
    return several


def _origin(centers: Float32) -> Float32 | None:
    mean = centers.mean(axis=0, dtype=np.float64)
    spread = float(np.square(centers - mean).sum(axis=1).mean())
    if float(mean @ mean) <= FAR_FROM_ORIGIN * spread:
        return None
    origin: Float32 = mean.astype(np.float32)
    return origin
