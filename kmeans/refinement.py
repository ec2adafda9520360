"""Phase 3 on the rows in memory: Lloyd's iterations on a sample that doubles until it is all of them.

Most of what Lloyd's algorithm gains it gains on a small sample, at a fraction of the cost; each doubling starts from
nearly settled centers. (J. Newling and F. Fleuret, "Nested mini-batch k-means", NIPS 2016, have the idea of nesting.)
With each move some centers are relocated (:mod:`kmeans.relocation`), for as long as that lowers the loss.

The points follow their centers approximately (:mod:`kmeans.assignments`): while that finds nearly all labels, they are
compared with nearby centers only. A sample of them, compared with all centers, tells.

Of rows that were dealt out to several hosts each sample is one of all rows, and each host has its own of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from kmeans.arrays import Float32, Int64
from kmeans.assignments import Assignments, Comparisons
from kmeans.checkpoint import Checkpoints, State
from kmeans.collectives import Collectives, SingleHost
from kmeans.dataset import MemoryRows
from kmeans.distance import NearestCenters
from kmeans.lloyd import OnPass
from kmeans.random_streams import RandomStreams
from kmeans.relocation import relocate
from kmeans.seeding import draw_far_points
from kmeans.sums import ClusterSums
from kmeans.threads import Interrupted, ThreadPool

# The name of this phase in checkpoints.
PHASE = "refine"

# Rows per cluster of the first sample, and rows at least. With many clusters a pass over it is costly, and fewer rows
# per cluster are enough to begin with: from MANY_CLUSTERS on the number falls, to FEWEST_ROWS.
ROWS_PER_CLUSTER, MIN_ROWS = 50, 5000
MANY_CLUSTERS, FEWEST_ROWS = 200, 4

# Moves on a sample, at most, until one gains no more than a fraction of the inertia: SAMPLE_TOL, and more where
# clusters have so few rows that their means say little about the other rows.
SAMPLE_MOVES, SAMPLE_TOL = 10, 1e-3

# A mean of r rows has an error that costs 1/r of the loss. On all rows moves go on to this fraction of that, where a
# pass has many multiplications: one with COSTLY of them must gain COSTLY_TOL times ``tol``, one with a tenth a tenth.
ERROR_FRACTION, COSTLY, COSTLY_TOL = 0.15, 1e11, 10.0

# An exact pass follows when it would gain at least this fraction of what the last move gained.
EXCESS_PAYS = 0.5

# Relocations end on a sample when no more than this fraction of the centers was relocated.
LITTLE_RELOCATION = 0.01

# Rows from which the gain of exact labels is estimated.
TRUST_ROWS = 2_000

# Rows from which an empty cluster is reseeded.
RESEED_ROWS = 20_000


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
    random_streams: RandomStreams,
    pool: ThreadPool,
    is_nested: bool = True,
    hosts: Collectives | None = None,
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
    is_nested
        Whether a sample grows to all rows; else it is all rows from the start.
    on_pass
        Called after each pass over the whole sample with the number of moves so far and the sums.
    checkpoints
        Asked for a state of this phase to go on from, and offered one after each sample and each move.
    comparisons
        Where it is counted how often a row was compared with centers.
    """
    job = _Refinement(
        samples=_Samples(
            rows,
            _sizes(len(starts[0]), max_rows) if is_nested else [max_rows],
            hosts or SingleHost(),
            comparisons or Comparisons(),
        ),
        clusters=len(starts[0]),
        max_iter=max_iter,
        tol=tol,
        random_streams=random_streams,
        pool=pool,
        hosts=hosts or SingleHost(),
        on_pass=on_pass or _ignore_pass,
        checkpoints=checkpoints or Checkpoints(),
    )
    return job.run(starts)


def _ignore_pass(_moves: int, _sums: ClusterSums) -> None:
    """Do nothing."""


