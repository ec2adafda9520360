"""Phase 3 on the rows in memory: Lloyd's iterations on a growing sample.

Lloyd's algorithm gains most on a small sample, at a fraction of the cost, and each larger sample starts from centers
that have nearly converged. (J. Newling and F. Fleuret, "Nested mini-batch k-means", NIPS 2016, introduce nested
samples.) With each move some centers are relocated (:mod:`kmeans.relocation`), for as long as that lowers the loss.

Labels are approximate (:mod:`kmeans.assignments`): points are compared with nearby centers only, while that finds
nearly all labels. This is estimated from some points, which are compared with all centers.

If several hosts divide rows that all of them read, each sample is one of all rows, and each host uses its local rows.
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

# Rows per cluster of the first sample, and its minimum number of rows. With many clusters a pass over it is costly, and
# fewer rows per cluster are enough: from MANY_CLUSTERS on the number decreases, to FEWEST_ROWS.
ROWS_PER_CLUSTER, MIN_ROWS = 50, 5000
MANY_CLUSTERS, FEWEST_ROWS = 200, 4

# Maximum number of moves on a sample, and the gain, as a fraction of the inertia, at which they end. It is larger where
# clusters have so few rows that their means are inaccurate.
SAMPLE_MOVES, SAMPLE_TOL = 10, 1e-3

# A mean of r rows has an error that costs 1/r of the loss. On all rows moves end at this fraction of that, where a pass
# has many multiplications: one with COSTLY of them must gain COSTLY_TOL times ``tol``, one with a tenth a tenth.
ERROR_FRACTION, COSTLY, COSTLY_TOL = 0.15, 1e11, 10.0

# An exact pass follows when it would gain at least this fraction of what the last move gained.
EXCESS_PAYS = 0.5

# Relocations end on a sample when no more than this fraction of the centers was relocated.
LITTLE_RELOCATION = 0.01

# Number of rows from which the gain of exact labels is estimated.
TRUST_ROWS = 2_000

# Number of rows from which an empty cluster is reseeded.
RESEED_ROWS = 20_000


class Refined(NamedTuple):
    """Centers, float32 (k, d), number of moves, and whether a stop ended the phase.

    The moves are those on the whole sample.
    """

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
    """Return the centers to which Lloyd's iterations over ``rows`` converge.

    Parameters
    ----------
    starts
        One or several sets of centers (k, d) to begin with; the best one on the first sample is used.
    max_rows
        Number of rows, of all hosts and drawn at random, to use at most.
    max_iter
        Maximum number of moves on the whole sample, at least 1; moves on smaller samples don't count.
    tol
        The iterations end when a move gains no more than this fraction of the inertia.
    is_nested
        Whether a sample grows to all rows; else it has all rows from the start.
    on_pass
        Called after each pass over the whole sample with the number of moves so far and the sums.
    checkpoints
        Provide a state of this phase to continue from, and receive one after each sample and each move.
    comparisons
        Counts the comparisons of rows with centers.
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
    """One run of phase 3: its assignments and its progress."""

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
        self._is_converged = False
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
                self._assignments.add_points(self._samples.grow_to(number))
                if number < self._samples.count - 1:
                    self._converge_on_sample()
                else:  # all rows may include rare ones that are far from all centers
                    self._relocates = True
                self._checkpoints.offer(self._state)
            self._converge()
        except Interrupted:
            return Refined(self._assignments.centers, self._moves, interrupted=True)
        return Refined(self._assignments.centers, self._moves)

    def _state(self) -> State:
        numbers = {
            "sample": self._sample,
            "moves": self._moves,
            "settled": self._is_converged,
            "relocates": self._relocates,
            "everywhere": self._everywhere,
            "draws": self._random_streams.made,
        }
        return State(PHASE, numbers, {"centers": self._assignments.centers}, self._assignments.per_host_state())

    def _restore(self, found: State) -> None:
        self._moves, self._random_streams.made = found.numbers["moves"], found.numbers["draws"]
        # A machine with less memory may have fewer samples.
        self._sample = min(found.numbers["sample"], self._samples.count - 1)
        self._everywhere = found.numbers["everywhere"]
        rows = self._samples.grow_to(self._sample)
        if found.per_host:
            self._assignments.restore(np.sort(rows), found.per_host)
            self._is_converged = found.numbers["settled"]
            self._relocates = found.numbers["relocates"]
        else:
            # The rows may differ from those of the checkpoint, so the centers must converge again.
            self._assignments.add_points(rows)

    def _begin(self, starts: Sequence[Float32]) -> None:
        """Begin with the best start on the first sample."""
        first = self._samples.grow_to(0)
        partitions = [self._assignments, *(self._samples.assignments(start, self._pool) for start in starts[1:])]
        self._relocates = len(starts) == 1
        for assignments in partitions:
            self._assignments = assignments
            assignments.add_points(first)
            if len(starts) > 1 or self._samples.count > 1:
                self._converge_on_sample()
        self._assignments = min(partitions, key=lambda assignments: assignments.sums.inertia)
        self._relocates = True

    def _converge_on_sample(self) -> None:
        """Move the centers until a move gains little on this sample."""
        tol = max(self._tol, SAMPLE_TOL, ERROR_FRACTION * self._clusters / self._samples.size)
        for _ in range(SAMPLE_MOVES):
            if self._move() <= tol:
                return

    def _converge(self) -> None:
        """Move the centers until a move gains little on the last sample.

        Exact labels would gain little then, too.
        """
        tol = self._tol * self._tol_factor()
        while True:
            while self._moves < self._max_iter and not self._is_converged:
                self._is_converged = self._move() <= tol
                self._moves += 1
                self._on_pass(self._moves, self._assignments.sums)
                self._checkpoints.offer(self._state)
            if self._moves >= self._max_iter or self._excess() <= tol:
                return
            self._assignments.reassign()
            self._is_converged = False

    def _tol_factor(self) -> float:
        """Return the multiple of ``tol`` that a pass over all rows must gain."""
        rows, features = self._samples.size, self._samples.rows.features
        by_error = ERROR_FRACTION * self._clusters / rows / max(self._tol, 1e-12)
        by_cost = COSTLY_TOL * rows * self._clusters * features / COSTLY
        return float(max(1.0, min(by_error, by_cost)))

    def _move(self) -> float:
        """Move the centers to the means of their points, and update the labels.

        Some centers are relocated instead.
        Return the gain as a fraction of the inertia; infinity if the move was undone.
        """
        assignments, centers, inertia = self._assignments, self._assignments.centers, self._assignments.sums.inertia
        means, jumped = self._means()
        assignments.follow(means, jumped, everywhere=self._everywhere)
        if len(jumped) and assignments.sums.inertia > inertia:
            # The gains of relocations were estimated from some of the rows, and for one relocation at a time.
            self._relocates = False
            assignments.follow(centers, jumped, everywhere=True)
            return math.inf
        gain = 1 - assignments.sums.inertia / inertia if inertia else 0.0
        # An exact pass takes a few times as long as one with nearby centers, and gains a few times the excess.
        self._everywhere = not assignments.compares_all and self._excess() >= EXCESS_PAYS * gain
        return gain

    def _means(self) -> tuple[Float32, Int64]:
        """Return the new centers, and the numbers of those that aren't means.

        These are relocated or reseeded.
        """
        assignments, samples = self._assignments, self._samples
        centers = assignments.centers.astype(np.float64)
        metric = samples.rows.metric
        means = metric.normalize_centers(assignments.sums.means(otherwise=centers), centers).astype(np.float32)
        jumped = np.empty(0, dtype=np.int64)
        if self._relocates:
            means, jumped = relocate(
                assignments, means, samples.rows, self._random_streams.next(), pool=self._pool, hosts=self._hosts
            )
            # Each relocation has two numbers. A few relocations gain less than the search for them costs.
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
        """Return the fraction of the loss that exact labels would save.

        It is estimated from a sample.
        """
        rows = np.sort(self._samples.rows.own(self._samples.draw(TRUST_ROWS, self._random_streams.next())))
        return self._assignments.excess(np.searchsorted(self._assignments.members, rows))


