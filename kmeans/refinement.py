"""Phase 3, for rows in memory: Lloyd's iterations on a sample that doubles until it is all rows.

Most of what Lloyd's algorithm gains it gains on a small sample, at a fraction of the cost; each doubling starts from
nearly settled centers. (J. Newling and F. Fleuret, "Nested mini-batch k-means", NIPS 2016, have the idea of nesting;
their bounds hardly prune in hundreds of dimensions and are not used.) With many clusters, passes look at nearby centers
only (:mod:`kmeans.partition`); an exact pass over all rows ends the phase and gives the figures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.random import Generator

from kmeans.arrays import Float32, Int64
from kmeans.distance import NearestCenters
from kmeans.lloyd import LloydResult, OnPass
from kmeans.partition import Partition
from kmeans.seeding import draw_far_points
from kmeans.workers import Workers

# The first sample holds so many rows per cluster, and so many at least.
ROWS_PER_CLUSTER, MIN_ROWS = 50, 5000

# On a sample: at most so many moves, until one gains no more than this share.
SAMPLE_MOVES, SAMPLE_TOL = 10, 1e-3

# Nearby passes are trusted if the exact one changes the labels of no more than this share of the rows.
TRUSTED_SHARE = 0.01

# Rows from which an empty cluster is reseeded.
RESEED_ROWS = 20_000

OnSample = Callable[[Partition, Float32], tuple[Float32, int]]


def refine(
    points: Float32,
    starts: Sequence[Float32],
    *,
    max_iter: int,
    tol: float,
    generator: Generator,
    workers: Workers,
    on_pass: OnPass | None = None,
) -> LloydResult:
    """Return where Lloyd's iterations over all ``points`` (n, d) settle.

    Parameters
    ----------
    starts
        One or several sets of centers (k, d) to begin with; the one that does best on the first sample is pursued.
    max_iter
        At most so many moves on all rows, at least 1; those on samples are not counted.
    tol
        Settled is what gains no more than this share of the inertia by a move.
    on_pass
        Called after each pass over all rows with the number of moves so far and the sums.
    """
    order = generator.permutation(len(points))
    sizes = _sizes(len(starts[0]), len(points))
    on_sample = partial(_settle, max_moves=SAMPLE_MOVES, tol=max(tol, SAMPLE_TOL), generator=generator)
    begun = [_begin(points, start, order[: sizes[0]], workers, on_sample) for start in starts]
    partition, centers = min(begun, key=lambda start: start[0].sums.inertia)
    for size in sizes[1:]:
        partition.take_in(order[:size], NearestCenters(centers))
        if size < len(points):
            centers, _ = on_sample(partition, centers)
    moves = 0

    def report(move: int) -> None:
        if on_pass is not None:
            on_pass(moves + move, partition.sums)

    while True:
        centers, done = _settle(
            partition, centers, max_moves=max_iter - moves, tol=tol, generator=generator, on_move=report
        )
        moves += done
        changed = 0.0 if partition.follows_exactly else partition.reassign(NearestCenters(centers))
        if moves >= max_iter or changed <= TRUSTED_SHARE:
            return LloydResult(centers, partition.sums, moves)


def _sizes(clusters: int, rows: int) -> list[int]:
    sizes = [max(MIN_ROWS, ROWS_PER_CLUSTER * clusters)]
    while sizes[-1] < rows:
        sizes.append(2 * sizes[-1])
    return [*sizes[:-1], rows]


def _begin(
    points: Float32, centers: Float32, rows: Int64, workers: Workers, on_sample: OnSample
) -> tuple[Partition, Float32]:
    """Return a partition of the first sample, settled, and its centers."""
    partition = Partition(points, len(centers), workers)
    partition.take_in(rows, NearestCenters(centers))
    centers, _ = on_sample(partition, centers)
    return partition, centers


def _settle(
    partition: Partition,
    centers: Float32,
    *,
    max_moves: int,
    tol: float,
    generator: Generator,
    on_move: Callable[[int], None] | None = None,
) -> tuple[Float32, int]:
    """Move the centers to their points' means, and the points to their centers, until that gains little.

    Return the centers and the number of moves.
    """
    previous = np.inf
    for move in range(1, max_moves + 1):
        centers = _moved(partition, centers, generator)
        partition.follow(NearestCenters(centers))
        if on_move is not None:
            on_move(move)
        inertia = partition.sums.inertia
        if np.isfinite(previous) and previous - inertia <= tol * previous:
            return centers, move
        previous = inertia
    return centers, max_moves


def _moved(partition: Partition, centers: Float32, generator: Generator) -> Float32:
    """Return the means of the clusters; an empty one starts again at a point far from all centers."""
    means = partition.sums.means(otherwise=centers.astype(np.float64)).astype(np.float32)
    empty = np.flatnonzero(partition.sums.weights == 0)
    if len(empty):
        count = min(RESEED_ROWS, len(partition.members))
        sample = partition.points_of(generator.choice(partition.members, count, replace=False))
        distances = NearestCenters(np.delete(means, empty, axis=0)).query(sample)[1]
        far = draw_far_points(sample, distances, len(empty), generator)
        means[empty[: len(far)]] = far
    return means
