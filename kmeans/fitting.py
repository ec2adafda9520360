"""Fit a model: seed, stream, shrink, refine, in reading order.

Phases 1 and 2 are those of SageMaker's built-in k-means (developer guide, "How K-Means Clustering Works"): mini-batches
onto more centers than asked for, then the centers themselves are clustered. Phase 3 is an addition: Lloyd's iterations
over the rows, which the built-in image leaves out and ``refine_max_iter=0`` leaves out here. Where they follow, the
first two phases need, and see, only some of the rows.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from kmeans.arrays import Batch, Float32, Int64
from kmeans.assignments import Comparisons
from kmeans.callbacks import Callbacks
from kmeans.checkpoint import Checkpoints, State
from kmeans.collectives import Collectives, SingleHost
from kmeans.coordinates import IDENTITY, Coordinates
from kmeans.dataset import MemoryRows, Rows
from kmeans.distance import NearestCenters
from kmeans.errors import DataError, SettingError
from kmeans.hierarchy import two_level_centers
from kmeans.lloyd import lloyd
from kmeans.metric import METRICS, Metric
from kmeans.minibatch import MiniBatchCenters, stream
from kmeans.model import KMeansModel
from kmeans.random_streams import RandomStreams
from kmeans.refinement import PHASE as REFINE
from kmeans.refinement import RESEED_ROWS, Refined, refine
from kmeans.seeding import Method, draw_far_points, seed_centers
from kmeans.settings import Settings
from kmeans.shrink import Shrunk, shrink
from kmeans.sums import ClusterSums, assign_and_sum_blocks, sums_of_all_hosts
from kmeans.table_search import TableSearch
from kmeans.threads import Interrupted, ThreadPool

# The name of phase 3 over rows that memory does not hold, in checkpoints.
ALL_ROWS = "all rows"


@dataclass(frozen=True, slots=True)
class Fitted:
    """A fitted model and its figures.

    Attributes
    ----------
    model
        Centers, with the number of rows in each cluster (whatever their weights).
    shrink_loss
        Mean squared distance of the K weighted centers to the k: what the built-in image calls its training loss. None
        if there was nothing to shrink.
    mean_squared_distance
        True mean squared distance of all rows to their nearest center; None if a stop left no time to compute it, and
        then the rows aren't counted either. With the cosine metric this loss and the one above are means of 1 - cosine.
    streaming_centers
        K.
    refinements
        How many times the centers were moved in phase 3: on all rows, or on as many as ``refine_sample_size`` allows.
    interrupted
        Whether a stop ended the fit early: the centers are the best so far.
    """

    model: KMeansModel
    shrink_loss: float | None
    mean_squared_distance: float | None
    streaming_centers: int
    refinements: int
    interrupted: bool = False


def fit(
    rows: Rows,
    settings: Settings,
    *,
    pool: ThreadPool | None = None,
    hosts: Collectives | None = None,
    callbacks: Callbacks | None = None,
    start: KMeansModel | None = None,
    checkpoints: Checkpoints | None = None,
) -> Fitted:
    """Fit ``settings.k`` centers to the ``rows`` of all ``hosts``, and count the rows of each cluster.

    The result depends on the rows, the settings and the machine's BLAS, not on the number of threads of ``pool``; it is
    the same on all ``hosts``. Rows that were assigned to hosts (:class:`kmeans.dataset.RowAssignment`) give what they
    give on one host, except for rounding, if memory holds them all; others are drawn in an order that depends on the
    hosts.

    From a ``start`` the fit goes on: its centers are refined; where refinement is off, they follow the rows as
    streaming centers do, each with the weight of the rows it had. From a state that ``checkpoints`` has found it
    goes on to the centers, to the bit, that it would have found without the interruption.

    Model and losses are in the units of the data, whatever coordinates the ``rows`` have (:mod:`kmeans.coordinates`).
    For rows in memory of one host they are chosen here where none were, except with the cosine metric.

    With ``distance_metric="cosine"`` rows may have any length but 0: they are normalized, those in memory into a copy
    unless all have length 1 already. The centers of the model have length 1.

    Rows in memory may have weights (:class:`kmeans.dataset.MemoryRows`): a row of weight 2 counts like two equal rows,
    and losses are weighted means.

    Raises
    ------
    kmeans.errors.DataError
        If there are fewer rows than clusters, or ``start`` has other numbers of clusters or features; with the cosine
        metric also if a row, or a center of ``start``, has only zeros.

    Examples
    --------
    >>> from kmeans.dataset import MemoryRows
    >>> points = np.array([[0], [1], [10], [11]], dtype=np.float32)
    >>> fitted = fit(MemoryRows(points), Settings(k=2))
    >>> sorted(fitted.model.centers.ravel().tolist()), fitted.mean_squared_distance
    ([0.5, 10.5], 0.25)
    """
    rows, coordinates = _chosen_coordinates(rows, METRICS[settings.distance_metric], hosts or SingleHost())
    job = _Fit(
        rows,
        settings,
        pool=pool or ThreadPool(),
        hosts=hosts or SingleHost(),
        callbacks=coordinates.callbacks(callbacks or Callbacks()),
        checkpoints=coordinates.checkpoints(checkpoints or Checkpoints()),
    )
    found = job.centers(_in_coordinates(start, coordinates))
    sums = found.sums
    if sums is None and not found.interrupted:
        with contextlib.suppress(Interrupted), job.phase("count"):
            sums = job.one_pass(NearestCenters(found.centers))
    metric = METRICS[settings.distance_metric]
    counts = None if sums is None else sums.rows.astype(np.int64)
    return Fitted(
        model=KMeansModel(
            found.centers if coordinates.is_identity else coordinates.widen(found.centers),
            counts,
            distance_metric=metric.name,
            coordinates=coordinates,
        ),
        shrink_loss=None if found.shrink_loss is None else coordinates.squared(found.shrink_loss),
        mean_squared_distance=(
            None if sums is None else coordinates.squared(metric.reported_loss(sums.mean_squared_distance))
        ),
        streaming_centers=found.streaming_centers,
        refinements=found.refinements,
        interrupted=sums is None,
    )


def _chosen_coordinates(rows: Rows, metric: Metric, hosts: Collectives) -> tuple[Rows, Coordinates]:
    """Return ``rows`` in the coordinates that they need, and these.

    Rows of several hosts keep theirs.
    """
    if isinstance(rows, MemoryRows) and hosts.size == 1 and not metric.normalizes:
        rows = rows.measured()
    coordinates = rows.coordinates or IDENTITY
    if metric.normalizes and not coordinates.is_identity:
        raise DataError(
            f"expected rows in their own coordinates, which the {metric.name} distance needs, found others",
            hint=f"Pass the metric to MemoryRows.of: metric=METRICS[{metric.name!r}].",
        )
    return rows, coordinates


def _in_coordinates(start: KMeansModel | None, coordinates: Coordinates) -> KMeansModel | None:
    """Return ``start`` as a model whose centers have these coordinates.

    One of another width is returned as it is, and refused later.
    """
    if start is None or coordinates.is_identity or coordinates.features not in (None, start.features):
        return start
    return KMeansModel(coordinates.narrow_centers(start.precise_centers), start.counts)


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
    interrupted: bool
    sums: ClusterSums | None


def fit_centers(rows: Rows, settings: Settings, *, pool: ThreadPool, callbacks: Callbacks) -> FittedCenters:
    """Do what :func:`fit` does, but for the pass that counts the rows."""
    job = _Fit(rows, settings, pool=pool, hosts=SingleHost(), callbacks=callbacks, checkpoints=Checkpoints())
    return job.centers()


class _Labelled(Checkpoints):
    """Checkpoints of phase 3, which also tell how phases 1 and 2 ended."""

    def __init__(self, checkpoints: Checkpoints, numbers: Mapping[str, Any]) -> None:
        self._checkpoints = checkpoints
        self._numbers = numbers

    def found(self) -> State | None:
        return self._checkpoints.found()

    def offer(self, state: Callable[[], State]) -> None:
        def labelled() -> State:
            made = state()
            return replace(made, numbers={**made.numbers, **self._numbers})

        self._checkpoints.offer(labelled)


class _Begun(NamedTuple):
    """What phase 3 begins with, K, and whether a stop came before."""

    shrunk: Shrunk
    streaming_centers: int
    interrupted: bool = False


class _Fit:
    """One fit: what all its phases need."""

    def __init__(
        self,
        rows: Rows,
        settings: Settings,
        *,
        pool: ThreadPool,
        hosts: Collectives,
        callbacks: Callbacks,
        checkpoints: Checkpoints,
    ) -> None:
        self._metric = METRICS[settings.distance_metric]
        rows = _prepared(rows, self._metric, hosts)
        self._rows = rows
        self._settings = settings
        self._pool = pool
        self._hosts = hosts
        self._callbacks = callbacks
        self._checkpoints = checkpoints
        self._found = self._checkpoints.found()
        self._streamed: dict[str, Any] = {"streaming_centers": settings.k, "shrink_loss": None}
        self._random_streams = RandomStreams(settings.seed)
        held = rows.in_memory
        of_all = hosts.sum(np.array([len(rows), len(held), held.is_dealt, held.weights is not None], float))
        # Of all hosts: rows, rows in memory, how many have the order of all rows, and how many have weights.
        self._count, self._held, dealt, weighted = (int(count) for count in of_all)
        self._is_weighted = weighted > 0
        held = held.with_weights() if self._is_weighted else held
        # Where one host's memory holds a sample only, they can't draw from one order.
        self._in_memory = held if dealt == hosts.size else held.by_themselves()

    def centers(self, start: KMeansModel | None = None) -> FittedCenters:
        """Run the phases."""
        self._check(start)
        self._is_warm = start is not None
        if start is not None and start.distance_metric != self._metric.name:
            start = self._converted(start)
        begun = self._begin(start)
        self._streamed = {
            "streaming_centers": begun.streaming_centers,
            "shrink_loss": begun.shrunk.mean_squared_distance,
        }
        refined, sums = Refined(begun.shrunk.centers, 0, begun.interrupted), None
        if not begun.interrupted:
            with self.phase("refine"):
                refined, sums = self._refine(begun.shrunk)
        return FittedCenters(
            centers=refined.centers,
            shrink_loss=begun.shrunk.mean_squared_distance,
            streaming_centers=begun.streaming_centers,
            refinements=refined.moves,
            interrupted=refined.interrupted,
            sums=sums,
        )

    def _begin(self, start: KMeansModel | None) -> _Begun:
        """Get the k centers that phase 3 begins with: of a checkpoint, of a model, or by phases 1 and 2."""
        if self._found is not None and self._found.phase in {REFINE, ALL_ROWS}:
            shrunk = Shrunk(self._found.arrays["centers"], [], self._found.numbers["shrink_loss"])
            return _Begun(shrunk, self._found.numbers["streaming_centers"])
        if start is not None:
            return self._begin_from(start)
        method = self._settings.init_method
        if method == "hierarchical":
            with self.phase("seed"):
                return _Begun(Shrunk(self._two_level_centers(), [], None), self._settings.k)
        with self.phase("seed"):
            first = self._first_centers(method) if self._found is None else self._found.arrays["centers"]
        with self.phase("stream"):
            streamed, interrupted = self._stream(first)
        with self.phase("shrink"):
            return _Begun(self._shrink(streamed), len(first), interrupted)

    def _begin_from(self, start: KMeansModel) -> _Begun:
        """Take the centers of a model; where phase 3 is off, let them follow the rows in phase 1."""
        if self._settings.refinements():
            return _Begun(Shrunk(start.centers, [], None), start.clusters)
        with self.phase("stream"):
            streamed, interrupted = self._stream(start.centers, start.counts)
        return _Begun(Shrunk(streamed.centers.astype(np.float32), [], None), start.clusters, interrupted)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Tell how long the context took."""
        started = time.perf_counter()
        yield
        self._callbacks.phase_done(phase=name, seconds=time.perf_counter() - started)

    def one_pass(self, nearest: NearestCenters) -> ClusterSums:
        """Return the sums of all rows of all hosts.

        Raises
        ------
        Interrupted
            If a stop was wanted on one of them.
        """

        def blocks() -> Iterator[Batch]:
            return self._weighted(self._rows.weighted_blocks())

        return sums_of_all_hosts(
            lambda: assign_and_sum_blocks(blocks(), nearest, self._pool, is_weighted=self._is_weighted),
            ClusterSums.zero(nearest.clusters, nearest.features, is_weighted=self._is_weighted),
            self._pool,
            self._hosts,
        )

    def _check(self, start: KMeansModel | None) -> None:
        settings = self._settings
        if settings.init_method == "hierarchical" and (settings.epochs > 1 or settings.half_life_time_size):
            raise SettingError(
                f"init_method=hierarchical has no mini-batch phase, which epochs={settings.epochs} and "
                f"half_life_time_size={settings.half_life_time_size} are about. Leave these two out, or choose another "
                "init_method."
            )
        expected = self._settings.k, self._rows.features
        if start is not None and start.centers.shape != expected:
            raise DataError(
                f"expected a model of {expected[0]} clusters and {expected[1]} columns to start from, found one of "
                f"{start.clusters} and {start.features}"
            )
        if self._count < self._settings.k:
            raise DataError(
                f"k={self._settings.k} clusters were asked for, but there are only {self._count} rows of training data",
                hint="Lower k or provide more rows.",
            )
        if self._held < self._settings.k:
            raise DataError(
                f"k={self._settings.k} clusters were asked for, but memory holds only {self._held} of the "
                f"{self._count} rows",
                hint="Lower k or give the job more memory.",
            )

    def _converted(self, start: KMeansModel) -> KMeansModel:
        """Return ``start`` with the metric of this fit."""
        try:
            return KMeansModel(start.centers, start.counts, distance_metric=self._metric.name)
        except DataError as error:
            raise DataError(
                f"center {error.row} of the model to start from has only zeros, and no direction for the "
                f"{self._metric.name} distance"
            ) from None

    def _share(self, rows: int) -> int:
        """Return how many rows of this host's order stand for so many ``rows`` of all hosts; of one order, as many."""
        return math.ceil(rows * self._in_memory.ordered / self._held)

    def _two_level_centers(self) -> Float32:
        self._callbacks.hierarchy_started(clusters=self._settings.k)
        return two_level_centers(
            self._in_memory,
            self._settings.k,
            total=self._held,
            random_streams=self._random_streams,
            pool=self._pool,
            hosts=self._hosts,
        )

    def _first_centers(self, method: Method) -> Float32:
        """Draw K centers from the first mini-batches: from one, or from as many as hold K rows."""
        settings, held = self._settings, self._in_memory
        batches = math.ceil(settings.k * settings.factor() / held.mini_batch_size)
        drawn = held.order(epoch=0)[: self._share(batches * held.mini_batch_size)]
        total = int(self._hosts.total(len(held.own(drawn))))
        factor = min(settings.factor(), total // settings.k)
        self._callbacks.seeded(
            centers=settings.k * factor,
            clusters=settings.k,
            factor=factor,
            auto=settings.extra_center_factor is None,
            rows=total,
        )
        first, generator = held.gather(drawn, self._hosts), self._random_streams.next()
        weights = held.gather_weights(drawn, self._hosts)
        if self._hosts.rank == 0:
            first = seed_centers(first, settings.k * factor, method, generator, weights)
        return self._hosts.broadcast(first)

    def _batches(self, needed: int | None, epoch: int) -> Iterator[Batch]:
        if needed is None:
            return self._weighted(self._rows.weighted_batches(epoch))
        return self._in_memory.weighted_batches(epoch, self._share(needed))

    def _weighted(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Yield ``batches``, with weights of 1 where rows of other hosts have weights."""
        for batch in batches:
            is_missing = self._is_weighted and batch.weights is None
            yield Batch(batch.points, np.ones(len(batch.points))) if is_missing else batch

    def _stream(self, first: Float32, counts: Int64 | None = None) -> tuple[MiniBatchCenters, bool]:
        """Run phase 1; return also whether a stop ended it."""
        settings = self._settings
        streaming = MiniBatchCenters(first, settings.half_life_time_size, self._pool, self._metric)
        if counts is not None:
            streaming.weights += counts
        needed = settings.rows_to_stream(len(first))
        interrupted = stream(
            partial(self._batches, needed),
            streaming,
            epochs=settings.epochs,
            rows=self._count if needed is None else min(needed, self._held),
            random_streams=self._random_streams,
            pool=self._pool,
            hosts=self._hosts,
            callbacks=self._callbacks,
            checkpoints=self._checkpoints,
            is_weighted=self._is_weighted,
        )
        return streaming, interrupted

    def _shrink(self, streamed: MiniBatchCenters) -> Shrunk:
        """Run phase 2 on the leader."""
        generator, loss, sets = self._random_streams.next(), 0.0, [np.empty((0, self._rows.features), dtype=np.float32)]
        if self._hosts.rank == 0:
            shrunk = shrink(
                streamed.centers,
                streamed.weights,
                self._settings,
                generator=generator,
                pool=self._pool,
                callbacks=self._callbacks,
            )
            sets = [shrunk.centers, *shrunk.others[: self._settings.other_starts()]]
            loss = math.nan if shrunk.mean_squared_distance is None else shrunk.mean_squared_distance
        stacked = self._hosts.broadcast(np.concatenate(sets))
        loss = self._hosts.total(loss)
        best, *others = np.split(stacked, len(stacked) // self._settings.k)
        return Shrunk(best, others, None if math.isnan(loss) else loss)

    def _refine(self, shrunk: Shrunk) -> tuple[Refined, ClusterSums | None]:
        """Run phase 3: on the rows in memory first, and if these aren't all, on all."""
        settings, max_iter = self._settings, self._settings.refinements()
        self._callbacks.refine_started(at_most=max_iter)
        if max_iter == 0:
            return Refined(shrunk.centers, moves=0), None
        if self._found is not None and self._found.phase == ALL_ROWS:
            self._random_streams.made = self._found.numbers["draws"]
            return self._refine_on_all(shrunk.centers, self._found.numbers["moves"], self._found.numbers["before"])
        compared = Comparisons()
        starts = [shrunk.centers, *shrunk.others]
        search = TableSearch(self._in_memory, settings.k, self._held, pool=self._pool, hosts=self._hosts)
        # A model to start from, and a sample, are the user's choice of where to refine and on what.
        is_sample = (settings.refine_sample_size or self._held) < self._held
        searches = search.is_affordable and not self._is_warm and not is_sample
        if searches and (self._found is None or self._found.phase != REFINE):
            starts = [search.improve(shrunk.centers, self._random_streams)]
        refined = refine(
            self._in_memory,
            starts,
            # What was searched on all rows would only get worse on a sample.
            is_nested=not searches,
            max_rows=settings.refine_sample_size or self._held,
            max_iter=max_iter,
            tol=settings.local_lloyd_tol,
            random_streams=self._random_streams,
            pool=self._pool,
            hosts=self._hosts,
            on_pass=self._report_pass,
            checkpoints=_Labelled(self._checkpoints, self._streamed),
            comparisons=compared,
        )
        self._callbacks.refined(
            with_all=compared.with_all, with_nearby=compared.with_nearby, clusters=len(refined.centers)
        )
        if refined.interrupted or settings.refine_sample_size is not None or self._held == self._count:
            return refined, None
        return self._refine_on_all(refined.centers)

    def _refine_on_all(
        self, centers: Float32, moves: int = 0, before: float = math.inf
    ) -> tuple[Refined, ClusterSums | None]:
        """Run Lloyd's iterations over rows that memory doesn't hold; go on after so many ``moves``."""
        checkpoints = _Labelled(self._checkpoints, self._streamed)

        def moved(new_centers: Float32, count: int, inertia: float) -> None:
            nonlocal centers, moves
            centers, moves = new_centers, count
            numbers = {"moves": count, "before": inertia, "draws": self._random_streams.made}
            checkpoints.offer(lambda: State(ALL_ROWS, numbers, {"centers": new_centers}))

        try:
            settled = lloyd(
                self.one_pass,
                centers,
                max_iter=self._settings.refinements(),
                tol=self._settings.local_lloyd_tol,
                reseed=self._reseed,
                on_pass=self._report_pass,
                on_move=moved,
                moves=moves,
                before=before,
                metric=self._metric,
            )
        except Interrupted:
            return Refined(centers, moves, interrupted=True), None
        return Refined(settled.centers, settled.moves), settled.sums

    def _reseed(self, nearest: NearestCenters, count: int) -> Float32:
        """Draw new centers from the rows in memory of all hosts."""
        held = self._in_memory
        drawn, generator = held.order(epoch=0)[: self._share(RESEED_ROWS)], self._random_streams.next()
        sample, weights = held.gather(drawn, self._hosts), held.gather_weights(drawn, self._hosts)
        if self._hosts.rank == 0:
            squared = nearest.query(sample)[1]
            distances = squared if weights is None else weights * squared
            sample = draw_far_points(sample, distances, count, generator)
        return self._hosts.broadcast(sample)

    def _report_pass(self, done: int, sums: ClusterSums) -> None:
        self._callbacks.refine_pass(
            done=done,
            rows=int(sums.rows.sum()),
            mean_squared_distance=self._metric.reported_loss(sums.mean_squared_distance),
            empty_clusters=int((sums.weights == 0).sum()),
        )


def _prepared(rows: Rows, metric: Metric, hosts: Collectives) -> Rows:
    """Return ``rows`` as ``metric`` prepares them; fail on all ``hosts`` if it refuses rows of one."""
    if not metric.normalizes:
        return rows
    refusal: DataError | None = None
    try:
        rows = rows.prepared(metric)
    except DataError as error:
        refusal = error
    if hosts.any(refusal is not None):
        raise refusal or DataError(f"another host has rows without a {metric.name} distance")
    return rows
