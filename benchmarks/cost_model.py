"""A model of the cost of a fit on several hosts: divided work, work that each host repeats, and communication.

    seconds = serial + mini-batches / hosts             phases 1 and 2: on the leader, and on a fixed number of rows
            + (all x rows compared with all centers
               + nearby x rows compared with nearby centers
               + count x rows) / hosts                  phase 3 and the count: work on rows
            + steps x step                              independent of the number of rows
            + sum of exchange(message)                  for each step of phase 1 and of phase 3
            + per_byte x handed                         rows and centers that the leader receives and sends

    exchange(bytes) = latency x log2(hosts) + per_byte x bytes x 2 (hosts - 1) / hosts

The number of comparisons depends on how the centers move, and differs by a third between two seeds; it is taken from
the log of the fit. The rates belong to a number of columns and clusters and come from fits on one host (where hosts
share a machine, from as many such fits at the same time). latency and per_byte come from sums over two hosts without
other work. So the prediction of a fit on several hosts uses no measured time of such a fit.

The exchange is that of an allreduce that halves the message at each of log2(hosts) steps and then assembles it again
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

# Steps of phase 3 on samples, for this benchmark's data: on the first sample from each start, and on each later sample.
FIRST_SAMPLE_STEPS, SAMPLE_STEPS = 7, 4

# Limits of the search for a number of rows.
MOST_ROWS, SEARCH_STEPS = 1e13, 60


@dataclass(frozen=True, slots=True)
class Shape:
    """Columns and clusters of a fit."""

    columns: int
    clusters: int


@dataclass(frozen=True, slots=True)
class Fit:
    """The size of a fit.

    ``rows`` are those of all hosts. ``moves`` is the number of times that phase 3 moves the centers on all rows,
    ``with_all`` and ``with_nearby`` are its numbers of comparisons of a row with all centers and with nearby ones.
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
        # A single sample with a single start consists of all rows: there are no trials.
        tried = starts * FIRST_SAMPLE_STEPS if later or starts > 1 else 1
        return tried + SAMPLE_STEPS * later + self.moves


@dataclass(frozen=True, slots=True)
class Rates:
    """CPU seconds of fits of one shape.

    ``serial`` is the time of seeding and shrinking on the leader, ``streamed`` that of the mini-batch phase, whose
    number of rows is fixed. ``compare_all`` and ``compare_nearby`` are per comparison of a row in phase 3, ``count`` is
    per row, and ``step`` per step, independent of the rows.
    """

    serial: float
    streamed: float
    compare_all: float
    compare_nearby: float
    count: float
    step: float


@dataclass(frozen=True, slots=True)
class Effort:
    """Comparisons per row in fits of one shape, with all centers and with nearby ones: once, and for each move."""

    all_once: float
    all_each: float
    nearby_once: float
    nearby_each: float

    def fit(self, shape: Shape, rows: float, hosts: int, moves: float) -> Fit:
        """Return the fit with this effort."""
        with_all, with_nearby = self.all_once + self.all_each * moves, self.nearby_once + self.nearby_each * moves
        return Fit(shape, rows, hosts, moves, rows * with_all, rows * with_nearby)


@dataclass(frozen=True, slots=True)
class Network:
    """Cost of a sum over two hosts, in seconds: ``latency`` per message, ``per_byte`` per byte."""

    latency: float
    per_byte: float

    def exchange(self, hosts: int, numbers: int) -> float:
        """Return the seconds in which ``hosts`` add up a message of float64 ``numbers``."""
        fraction = 2 * (hosts - 1) / hosts
        return self.latency * math.log2(hosts) + self.per_byte * FLOAT64_BYTES * numbers * fraction


@dataclass(frozen=True, slots=True)
class Measured:
    """A measured fit: seconds of its phases, by name."""

    fit: Fit
    phases: Mapping[str, float]

    @property
    def seconds(self) -> float:
        """Time of all phases between reading and writing."""
        return sum(self.phases.get(name, 0.0) for name in ("seed", "stream", "shrink", "refine", "count"))


def message(centers: int, columns: int) -> int:
    """Return the number of values that a pass exchanges: sums and weights of the centers, inertia, a flag to stop."""
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
    # One more step, in which the hosts report that no rows are left.
    streaming_steps = math.ceil(streamed_rows / (MINI_BATCH * fit.hosts)) + 1
    # The leader receives the first rows, and sends the first centers and the shrunken ones.
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
    """Return the number of rows from which on the fit ``fit_of(rows)`` has the ``wanted`` efficiency."""
    low, high = 1.0, MOST_ROWS
    for _ in range(SEARCH_STEPS):
        middle = math.sqrt(low * high)
        enough = efficiency(fit_of(middle), rates, network) >= wanted
        low, high = (low, middle) if enough else (middle, high)
    return high


def rates_of(measured: Sequence[Measured]) -> Rates:
    """Return the best rates for the ``measured`` fits of one shape on one host.

    Those of phase 3 minimize the squares of the relative errors; none is negative.
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
    """Return the effort of the largest of the ``measured`` fits of one shape; they have two numbers of moves."""
    fits = [point.fit for point in _largest(measured)]
    moves = [fit.moves for fit in fits]
    with_all = _line(moves, [fit.with_all / fit.rows for fit in fits])
    with_nearby = _line(moves, [fit.with_nearby / fit.rows for fit in fits])
    return Effort(*with_all, *with_nearby)


def _line(moves: Sequence[float], values: Sequence[float]) -> tuple[float, float]:
    """Return the value without moves, and the increase per move; neither is negative."""
    each, once = np.polyfit(moves, values, 1).tolist()
    return max(0.0, once), max(0.0, each)


def _largest(measured: Sequence[Measured]) -> list[Measured]:
    most = max(point.fit.rows for point in measured)
    return [point for point in measured if point.fit.rows == most]


def network_of(seconds: Mapping[int, float]) -> Network:
    """Return the best network for the ``seconds`` of two hosts per message, by its number of values."""
    factors = [[1.0, FLOAT64_BYTES * numbers] for numbers in seconds]
    return Network(*_least_relative_squares(factors, list(seconds.values())))


def _least_relative_squares(factors: Sequence[Sequence[float]], seconds: Sequence[float]) -> list[float]:
    measured = np.array(seconds)
    relative = np.array(factors, dtype=np.float64) / measured[:, None]
    # Scale columns to one magnitude; with few clusters there are no comparisons with nearby centers.
    scale = np.where(relative.any(axis=0), relative.max(axis=0), 1)
    found, _ = nnls(relative / scale, np.ones(len(measured)))
    return [float(value) for value in found / scale]
