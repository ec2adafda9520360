"""Phase 3 on the rows in memory: Lloyd's iterations on a sample that doubles until it is all of them.

Most of what Lloyd's algorithm gains it gains on a small sample, at a fraction of the cost; each doubling starts from
nearly settled centers. (J. Newling and F. Fleuret, "Nested mini-batch k-means", NIPS 2016, have the idea of nesting.)
The points follow their centers approximately (:mod:`kmeans.partition`); a sample of them, compared with all centers,
tells whether that may be trusted.

Of rows that were dealt out to several hosts each sample is one of all rows, and each host has its own of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from kmeans.arrays import Float32, Int64
from kmeans.checkpoint import Checkpoints, State
from kmeans.distance import NearestCenters
from kmeans.draws import Draws
from kmeans.hosts import Alone, Hosts
from kmeans.lloyd import OnPass
from kmeans.partition import Comparisons, Partition
from kmeans.rows import MemoryRows
from kmeans.seeding import draw_far_points
from kmeans.workers import Interrupted, Workers

# The name of this phase in checkpoints.
PHASE = "refine"

# The first sample holds so many rows per cluster, and so many at least.
ROWS_PER_CLUSTER, MIN_ROWS = 50, 5000

# On a sample: at most so many moves, until one gains no more than this share.
SAMPLE_MOVES, SAMPLE_TOL = 10, 1e-3

# The end is where no more than this share of so many points turn out to be closer to another center than their own;
# else all are compared with all centers, and go on.
TRUSTED_SHARE, TRUST_ROWS = 0.01, 4_000

# Rows from which an empty cluster is reseeded.
RESEED_ROWS = 20_000

OnSample = Callable[[Partition], None]


class Refined(NamedTuple):
    """Centers, float32 (k, d), how many times they were moved on the whole sample, and whether a stop ended it."""

    centers: Float32
    moves: int
    interrupted: bool = False


def refine(
    rows: MemoryRows,
    starts: Sequence[Float32],
    *,
    max_rows: int,
    max_iter: int,
    tol: float,
    draws: Draws,
    workers: Workers,
    hosts: Hosts | None = None,
    on_pass: OnPass | None = None,
    checkpoints: Checkpoints | None = None,
    comparisons: Comparisons | None = None,
) -> Refined:
    """Return where Lloyd's iterations over all hosts' ``rows``, or ``max_rows`` of them drawn at random, settle.

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
    checkpoints
        Asked for a state of this phase to go on from, and offered one after each sample and each move.
    comparisons
        Where it is counted how often a row was compared with centers.
    """
    hosts, checkpoints = hosts or Alone(), checkpoints or Checkpoints()
    samples = _Samples(rows, max_rows, len(starts[0]), hosts, comparisons or Comparisons())
    on_sample = partial(_settle, max_moves=SAMPLE_MOVES, tol=max(tol, SAMPLE_TOL), samples=samples, draws=draws)
    sample = moves = 0
    before, settled = math.inf, False

    def state() -> State:
        numbers = {"sample": sample, "moves": moves, "before": before, "settled": settled, "draws": draws.made}
        return State(PHASE, numbers, {"centers": partition.centers}, partition.share())

    found = checkpoints.found()
    is_begun = found is not None and found.phase == PHASE
    partition = samples.partition(found.arrays["centers"] if found and is_begun else starts[0], workers)
    try:
        if found is not None and is_begun:
            sample, moves, draws.made = (found.numbers[name] for name in ("sample", "moves", "draws"))
            # Of the rows that another machine's memory holds fewer samples may be made.
            sample = min(sample, samples.count - 1)
            before, settled = _restore(partition, samples.grow_to(sample), found)
        else:
            partition = _best_start(samples, starts, on_sample, workers=workers)
            checkpoints.offer(state)
        for number in range(sample + 1, samples.count):
            sample = number
            partition.take_in(samples.grow_to(sample))
            if sample < samples.count - 1:
                on_sample(partition)
            checkpoints.offer(state)
        while True:
            while moves < max_iter and not settled:
                partition.follow(_means(partition, samples, draws))
                moves += 1
                if on_pass is not None:
                    on_pass(moves, partition.sums)
                before, settled = partition.sums.inertia, _gained_little(before, partition.sums.inertia, tol)
                checkpoints.offer(state)
            if moves >= max_iter or _is_trusted(partition, samples, draws):
                return Refined(partition.centers, moves)
            partition.reassign()
            before, settled = math.inf, False
    except Interrupted:
        return Refined(partition.centers, moves, interrupted=True)


class _Samples:
    """Samples of all hosts' ``rows``, each with all rows of the one before; at first none is there.

    The rows of hosts that have orders of their own are divided in the same proportions.

    Attributes
    ----------
    count
        How many samples there are.
    """

    def __init__(self, rows: MemoryRows, max_rows: int, clusters: int, hosts: Hosts, comparisons: Comparisons) -> None:
        self.rows, self.hosts = rows, hosts
        self._comparisons = comparisons
        self._total = int(hosts.sum(np.array([float(len(rows))]))[0])
        sizes = _sizes(clusters, min(self._total, max_rows))
        self._ends = [self._share(size) for size in sizes]
        self._end = 0
        self.count = len(sizes)

    def partition(self, centers: Float32, workers: Workers) -> Partition:
        """Return a partition by these centers that no row has been taken into."""
        return Partition(
            self.rows.points, centers, workers, self.hosts, as_one=self.rows.is_dealt, comparisons=self._comparisons
        )

    def grow_to(self, number: int) -> Int64:
        """Become the sample of this number, from 0; return where in memory this host's rows are that are new in it."""
        first, self._end = self._end, self._ends[number]
        return self.rows.own(self.rows.order(epoch=0)[first : self._end])

    def draw(self, at_most: int, generator: Generator) -> Int64:
        """Draw the numbers of ``at_most`` rows of all hosts from the sample; of orders of their own, each its share."""
        drawn = generator.choice(self._end, min(self._share(at_most), self._end), replace=False)
        if self._end == self.rows.ordered:
            return drawn
        members: Int64 = np.sort(self.rows.order(epoch=0)[: self._end])[drawn]
        return members

    def _share(self, size: int) -> int:
        return round(size * self.rows.ordered / self._total)


