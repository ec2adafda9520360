"""``python -m benchmarks.clustering``: k-means against its peers, time against quality, in one table and one picture.

Every method gets the same points (float32, in memory), the same k, the same seeds and the same number of threads. Only
the fit is timed, after a small one that isn't counted. Quality is the mean squared distance of all rows
(``benchmarks.quality``), whatever the method says of itself.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import kmeans
from benchmarks.cases import CASES, Case, load
from benchmarks.machine import PROGRAMS, processor
from benchmarks.methods import METHODS, Method, Variant
from benchmarks.quality import mean_squared_distance
from benchmarks.report import Run, as_json, draw, markdown
from benchmarks.runner import Failed, MethodProcess, Timed
from kmeans.arrays import Float32
from kmeans.machine import usable_cpus

SEEDS = 5
# One run may take so long; what takes longer than SLOW_SECONDS is run with fewer seeds.
LIMIT_SECONDS = 120.0
SLOW_SECONDS, SLOW_SEEDS = 30.0, 2

# A run is disturbed if others took so much (in CPUs) of those that its threads need; it is repeated, if it is short.
DISTURBED_CPUS, REPEATS, REPEATED_SECONDS = 0.2, 2, 5.0

QUICK_SEEDS, QUICK_ROWS, QUICK_LIMIT_SECONDS = 2, 10_000, 10.0
QUICK_CASES = ("mnist-10", "gaussian-100", "embedding-256")
QUICK_OUTPUT = Path("build/benchmark")

PEERS = ("numpy", "scikit-learn", "faiss-cpu", "superkmeans")


def main() -> int:
    """Run the benchmark and return the exit code."""
    options = _options()
    options.output.mkdir(parents=True, exist_ok=True)
    raw = options.output / "benchmark.json"
    if options.redraw:
        content = json.loads(raw.read_text())
        _write(options.output, [Run(**run) for run in content["runs"]], content["machine"], content["notes"])
        return 0
    cases = _cases(options)
    methods = [method for method in METHODS if not options.methods or method.name in options.methods]
    runs, before = _kept(raw, cases, methods) if options.update else ([], None)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        sources = _freeze(Path(folder))
        machine, notes = _machine(options.threads, sources), _notes(options)
        if before is not None:
            program = machine["versions"].partition(", Python")[0]
            names = "; ".join(method.name for method in methods)
            notes = [*before["notes"], f"run later than the others, on {machine['date']} by {program}: {names}"]
            machine = before["machine"]
        file = Path(folder) / "points.npy"
        for data in dict.fromkeys(case.data for case in cases):
            points = load(data, options.mnist)
            if options.quick:
                points = points[:QUICK_ROWS]
            np.save(file, points)
            for case in (case for case in cases if case.data == data):
                runs += _compare(case, points, file, methods, options)
                spent = f"{(time.perf_counter() - started) / 60:.1f} minutes"
                # After every case: who stops the benchmark has what is done.
                _write(options.output, _sorted(runs), {"duration": spent, **machine}, notes)
                print(f"{case.name} done, {spent} so far", file=sys.stderr)
    print((options.output / "benchmark.md").read_text())
    return 0


def _kept(raw: Path, cases: Sequence[Case], methods: Sequence[Method]) -> tuple[list[Run], dict[str, Any]]:
    """Return the runs in the file ``raw`` that aren't run again, and what else stands there."""
    content = json.loads(raw.read_text())
    again = {(case.name, method.name) for case in cases for method in methods}
    runs = [Run(**run) for run in content["runs"] if (run["case"], run["method"]) not in again]
    return runs, {"machine": content["machine"], "notes": content["notes"]}


def _sorted(runs: Sequence[Run]) -> list[Run]:
    """Return the runs in the order of the table."""
    cases = [case.name for case in CASES]
    variants = [(method.name, variant.name) for method in METHODS for variant in method.variants]
    known = [run for run in runs if (run.method, run.variant) in variants]
    return sorted(known, key=lambda run: (cases.index(run.case), variants.index((run.method, run.variant)), run.seed))


