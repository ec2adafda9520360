"""What a fit costs on several hosts: the sum of what they divide, what each does alike, and what they tell each other.

    seconds = serial + streamed / hosts                 phases 1 and 2: on the leader, and on a fixed number of rows
            + (all x rows compared with all centers
               + nearby x rows compared with those around
               + count x rows) / hosts                  phase 3 and the count: work on rows
            + steps x step                              the same, whatever the number of rows
            + sum of exchange(message)                  of each step of phase 1 and of phase 3
            + per_byte x handed                         rows and centers that the leader gets and gives

    exchange(bytes) = latency x log2(hosts) + per_byte x bytes x 2 (hosts - 1) / hosts

How often rows are compared depends on how the centers go, and differs by a third between two seeds; a fit's log tells
it. The rates belong to a number of columns and of clusters and come from fits on one host (where hosts share a machine,
from as many of these at the same time); latency and per_byte come from sums over two hosts with nothing between them.
So no second of a fit on several hosts is in what is predicted of one.

The exchange is that of an allreduce that halves the message at each of log2(hosts) steps and puts it together again
(R. Thakur, R. Rabenseifner, W. Gropp, "Optimization of collective communication operations in MPICH", 2005).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import nnls

from kmeans.refinement import MIN_ROWS, ROWS_PER_CLUSTER
from kmeans.settings import Settings

MINI_BATCH = 5000
FLOAT64_BYTES, FLOAT32_BYTES = 8, 4

# Steps of phase 3 beside the moves on all rows, as fits of this benchmark's data take them: on the first sample, from
# each start, and on each later one.
FIRST_SAMPLE_STEPS, SAMPLE_STEPS = 7, 4

# Of the search for a number of rows.
MOST_ROWS, SEARCH_STEPS = 1e13, 60


@dataclass(frozen=True, slots=True)
class Shape:
    """Columns and clusters of a fit."""

    columns: int
    clusters: int


@dataclass(frozen=True, slots=True)
class Fit:
    """The size of a fit.

    Attributes
    ----------
    shape
        Columns and clusters.
    rows
        Of all hosts.
    hosts
        How many.
    moves
        How many times phase 3 moves the centers on all rows.
    with_all, with_nearby
        How many times it compares a row with all centers, and with those around its own.
    """

    shape: Shape
    rows: float
    hosts: int
    moves: float
    with_all: float
    with_nearby: float

    @property
    def steps(self) -> float:
        """Number of times that phase 3 and the count add up sums over the hosts."""
        clusters = self.shape.clusters
        first = max(MIN_ROWS, ROWS_PER_CLUSTER * clusters)
        later = max(0, math.ceil(math.log2(self.rows / first)))
        starts = 1 + Settings(k=clusters).other_starts()
        # A single sample with a single start is all rows: nothing is tried out.
        tried = starts * FIRST_SAMPLE_STEPS if later or starts > 1 else 1
        return tried + SAMPLE_STEPS * later + self.moves


@dataclass(frozen=True, slots=True)
class Rates:
    """Seconds that fits of one shape take of one CPU.

    Attributes
    ----------
    serial
        Of seeding and shrinking, which the leader does.
    streamed
        Of streaming, whose rows are as many for any data set.
    compare_all, compare_nearby
        Per comparison of a row in phase 3.
    count
        Per row, of the count.
    step
        Per step, whatever the rows.
    """

    serial: float
    streamed: float
    compare_all: float
    compare_nearby: float
    count: float
    step: float


@dataclass(frozen=True, slots=True)
class Effort:
    """How often fits of one shape compare a row, with all centers and with those around: once, and for each move."""

    all_once: float
    all_each: float
    nearby_once: float
    nearby_each: float

    def fit(self, shape: Shape, rows: float, hosts: int, moves: float) -> Fit:
        """Return a fit that takes this effort."""
        with_all, with_nearby = self.all_once + self.all_each * moves, self.nearby_once + self.nearby_each * moves
        return Fit(shape, rows, hosts, moves, rows * with_all, rows * with_nearby)


@dataclass(frozen=True, slots=True)
class Network:
    """What a sum over two hosts costs.

    Attributes
    ----------
    latency
        Seconds, whatever the message.
    per_byte
        Seconds.
    """

    latency: float
    per_byte: float

    def exchange(self, hosts: int, numbers: int) -> float:
        """Return the seconds that ``hosts`` take to add up a message of so many float64 ``numbers``."""
        share = 2 * (hosts - 1) / hosts
        return self.latency * math.log2(hosts) + self.per_byte * FLOAT64_BYTES * numbers * share


@dataclass(frozen=True, slots=True)
class Measured:
    """A fit that was measured: seconds of its phases, by name."""

    fit: Fit
    phases: Mapping[str, float]

    @property
    def seconds(self) -> float:
        """Of all phases between reading and writing."""
        return sum(self.phases.get(name, 0.0) for name in ("seed", "stream", "shrink", "refine", "count"))


def message(centers: int, columns: int) -> int:
    """Return how many numbers a pass exchanges: sums and weights of the ``centers``, inertia, and whether to stop."""
    return centers * (columns + 1) + 2


def predict(fit: Fit, rates: Rates, network: Network) -> float:
    """Return the seconds of a fit."""
    divided = (
        rates.streamed
        + rates.compare_all * fit.with_all
        + rates.compare_nearby * fit.with_nearby
        + rates.count * fit.rows
    )
    return rates.serial + divided / fit.hosts + fit.steps * rates.step + _messages(fit, network)


def _messages(fit: Fit, network: Network) -> float:
    if fit.hosts == 1:
        return 0.0
    clusters, columns = fit.shape.clusters, fit.shape.columns
    settings = Settings(k=clusters)
    streaming_centers = clusters * settings.factor()
    streamed_rows = min(fit.rows, settings.rows_to_stream(streaming_centers) or fit.rows)
    # The hosts also tell each other when there are no rows left.
    streaming_steps = math.ceil(streamed_rows / (MINI_BATCH * fit.hosts)) + 1
    # First rows to the leader; from it the first centers, and the shrunken ones.
    handed = max(MINI_BATCH, streaming_centers) + streaming_centers + (1 + settings.other_starts()) * clusters
    return (
        fit.steps * network.exchange(fit.hosts, message(clusters, columns))
        + streaming_steps * network.exchange(fit.hosts, message(streaming_centers, columns))
        + network.per_byte * FLOAT32_BYTES * columns * handed
    )


def efficiency(fit: Fit, rates: Rates, network: Network) -> float:
    """Return the time of the fit on one host over the CPU time of all its hosts."""
    alone = replace(fit, hosts=1)
    return predict(alone, rates, network) / (fit.hosts * predict(fit, rates, network))


def rows_for(wanted: float, fit_of: Callable[[float], Fit], rates: Rates, network: Network) -> float:
    """Return the rows from which on a fit, that of so many rows, has the ``wanted`` efficiency."""
    low, high = 1.0, MOST_ROWS
    for _ in range(SEARCH_STEPS):
        middle = math.sqrt(low * high)
        enough = efficiency(fit_of(middle), rates, network) >= wanted
        low, high = (low, middle) if enough else (middle, high)
    return high


def rates_of(measured: Sequence[Measured]) -> Rates:
    """Return the rates that fit the ``measured`` fits of one shape on one host best.

    Those of phase 3 are fitted by least squares of the relative errors, none below 0.
    """
    factors = [[point.fit.with_all, point.fit.with_nearby, point.fit.steps] for point in measured]
    compare_all, compare_nearby, step = _least_relative_squares(factors, [point.phases["refine"] for point in measured])
    return Rates(
        serial=float(np.median([point.phases["seed"] + point.phases["shrink"] for point in measured])),
        streamed=float(np.median([point.phases["stream"] for point in measured])),
        compare_all=compare_all,
        compare_nearby=compare_nearby,
        count=float(np.median([point.phases["count"] / point.fit.rows for point in _largest(measured)])),
        step=step,
    )


def effort_of(measured: Sequence[Measured]) -> Effort:
    """Return the effort of the largest of the ``measured`` fits of one shape, which have two numbers of moves."""
    fits = [point.fit for point in _largest(measured)]
    moves = [fit.moves for fit in fits]
    with_all = _line(moves, [fit.with_all / fit.rows for fit in fits])
    with_nearby = _line(moves, [fit.with_nearby / fit.rows for fit in fits])
    return Effort(*with_all, *with_nearby)


def _line(moves: Sequence[float], values: Sequence[float]) -> tuple[float, float]:
    """Return value at no moves, and what each adds; neither is negative."""
    each, once = np.polyfit(moves, values, 1).tolist()
    return max(0.0, once), max(0.0, each)


def _largest(measured: Sequence[Measured]) -> list[Measured]:
    most = max(point.fit.rows for point in measured)
    return [point for point in measured if point.fit.rows == most]


def network_of(seconds: Mapping[int, float]) -> Network:
    """Return what fits the ``seconds`` best that two hosts took per message, by its numbers."""
    factors = [[1.0, FLOAT64_BYTES * numbers] for numbers in seconds]
    return Network(*_least_relative_squares(factors, list(seconds.values())))


def _least_relative_squares(factors: Sequence[Sequence[float]], seconds: Sequence[float]) -> list[float]:
    measured = np.array(seconds)
    relative = np.array(factors, dtype=np.float64) / measured[:, None]
    # Columns of one magnitude: rows and bytes are many, steps are few.
    scale = np.where(relative.any(axis=0), relative.max(axis=0), 1)  # with few clusters nothing is nearby
    found, _ = nnls(relative / scale, np.ones(len(measured)))
    return [float(value) for value in found / scale]
