"""Runs, the point that those of one setting make, and the front of points."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, median
from typing import Any

from benchmarks.cases import TABLES, Case
from benchmarks.methods import METHODS, Method, Variant


@dataclass(frozen=True, slots=True)
class Run:
    """One fit of one method to one case with one seed.

    Attributes
    ----------
    case, method, variant, seed
        What was run.
    seconds, cpu_seconds, loss
        Time on the clock and of the CPUs; mean squared distance of all rows, or mean of 1 - cosine. None if it failed.
    others
        CPUs that other processes used meanwhile.
    failure
        Why it failed; None if it didn't.
    smallest, largest, under_three
        Rows of the smallest and of the largest cluster, number of clusters with fewer than 3 rows; None if it failed
        or was run by an older version.
    adjusted_rand_index
        Agreement with known labels; None where there are none.
    """

    case: str
    method: str
    variant: str
    seed: int
    seconds: float | None = None
    cpu_seconds: float | None = None
    others: float | None = None
    loss: float | None = None
    failure: str | None = None
    smallest: int | None = None
    largest: int | None = None
    under_three: int | None = None
    adjusted_rand_index: float | None = None


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes of clusters over all runs: the extremes, the median number under 3."""

    smallest: int
    largest: int
    under_three: float


@dataclass(frozen=True, slots=True)
class Point:
    """All runs of one variant on one case: a point of a curve.

    Attributes
    ----------
    method, variant, ours, default
        Whose point it is.
    seconds, losses
        Of each run, in the order of the seeds; empty if there is none that succeeded.
    loss
        Mean of the losses, on tables their median; NaN without any.
    cpu_seconds, others
        Medians over the runs.
    failure
        Why a run failed, or why there is no run.
    sizes
        Sizes of clusters over all runs; None if they weren't measured.
    adjusted_rand_index
        Mean over the runs; None where there are no known labels.
    """

    method: str
    variant: str
    ours: bool
    default: bool
    seconds: tuple[float, ...]
    losses: tuple[float, ...]
    loss: float
    cpu_seconds: float
    others: float
    failure: str | None
    sizes: Sizes | None = None
    adjusted_rand_index: float | None = None

    @property
    def time(self) -> float:
        """Median of the seconds."""
        return median(self.seconds)


def points_of(case: Case, runs: Iterable[Run]) -> list[Point]:
    """Return the points of all variants that were run on ``case``."""
    by_variant: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        if run.case == case.name:
            by_variant.setdefault((run.method, run.variant), []).append(run)
    return [
        _point(case, method, variant, by_variant[method.name, variant.name])
        for method in METHODS
        for variant in method.variants
        if (method.name, variant.name) in by_variant
    ]


def _point(case: Case, method: Method, variant: Variant, runs: Sequence[Run]) -> Point:
    failures = [run.failure for run in runs if run.failure is not None]
    # A variant that is cut for one seed and not for another would look faster than it is.
    whole = [] if failures else runs
    losses = tuple(run.loss for run in whole if run.loss is not None)
    typical = median if case.group is TABLES else fmean
    agreements = [run.adjusted_rand_index for run in whole if run.adjusted_rand_index is not None]
    return Point(
        method=method.name,
        variant=variant.name,
        ours=method.ours,
        default=variant.default,
        seconds=tuple(run.seconds for run in whole if run.seconds is not None),
        losses=losses,
        loss=typical(losses) if losses else math.nan,
        cpu_seconds=median(run.cpu_seconds or 0.0 for run in runs),
        others=median(run.others or 0.0 for run in runs),
        failure=failures[0] if failures else None,
        sizes=_sizes(whole),
        adjusted_rand_index=fmean(agreements) if agreements else None,
    )


def _sizes(runs: Sequence[Run]) -> Sizes | None:
    smallest = [run.smallest for run in runs if run.smallest is not None]
    largest = [run.largest for run in runs if run.largest is not None]
    under_three = [run.under_three for run in runs if run.under_three is not None]
    return Sizes(min(smallest), max(largest), median(under_three)) if smallest else None


def front(points: Iterable[Point]) -> list[Point]:
    """Return the points that no other is both faster and better than, fastest first."""
    best: list[Point] = []
    for point in sorted((point for point in points if point.seconds), key=lambda point: (point.time, point.loss)):
        if not best or point.loss < best[-1].loss:
            best.append(point)
    return best


def seconds_to_reach(loss: float, curve: Sequence[Point]) -> float | None:
    """Return when ``curve`` (a front) reaches ``loss``.

    Between two points it is linear in loss and in log time. Nothing is extrapolated: the fastest point's time is the
    least that is returned, and None if ``loss`` isn't reached.
    """
    for i, point in enumerate(curve):
        if point.loss <= loss:
            if i == 0:
                return point.time
            before = curve[i - 1]
            share = (before.loss - loss) / (before.loss - point.loss)
            return math.exp(math.log(before.time) * (1 - share) + math.log(point.time) * share)
    return None


def as_json(run: Run) -> dict[str, str | int | float | None]:
    """Return ``run`` as the raw file holds it, without what is None."""
    return {name: value for name, value in asdict(run).items() if value is not None}


def from_json(record: Mapping[str, Any]) -> Run:
    """Return the run of a record of the raw file.

    In files of the first version the loss is named ``mean_squared_distance``.
    """
    known = {"loss" if name == "mean_squared_distance" else name: value for name, value in record.items()}
    return Run(**known)