class _Samples:
    """Nested samples of all hosts' ``rows``: each contains the one before.

    Before :meth:`grow_to` there is no sample.
    Hosts with separate orders contribute in proportion to their rows.

    Attributes
    ----------
    count
        Number of samples.
    size
        Number of rows of the current sample, on all hosts.
    """

    def __init__(self, rows: MemoryRows, sizes: list[int], hosts: Collectives, comparisons: Comparisons) -> None:
        self.rows, self.hosts = rows, hosts
        self._comparisons = comparisons
        self._total = int(hosts.total(len(rows)))
        self._sizes = [*(size for size in sizes[:-1] if size < self._total), min(sizes[-1], self._total)]
        self._ends = [self._local_count(size) for size in self._sizes]
        self._end = self.size = 0
        self.count = len(self._sizes)

    def assignments(self, centers: Float32, pool: ThreadPool) -> Assignments:
        """Return assignments to these centers, without rows."""
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
        """Make the sample of this number, from 0, current; return its new local rows.

        These are positions in memory.
        """
        first, self._end = self._end, self._ends[number]
        self.size = self._sizes[number]
        return self.rows.own(self.rows.order(epoch=0)[first : self._end])

    def draw(self, at_most: int, generator: Generator) -> Int64:
        """Draw the numbers of ``at_most`` rows of all hosts from the sample.

        Hosts with separate orders draw in proportion to their rows.
        """
        drawn = generator.choice(self._end, min(self._local_count(at_most), self._end), replace=False)
        if self._end == self.rows.ordered:
            return drawn
        members: Int64 = np.sort(self.rows.order(epoch=0)[: self._end])[drawn]
        return members

    def _local_count(self, size: int) -> int:
        return round(size * self.rows.ordered / self._total)


def _sizes(clusters: int, rows: int) -> list[int]:
    """Return the sizes of nested samples; the last one has ``rows`` rows."""
    per_cluster = max(FEWEST_ROWS, min(ROWS_PER_CLUSTER, ROWS_PER_CLUSTER * MANY_CLUSTERS // clusters))
    sizes = [max(MIN_ROWS, per_cluster * clusters)]
    while sizes[-1] < rows:
        sizes.append(2 * sizes[-1])
    return [*sizes[:-1], rows]
