"""Runs -> the picture: a panel for each case, time against loss."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from benchmarks.cases import CASES, TABLES
from benchmarks.curves import Run, points_of
from benchmarks.methods import METHODS


def draw(runs: Sequence[Run], file: Path) -> None:
    """Write the picture: a panel for each case, a curve for each method.

    Bars go from the least to the largest. Tables have no panel, and no file is written if all runs are of tables.
    """
    cases = [case for case in CASES if case.group is not TABLES and any(run.case == case.name for run in runs)]
    if not cases:
        return
    import matplotlib as mpl  # noqa: PLC0415 - not in the processes that measure

    mpl.use("Agg")
    from matplotlib import pyplot, ticker  # noqa: PLC0415

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
            times, losses = [point.time for point in curve], [median(point.losses) for point in curve]
            named[method.name] = panel.errorbar(
                times,
                losses,
                xerr=[
                    [point.time - min(point.seconds) for point in curve],
                    [max(point.seconds) - point.time for point in curve],
                ],
                yerr=[
                    [median(point.losses) - min(point.losses) for point in curve],
                    [max(point.losses) - median(point.losses) for point in curve],
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
                        point.time, median(point.losses), "*", color=colors[method.name], markersize=16, zorder=4
                    )[0]
        panel.set_xscale("log")
        panel.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        panel.xaxis.set_major_formatter(ticker.FuncFormatter(lambda seconds, _: f"{seconds:g}"))
        panel.xaxis.set_minor_formatter(ticker.NullFormatter())
        panel.tick_params(labelsize=8)
        panel.set_title(case.title, fontsize=9)
        panel.set_xlabel("seconds (log)")
        panel.set_ylabel("1 - cosine, all rows" if case.metric == "cosine" else "mean squared distance, all rows")
        panel.grid(visible=True, which="both", alpha=0.25)
    for panel in panels[len(cases) :]:
        panel.axis("off")
    panels[len(cases)].legend(named.values(), named.keys(), loc="center", frameon=False)
    figure.suptitle("Left is faster, down is better: medians, bars from the least to the largest over the seeds")
    figure.tight_layout()
    figure.savefig(file, dpi=110)
    pyplot.close(figure)
