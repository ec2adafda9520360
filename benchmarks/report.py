"""Runs -> the table and the picture: medians, spread, and the ratio of times at equal quality."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, median

from benchmarks.cases import CASES, Case
from benchmarks.methods import METHODS, Method, Variant


@dataclass(frozen=True, slots=True)
class Run:
    """One fit of one method to one case with one seed.

    Attributes
    ----------
    case, method, variant, seed
        What was run.
    seconds, cpu_seconds, mean_squared_distance
        What came of it; None if it failed.
    others
        CPUs that other processes used meanwhile.
    failure
        Why it failed; None if it didn't.
    """

    case: str
    method: str
    variant: str
    seed: int
    seconds: float | None = None
    cpu_seconds: float | None = None
    others: float | None = None
    mean_squared_distance: float | None = None
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class Point:
    """All runs of one variant on one case: a point of a curve.

    Attributes
    ----------
    method, variant, ours, default
        Whose point it is.
    seconds, msds
        Of each run, in the order of the seeds; empty if there is none that succeeded.
    cpu_seconds, others
        Medians over the runs.
    failure
        Why a run failed, or why there is no run.
    """

    method: str
    variant: str
    ours: bool
    default: bool
    seconds: tuple[float, ...]
    msds: tuple[float, ...]
    cpu_seconds: float
    others: float
    failure: str | None

    @property
    def time(self) -> float:
        """Median of the seconds."""
        return median(self.seconds)

    @property
    def msd(self) -> float:
        """Mean of the mean squared distances."""
        return fmean(self.msds)


def points_of(case: Case, runs: Iterable[Run]) -> list[Point]:
    """Return the points of all variants that were run on ``case``, in the methods' order."""
    by_variant: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        if run.case == case.name:
            by_variant.setdefault((run.method, run.variant), []).append(run)
    return [
        _point(method, variant, by_variant[method.name, variant.name])
        for method in METHODS
        for variant in method.variants
        if (method.name, variant.name) in by_variant
    ]


def _point(method: Method, variant: Variant, runs: Sequence[Run]) -> Point:
    failures = [run.failure for run in runs if run.failure is not None]
    # A variant that is cut for one seed and not for another would look faster than it is.
    whole = [] if failures else runs
    return Point(
        method=method.name,
        variant=variant.name,
        ours=method.ours,
        default=variant.default,
        seconds=tuple(run.seconds for run in whole if run.seconds is not None),
        msds=tuple(run.mean_squared_distance for run in whole if run.mean_squared_distance is not None),
        cpu_seconds=median(run.cpu_seconds or 0.0 for run in runs),
        others=median(run.others or 0.0 for run in runs),
        failure=failures[0] if failures else None,
    )


def front(points: Iterable[Point]) -> list[Point]:
    """Return the points that no other is both faster and better than, fastest first."""
    best: list[Point] = []
    for point in sorted((point for point in points if point.seconds), key=lambda point: (point.time, point.msd)):
        if not best or point.msd < best[-1].msd:
            best.append(point)
    return best


def seconds_to_reach(msd: float, curve: Sequence[Point]) -> float | None:
    """Return when ``curve`` (a front) reaches ``msd``: between two points linear in msd and in the logarithm of time.

    Nothing is extrapolated: the fastest point's time is the least that is said, and None that ``msd`` isn't reached.
    """
    for i, point in enumerate(curve):
        if point.msd <= msd:
            if i == 0:
                return point.time
            before = curve[i - 1]
            share = (before.msd - msd) / (before.msd - point.msd)
            return math.exp(math.log(before.time) * (1 - share) + math.log(point.time) * share)
    return None


def markdown(runs: Sequence[Run], machine: Mapping[str, str], notes: Sequence[str]) -> str:
    """Return the whole report: the machine, how to read it, a summary, and a table for each case."""
    cases = [(case, points_of(case, runs)) for case in CASES if any(run.case == case.name for run in runs)]
    lines = [
        "# k-means against its peers: time and quality",
        "",
        "Made by `make bench` (`python -m benchmarks.clustering`); every number below is of one run of it on one",
        "machine. Raw figures: [benchmark.json](benchmark.json).",
        "",
        "![time against quality](benchmark.png)",
        "",
        *(f"- {name}: {value}" for name, value in machine.items()),
        *(f"- {note}" for note in notes),
        "",
        *_summary(cases),
    ]
    for case, points in cases:
        lines += ["", f"## {case.title}", "", *_table(points)]
    return "\n".join(lines) + "\n"


