"""Phase 3 on the rows in memory: Lloyd's iterations on a sample that doubles until it is all of them.

Most of what Lloyd's algorithm gains it gains on a small sample, at a fraction of the cost; each doubling starts from
nearly settled centers. (J. Newling and F. Fleuret, "Nested mini-batch k-means", NIPS 2016, have the idea of nesting.)
The points follow their centers approximately (:mod:`kmeans.partition`); a sample of them, compared with all centers,
tells whether that may be trusted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from kmeans.arrays import Float32
from kmeans.distance import NearestCenters
from kmeans.lloyd import OnPass
from kmeans.partition import Partition
from kmeans.rows import MemoryRows
from kmeans.seeding import draw_far_points
from kmeans.workers import Workers

# The first sample holds so many rows per cluster, and so many at least.
ROWS_PER_CLUSTER, MIN_ROWS = 50, 5000

# On a sample: at most so many moves, until one gains no more than this share.
SAMPLE_MOVES, SAMPLE_TOL = 10, 1e-3

# The end is where no more than this share of so many points turn out to be closer to another center than their own;
# else all are compared with all centers, and go on.
TRUSTED_SHARE, TRUST_ROWS = 0.01, 4_000

# Rows from which an empty cluster is reseeded.
RESEED_ROWS = 20_000

OnSample = Callable[[Partition], int]


class Refined(NamedTuple):
    """Centers, float32 (k, d), and how many times they were moved on the whole sample."""

    centers: Float32
    moves: int


def refine(
    rows: MemoryRows,
    starts: Sequence[Float32],
    *,
    max_rows: int,
    max_iter: int,
    tol: float,
    generator: Generator,
    workers: Workers,
    on_pass: OnPass | None = None,
) -> Refined:
    """Return where Lloyd's iterations over ``rows``, or ``max_rows`` of them drawn at random, settle.

    Parameters
    ----------
    starts
        One or several sets of centers (k, d) to begin with; the one that does best on the first sample is pursued.
    max_iter
        At most so many moves on the whole sample, at least 1; those on smaller ones, and those that try out starts, are
        not counted.
    tol
        Settled is what gains no more than this share of the inertia by a move.
    on_pass
        Called after each pass over the whole sample with the number of moves so far and the sums.
    """
    order = rows.order(epoch=0)[:max_rows]
    sizes = _sizes(len(starts[0]), len(order))
    on_sample = partial(_settle, max_moves=SAMPLE_MOVES, tol=max(tol, SAMPLE_TOL), generator=generator)
    begun = []
    for start in starts:
        partition = Partition(rows.points, start, workers)
        partition.take_in(order[: sizes[0]])
        if len(starts) > 1 or len(sizes) > 1:
            on_sample(partition)
        begun.append(partition)
    partition = min(begun, key=lambda partition: partition.sums.inertia)
    for before, size in pairwise(sizes):
        partition.take_in(order[before:size])
        if size < len(order):
            on_sample(partition)
    moves = 0

    def report(move: int) -> None:
        if on_pass is not None:
            on_pass(moves + move, partition.sums)

    while True:
        moves += _settle(partition, max_moves=max_iter - moves, tol=tol, generator=generator, on_move=report)
        if moves >= max_iter or _is_trusted(partition, generator):
            return Refined(partition.centers, moves)
        partition.reassign()


def _is_trusted(partition: Partition, generator: Generator) -> bool:
    members = len(partition.members)
    drawn = np.sort(generator.choice(members, min(TRUST_ROWS, members), replace=False))
    return partition.share_misplaced(drawn) <= TRUSTED_SHARE


def _sizes(clusters: int, rows: int) -> list[int]:
    sizes = [max(MIN_ROWS, ROWS_PER_CLUSTER * clusters)]
    while sizes[-1] < rows:
        sizes.append(2 * sizes[-1])
    return [*sizes[:-1], rows]


def _settle(
    partition: Partition,
    *,
    max_moves: int,
    tol: float,
    generator: Generator,
    on_move: Callable[[int], None] | None = None,
) -> int:
    """Move the centers to their points' means, and the points to their centers, until that gains little.

    Return the number of moves.
    """
    previous = np.inf
    for move in range(1, max_moves + 1):
        partition.follow(_means(partition, generator))
        if on_move is not None:
            on_move(move)
        inertia = partition.sums.inertia
        if np.isfinite(previous) and previous - inertia <= tol * previous:
            return move
        previous = inertia
    return max_moves


def _means(partition: Partition, generator: Generator) -> Float32:
    """Return the means of the clusters; an empty one starts again at a point far from all centers."""
    means = partition.sums.means(otherwise=partition.centers.astype(np.float64)).astype(np.float32)
    empty = np.flatnonzero(partition.sums.weights == 0)
    if len(empty):
        members = len(partition.members)
        sample = partition.points_of(generator.choice(members, min(RESEED_ROWS, members), replace=False))
        distances = NearestCenters(np.delete(means, empty, axis=0)).query(sample)[1]
        far = draw_far_points(sample, distances, len(empty), generator)
        means[empty[: len(far)]] = far
    return means
