"""Analysis of the runs of ``benchmarks.clustering``: medians, fronts and ratios, for docs/benchmark.md."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

from benchmarks.cases import CASES, MANY, TABLES, Case
from benchmarks.methods import METHODS, REFERENCE, Method, Variant
from benchmarks.results import Content, Document, picture

# Losses with a smaller relative difference are equal: centers are float32.
TOLERANCE = 1e-6

# The protocol of the first files, which do not store it: seconds of a slow run; repeats of disturbed runs, and the
# seconds up to which a run is repeated.
FIRST_PROTOCOL = {"slow_seconds": 30.0, "repeats": 2, "repeated_seconds": 5.0}


@dataclass(frozen=True, slots=True)
class Run:
    """One fit of one method to one case with one seed; values that were not measured are None.

    ``seconds`` are wall time, ``cpu_seconds`` user and system time of all threads, ``others`` the mean number of CPUs
    that other processes used during the fit. ``loss`` and the following fields are those of
    :class:`benchmarks.quality.Quality`. ``failure`` is the reason if there is no result.
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


def as_json(run: Run) -> Content:
    """Return ``run`` as it is stored, without fields that are None."""
    return {name: value for name, value in asdict(run).items() if value is not None}


def from_json(record: Mapping[str, Any]) -> Run:
    """Return the run of a stored record; in the first files the loss is named ``mean_squared_distance``."""
    return Run(**{"loss" if name == "mean_squared_distance" else name: value for name, value in record.items()})


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes of clusters over all runs: the extremes, and the median number of clusters under 3 rows."""

    smallest: int
    largest: int
    under_three: float


@dataclass(frozen=True, slots=True)
class Point:
    """All runs of one variant on one case: a point of a curve.

    ``seconds`` and ``losses`` are in the order of the seeds, and empty if a run failed; ``failure`` is the reason.
    ``loss`` is the mean of the losses, on tables their median. ``cpu_seconds`` and ``others`` are medians, the adjusted
    Rand index is a mean.
    """

    method: str
    variant: str
    ours: bool
    default: bool
    seconds: tuple[float, ...]
    losses: tuple[float, ...]
    loss: float
    cpu_seconds: float | None
    others: float | None
    failure: str | None
    sizes: Sizes | None = None
    adjusted_rand_index: float | None = None

    @property
    def time(self) -> float:
        """Median of the seconds."""
        return median(self.seconds)


def points_of(case: Case, runs: Iterable[Run]) -> list[Point]:
    """Return the points of all variants that were run on ``case``, in the order of the methods."""
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
    # A variant that is stopped for one seed and not for another would look faster than it is.
    whole = [] if failures else runs
    losses = _known(whole, "loss")
    typical = median if case.group is TABLES else fmean
    times, others, agreements = (_known(runs, name) for name in ("cpu_seconds", "others", "adjusted_rand_index"))
    return Point(
        method=method.name,
        variant=variant.name,
        ours=method.ours,
        default=variant.default,
        seconds=tuple(_known(whole, "seconds")),
        losses=tuple(losses),
        loss=typical(losses) if losses else math.nan,
        cpu_seconds=median(times) if times else None,
        others=median(others) if others else None,
        failure=failures[0] if failures else None,
        sizes=_sizes(whole),
        adjusted_rand_index=fmean(agreements) if agreements and whole else None,
    )


def _known(runs: Iterable[Run], name: str) -> list[Any]:
    return [value for value in (getattr(run, name) for run in runs) if value is not None]


def _sizes(runs: Sequence[Run]) -> Sizes | None:
    smallest, largest, under_three = (_known(runs, name) for name in ("smallest", "largest", "under_three"))
    return Sizes(min(smallest), max(largest), median(under_three)) if smallest else None


def front(points: Iterable[Point]) -> list[Point]:
    """Return the points that no other point beats in both time and loss, fastest first."""
    best: list[Point] = []
    for point in sorted((point for point in points if point.seconds), key=lambda point: (point.time, point.loss)):
        if not best or point.loss < best[-1].loss:
            best.append(point)
    return best


def seconds_to_reach(loss: float, curve: Sequence[Point]) -> float | None:
    """Return the time at which ``curve`` (a front) reaches ``loss``, or None if it does not.

    Between two points it is interpolated linearly in loss and in log time. Nothing is extrapolated: the time is at
    least that of the fastest point.
    """
    for i, point in enumerate(curve):
        if point.loss <= loss:
            if i == 0:
                return point.time
            before = curve[i - 1]
            fraction = (before.loss - loss) / (before.loss - point.loss)
            return math.exp(math.log(before.time) * (1 - fraction) + math.log(point.time) * fraction)
    return None


def ratio(loss: float, other: float) -> float:
    """Return ``loss / other``, 1 if both are 0."""
    return loss / other if other else 1.0 if not loss else math.inf


def context(content: Content) -> Content:
    """Return what the template shows: a summary, a table per case, and tables of all cases of the group `tables`."""
    runs = [from_json(record) for record in content["runs"]]
    cases = [(case, points_of(case, runs)) for case in CASES if any(run.case == case.name for run in runs)]
    of_tables = [(case, points) for case, points in cases if case.group is TABLES]
    every = [(method.name, variant.name) for method in METHODS for variant in method.variants]
    used = {(point.method, point.variant) for _, points in of_tables for point in points}
    columns = [column for column in every if column in used]
    rows = [_row_of_table(case, points, columns) for case, points in of_tables]
    return {
        "groups": {case.group.name for case, _ in cases},
        "summary": [_summary(case, points) for case, points in cases],
        "cases": [_case(case, points) for case, points in cases if case.group is not TABLES],
        "columns": columns,
        "tables": rows,
        "largest": {column: _largest([row["cells"][column]["ratios"] for row in rows]) for column in columns},
        # The first files do not have these fields, but notes as text.
        "efforts": content.get("efforts", {}),
        "protocol": content.get("protocol", FIRST_PROTOCOL),
        "quick": content.get("quick"),
        "later": content.get("later", []),
        "notes": [note for note in content.get("notes", []) if note.startswith("run later")],
    }


def _summary(case: Case, points: Sequence[Point]) -> Content:
    ours = next((point for point in points if point.ours and point.default and point.seconds), None)
    if ours is None:
        return {"case": case, "ours": None}
    peers = [point for point in points if not point.ours and point.seconds]
    curve = front(point for point in points if point.ours)
    reached = [(point, seconds_to_reach(point.loss, curve)) for point in peers]
    peer = min(peers, key=lambda point: (point.loss, point.time), default=None)
    return {
        "case": case,
        "ours": ours,
        "above": ratio(ours.loss, min(point.loss for point in points if point.seconds)) - 1,
        "peer": peer,
        "ratio": ratio(ours.loss, peer.loss) if peer else None,
        "better": [peer for peer in peers if peer.time <= ours.time and peer.loss <= ours.loss * (1 + TOLERANCE)],
        "slower": sum(seconds is not None and point.time > seconds for point, seconds in reached),
        "peers": len(peers),
    }


def _case(case: Case, points: Sequence[Point]) -> Content:
    succeeded = [point for point in points if point.seconds]
    best = min((point.loss for point in succeeded), default=0.0)
    curve = front(point for point in succeeded if point.ours)
    return {
        "case": case,
        "loss": "1 - cosine" if case.metric == "cosine" else "msd",
        "has_sizes": case.group is MANY,
        "has_labels": any(point.adjusted_rand_index is not None for point in points),
        "curve": curve,
        "rows": [
            {"point": point, "above": ratio(point.loss, best) - 1, "reached": seconds_to_reach(point.loss, curve)}
            for point in points
        ],
    }


def _row_of_table(case: Case, points: Sequence[Point], columns: Sequence[tuple[str, str]]) -> Content:
    """Return for each column the point, and typical and largest loss as ratios to the reference."""
    found = {(point.method, point.variant): point for point in points}
    reference = found.get(REFERENCE)
    base = reference.loss if reference and reference.seconds else None
    cells: dict[tuple[str, str], Content] = {}
    for column in columns:
        ratios: tuple[float, ...] = ()
        point = found.get(column)
        if point and point.seconds and base is not None:
            ratios = (ratio(point.loss, base), ratio(max(point.losses), base))
        cells[column] = {"point": point, "ratios": ratios}
    return {"case": case, "reference": reference if base is not None else None, "cells": cells}


def _largest(ratios: Iterable[tuple[float, ...]]) -> tuple[float, ...]:
    """Return the largest typical ratio and the largest worst one; empty if there are none."""
    return tuple(map(max, zip(*filter(None, ratios), strict=True)))


def draw(variables: Content, file: Path) -> None:
    """Draw a panel for each case, and in it a curve for each method; bars go from the least to the largest.

    Cases of the group `tables` have no panel; without others no file is written.
    """
    cases = variables["cases"]
    if not cases:
        return
    columns = min(3, len(cases) + 1)
    with picture(file, math.ceil((len(cases) + 1) / columns), columns, (5.2, 4.2)) as (figure, panels):
        named: dict[str, Any] = {}
        for panel, each in zip(panels, cases, strict=False):
            _draw_case(panel, each["case"], [row["point"] for row in each["rows"] if row["point"].seconds], named)
        for panel in panels[len(cases) :]:
            panel.axis("off")
        panels[len(cases)].legend(named.values(), named.keys(), loc="center", frameon=False)
        figure.suptitle("Left is faster, down is better: medians, bars from the least to the largest over the seeds")


def _draw_case(panel: Any, case: Case, points: Sequence[Point], named: dict[str, Any]) -> None:
    """Draw the curves of a case, and add each method's handle for the legend to ``named``."""
    from matplotlib import ticker  # noqa: PLC0415 - not in the processes that measure

    for i, method in enumerate(METHODS):
        curve = [point for point in points if point.method == method.name]
        if not curve:
            continue
        middles = [(point.time, median(point.losses)) for point in curve]
        ranges = [(point.seconds, point.losses) for point in curve]
        bars = [
            [
                [middle[axis] - min(values[axis]) for middle, values in zip(middles, ranges, strict=True)],
                [max(values[axis]) - middle[axis] for middle, values in zip(middles, ranges, strict=True)],
            ]
            for axis in (0, 1)
        ]
        style = {"marker": "o", "linewidth": 2.2, "zorder": 3} if method.ours else {"marker": "s", "linewidth": 1.2}
        named[method.name] = panel.errorbar(
            *zip(*middles, strict=True),
            xerr=bars[0],
            yerr=bars[1],
            **{"color": f"C{i}", "elinewidth": 0.8, "markersize": 4, "zorder": 2, **style},
        )
        for point, middle in zip(curve, middles, strict=True):
            if method.ours and point.default:
                named["our default"] = panel.plot(*middle, "*", color=f"C{i}", markersize=16, zorder=4)[0]
    panel.set_xscale("log")
    panel.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    panel.xaxis.set_major_formatter(ticker.FuncFormatter(lambda seconds, _: f"{seconds:g}"))
    panel.xaxis.set_minor_formatter(ticker.NullFormatter())
    panel.tick_params(labelsize=8)
    panel.set_title(case.title, fontsize=9)
    panel.set_xlabel("seconds (log)")
    panel.set_ylabel("1 - cosine, all rows" if case.metric == "cosine" else "mean squared distance, all rows")
    panel.grid(visible=True, which="both", alpha=0.25)


DOCUMENT = Document("benchmark", context, draw, ".png")