class _Refinement:
    """One refinement: its partition, and where it is."""

    def __init__(
        self,
        *,
        samples: _Samples,
        clusters: int,
        max_iter: int,
        tol: float,
        random_streams: RandomStreams,
        pool: ThreadPool,
        hosts: Collectives,
        on_pass: OnPass,
        checkpoints: Checkpoints,
    ) -> None:
        self._samples = samples
        self._clusters = clusters
        self._max_iter = max_iter
        self._tol = tol
        self._random_streams = random_streams
        self._pool = pool
        self._hosts = hosts
        self._on_pass = on_pass
        self._checkpoints = checkpoints
        self._sample = self._moves = 0
        self._is_settled = False
        # Whether relocations may still lower the loss of this sample, and whether nearby centers are not enough.
        self._relocates, self._everywhere = True, False

    def run(self, starts: Sequence[Float32]) -> Refined:
        """Run all samples; see :func:`refine`."""
        found = self._checkpoints.found()
        if found is not None and found.phase == PHASE:
            self._assignments = self._samples.assignments(found.arrays["centers"], self._pool)
        else:
            found = None
            self._assignments = self._samples.assignments(starts[0], self._pool)
        try:
            if found is not None:
                self._restore(found)
            else:
                self._begin(starts)
                self._checkpoints.offer(self._state)
            for number in range(self._sample + 1, self._samples.count):
                self._sample = number
                self._assignments.take_in(self._samples.grow_to(number))
                if number < self._samples.count - 1:
                    self._settle_sample()
                else:  # which may have rows that are rare, and far from all centers
                    self._relocates = True
                self._checkpoints.offer(self._state)
            self._settle()
        except Interrupted:
            return Refined(self._assignments.centers, self._moves, interrupted=True)
        return Refined(self._assignments.centers, self._moves)

    def _state(self) -> State:
        numbers = {
            "sample": self._sample,
            "moves": self._moves,
            "settled": self._is_settled,
            "relocates": self._relocates,
            "everywhere": self._everywhere,
            "draws": self._random_streams.made,
        }
        return State(PHASE, numbers, {"centers": self._assignments.centers}, self._assignments.share())

    def _restore(self, found: State) -> None:
        self._moves, self._random_streams.made = found.numbers["moves"], found.numbers["draws"]
        # Of the rows that another machine's memory holds fewer samples may be made.
        self._sample = min(found.numbers["sample"], self._samples.count - 1)
        self._everywhere = found.numbers["everywhere"]
        rows = self._samples.grow_to(self._sample)
        if found.share:
            self._assignments.restore(np.sort(rows), found.share)
            self._is_settled = found.numbers["settled"]
            self._relocates = found.numbers["relocates"]
        else:
            # The rows may be others, and what was settled for those isn't for these.
            self._assignments.take_in(rows)

    def _begin(self, starts: Sequence[Float32]) -> None:
        """Begin with the start that does best on the first sample."""
        first = self._samples.grow_to(0)
        partitions = [self._assignments, *(self._samples.assignments(start, self._pool) for start in starts[1:])]
        self._relocates = len(starts) == 1
        for assignments in partitions:
            self._assignments = assignments
            assignments.take_in(first)
            if len(starts) > 1 or self._samples.count > 1:
                self._settle_sample()
        self._assignments = min(partitions, key=lambda assignments: assignments.sums.inertia)
        self._relocates = True

    def _settle_sample(self) -> None:
        """Move the centers until that gains little on this sample."""
        tol = max(self._tol, SAMPLE_TOL, ERROR_FRACTION * self._clusters / self._samples.size)
        for _ in range(SAMPLE_MOVES):
            if self._move() <= tol:
                return

    def _settle(self) -> None:
        """Move the centers until that gains little on all rows of the last sample, and their labels can be trusted."""
        tol = self._tol * self._patience()
        while True:
            while self._moves < self._max_iter and not self._is_settled:
                self._is_settled = self._move() <= tol
                self._moves += 1
                self._on_pass(self._moves, self._assignments.sums)
                self._checkpoints.offer(self._state)
            if self._moves >= self._max_iter or self._excess() <= tol:
                return
            self._assignments.reassign()
            self._is_settled = False

    def _patience(self) -> float:
        """Return how many times ``tol`` a pass over all rows must gain."""
        rows, features = self._samples.size, self._samples.rows.features
        by_error = ERROR_FRACTION * self._clusters / rows / max(self._tol, 1e-12)
        by_cost = COSTLY_TOL * rows * self._clusters * features / COSTLY
        return float(max(1.0, min(by_error, by_cost)))

    def _move(self) -> float:
        """Move the centers to their points' means, some to other places, and the points to their centers.

        Return the fraction of the inertia that this gained; infinity if it was undone.
        """
        assignments, centers, inertia = self._assignments, self._assignments.centers, self._assignments.sums.inertia
        means, jumped = self._means()
        assignments.follow(means, jumped, everywhere=self._everywhere)
        if len(jumped) and assignments.sums.inertia > inertia:
            # Relocations that were estimated from some of the rows, or that got in each other's way.
            self._relocates = False
            assignments.follow(centers, jumped, everywhere=True)
            return math.inf
        gain = 1 - assignments.sums.inertia / inertia if inertia else 0.0
        # An exact pass takes some times as long as one that compares nearby centers, and gains some times the excess.
        self._everywhere = not assignments.compares_all and self._excess() >= EXCESS_PAYS * gain
        return gain

    def _means(self) -> tuple[Float32, Int64]:
        """Return the centers to move to, and the numbers of those that jump: relocated ones, and empty ones."""
        assignments, samples = self._assignments, self._samples
        centers = assignments.centers.astype(np.float64)
        metric = samples.rows.metric
        means = metric.normalize_centers(assignments.sums.means(otherwise=centers), centers).astype(np.float32)
        jumped = np.empty(0, dtype=np.int64)
        if self._relocates:
            means, jumped = relocate(
                assignments, means, samples.rows, self._random_streams.next(), pool=self._pool, hosts=self._hosts
            )
            # Two numbers for each. A few among many gain less than it costs to look for them.
            self._relocates = len(jumped) > 2 * LITTLE_RELOCATION * self._clusters
            if len(jumped) and metric.normalizes:
                means = metric.normalize_centers(means.astype(np.float64), centers).astype(np.float32)
        empty = np.setdiff1d(np.flatnonzero(assignments.sums.weights == 0), jumped)
        if len(empty):
            far = self._far_points(np.delete(means, empty, axis=0), len(empty))
            means[empty[: len(far)]] = far
            jumped = np.union1d(jumped, empty[: len(far)])
        return means, jumped

    def _far_points(self, centers: Float32, count: int) -> Float32:
        """Draw at most ``count`` rows of the sample that are far from all ``centers``."""
        generator, rows = self._random_streams.next(), self._samples.rows
        numbers = self._samples.draw(RESEED_ROWS, generator)
        sample, weights = rows.gather(numbers, self._hosts), rows.gather_weights(numbers, self._hosts)
        if self._hosts.rank == 0:
            distances = NearestCenters(centers).query(sample)[1]
            potential = distances if weights is None else weights * distances
            sample = draw_far_points(sample, potential, count, generator)
        return self._hosts.broadcast(sample)

    def _excess(self) -> float:
        """Return the fraction of the loss that exact labels would save, by a sample."""
        rows = np.sort(self._samples.rows.own(self._samples.draw(TRUST_ROWS, self._random_streams.next())))
        return self._assignments.excess(np.searchsorted(self._assignments.members, rows))