def _best_start(samples: _Samples, starts: Sequence[Float32], on_sample: OnSample, *, workers: Workers) -> Partition:
    """Return a partition of the first sample by the start that does best on it."""
    begun, first = [], samples.grow_to(0)
    for start in starts:
        partition = samples.partition(start, workers)
        partition.take_in(first)
        if len(starts) > 1 or samples.count > 1:
            on_sample(partition)
        begun.append(partition)
    return min(begun, key=lambda partition: partition.sums.inertia)


def _restore(partition: Partition, rows: Int64, found: State) -> tuple[float, bool]:
    """Give ``partition`` its rows; return the inertia before the last move, and whether that settled it."""
    if found.share:
        partition.restore(np.sort(rows), found.share)
        return found.numbers["before"], found.numbers["settled"]
    # The rows may be others, and what was settled for those isn't for these.
    partition.take_in(rows)
    return math.inf, False


def _is_trusted(partition: Partition, samples: _Samples, draws: Draws) -> bool:
    rows = np.sort(samples.rows.own(samples.draw(TRUST_ROWS, draws.next())))
    return partition.share_misplaced(np.searchsorted(partition.members, rows)) <= TRUSTED_SHARE


def _sizes(clusters: int, rows: int) -> list[int]:
    sizes = [max(MIN_ROWS, ROWS_PER_CLUSTER * clusters)]
    while sizes[-1] < rows:
        sizes.append(2 * sizes[-1])
    return [*sizes[:-1], rows]


def _settle(partition: Partition, *, max_moves: int, tol: float, samples: _Samples, draws: Draws) -> None:
    """Move the centers to their points' means, and the points to their centers, until that gains little."""
    before = math.inf
    for _ in range(max_moves):
        partition.follow(_means(partition, samples, draws))
        if _gained_little(before, partition.sums.inertia, tol):
            return
        before = partition.sums.inertia


def _gained_little(before: float, inertia: float, tol: float) -> bool:
    return math.isfinite(before) and before - inertia <= tol * before


def _means(partition: Partition, samples: _Samples, draws: Draws) -> Float32:
    """Return the means of the clusters; an empty one starts again at a point far from all centers."""
    before = partition.centers.astype(np.float64)
    means = samples.rows.metric.normalize_centers(partition.sums.means(otherwise=before), before).astype(np.float32)
    empty = np.flatnonzero(partition.sums.weights == 0)
    if len(empty):
        generator, hosts = draws.next(), samples.hosts
        sample = samples.rows.gather(samples.draw(RESEED_ROWS, generator), hosts)
        if hosts.rank == 0:
            distances = NearestCenters(np.delete(means, empty, axis=0)).query(sample)[1]
            sample = draw_far_points(sample, distances, len(empty), generator)
        far = hosts.broadcast(sample)
        means[empty[: len(far)]] = far
    return means
