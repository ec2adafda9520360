"""What a fit costs on several hosts: the sum of what they divide, what each does alike, and what they tell each other.

    seconds = serial + streamed / hosts                 phases 1 and 2: on the leader, and on a fixed number of rows
            + rows / hosts x (first + each x moves)     phase 3 and the count: work on rows
            + steps x step                              the same, whatever the number of rows
            + sum of exchange(message)                  of each step of phase 1 and of phase 3
            + per_byte x handed                         rows and centers that the leader gets and gives

    exchange(bytes) = latency x log2(hosts) + per_byte x bytes x 2 (hosts - 1) / hosts

The five rates belong to a number of columns and of clusters and come from fits on one host; latency and per_byte come
from sums over two hosts with nothing between them. So nothing of a fit on several hosts is in what is predicted of one.

The exchange is that of an allreduce that halves the message at each of log2(hosts) steps and puts it together again
(R. Thakur, R. Rabenseifner, W. Gropp, "Optimization of collective communication operations in MPICH", 2005).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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
    """

    shape: Shape
    rows: float
    hosts: int
    moves: float

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
    first, each
        Per row: of all that phase 3 and the count do once, and of each move.
    step
        Per step, whatever the rows.
    """

    serial: float
    streamed: float
    first: float
    each: float
    step: float


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
    alone = (
        rates.serial
        + rates.streamed / fit.hosts
        + fit.rows / fit.hosts * (rates.first + rates.each * fit.moves)
        + fit.steps * rates.step
    )
    return alone + _messages(fit, network)


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
    alone = Fit(fit.shape, fit.rows, 1, fit.moves)
    return predict(alone, rates, network) / (fit.hosts * predict(fit, rates, network))


def rows_for(wanted: float, fit: Fit, rates: Rates, network: Network) -> float:
    """Return the rows from which on a fit has the ``wanted`` efficiency; ``fit.rows`` is not used."""
    low, high = 1.0, MOST_ROWS
    for _ in range(SEARCH_STEPS):
        middle = math.sqrt(low * high)
        enough = efficiency(Fit(fit.shape, middle, fit.hosts, fit.moves), rates, network) >= wanted
        low, high = (low, middle) if enough else (middle, high)
    return high


def rates_of(measured: Sequence[Measured]) -> Rates:
    """Return the rates that fit the ``measured`` fits of one shape on one host best.

    The three of phase 3 are fitted by least squares of the relative errors, none below 0.
    """
    factors = [[point.fit.rows, point.fit.rows * point.fit.moves, point.fit.steps] for point in measured]
    first, each, step = _least_relative_squares(
        factors, [point.phases["refine"] + point.phases["count"] for point in measured]
    )
    return Rates(
        serial=float(np.median([point.phases["seed"] + point.phases["shrink"] for point in measured])),
        streamed=float(np.median([point.phases["stream"] for point in measured])),
        first=first,
        each=each,
        step=step,
    )


def network_of(seconds: Mapping[int, float]) -> Network:
    """Return what fits the ``seconds`` best that two hosts took per message, by its numbers."""
    factors = [[1.0, FLOAT64_BYTES * numbers] for numbers in seconds]
    return Network(*_least_relative_squares(factors, list(seconds.values())))


def _least_relative_squares(factors: Sequence[Sequence[float]], seconds: Sequence[float]) -> list[float]:
    measured = np.array(seconds)
    relative = np.array(factors, dtype=np.float64) / measured[:, None]
    # Columns of one magnitude: rows and bytes are many, steps are few.
    scale = relative.max(axis=0)
    found, _ = nnls(relative / scale, np.ones(len(measured)))
    return [float(value) for value in found / scale]
