"""``python -m benchmarks.cost``: growth of the time of a fit with rows, columns and clusters.

Each series changes one of the three. Each shape is measured in a separate process, so that the memory of one does not
count for another. Results are written to docs/cost.json and rendered to docs/cost.md.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import statistics
import time
from pathlib import Path

import numpy as np

from benchmarks import machine
from benchmarks.results import DOCS, Content, Document
from kmeans.arrays import Float32
from kmeans.dataset import MemoryRows
from kmeans.fitting import fit
from kmeans.settings import Settings
from kmeans.system import usable_cpus
from kmeans.threads import ThreadPool

# A fit that takes longer than SLOW_SECONDS is run with one seed.
SEEDS, SLOW_SECONDS = 3, 60.0

# Points are drawn around centers that overlap: neither trivial nor hopeless to cluster.
TRUE_CLUSTERS, SPREAD = 200, 1.0

# A small fit first loads code and starts threads. It is not counted.
WARM_UP_ROWS, WARM_UP_CLUSTERS = 10_000, 50

# Memory of this process as Linux counts it; writing 5 to the second file resets the peak to the current size.
RESIDENT, RESET_PEAK = Path("/proc/self/statm"), Path("/proc/self/clear_refs")

# Rows, columns and clusters of each fit.
Shape = tuple[int, int, int]
SERIES: dict[str, list[Shape]] = {
    "n": [(n, 32, 50) for n in (10_000, 100_000, 1_000_000, 10_000_000)],
    "d": [(200_000, d, 50) for d in (16, 32, 64, 128, 256, 512)],
    "k": [(500_000, 64, k) for k in (10, 100, 1000, 3200, 10_000, 50_000)],
}


def main() -> None:
    """Measure the chosen series and write the document."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cost", description=__doc__)
    parser.add_argument("--output", type=Path, default=DOCS / "cost.md", help="default: docs/cost.md, with cost.json")
    parser.add_argument(
        "--series", nargs="+", choices=list(SERIES), default=list(SERIES), help="series to measure; default: all"
    )
    parser.add_argument("--threads", type=int, default=usable_cpus(), help="default: all CPUs")
    parser.add_argument("--redraw", action="store_true", help="only render the document, from the JSON next to it")
    options = parser.parse_args()
    document = Document(options.output.stem, context, template="cost")
    if options.redraw:
        print(document.render(options.output.parent))
        return
    content: Content = {
        "machine": {**machine.description(), "versions": machine.versions(["numpy"], [machine.PROJECT / "kmeans"])},
        "threads": options.threads,
        "seeds": SEEDS,
        "slow_seconds": SLOW_SECONDS,
        "true_clusters": TRUE_CLUSTERS,
        "fits": [],
    }
    # The measuring processes inherit it: threads work on batches of rows, not within one product.
    os.environ.update(machine.ONE_THREAD)
    for name in options.series:
        for shape in SERIES[name]:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                content["fits"].append({"series": name, **pool.apply(measure, (shape, options.threads))})
        text = document.write(options.output.parent, content)
    print(text)


def measure(shape: Shape, threads: int) -> Content:
    """Return the cost of a fit of ``shape``: medians over the seeds, and the peak of the memory over all of them.

    The peak excludes what the process had before the fits: points, program and libraries.
    """
    n, d, k = shape
    points = _points(n, d)
    seconds, cpu_seconds, moves = [], [], []
    with ThreadPool(threads) as pool:
        fit(MemoryRows(points[:WARM_UP_ROWS]), Settings(k=min(WARM_UP_CLUSTERS, k)), pool=pool)
        before = _reset_peak()
        for seed in range(SEEDS):
            started, cpu = time.perf_counter(), time.process_time()
            fitted = fit(MemoryRows(points, seed=seed), Settings(k=k, seed=seed), pool=pool)
            seconds.append(time.perf_counter() - started)
            cpu_seconds.append(time.process_time() - cpu)
            moves.append(fitted.refinements)
            if seconds[0] > SLOW_SECONDS:
                break
    return {
        **{"n": n, "d": d, "k": k},
        "seconds": round(statistics.median(seconds), 5),
        "cpu_seconds": round(statistics.median(cpu_seconds), 5),
        "moves": statistics.median(moves),
        "peak_bytes": max(0, _peak_bytes() - before),
    }


def _reset_peak() -> int:
    """Reset the peak of this process's memory and return its current size.

    Where Linux does not reset it, the peak so far is returned.
    """
    try:
        RESET_PEAK.write_text("5")
        return int(RESIDENT.read_text().split()[1]) * resource.getpagesize()
    except (OSError, ValueError, IndexError):
        return _peak_bytes()


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _points(n: int, d: int) -> Float32:
    generator = np.random.default_rng(0)
    centers = generator.normal(scale=SPREAD, size=(TRUE_CLUSTERS, d)).astype(np.float32)
    points = generator.standard_normal((n, d), dtype=np.float32)
    labels = generator.integers(0, TRUE_CLUSTERS, n)
    for first in range(0, n, 100_000):
        points[first : first + 100_000] += centers[labels[first : first + 100_000]]
    return points


def context(content: Content) -> Content:
    """Return each series with its exponent b of time = a x^b, fitted by least squares in logarithms."""
    series = []
    for name in dict.fromkeys(each["series"] for each in content["fits"]):
        fits = [each for each in content["fits"] if each["series"] == name]
        values, seconds = ([each[column] for each in fits] for column in (name, "seconds"))
        exponent = np.polyfit(np.log(values), np.log(seconds), 1)[0] if len(fits) > 1 else float("nan")
        fixed = ", ".join(f"{other} = {fits[0][other]:,}" for other in ("n", "d", "k") if other != name)
        series.append({"name": name, "exponent": exponent, "fixed": fixed, "fits": fits})
    return {"series": series}


if __name__ == "__main__":
    main()
