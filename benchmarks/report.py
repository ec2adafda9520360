"""Runs -> the tables of the report: medians, spread, ratios."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from benchmarks.cases import CASES, MANY, TABLES, Case
from benchmarks.curves import Point, Run, front, points_of, seconds_to_reach
from benchmarks.methods import METHODS, REFERENCE

# Losses with a smaller relative difference are equal: centers are float32.
TOLERANCE = 1e-6


def markdown(runs: Sequence[Run], machine: Mapping[str, str], notes: Sequence[str]) -> str:
    """Return the whole report.

    The machine, notes on how to read it, a summary, a table for each case, and two of all tables.
    """
    cases = [(case, points_of(case, runs)) for case in CASES if any(run.case == case.name for run in runs)]
    of_tables = [(case, points) for case, points in cases if case.group is TABLES]
    others = [(case, points) for case, points in cases if case.group is not TABLES]
    lines = [
        "# k-means against its peers: time and quality",
        "",
        "Made by `make bench` (`python -m benchmarks.clustering`); every number below is of one run of it on one",
        "machine. Raw figures: [benchmark.json](benchmark.json).",
        "",
        *(["![time against quality](benchmark.png)", ""] if others else []),
        *(f"- {name}: {value}" for name, value in machine.items()),
        *(f"- {note}" for note in notes),
        "",
        *_summary(cases),
    ]
    for case, points in others:
        lines += ["", f"## {case.title}", "", *_table(case, points)]
    if of_tables:
        lines += ["", "## Tables: loss over the best of 30 runs of scikit-learn", "", *_ratios(of_tables)]
        lines += ["", "## Tables: sizes of the clusters", "", *_sizes(of_tables)]
    return "\n".join(lines) + "\n"


def _summary(cases: Sequence[tuple[Case, list[Point]]]) -> list[str]:
    lines = [
        "## Summary",
        "",
        "| case | our default: s | loss | above the best | best peer: loss in s | our loss / its | on the front "
        "| faster than peers at their quality |",
        "| --- | --: | --: | --: | --- | --: | --- | --- |",
    ]
    for case, points in cases:
        ours = next((point for point in points if point.ours and point.default and point.seconds), None)
        if ours is None:
            lines.append(f"| {case.name} | not run, or cut | | | | | | |")
            continue
        best = min(point.loss for point in points if point.seconds)
        peers = [point for point in points if not point.ours and point.seconds]
        better = [point for point in peers if point.time <= ours.time and point.loss <= ours.loss * (1 + TOLERANCE)]
        stands = "yes" if not better else "no: " + "; ".join(f"{point.method}, {point.variant}" for point in better)
        curve = front(point for point in points if point.ours)
        reached = [(point, seconds_to_reach(point.loss, curve)) for point in peers]
        faster = sum(seconds is not None and point.time > seconds for point, seconds in reached)
        lines.append(
            f"| {case.name} | {_figure(ours.time)} | {_loss(case, ours.loss)} | {_above(ours.loss, best)} "
            f"| {_best_peer(case, peers, ours)} | {stands} | {faster} of {len(peers)} settings |"
        )
    return lines


def _best_peer(case: Case, peers: Sequence[Point], ours: Point) -> str:
    """Return two cells: the peer of the least loss, and our loss over its."""
    if not peers:
        return " | "
    peer = min(peers, key=lambda point: (point.loss, point.time))
    name = f"{peer.method}, {peer.variant}"
    return f"{name}: {_loss(case, peer.loss)} in {_figure(peer.time)} | {_ratio_of(ours.loss, peer.loss):.4f}"


def _table(case: Case, points: Sequence[Point]) -> list[str]:
    succeeded = [point for point in points if point.seconds]
    best = min((point.loss for point in succeeded), default=0.0)
    curve = front(point for point in succeeded if point.ours)
    loss = "1 - cosine" if case.metric == "cosine" else "msd"
    more = ["smallest", "largest", "under 3 rows"] if case.group is MANY else []
    if any(point.adjusted_rand_index is not None for point in points):
        more.append("adjusted Rand index")
    lines = [
        f"| method | setting | seeds | s, median (min-max) | CPU s | others | {loss}, mean (min-max) | above the best "
        f"| our s to this {loss} | ratio |" + "".join(f" {name} |" for name in more),
        "| --- | --- | --: | --: | --: | --: | --: | --: | --: | --: |" + " --: |" * len(more),
    ]
    for point in points:
        start = f"| {point.method} | {_marked(point)} "
        if not point.seconds:
            lines.append(f"{start}| | {point.failure} | | | | | | |" + " |" * len(more))
            continue
        line = (
            f"{start}| {len(point.seconds)} "
            f"| {_figure(point.time)} ({_figure(min(point.seconds))}-{_figure(max(point.seconds))}) "
            f"| {_figure(point.cpu_seconds)} | {point.others:.1f} "
            f"| {point.loss:.4f} ({min(point.losses):.4f}-{max(point.losses):.4f}) | {_above(point.loss, best)} "
            f"| {_ratio(point, curve)} |"
        )
        if case.group is MANY:
            sizes = point.sizes
            line += f" {sizes.smallest:,} | {sizes.largest:,} | {sizes.under_three:g} |" if sizes else " | | |"
        if "adjusted Rand index" in more:
            line += " |" if point.adjusted_rand_index is None else f" {point.adjusted_rand_index:.4f} |"
        lines.append(line)
    return lines


def _ratios(cases: Sequence[tuple[Case, list[Point]]]) -> list[str]:
    """Return a row for each table: for each setting loss over reference, and time."""
    columns = [column for column in _columns(cases) if column != REFERENCE]
    lines = [
        "| table | best of 30: loss, s |" + "".join(f" {_heading(*column)} |" for column in columns),
        "| --- | --: |" + " --: |" * len(columns),
    ]
    relative: dict[tuple[str, str], list[tuple[float, float]]] = {column: [] for column in columns}
    for case, points in cases:
        found = {(point.method, point.variant): point for point in points}
        reference = found.get(REFERENCE)
        cells = [f"{reference.loss:.4g}, {_figure(reference.time)}" if reference and reference.seconds else "not run"]
        for column in columns:
            point = found.get(column)
            if point is None or not point.seconds:
                cells.append((point.failure or "") if point else "")
            elif reference is None or not reference.seconds:
                cells.append(_figure(point.time))
            else:
                ratios = _ratio_of(point.loss, reference.loss), _ratio_of(max(point.losses), reference.loss)
                relative[column].append(ratios)
                cells.append(f"{_pair(*ratios)}, {_figure(point.time)}")
        lines.append(f"| {case.title} | {' | '.join(cells)} |")
    largest = [_pair(*map(max, zip(*ratios, strict=True))) if ratios else "" for ratios in relative.values()]
    return [*lines, f"| **largest of all tables** | | {' | '.join(largest)} |"]


def _pair(typical: float, worst: float) -> str:
    return f"{typical:.3f} / {worst:.3f}"


def _sizes(cases: Sequence[tuple[Case, list[Point]]]) -> list[str]:
    """Return a row for each table: for each setting the sizes of its clusters."""
    columns = _columns(cases)
    lines = [
        "| table |" + "".join(f" {_heading(*column)} |" for column in columns),
        "| --- |" + " --: |" * len(columns),
    ]
    for case, points in cases:
        found = {(point.method, point.variant): point for point in points}
        cells = [_sizes_of(found[column]) if column in found else "" for column in columns]
        lines.append(f"| {case.title} | {' | '.join(cells)} |")
    return lines


def _sizes_of(point: Point) -> str:
    if point.sizes is None:
        return ""
    sizes = f"{point.sizes.smallest:,}-{point.sizes.largest:,}, {point.sizes.under_three:g}"
    return sizes if point.adjusted_rand_index is None else f"{sizes}; {point.adjusted_rand_index:.3f}"


def _columns(cases: Sequence[tuple[Case, list[Point]]]) -> list[tuple[str, str]]:
    """Return the methods and variants that were run on any of ``cases``."""
    run = {(point.method, point.variant) for _, points in cases for point in points}
    every = [(method.name, variant.name) for method in METHODS for variant in method.variants]
    return [column for column in every if column in run]


def _heading(method: str, variant: str) -> str:
    return f"{method}, {variant}"


def _above(loss: float, best: float) -> str:
    return f"{_ratio_of(loss, best) - 1:+.2%}"


def _ratio_of(loss: float, other: float) -> float:
    """Return ``loss / other``, 1 if both are 0."""
    return loss / other if other else 1.0 if not loss else math.inf


def _loss(case: Case, loss: float) -> str:
    return f"{loss:.5g}" if case.group is TABLES else f"{loss:.4f}"


def _ratio(point: Point, curve: Sequence[Point]) -> str:
    if point.ours:
        return " | "
    seconds = seconds_to_reach(point.loss, curve)
    if seconds is None:
        return f"not reached (best {curve[-1].loss:.4f}) | " if curve else " | "
    return f"{_figure(seconds)} | {point.time / seconds:.2f}"


def _marked(point: Point) -> str:
    return f"**{point.variant}**" if point.ours and point.default else point.variant


def _figure(seconds: float) -> str:
    return f"{seconds:.3f}" if seconds < 1 else f"{seconds:.3g}" if seconds < 100 else f"{seconds:.0f}"
