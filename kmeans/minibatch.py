"""Phase 1: mini-batches onto K centers, each with a separate learning rate.

A batch moves center j from c_j to (1 - p_j) c_j + p_j m_j, where m_j is the mean of the n_j rows nearest to it and
p_j = n_j / (N_j + n_j) with N_j the rows it had before. This is D. Sculley, "Web-scale k-means clustering" (WWW 2010),
a whole batch at a time, as the SageMaker developer guide describes its k-means.

With a half life h, N_j is halved for every h rows, so that the weight of old rows decays.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import islice

import numpy as np

from kmeans.arrays import Batch, Float32, Float64
from kmeans.callbacks import Callbacks
from kmeans.checkpoint import Checkpoints, State
from kmeans.collectives import Collectives
from kmeans.distance import NearestCenters
from kmeans.metric import EUCLIDEAN, Metric
from kmeans.random_streams import RandomStreams
from kmeans.sums import ClusterSums, assign_and_sum, sums_of_all_hosts
from kmeans.threads import Interrupted, ThreadPool

# The name of this phase in checkpoints.
PHASE = "stream"


class MiniBatchCenters:
    """K centers that are updated by mini-batches.

    Parameters
    ----------
    centers
        First centers, (K, d).
    half_life
        Number of later rows after which the weight of a row is halved; 0 for never.
    metric
        Normalizes the centers after each move.

    Attributes
    ----------
    centers
        float64 (K, d).
    weights
        Number of rows (or sum of their weights) of each center, with the decay, float64 (K,).
    """

    def __init__(
        self, centers: Float32, half_life: int = 0, pool: ThreadPool | None = None, metric: Metric = EUCLIDEAN
    ) -> None:
        self.centers: Float64 = centers.astype(np.float64)
        self.weights: Float64 = np.zeros(len(centers))
        self._half_life = half_life
        self._pool = pool
        self.metric = metric

    def update(self, batch: Float32, weights: Float64 | None = None) -> float:
        """Move the centers by ``batch`` (b, d); return its mean squared distance.

        The distance is that to the previous centers.
        """
        batch_sums = self.sums_of(batch, weights)
        self.move(batch_sums)
        return batch_sums.mean_squared_distance

    def sums_of(self, batch: Float32, weights: Float64 | None = None) -> ClusterSums:
        """Return the sums of ``batch`` (b, d) by nearest center, with ``weights`` (b,).

        The first centers are rows, and equal distances are common between rows of whole numbers. Near ties are decided
        in float64: otherwise a batch might move other centers on one host than on two that divide it.
        """
        return assign_and_sum(batch, NearestCenters(self.centers), weights, self._pool, exact=True)

    def move(self, batch_sums: ClusterSums) -> None:
        """Move the centers by a batch with these sums."""
        if self._half_life:
            self.weights *= 0.5 ** (batch_sums.weights.sum() / self._half_life)
        self.weights += batch_sums.weights
        hit = batch_sums.weights > 0
        rates = batch_sums.weights[hit] / self.weights[hit]
        means = batch_sums.sums[hit] / batch_sums.weights[hit, None]
        before = self.centers[hit]
        self.centers[hit] = self.metric.normalize_centers(before + rates[:, None] * (means - before), before)


def stream(
    batches: Callable[[int], Iterator[Batch]],
    streaming: MiniBatchCenters,
    *,
    epochs: int,
    rows: int,
    random_streams: RandomStreams,
    pool: ThreadPool,
    hosts: Collectives,
    callbacks: Callbacks,
    checkpoints: Checkpoints,
    is_weighted: bool = False,
) -> bool:
    """Run phase 1; return True if a stop ended it early.

    The centers are updated by all mini-batches of all hosts.

    Parameters
    ----------
    batches
        Returns this host's mini-batches of an epoch, the same ones each time.
    rows
        Number of rows of an epoch, on all hosts; for the callbacks.
    checkpoints
        Provide a state of this phase to continue from, and receive one after each mini-batch.
    is_weighted
        Whether the mini-batches of all hosts have weights, or none.
    """
    epoch = seen = done = 0
    found = checkpoints.found()
    if found is not None and found.phase == PHASE:
        streaming.centers, streaming.weights = found.arrays["centers"].copy(), found.arrays["weights"].copy()
        epoch, seen, done, random_streams.made = (found.numbers[name] for name in ("epoch", "seen", "batches", "draws"))

    def state() -> State:
        numbers = {"epoch": epoch, "seen": seen, "batches": done, "draws": random_streams.made}
        return State(PHASE, numbers, {"centers": streaming.centers.copy(), "weights": streaming.weights.copy()})

    callbacks.stream_started()
    while epoch < epochs:
        started = time.perf_counter()
        try:
            mini_batches = islice(batches(epoch), done, None)
            for sums in _steps(streaming, mini_batches, pool, hosts, is_weighted=is_weighted):
                streaming.move(sums)
                seen += int(sums.rows.sum())
                done += 1
                callbacks.batch_done(
                    epoch=epoch,
                    epochs=epochs,
                    rows_seen=seen,
                    rows=rows,
                    mean_squared_distance=streaming.metric.reported_loss(sums.mean_squared_distance),
                )
                checkpoints.offer(state)
        except Interrupted:
            return True
        callbacks.epoch_done(epoch=epoch, epochs=epochs, rows=seen, batches=done, seconds=time.perf_counter() - started)
        epoch, seen, done = epoch + 1, 0, 0
    return False


def _steps(
    streaming: MiniBatchCenters, batches: Iterator[Batch], pool: ThreadPool, hosts: Collectives, *, is_weighted: bool
) -> Iterator[ClusterSums]:
    """Yield the sums of a mini-batch of each host, until no host has one left."""
    clusters, features = streaming.centers.shape
    nothing = Batch(np.empty((0, features), dtype=np.float32), np.empty(0) if is_weighted else None)
    no_sums = ClusterSums.zero(clusters, features, is_weighted=is_weighted)
    while True:
        sums = sums_of_all_hosts(lambda: streaming.sums_of(*next(batches, nothing)), no_sums, pool, hosts)
        if not sums.weights.any():
            return
        yield sums
