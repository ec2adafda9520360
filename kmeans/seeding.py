"""First centers, drawn from a sample of points: ``random`` and ``kmeans++``.

``kmeans++`` is D. Arthur and S. Vassilvitskii, "k-means++: the advantages of careful seeding" (SODA 2007), in its
greedy form: of a few candidates drawn by squared distance, the one that lowers the inertia most is kept.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.random import Generator

from kmeans.arrays import Float32, Float64, Int64
from kmeans.distance import squared_norms

Method = Literal["random", "kmeans++"]

# Of at most so many points all distances are computed at once (64 MB), for one GEMM and for all draws that follow.
TABLE_POINTS = 4096

# The smallest share of all weights by which a point is drawn.
MIN_SHARE = 1e-100

# Greedy candidates make better starts, and each costs a pass over the points: as many as this number of
# multiplications allows (a fraction of a second), at most the 2 + log k of scikit-learn, at least one.
GREEDY_MULTIPLICATIONS = 1e9

# The three-term formula leaves only rounding errors of a squared distance below this share of its terms.
CLOSE = 1e-3
CLOSE_BLOCK_ROWS = 1024


class PointDistances:
    """Squared distances between ``points`` (n, d), computed when they are asked for, or all at once if that is cheaper.

    Parameters
    ----------
    draws
        How many centers will be drawn from the points.
    """

    def __init__(self, points: Float32, draws: int) -> None:
        # See kmeans.distance on cancellation.
        self._points: Float32 = points - points.mean(axis=0, dtype=np.float64).astype(np.float32)
        self._norms = squared_norms(self._points)
        in_table = len(points) <= min(draws * _greedy_candidates(draws), TABLE_POINTS)
        self._products: Float32 | None = self._points @ self._points.T if in_table else None

    @property
    def multiplications(self) -> int:
        """Roughly what the distances of one more point to all cost."""
        return self._points.size if self._products is None else len(self._points)

    def of(self, rows: list[int]) -> Float64:
        """Return the squared distances from ``points[rows]`` to all points, (len(rows), n); 0 for duplicates."""
        size = self._norms[rows][:, None] + self._norms
        products = self._points[rows] @ self._points.T if self._products is None else self._products[rows]
        distances = (size - 2 * products).astype(np.float64)
        # Close points, and duplicates above all, are told apart by their difference. They are few.
        for distance, close, row in zip(distances, distances <= CLOSE * size, rows, strict=True):
            near = np.flatnonzero(close)
            for first in range(0, len(near), CLOSE_BLOCK_ROWS):
                block = near[first : first + CLOSE_BLOCK_ROWS]
                distance[block] = squared_norms(self._points[block] - self._points[row])
        return distances


def seed_centers(
    points: Float32,
    k: int,
    method: Method,
    generator: Generator,
    weights: Float64 | None = None,
    *,
    distances: PointDistances | None = None,
) -> Float32:
    """Return ``k`` of the ``points`` (n, d) as first centers (k, d), float32.

    Parameters
    ----------
    method
        ``random`` draws rows without replacement; ``kmeans++`` draws far points more often.
    weights
        How often each point counts, (n,); points of weight 0 are never drawn. Default: once each.
    distances
        Those of ``points``, for whoever draws from them several times.

    Raises
    ------
    ValueError
        If ``k`` is larger than the number of points that may be drawn.
    """
    drawable = len(points) if weights is None else int(np.count_nonzero(weights))
    if not 1 <= k <= drawable:
        raise ValueError(f"can't draw {k} centers from {drawable} points")
    if method == "random":
        # A share that is 0 by rounding alone must not be one that can't be drawn.
        shares = None if weights is None else np.where(weights > 0, np.maximum(weights / weights.sum(), MIN_SHARE), 0)
        chosen = generator.choice(len(points), k, replace=False, p=shares)
        return points[chosen]
    return points[_spread_out(points, k, generator, weights, distances=distances)]


def draw_far_points(points: Float32, distances: Float32 | Float64, count: int, generator: Generator) -> Float32:
    """Return at most ``count`` of the ``points`` (n, d), drawn by k-means++'s rule, to become additional centers.

    ``distances`` (n,) are the points' (weighted) squared distances to the centers that exist already. Fewer are
    returned only when fewer points differ from a center.
    """
    chosen = _spread_out(points, count, generator, closest=np.array(distances, dtype=np.float64))
    return points[chosen]


def _spread_out(
    points: Float32,
    count: int,
    generator: Generator,
    weights: Float64 | None = None,
    *,
    distances: PointDistances | None = None,
    closest: Float64 | None = None,
) -> Int64:
    """Draw ``count`` row numbers by squared distance; ``closest`` is the distance to centers chosen before."""
    distances = distances or PointDistances(points, draws=count)
    affordable = int(GREEDY_MULTIPLICATIONS / (count * distances.multiplications))
    candidates = max(1, min(_greedy_candidates(count), affordable))
    weight = np.ones(len(points)) if weights is None else weights
    fill_up = closest is None
    chosen: list[int] = []
    if closest is None:
        chosen.append(_draw(weight, 1, generator)[0])
        closest = distances.of(chosen)[0]
    while len(chosen) < count:
        potential = weight * closest
        if not potential.any():  # all points equal a center already
            break
        drawn = _draw(potential, candidates, generator)
        closer = np.minimum(distances.of(drawn), closest)
        best = int(np.argmin(closer @ weight))
        chosen.append(drawn[best])
        closest = closer[best]
    if fill_up and len(chosen) < count:  # duplicates: equal centers are all that's left
        rest = np.setdiff1d(np.flatnonzero(weight), chosen)
        chosen += rest[: count - len(chosen)].tolist()
    return np.array(chosen, dtype=np.int64)


def _greedy_candidates(count: int) -> int:
    return 2 + int(math.log(count))


def _draw(potential: Float64, count: int, generator: Generator) -> list[int]:
    cumulative = np.cumsum(potential)
    drawn = np.searchsorted(cumulative, generator.random(count) * cumulative[-1], side="right")
    # Rounding may point past the last row that can be drawn.
    return [int(row) for row in np.minimum(drawn, np.flatnonzero(potential)[-1])]
