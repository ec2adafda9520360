"""``python -m benchmarks.cost``: how the time of a fit grows with rows, columns and clusters.

Each table changes one of the three and fits the exponent b of time = a x^b: 1 is linear. Written to docs/cost.md.
Each shape is measured in a separate process: the memory of one doesn't count for another.
"""

from __future__ import annotations

import argparse
import datetime
import multiprocessing
import os
import resource
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

# Before NumPy is imported: threads go over blocks of rows.
for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ[name] = "1"

import numpy as np  # noqa: E402

from kmeans.arrays import Float32  # noqa: E402
from kmeans.dataset import MemoryRows  # noqa: E402
from kmeans.fitting import fit  # noqa: E402
from kmeans.settings import Settings  # noqa: E402
from kmeans.system import usable_cpus  # noqa: E402
from kmeans.threads import ThreadPool  # noqa: E402

SEEDS = 3
# A fit that takes longer is run with one seed.
SLOW_SECONDS = 60.0

# Points are drawn around so many centers, which overlap: neither trivial nor hopeless to cluster.
TRUE_CLUSTERS, SPREAD = 200, 1.0

# A small fit first: imports, threads, code pages. It isn't counted.
WARM_UP_ROWS, WARM_UP_CLUSTERS = 10_000, 50

# Memory of this process as Linux counts it; 5 written to the second makes the peak start again from the current size.
RESIDENT, RESET_PEAK = Path("/proc/self/statm"), Path("/proc/self/clear_refs")


@dataclass(frozen=True, slots=True)
class Shape:
    """Rows, columns and clusters of one fit."""

    n: int
    d: int
    k: int


SERIES = {
    "n": [Shape(n, 32, 50) for n in (10_000, 100_000, 1_000_000, 10_000_000)],
    "d": [Shape(200_000, d, 50) for d in (16, 32, 64, 128, 256, 512)],
    "k": [Shape(500_000, 64, k) for k in (10, 100, 1000, 3200, 10_000, 50_000)],
}


@dataclass(frozen=True, slots=True)
class Cost:
    """Cost of a fit of a shape, medians over the seeds but for the memory.

    Attributes
    ----------
    shape
        Rows, columns and clusters.
    seconds
        Time on the clock.
    moves
        Number of moves of the centers on all rows.
    peak_bytes
        Largest memory of the process in any of the fits, less what it had before them: points, program, libraries.
    """

    shape: Shape
    seconds: float
    moves: float
    peak_bytes: int


def main() -> None:
    """Measure all series and write the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cost", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("docs/cost.md"), help="default: docs/cost.md")
    parser.add_argument(
        "--series", nargs="+", choices=list(SERIES), default=list(SERIES), help="tables to make; default: all"
    )
    parser.add_argument("--threads", type=int, default=usable_cpus(), help="default: all CPUs")
    options = parser.parse_args()
    text = [
        "# What a fit costs",
        "",
        "Made by `python -m benchmarks.cost`: seconds of a fit with default hyperparameters, points in memory, median "
        f"of {SEEDS} seeds (of one if a fit takes more than {SLOW_SECONDS:g} s), {options.threads} threads, "
        f"{datetime.datetime.now(tz=datetime.UTC).date()}. The exponent b of time = a x^b is fitted by least squares "
        f"in logarithms; 1 is linear growth. Points are drawn around {TRUE_CLUSTERS} centers that overlap. Memory is "
        "the peak of a fit beyond the points, the program and its libraries.",
    ]
    for variable in options.series:
        costs = [_in_a_process(shape, options.threads) for shape in SERIES[variable]]
        text += ["", *_table(variable, costs)]
        print("\n".join(text[-len(costs) - 5 :]), flush=True)
    options.output.write_text("\n".join(text) + "\n")


def _in_a_process(shape: Shape, threads: int) -> Cost:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, (shape, threads))


def measure(shape: Shape, threads: int) -> Cost:
    """Return the cost of a fit of ``shape``."""
    points = _points(shape)
    seconds, moves = [], []
    with ThreadPool(threads) as pool:
        warm_up = points[:WARM_UP_ROWS]
        fit(MemoryRows(warm_up), Settings(k=min(WARM_UP_CLUSTERS, shape.k)), pool=pool)
        before = _start_peak()
        for seed in range(SEEDS):
            started = time.perf_counter()
            fitted = fit(MemoryRows(points, seed=seed), Settings(k=shape.k, seed=seed), pool=pool)
            seconds.append(time.perf_counter() - started)
            moves.append(fitted.refinements)
            if seconds[0] > SLOW_SECONDS:
                break
    return Cost(shape, statistics.median(seconds), statistics.median(moves), max(0, _peak_bytes() - before))


def _start_peak() -> int:
    """Return the memory of this process, and reset its peak to it.

    Where Linux doesn't reset it, the peak so far is returned.
    """
    try:
        RESET_PEAK.write_text("5")
        return int(RESIDENT.read_text().split()[1]) * resource.getpagesize()
    except (OSError, ValueError, IndexError):
        return _peak_bytes()


def _peak_bytes() -> int:
    """Return the largest memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


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
        f"| {variable} | seconds | ns per row, column and cluster | moves on all rows | memory, MB |",
        "| --: | --: | --: | --: | --: |",
    ]
    for cost in costs:
        shape = cost.shape
        each = 1e9 * cost.seconds / (shape.n * shape.d * shape.k)
        memory = f"{cost.peak_bytes / 1e6:,.0f}"
        lines.append(f"| {getattr(shape, variable):,} | {cost.seconds:.3g} | {each:.3g} | {cost.moves:g} | {memory} |")
    return lines


if __name__ == "__main__":
    main()