def _summary(cases: Sequence[tuple[Case, list[Point]]]) -> list[str]:
    lines = [
        "## Summary",
        "",
        "| case | our default: s | msd | above the best | on the front | faster than peers at their quality |",
        "| --- | --: | --: | --: | --- | --- |",
    ]
    for case, points in cases:
        ours = next((point for point in points if point.ours and point.default and point.seconds), None)
        if ours is None:
            lines.append(f"| {case.name} | not run, or cut | | | | |")
            continue
        best = min(point.msd for point in points if point.seconds)
        better = [
            point
            for point in points
            if not point.ours and point.seconds and point.time <= ours.time and point.msd <= ours.msd
        ]
        stands = "yes" if not better else "no: " + "; ".join(f"{point.method}, {point.variant}" for point in better)
        curve = front(point for point in points if point.ours)
        peers = [point for point in points if not point.ours and point.seconds]
        reached = [(point, seconds_to_reach(point.msd, curve)) for point in peers]
        faster = sum(seconds is not None and point.time > seconds for point, seconds in reached)
        lines.append(
            f"| {case.name} | {_figure(ours.time)} | {ours.msd:.4f} | {ours.msd / best - 1:+.2%} | {stands} "
            f"| {faster} of {len(peers)} settings |"
        )
    return lines


def _table(points: Sequence[Point]) -> list[str]:
    succeeded = [point for point in points if point.seconds]
    best = min((point.msd for point in succeeded), default=0.0)
    curve = front(point for point in succeeded if point.ours)
    lines = [
        "| method | setting | seeds | s, median (min-max) | CPU s | others | msd, mean (min-max) | above the best "
        "| our s to this msd | ratio |",
        "| --- | --- | --: | --: | --: | --: | --: | --: | --: | --: |",
    ]
    for point in points:
        start = f"| {point.method} | {_marked(point)} "
        if not point.seconds:
            lines.append(f"{start}| | {point.failure} | | | | | | |")
            continue
        lines.append(
            f"{start}| {len(point.seconds)} "
            f"| {_figure(point.time)} ({_figure(min(point.seconds))}-{_figure(max(point.seconds))}) "
            f"| {_figure(point.cpu_seconds)} | {point.others:.1f} "
            f"| {point.msd:.4f} ({min(point.msds):.4f}-{max(point.msds):.4f}) | {point.msd / best - 1:+.2%} "
            f"| {_ratio(point, curve)} |"
        )
    return lines


def _ratio(point: Point, curve: Sequence[Point]) -> str:
    if point.ours:
        return " | "
    seconds = seconds_to_reach(point.msd, curve)
    if seconds is None:
        return f"not reached (best {curve[-1].msd:.4f}) | " if curve else " | "
    return f"{_figure(seconds)} | {point.time / seconds:.2f}"


def _marked(point: Point) -> str:
    return f"**{point.variant}**" if point.ours and point.default else point.variant


def _figure(seconds: float) -> str:
    return f"{seconds:.3f}" if seconds < 1 else f"{seconds:.3g}" if seconds < 100 else f"{seconds:.0f}"


def draw(runs: Sequence[Run], file: Path) -> None:
    """Write the picture: a panel for each case, a curve for each method, bars from the least to the largest."""
    import matplotlib as mpl  # noqa: PLC0415 - not in the processes that measure

    mpl.use("Agg")
    from matplotlib import pyplot  # noqa: PLC0415

    cases = [case for case in CASES if any(run.case == case.name for run in runs)]
    columns = min(3, len(cases) + 1)
    rows = math.ceil((len(cases) + 1) / columns)
    figure, grid = pyplot.subplots(rows, columns, figsize=(5.2 * columns, 4.2 * rows), squeeze=False)
    panels = list(grid.flat)
    colors = {method.name: f"C{i}" for i, method in enumerate(METHODS)}
    named = {}
    for panel, case in zip(panels, cases, strict=False):
        for method in METHODS:
            curve = [point for point in points_of(case, runs) if point.method == method.name and point.seconds]
            if not curve:
                continue
            times, msds = [point.time for point in curve], [median(point.msds) for point in curve]
            named[method.name] = panel.errorbar(
                times,
                msds,
                xerr=[
                    [point.time - min(point.seconds) for point in curve],
                    [max(point.seconds) - point.time for point in curve],
                ],
                yerr=[
                    [median(point.msds) - min(point.msds) for point in curve],
                    [max(point.msds) - median(point.msds) for point in curve],
                ],
                color=colors[method.name],
                marker="o" if method.ours else "s",
                linewidth=2.2 if method.ours else 1.2,
                elinewidth=0.8,
                markersize=4,
                zorder=3 if method.ours else 2,
            )
            for point in curve:
                if method.ours and point.default:
                    named["our default"] = panel.plot(
                        point.time, median(point.msds), "*", color=colors[method.name], markersize=16, zorder=4
                    )[0]
        panel.set_xscale("log")
        panel.set_title(case.title, fontsize=9)
        panel.set_xlabel("seconds (log)")
        panel.set_ylabel("mean squared distance, all rows")
        panel.grid(visible=True, which="both", alpha=0.25)
    for panel in panels[len(cases) :]:
        panel.axis("off")
    panels[len(cases)].legend(named.values(), named.keys(), loc="center", frameon=False)
    figure.suptitle("Left is faster, down is better: medians, bars from the least to the largest over the seeds")
    figure.tight_layout()
    figure.savefig(file, dpi=110)
    pyplot.close(figure)


def as_json(run: Run) -> dict[str, str | int | float | None]:
    """Return ``run`` as the raw file holds it."""
    return asdict(run)
