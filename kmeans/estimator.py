"""Fit a model: seed, stream, shrink, refine, in reading order.

Phases 1 and 2 are those of SageMaker's built-in k-means (developer guide, "How K-Means Clustering Works"): mini-batches
onto more centers than asked for, then the centers themselves are clustered. Phase 3 is an addition: Lloyd's iterations
over the rows, which the built-in image leaves out and ``refine_max_iter=0`` leaves out here. Where they follow, the
first two phases need, and see, only some of the rows.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from kmeans.arrays import Float32
from kmeans.distance import NearestCenters
from kmeans.errors import DataError
from kmeans.lloyd import LloydResult
from kmeans.model import KMeansModel
from kmeans.observer import Observer
from kmeans.refinement import refine
from kmeans.rows import Rows
from kmeans.seeding import seed_centers
from kmeans.settings import Settings
from kmeans.shrink import Shrunk, shrink
from kmeans.streaming import StreamingCenters
from kmeans.sums import ClusterSums, assign_and_sum
from kmeans.workers import Workers


@dataclass(frozen=True, slots=True)
class Fitted:
    """A fitted model and its figures.

    Attributes
    ----------
    model
        Centers, with the number of rows in each cluster.
    shrink_loss
        Mean squared distance of the K weighted centers to the k: what the built-in image calls its training loss. None
        if there was nothing to shrink.
    mean_squared_distance
        True mean squared distance of all rows to their nearest center.
    streaming_centers
        K.
    refinements
        Exact passes that moved the centers.
    """

    model: KMeansModel
    shrink_loss: float | None
    mean_squared_distance: float
    streaming_centers: int
    refinements: int


def fit(rows: Rows, settings: Settings, *, workers: Workers | None = None, observer: Observer | None = None) -> Fitted:
    """Fit ``settings.k`` centers to ``rows``.

    The result depends on the rows, the settings and the machine's BLAS, not on the number of ``workers``.

    Raises
    ------
    kmeans.errors.DataError
        If there are fewer rows than clusters.

    Examples
    --------
    >>> from kmeans.rows import MemoryRows
    >>> points = np.array([[0], [1], [10], [11]], dtype=np.float32)
    >>> fitted = fit(MemoryRows(points), Settings(k=2))
    >>> sorted(fitted.model.centers.ravel().tolist()), fitted.mean_squared_distance
    ([0.5, 10.5], 0.25)
    """
    observer = observer or Observer()
    workers = workers or Workers()
    generator = np.random.default_rng(settings.seed)
    if len(rows) < settings.k:
        raise DataError(
            f"k={settings.k} clusters were asked for, but there are only {len(rows)} rows of training data",
            hint="Lower k or provide more rows.",
        )
    with _phase("seed", observer):
        first = _first_centers(rows, settings, generator, observer)
    with _phase("stream", observer):
        streamed = _stream(rows, first, settings, workers, observer)
    with _phase("shrink", observer):
        shrunk = shrink(
            streamed.centers, streamed.weights, settings, generator=generator, workers=workers, observer=observer
        )
    with _phase("refine", observer):
        refined = _refine(rows, shrunk, settings, generator=generator, workers=workers, observer=observer)
    counts = refined.sums.weights.astype(np.int64)
    return Fitted(
        model=KMeansModel(refined.centers, counts),
        shrink_loss=shrunk.mean_squared_distance,
        mean_squared_distance=refined.sums.mean_squared_distance,
        streaming_centers=len(first),
        refinements=refined.moves,
    )


@contextmanager
def _phase(name: str, observer: Observer) -> Iterator[None]:
    started = time.perf_counter()
    yield
    observer.phase_done(phase=name, seconds=time.perf_counter() - started)


def _first_centers(rows: Rows, settings: Settings, generator: Generator, observer: Observer) -> Float32:
    """Draw K centers from the first mini-batches: from one, or from as many as hold K rows."""
    wanted = settings.k * settings.factor()
    first = _first_rows(rows, wanted)
    factor = min(settings.factor(), len(first) // settings.k)
    observer.seeded(
        centers=settings.k * factor,
        clusters=settings.k,
        factor=factor,
        auto=settings.extra_center_factor is None,
        rows=len(first),
    )
    return seed_centers(first, settings.k * factor, settings.init_method, generator)


def _first_rows(rows: Rows, wanted: int) -> Float32:
    taken: list[Float32] = []
    for batch in rows.batches(epoch=0):
        taken.append(batch)
        if sum(map(len, taken)) >= wanted:
            break
    return taken[0] if len(taken) == 1 else np.concatenate(taken)


def _stream(rows: Rows, first: Float32, settings: Settings, workers: Workers, observer: Observer) -> StreamingCenters:
    streaming = StreamingCenters(first, settings.half_life_time_size, workers)
    wanted = min(len(rows), settings.rows_to_stream(len(first)) or len(rows))
    for epoch in range(settings.epochs):
        started = time.perf_counter()
        seen = batches = 0
        for batch in rows.batches(epoch):
            distance = streaming.update(batch)
            seen += len(batch)
            batches += 1
            observer.batch_done(
                epoch=epoch, epochs=settings.epochs, rows_seen=seen, rows=wanted, mean_squared_distance=distance
            )
            if seen >= wanted:
                break
        observer.epoch_done(
            epoch=epoch, epochs=settings.epochs, rows=seen, batches=batches, seconds=time.perf_counter() - started
        )
    return streaming


def _refine(
    rows: Rows, shrunk: Shrunk, settings: Settings, *, generator: Generator, workers: Workers, observer: Observer
) -> LloydResult:
    at_most = settings.refinements()
    observer.refine_started(at_most=at_most)
    if at_most == 0:
        nearest = NearestCenters(shrunk.centers)
        total = ClusterSums.zero(nearest.clusters, nearest.features)
        for block in rows.blocks():
            total.add(assign_and_sum(block, nearest, workers=workers))
        return LloydResult(shrunk.centers, total, moves=0)

    def report(done: int, sums: ClusterSums) -> None:
        observer.refine_pass(
            done=done,
            mean_squared_distance=sums.mean_squared_distance,
            empty_clusters=int((sums.weights == 0).sum()),
        )

    return refine(
        rows.points,
        [shrunk.centers, *shrunk.others[: settings.other_starts()]],
        max_iter=at_most,
        tol=settings.local_lloyd_tol,
        generator=generator,
        workers=workers,
        on_pass=report,
    )
