"""Exact Lloyd iterations: assign all points, move each center to their mean.

S. Lloyd, "Least squares quantization in PCM" (1957/1982). Used on the K weighted centers (``kmeans.shrink``) and on all
rows (phase 3 of ``kmeans.fitting``), with different functions for one pass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from kmeans.arrays import Float32
from kmeans.distance import NearestCenters
from kmeans.metric import EUCLIDEAN, Metric
from kmeans.sums import ClusterSums

Pass = Callable[[NearestCenters], ClusterSums]
Reseed = Callable[[NearestCenters, int], Float32]
OnPass = Callable[[int, ClusterSums], None]
OnMove = Callable[[Float32, int, float], None]


@dataclass(frozen=True, slots=True)
class LloydResult:
    """Centers, and the exact sums of the points assigned to these centers.

    Attributes
    ----------
    centers
        float32 (k, d).
    sums
        Counts and inertia that belong to ``centers``.
    moves
        Number of moves of the centers.
    """

    centers: Float32
    sums: ClusterSums
    moves: int


def lloyd(
    one_pass: Pass,
    centers: Float32,
    *,
    max_iter: int,
    tol: float,
    reseed: Reseed,
    on_pass: OnPass | None = None,
    on_move: OnMove | None = None,
    moves: int = 0,
    before: float = np.inf,
    metric: Metric = EUCLIDEAN,
) -> LloydResult:
    """Run Lloyd iterations from ``centers`` (k, d) until the loss converges.

    Parameters
    ----------
    one_pass
        Returns the sums of all points for the given centers.
    max_iter
        Maximum number of moves; one more pass scores the centers after the last. 0 only scores.
    tol
        Stop when a move lowers the inertia by no more than this fraction.
    reseed
        Returns at most n points that replace n empty centers (``kmeans.seeding.draw_far_points``).
    on_pass
        Called after each pass with its number, from 0, and its sums.
    on_move
        Called after each move with the centers, the number of moves and the inertia before the last.
    moves, before
        To continue after that number of moves: the arguments of ``on_move`` with ``centers``.
    metric
        Normalizes the centers after each move.
    """
    previous = before
    while True:
        nearest = NearestCenters(centers)
        sums = one_pass(nearest)
        if on_pass is not None:
            on_pass(moves, sums)
        empty = np.flatnonzero(sums.weights == 0)
        far = reseed(nearest, len(empty)) if len(empty) and moves < max_iter else centers[:0]
        converged = previous - sums.inertia <= tol * previous if np.isfinite(previous) else sums.inertia == 0
        if moves == max_iter or (converged and not len(far)):
            return LloydResult(nearest.centers, sums, moves)
        wide = centers.astype(np.float64)
        moved = metric.normalize_centers(sums.means(otherwise=wide), wide)
        moved[empty[: len(far)]] = far
        centers = moved.astype(np.float32)
        previous = sums.inertia
        moves += 1
        if on_move is not None:
            on_move(centers, moves, previous)
