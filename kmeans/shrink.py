"""Phase 2: from K weighted centers to k, by the best of several weighted Lloyd runs.

Many cheap centers, merged afterwards, find the clusters that k single starts miss: on clustered data this is what keeps
k-means out of bad local minima (docs/decisions.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from kmeans.arrays import Float32, Float64
from kmeans.distance import NearestCenters
from kmeans.lloyd import LloydResult, lloyd
from kmeans.observer import Observer
from kmeans.seeding import PointDistances, draw_far_points, seed_centers
from kmeans.settings import Settings
from kmeans.sums import assign_and_sum
from kmeans.workers import Workers


@dataclass(frozen=True, slots=True)
class Shrunk:
    """Outcome of the shrinking phase.

    Attributes
    ----------
    centers
        float32 (k, d).
    others
        Centers of the next best runs, best first.
    mean_squared_distance
        Loss of the best run over the K weighted centers (not over the data); None if there was nothing to shrink.
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
    workers: Workers | None = None,
    observer: Observer | None = None,
) -> Shrunk:
    """Reduce ``centers`` (K, d) with ``weights`` (K,) to ``settings.k`` centers.

    Centers of weight 0 have no points near them and take no part. If no more than k others are left there is nothing to
    choose: all are kept, and centers of weight 0 fill the places that remain.
    """
    observer = observer or Observer()
    used = np.flatnonzero(weights)
    observer.shrink_started(centers=len(centers), clusters=settings.k)
    if len(used) <= settings.k:
        unused = np.flatnonzero(weights == 0)
        kept = np.concatenate([used, unused[: settings.k - len(used)]])
        return Shrunk(centers[kept].astype(np.float32), [], None)
    points, point_weights = centers[used].astype(np.float32), weights[used]
    distances = PointDistances(points, draws=settings.trials() * settings.k)
    results: list[LloydResult] = []
    for attempt in range(settings.trials()):
        results.append(_attempt(points, point_weights, distances, settings, generator=generator, workers=workers))
        observer.shrink_attempt(attempt=attempt, mean_squared_distance=results[-1].sums.mean_squared_distance)
    best, *others = sorted(results, key=lambda result: result.sums.inertia)
    observer.shrink_done(mean_squared_distance=best.sums.mean_squared_distance)
    return Shrunk(best.centers, [other.centers for other in others], best.sums.mean_squared_distance)


def _attempt(
    points: Float32,
    weights: Float64,
    distances: PointDistances,
    settings: Settings,
    *,
    generator: Generator,
    workers: Workers | None,
) -> LloydResult:
    def reseed(nearest: NearestCenters, count: int) -> Float32:
        return draw_far_points(points, weights * nearest.query(points)[1], count, generator)

    first = seed_centers(points, settings.k, settings.local_lloyd_init_method, generator, weights, distances=distances)
    return lloyd(
        lambda nearest: assign_and_sum(points, nearest, weights, workers),
        first,
        max_iter=settings.local_lloyd_max_iter,
        tol=settings.local_lloyd_tol,
        reseed=reseed,
    )
