"""``python -m benchmarks.cost``: how the time of a fit grows with rows, columns and clusters.

Each table changes one of the three and fits the exponent b of time = a x^b: 1 is linear. Written to docs/cost.md.
"""

from __future__ import annotations

import argparse
import datetime
import os
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

# Before NumPy is imported: threads go over blocks of rows.
for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ[name] = "1"

import numpy as np  # noqa: E402

from kmeans.arrays import Float32  # noqa: E402
from kmeans.estimator import fit  # noqa: E402
from kmeans.machine import usable_cpus  # noqa: E402
from kmeans.rows import MemoryRows  # noqa: E402
from kmeans.settings import Settings  # noqa: E402
from kmeans.workers import Workers  # noqa: E402

SEEDS = 3

# Points are drawn around so many centers, which overlap: neither trivial nor hopeless to cluster.
TRUE_CLUSTERS, SPREAD = 200, 1.0


@dataclass(frozen=True, slots=True)
class Shape:
    """Rows, columns and clusters of one fit."""

    n: int
    d: int
    k: int


SERIES = {
    "n": [Shape(n, 32, 50) for n in (10_000, 100_000, 1_000_000, 10_000_000)],
    "d": [Shape(200_000, d, 50) for d in (16, 32, 64, 128, 256, 512)],
    "k": [Shape(200_000, 32, k) for k in (10, 32, 100, 320, 1000)],
}


@dataclass(frozen=True, slots=True)
class Cost:
    """What a fit of a shape takes: seconds of a median run, of one pass of it over all rows, and how many it made."""

    shape: Shape
    seconds: float
    moves: float


def main() -> None:
    """Measure all series and write the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cost", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("docs/cost.md"), help="default: docs/cost.md")
    parser.add_argument("--threads", type=int, default=usable_cpus(), help="default: all CPUs")
    options = parser.parse_args()
    text = [
        "# What a fit costs",
        "",
        "Made by `python -m benchmarks.cost`: seconds of a fit with default hyperparameters, points in memory, median "
        f"of {SEEDS} seeds, {options.threads} threads, {datetime.datetime.now(tz=datetime.UTC).date()}. The exponent b "
        "of time = a x^b is fitted by least squares in logarithms; 1 is linear growth. Points are drawn around "
        f"{TRUE_CLUSTERS} centers that overlap.",
    ]
    with Workers(options.threads) as workers:
        _measure(Shape(10_000, 32, 50), workers)  # imports, threads, code pages
        for variable, shapes in SERIES.items():
            costs = [_measure(shape, workers) for shape in shapes]
            text += ["", *_table(variable, costs)]
            print("\n".join(text[-len(costs) - 5 :]), flush=True)
    options.output.write_text("\n".join(text) + "\n")


def _measure(shape: Shape, workers: Workers) -> Cost:
    points = _points(shape)
    seconds, moves = [], []
    for seed in range(SEEDS):
        started = time.perf_counter()
        fitted = fit(MemoryRows(points, seed=seed), Settings(k=shape.k, seed=seed), workers=workers)
        seconds.append(time.perf_counter() - started)
        moves.append(fitted.refinements)
    return Cost(shape, statistics.median(seconds), statistics.median(moves))


def _points(shape: Shape) -> Float32:
    generator = np.random.default_rng(0)
    centers = generator.normal(scale=SPREAD, size=(TRUE_CLUSTERS, shape.d)).astype(np.float32)
    points = generator.standard_normal((shape.n, shape.d), dtype=np.float32)
    labels = generator.integers(0, TRUE_CLUSTERS, shape.n)
    for first in range(0, shape.n, 100_000):
        points[first : first + 100_000] += centers[labels[first : first + 100_000]]
    return points


def _table(variable: str, costs: list[Cost]) -> list[str]:
    values = np.array([getattr(cost.shape, variable) for cost in costs], dtype=np.float64)
    seconds = np.array([cost.seconds for cost in costs])
    exponent = np.polyfit(np.log(values), np.log(seconds), 1)[0]
    fixed = ", ".join(f"{name} = {getattr(costs[0].shape, name):,}" for name in ("n", "d", "k") if name != variable)
    lines = [
        f"## {variable}: exponent {exponent:.2f} ({fixed})",
        "",
        f"| {variable} | seconds | ns per row, column and cluster | moves on all rows |",
        "| --: | --: | --: | --: |",
    ]
    for cost in costs:
        shape = cost.shape
        each = 1e9 * cost.seconds / (shape.n * shape.d * shape.k)
        lines.append(f"| {getattr(shape, variable):,} | {cost.seconds:.3g} | {each:.3g} | {cost.moves:g} |")
    return lines


if __name__ == "__main__":
    main()