def _freeze(folder: Path) -> str:
    """Have all processes import a copy of ``kmeans`` as it is now, and return a digest of it.

    They start one after another for half an hour; someone may be editing meanwhile, and a table has one program.
    """
    package = Path(kmeans.__file__).parent
    shutil.copytree(package, folder / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(Path(__file__).parent, folder / "benchmarks", ignore=shutil.ignore_patterns("__pycache__"))
    # The settings of the heap are read from there.
    shutil.copytree(PROGRAMS, folder / "container" / "bin")
    sys.path.insert(0, str(folder))
    digest = hashlib.sha256()
    for source in sorted((folder / package.name).rglob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:12]


def _compare(
    case: Case, points: Float32, file: Path, methods: Sequence[Method], options: argparse.Namespace
) -> list[Run]:
    """Return the runs of all ``methods`` on ``case``: a seed for each of their variants, then the next seed."""
    processes = {method.name: MethodProcess(method, file, case.k, options.threads) for method in methods}
    turns = [(method, variant) for method in methods for variant in method.variants]
    seeds_left = {(method.name, variant.name): options.seeds for method, variant in turns}
    runs: list[Run] = []
    try:
        for seed in range(options.seeds):
            for method, variant in turns:
                if seeds_left[method.name, variant.name] <= seed:
                    continue
                outcome = _measure(processes[method.name], variant, seed, options)
                run = _run(case, points, method, variant, seed, outcome=outcome)
                runs.append(run)
                if isinstance(outcome, Failed):
                    # Neither is it tried again, nor what costs more.
                    for later in method.variants[method.variants.index(variant) :]:
                        seeds_left[method.name, later.name] = 0
                elif outcome.seconds > SLOW_SECONDS:
                    seeds_left[method.name, variant.name] = min(SLOW_SEEDS, seeds_left[method.name, variant.name])
    finally:
        for process in processes.values():
            process.end()
    return runs


def _measure(process: MethodProcess, variant: Variant, seed: int, options: argparse.Namespace) -> Timed | Failed:
    """Return one run; if others kept the CPUs busy, the least disturbed of a few."""
    spare = max(0, (os.cpu_count() or 1) - options.threads)
    best = process.run(variant, seed, options.limit)
    for _ in range(REPEATS):
        if isinstance(best, Failed) or best.others <= spare + DISTURBED_CPUS or best.seconds > REPEATED_SECONDS:
            break
        again = process.run(variant, seed, options.limit)
        if isinstance(again, Timed) and again.others < best.others:
            best = again
    return best


def _run(case: Case, points: Float32, method: Method, variant: Variant, seed: int, *, outcome: Timed | Failed) -> Run:
    """Return the record of one run, its quality measured, and say it."""
    what = f"{case.name}  {method.name}, {variant.name}, seed {seed}"
    if isinstance(outcome, Failed):
        print(f"{what}: {outcome.reason}", file=sys.stderr)
        return Run(case.name, method.name, variant.name, seed, failure=outcome.reason)
    msd = mean_squared_distance(points, outcome.centers)
    print(f"{what}: {outcome.seconds:.3f} s, msd {msd:.4f}, others {outcome.others:.2f} CPUs", file=sys.stderr)
    return Run(
        case=case.name,
        method=method.name,
        variant=variant.name,
        seed=seed,
        seconds=round(outcome.seconds, 5),
        cpu_seconds=round(outcome.cpu_seconds, 5),
        others=round(outcome.others, 2),
        mean_squared_distance=msd,
    )


def _write(folder: Path, runs: Sequence[Run], machine: dict[str, str], notes: Sequence[str]) -> None:
    content = {"machine": machine, "notes": notes, "runs": [as_json(run) for run in runs]}
    # A run a line: differences between two versions of the file can be read.
    lines = ",\n  ".join(json.dumps(run) for run in content.pop("runs"))
    head = json.dumps(content, indent=1)
    (folder / "benchmark.json").write_text(f'{head[:-2]},\n "runs": [\n  {lines}\n ]\n}}\n')
    (folder / "benchmark.md").write_text(markdown(runs, machine, notes))
    draw(runs, folder / "benchmark.png")


def _cases(options: argparse.Namespace) -> list[Case]:
    """Return the cases asked for; without names, those that there is data for."""
    named = options.cases or (QUICK_CASES if options.quick else [case.name for case in CASES])
    cases = [case for case in CASES if case.name in named]
    if options.mnist is None and any(case.data == "mnist" for case in cases):
        print("No folder of MNIST was given (--mnist, KMEANS_MNIST_DIR): its cases are left out.", file=sys.stderr)
        cases = [case for case in cases if case.data != "mnist"]
    return cases


def _machine(threads: int, sources: str) -> dict[str, str]:
    """Return what the figures depend on besides the code."""
    program = f"kmeans {kmeans.__version__} ({_revision()}, sources {sources})"
    packages = ", ".join(f"{name} {version(name)}" for name in PEERS)
    return {
        "machine": f"{processor()}, {usable_cpus()} CPUs, {platform.system()} {platform.machine()}",
        "threads": str(threads),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "versions": f"{program}, Python {platform.python_version()}, {packages}",
        "load average before the run": " ".join(f"{load:.1f}" for load in os.getloadavg()),
    }


def _revision() -> str:
    """Return the commit, and whether the files differ from it."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--exclude=*"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "no git"
    return done.stdout.strip()


def _notes(options: argparse.Namespace) -> list[str]:
    """Return how the tables are to be read."""
    rows = [f"A smoke test: the first {QUICK_ROWS:,} rows of each data set"] if options.quick else []
    return [
        *rows,
        f"{options.seeds} seeds (0 to {options.seeds - 1}); {SLOW_SEEDS} for what takes more than {SLOW_SECONDS:g} s "
        f"a run; a run of more than {options.limit:g} s is cut, and the method's costlier settings are left out",
        "points are float32, in memory; only the fit is timed, up to the centers, after a small one that isn't "
        "counted; scikit-learn's times include the labels of all rows, ours, faiss' and SuperKMeans' don't",
        f"others: CPUs that other processes used meanwhile, median; a run of at most {REPEATED_SECONDS:g} s that they "
        f"left too little is repeated up to {REPEATS} times, and the least disturbed counts",
        "s: seconds on the clock; CPU s: of all threads, median, with the time that they spin waiting for each other",
        "msd: mean squared distance of all rows to their nearest center, by the same code for all methods",
        "our s to this msd: on the front of our own settings, interpolated between two of them (linear in msd and in "
        "log time), never extrapolated; ratio: the peer's time / that; above 1 we are faster",
        "on the front: no peer's setting is both as fast and as good as our default",
    ]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.clustering", description=__doc__)
    parser.add_argument("--cases", type=_names(case.name for case in CASES), help="comma-separated; default: all")
    parser.add_argument(
        "--methods", type=_names((method.name for method in METHODS), separator=";"), help="separated by ;"
    )
    parser.add_argument("--seeds", type=int, help=f"default: {SEEDS}")
    parser.add_argument("--threads", type=int, default=usable_cpus(), help="default: the usable CPUs")
    parser.add_argument("--limit", type=float, help=f"seconds of one run; default: {LIMIT_SECONDS:g}")
    parser.add_argument("--mnist", type=Path, help="folder of MNIST's files; default: KMEANS_MNIST_DIR")
    parser.add_argument("--output", type=Path, help=f"folder of the results; default: docs, if quick {QUICK_OUTPUT}")
    parser.add_argument("--quick", action="store_true", help="a smoke test: fewer rows, seeds and cases")
    parser.add_argument(
        "--update", action="store_true", help="keep the runs in the output's JSON of other methods and cases"
    )
    parser.add_argument("--redraw", action="store_true", help="table and picture again, from the output's JSON")
    options = parser.parse_args()
    folder = os.environ.get("KMEANS_MNIST_DIR")
    options.mnist = options.mnist or (Path(folder) if folder else None)
    options.seeds = options.seeds or (QUICK_SEEDS if options.quick else SEEDS)
    options.limit = options.limit or (QUICK_LIMIT_SECONDS if options.quick else LIMIT_SECONDS)
    options.output = options.output or (QUICK_OUTPUT if options.quick else Path("docs"))
    return options


class _names:  # noqa: N801 - reads as a function
    """Parses a list of known names."""

    def __init__(self, known: Iterable[str], separator: str = ",") -> None:
        self._known = list(known)
        self._separator = separator

    def __call__(self, text: str) -> list[str]:
        names = [name.strip() for name in text.split(self._separator)]
        for name in names:
            if name not in self._known:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(map(repr, self._known))}")
        return names


if __name__ == "__main__":
    sys.exit(main())