class _Samples:
    """Samples of all hosts' ``rows``, each with all rows of the one before; at first none is there.

    The rows of hosts that have orders of their own are divided in the same proportions.

    Attributes
    ----------
    count
        How many samples there are.
    size
        Rows of this sample, on all hosts.
    """

    def __init__(self, rows: MemoryRows, sizes: list[int], hosts: Collectives, comparisons: Comparisons) -> None:
        self.rows, self.hosts = rows, hosts
        self._comparisons = comparisons
        self._total = int(hosts.total(len(rows)))
        self._sizes = [*(size for size in sizes[:-1] if size < self._total), min(sizes[-1], self._total)]
        self._ends = [self._share(size) for size in self._sizes]
        self._end = self.size = 0
        self.count = len(self._sizes)

    def assignments(self, centers: Float32, pool: ThreadPool) -> Assignments:
        """Return a partition by these centers that no row has been taken into."""
        return Assignments(
            self.rows.points,
            centers,
            pool,
            self.hosts,
            weights=self.rows.weights,
            as_one=self.rows.is_dealt,
            comparisons=self._comparisons,
        )

    def grow_to(self, number: int) -> Int64:
        """Become the sample of this number, from 0; return where in memory this host's rows are that are new in it."""
        first, self._end = self._end, self._ends[number]
        self.size = self._sizes[number]
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


def _sizes(clusters: int, rows: int) -> list[int]:
    """Return the sizes of nested samples, the last of which has this number of ``rows``."""
    per_cluster = max(FEWEST_ROWS, min(ROWS_PER_CLUSTER, ROWS_PER_CLUSTER * MANY_CLUSTERS // clusters))
    sizes = [max(MIN_ROWS, per_cluster * clusters)]
    while sizes[-1] < rows:
        sizes.append(2 * sizes[-1])
    return [*sizes[:-1], rows]
