"""Phase 2: from K weighted centers to k, by the best of several Lloyd runs.

Many cheap centers, merged afterwards, find the clusters that k starts miss: on clustered data this avoids bad local
minima (docs/decisions/mini-batch-and-shrink.md).
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from kmeans.arrays import Float32, Float64
from kmeans.callbacks import Callbacks
from kmeans.distance import NearestCenters
from kmeans.lloyd import LloydResult, OnMove, lloyd
from kmeans.metric import METRICS
from kmeans.seeding import PointDistances, draw_far_points, seed_centers
from kmeans.settings import Settings
from kmeans.sums import assign_and_sum
from kmeans.threads import Interrupted, ThreadPool

# Seconds that the shrink may take after a stop: its result is worth a wait that is short compared with the 30 s after
# which SageMaker kills.
PATIENCE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Shrunk:
    """Result of the shrink.

    Attributes
    ----------
    centers
        float32 (k, d).
    others
        Centers of the next best runs, best first.
    mean_squared_distance
        Loss of the best run over the K weighted centers (not over the data), as the metric reports it; None if there
        was nothing to shrink, or a stop came before the end of the first run.
    """

    centers: Float32
    others: list[Float32]
    mean_squared_distance: float | None


def shrink(
    centers: Float64,
    weights: Float64,
    settings: Settings,
    *,
    generator: Generator,
    pool: ThreadPool | None = None,
    callbacks: Callbacks | None = None,
) -> Shrunk:
    """Reduce ``centers`` (K, d) with ``weights`` (K,) to ``settings.k`` centers.

    Centers of weight 0 have no points near them and are ignored. If at most k others are left, all are kept, and
    centers of weight 0 are added up to k.

    Soon after a stop the shrink ends with the best run so far, or with the present centers of the first run.
    """
    callbacks, pool = callbacks or Callbacks(), pool or ThreadPool()
    metric = METRICS[settings.distance_metric]
    used = np.flatnonzero(weights)
    callbacks.shrink_started(centers=len(centers), clusters=settings.k)
    if len(used) <= settings.k:
        unused = np.flatnonzero(weights == 0)
        kept = np.concatenate([used, unused[: settings.k - len(used)]])
        return Shrunk(centers[kept].astype(np.float32), [], None)
    points, point_weights = centers[used].astype(np.float32), weights[used]
    distances = _InterruptibleDistances(points, settings.trials() * settings.k, pool)
    # The heaviest centers are a result in case of an early stop.
    latest = points[np.sort(np.argsort(-point_weights, kind="stable")[: settings.k])]
    results: list[LloydResult] = []

    def moved(centers: Float32, _moves: int, _before: float) -> None:
        nonlocal latest
        latest = centers

    with suppress(Interrupted):
        for attempt in range(settings.trials()):
            with pool.interruptible(PATIENCE_SECONDS):
                result = _attempt(
                    points, point_weights, distances, settings, generator=generator, pool=pool, on_move=moved
                )
            results.append(result)
            loss = metric.reported_loss(result.sums.mean_squared_distance)
            callbacks.shrink_attempt(attempt=attempt, mean_squared_distance=loss)
    if not results:
        return Shrunk(latest, [], None)
    best, *others = sorted(results, key=lambda result: result.sums.inertia)
    loss = metric.reported_loss(best.sums.mean_squared_distance)
    callbacks.shrink_done(mean_squared_distance=loss)
    return Shrunk(best.centers, [other.centers for other in others], loss)


class _InterruptibleDistances(PointDistances):
    """Distances of points that check for a stop before they are computed."""

    def __init__(self, points: Float32, draws: int, pool: ThreadPool) -> None:
        super().__init__(points, draws)
        self._pool = pool

    def of(self, rows: list[int]) -> Float64:
        self._pool.check_stop()
        return super().of(rows)


def _attempt(
    points: Float32,
    weights: Float64,
    distances: PointDistances,
    settings: Settings,
    *,
    generator: Generator,
    pool: ThreadPool,
    on_move: OnMove,
) -> LloydResult:
    def reseed(nearest: NearestCenters, count: int) -> Float32:
        return draw_far_points(points, weights * nearest.query(points)[1], count, generator)

    first = seed_centers(points, settings.k, settings.local_lloyd_init_method, generator, weights, distances=distances)
    return lloyd(
        lambda nearest: assign_and_sum(points, nearest, weights, pool),
        first,
        max_iter=settings.local_lloyd_max_iter,
        tol=settings.local_lloyd_tol,
        reseed=reseed,
        on_move=on_move,
        metric=METRICS[settings.distance_metric],
    )
