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
from kmeans.lloyd import lloyd
from kmeans.model import KMeansModel
from kmeans.observer import Observer
from kmeans.refinement import Refined, refine
from kmeans.rows import MemoryRows, Rows
from kmeans.seeding import draw_far_points, seed_centers
from kmeans.settings import Settings
from kmeans.shrink import Shrunk, shrink
from kmeans.streaming import StreamingCenters
from kmeans.sums import ClusterSums, assign_and_sum_blocks
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
        How many times the centers were moved in phase 3: on all rows, or on as many as ``refine_sample_size`` allows.
    """

    model: KMeansModel
    shrink_loss: float | None
    mean_squared_distance: float
    streaming_centers: int
    refinements: int


def fit(rows: Rows, settings: Settings, *, workers: Workers | None = None, observer: Observer | None = None) -> Fitted:
    """Fit ``settings.k`` centers to ``rows``, and count the rows of each cluster.

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
    centers = fit_centers(rows, settings, workers=workers, observer=observer)
    sums = centers.sums
    if sums is None:
        with _phase("count", observer):
            sums = _pass(rows, NearestCenters(centers.centers), workers)
    return Fitted(
        model=KMeansModel(centers.centers, sums.weights.astype(np.int64)),
        shrink_loss=centers.shrink_loss,
        mean_squared_distance=sums.mean_squared_distance,
        streaming_centers=centers.streaming_centers,
        refinements=centers.refinements,
    )


@dataclass(frozen=True, slots=True)
class FittedCenters:
    """Centers, float32 (k, d), and what is known without another pass over the rows; see :class:`Fitted`.

    Attributes
    ----------
    sums
        Sums of all rows for just these centers, if the fit ended with an exact pass.
    """

    centers: Float32
    shrink_loss: float | None
    streaming_centers: int
    refinements: int
    sums: ClusterSums | None


def fit_centers(rows: Rows, settings: Settings, *, workers: Workers, observer: Observer) -> FittedCenters:
    """Do what :func:`fit` does, but for the pass that counts the rows."""
    generator = np.random.default_rng(settings.seed)
    if len(rows) < settings.k:
        raise DataError(
            f"k={settings.k} clusters were asked for, but there are only {len(rows)} rows of training data",
            hint="Lower k or provide more rows.",
        )
    held = len(rows.in_memory)
    if held < settings.k:
        raise DataError(
            f"k={settings.k} clusters were asked for, but memory holds only {held} of the {len(rows)} rows",
            hint="Lower k or give the job more memory.",
        )
    with _phase("seed", observer):
        first = _first_centers(rows.in_memory, settings, generator, observer)
    with _phase("stream", observer):
        streamed = _stream(rows, first, settings, workers, observer)
    with _phase("shrink", observer):
        shrunk = shrink(
            streamed.centers, streamed.weights, settings, generator=generator, workers=workers, observer=observer
        )
    with _phase("refine", observer):
        refined, sums = _refine(rows, shrunk, settings, generator=generator, workers=workers, observer=observer)
    return FittedCenters(refined.centers, shrunk.mean_squared_distance, len(first), refined.moves, sums)


@contextmanager
def _phase(name: str, observer: Observer) -> Iterator[None]:
    started = time.perf_counter()
    yield
    observer.phase_done(phase=name, seconds=time.perf_counter() - started)


def _first_centers(rows: MemoryRows, settings: Settings, generator: Generator, observer: Observer) -> Float32:
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


def _first_rows(rows: MemoryRows, wanted: int) -> Float32:
    taken: list[Float32] = []
    for batch in rows.batches(epoch=0):
        taken.append(batch)
        if sum(map(len, taken)) >= wanted:
            break
    return taken[0] if len(taken) == 1 else np.concatenate(taken)


def _stream(rows: Rows, first: Float32, settings: Settings, workers: Workers, observer: Observer) -> StreamingCenters:
    streaming = StreamingCenters(first, settings.half_life_time_size, workers)
    needed = settings.rows_to_stream(len(first))
    wanted = len(rows) if needed is None else min(needed, len(rows.in_memory))
    for epoch in range(settings.epochs):
        started = time.perf_counter()
        seen = batches = 0
        for batch in rows.batches(epoch) if needed is None else rows.in_memory.batches(epoch, needed):
            distance = streaming.update(batch)
            seen += len(batch)
            batches += 1
            observer.batch_done(
                epoch=epoch, epochs=settings.epochs, rows_seen=seen, rows=wanted, mean_squared_distance=distance
            )
        observer.epoch_done(
            epoch=epoch, epochs=settings.epochs, rows=seen, batches=batches, seconds=time.perf_counter() - started
        )
    return streaming


def _refine(
    rows: Rows, shrunk: Shrunk, settings: Settings, *, generator: Generator, workers: Workers, observer: Observer
) -> tuple[Refined, ClusterSums | None]:
    """Run phase 3: on the rows in memory first, and if these aren't all, on all."""
    max_iter = settings.refinements()
    observer.refine_started(at_most=max_iter)
    if max_iter == 0:
        return Refined(shrunk.centers, moves=0), None

    def report(done: int, sums: ClusterSums) -> None:
        observer.refine_pass(
            done=done,
            rows=int(sums.weights.sum()),
            mean_squared_distance=sums.mean_squared_distance,
            empty_clusters=int((sums.weights == 0).sum()),
        )

    held = rows.in_memory
    refined = refine(
        held,
        [shrunk.centers, *shrunk.others[: settings.other_starts()]],
        max_rows=settings.refine_sample_size or len(held),
        max_iter=max_iter,
        tol=settings.local_lloyd_tol,
        generator=generator,
        workers=workers,
        on_pass=report,
    )
    if settings.refine_sample_size is not None or len(held) == len(rows):
        return refined, None

    def reseed(nearest: NearestCenters, count: int) -> Float32:
        return draw_far_points(held.points, nearest.query(held.points)[1], count, generator)

    settled = lloyd(
        lambda nearest: _pass(rows, nearest, workers),
        refined.centers,
        max_iter=max_iter,
        tol=settings.local_lloyd_tol,
        reseed=reseed,
        on_pass=report,
    )
    return Refined(settled.centers, settled.moves), settled.sums


def _pass(rows: Rows, nearest: NearestCenters, workers: Workers) -> ClusterSums:
    """Return the sums of all rows."""
    return assign_and_sum_blocks(rows.blocks(), nearest, workers)
