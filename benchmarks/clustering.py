"""``python -m benchmarks.clustering``: k-means and its peers, time and quality.

Every method gets the same points (float32, in memory), the same k, the same seeds and the same number of threads. Only
the fit is timed, after a small one that isn't counted. Quality is the loss over all rows and the sizes of the clusters
(``benchmarks.quality``), whatever the method says of itself.

Cases are in three groups with their own methods: few clusters, tables (skewed and small ones, by ratio to the best of
30 runs of scikit-learn), and many clusters. Cases whose data is in a folder are left out without it.
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
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import kmeans
from benchmarks.cases import CASES, FOLDER_VARIABLES, GROUPS, QUICK_CASES, TABLES, Case, load
from benchmarks.curves import Run, as_json, from_json
from benchmarks.machine import PROGRAMS, processor
from benchmarks.methods import METHODS, REFERENCE, Method, Variant
from benchmarks.picture import draw
from benchmarks.quality import quality
from benchmarks.report import markdown
from benchmarks.runner import Failed, MethodProcess, Timed
from benchmarks.synthetic import Data
from kmeans.system import usable_cpus

# What takes longer is run with fewer seeds.
SLOW_SECONDS = 30.0

# A run is disturbed if others took so much (in CPUs) of those that its threads need; it is repeated, if it is short.
DISTURBED_CPUS, REPEATS, REPEATED_SECONDS = 0.2, 2, 5.0

QUICK_SEEDS, QUICK_ROWS, QUICK_ROWS_PER_CLUSTER, QUICK_LIMIT_SECONDS = 2, 10_000, 20, 10.0
QUICK_OUTPUT = Path("build/benchmark")

PEERS = ("numpy", "scikit-learn", "faiss-cpu", "superkmeans", "bkmeans")


def main() -> int:
    """Run the benchmark and return the exit code."""
    options = _options()
    options.output.mkdir(parents=True, exist_ok=True)
    raw = options.output / "benchmark.json"
    if options.redraw:
        content = json.loads(raw.read_text())
        _write(options.output, [from_json(run) for run in content["runs"]], content["machine"], content["notes"])
        return 0
    cases = _cases(options)
    methods = [method for method in METHODS if not options.methods or method.name in options.methods]
    runs, before = _kept(raw, cases, methods) if options.update else ([], None)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        sources = _freeze(Path(folder))
        machine, notes = _machine(options.threads, sources), _notes(options, cases)
        if before is not None:
            notes = [*before["notes"], *(note for note in notes if note not in before["notes"])]
            notes.append(_run_later(machine, cases, methods))
            machine = before["machine"]
        file = Path(folder) / "points.npy"
        for data in dict.fromkeys(case.data for case in cases):
            data_set = _load(data, options)
            np.save(file, data_set[0])
            for case in (case for case in cases if case.data == data):
                runs += _compare(_fitting(case, options), data_set, file, methods, options)
                spent = f"{(time.perf_counter() - started) / 60:.1f} minutes"
                # After every case: what is done stays if the benchmark is stopped.
                _write(options.output, _sorted(runs), {"duration": spent, **machine}, notes)
                print(f"{case.name} done, {spent} so far", file=sys.stderr)
    print((options.output / "benchmark.md").read_text())
    return 0


def _load(data: str, options: argparse.Namespace) -> Data:
    """Return the points and known labels of ``data``.

    If quick, of every n-th row; of tables always all.
    """
    points, labels = load(data, options.folders)
    if not options.quick or any(case.group is TABLES for case in CASES if case.data == data):
        return points, labels
    step = max(1, len(points) // QUICK_ROWS)
    return (
        np.ascontiguousarray(points[::step][:QUICK_ROWS]),
        None if labels is None else labels[::step][:QUICK_ROWS],
    )


def _fitting(case: Case, options: argparse.Namespace) -> Case:
    """Return ``case``, if quick with as many clusters as its rows allow."""
    if not options.quick or case.group is TABLES:
        return case
    return replace(case, k=min(case.k, QUICK_ROWS // QUICK_ROWS_PER_CLUSTER))


def _run_later(machine: dict[str, str], cases: Sequence[Case], methods: Sequence[Method]) -> str:
    program = machine["versions"].partition(", Python")[0]
    which = "all methods" if len(methods) == len(METHODS) else "; ".join(method.name for method in methods)
    where = "all cases" if len(cases) == len(CASES) else ", ".join(case.name for case in cases)
    return f"run later than the others, on {machine['date']} by {program}: {which} on {where}"


def _kept(raw: Path, cases: Sequence[Case], methods: Sequence[Method]) -> tuple[list[Run], dict[str, Any]]:
    """Return the runs in the file ``raw`` that aren't run again, and what else stands there."""
    content = json.loads(raw.read_text())
    again = {(case.name, method.name) for case in cases for method in methods}
    runs = [from_json(run) for run in content["runs"] if (run["case"], run["method"]) not in again]
    return runs, {"machine": content["machine"], "notes": content["notes"]}


def _sorted(runs: Sequence[Run]) -> list[Run]:
    """Return the runs in the order of the table."""
    cases = [case.name for case in CASES]
    variants = [(method.name, variant.name) for method in METHODS for variant in method.variants]
    known = [run for run in runs if run.case in cases and (run.method, run.variant) in variants]
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
    case: Case, data_set: Data, file: Path, methods: Sequence[Method], options: argparse.Namespace
) -> list[Run]:
    """Return the runs of all ``methods`` on ``case``.

    Each of their variants is run with one seed before the next seed begins.
    """
    variants = {method.name: method.variants_for(case, len(data_set[0])) for method in methods}
    turns = [(method, variant) for method in methods for variant in variants[method.name]]
    processes = {
        method.name: MethodProcess(method, file, case.k, options.threads, first=variants[method.name][0])
        for method in methods
        if variants[method.name]
    }
    seeds = options.seeds or case.group.seeds
    seeds_left = {(method.name, variant.name): min(seeds, variant.seeds or seeds) for method, variant in turns}
    limit = options.limit or case.group.limit
    runs: list[Run] = []
    try:
        for seed in range(seeds):
            for method, variant in turns:
                if seeds_left[method.name, variant.name] <= seed:
                    continue
                outcome = _measure(processes[method.name], variant, seed, limit, options.threads)
                runs.append(_run(case, data_set, method, variant, seed, outcome=outcome))
                if isinstance(outcome, Failed):
                    # Neither is it tried again, nor what costs more.
                    later = variants[method.name][variants[method.name].index(variant) :]
                    seeds_left.update({(method.name, costlier.name): 0 for costlier in later})
                elif outcome.seconds > SLOW_SECONDS:
                    fewer = min(case.group.slow_seeds, seeds_left[method.name, variant.name])
                    seeds_left[method.name, variant.name] = fewer
    finally:
        for process in processes.values():
            process.end()
    return runs


def _measure(process: MethodProcess, variant: Variant, seed: int, limit: float, threads: int) -> Timed | Failed:
    """Return one run; if others kept the CPUs busy, the least disturbed of a few."""
    spare = max(0, (os.cpu_count() or 1) - threads)
    best = process.run(variant, seed, limit)
    for _ in range(REPEATS):
        if isinstance(best, Failed) or best.others <= spare + DISTURBED_CPUS or best.seconds > REPEATED_SECONDS:
            break
        again = process.run(variant, seed, limit)
        if isinstance(again, Timed) and again.others < best.others:
            best = again
    return best


def _run(case: Case, data_set: Data, method: Method, variant: Variant, seed: int, *, outcome: Timed | Failed) -> Run:
    """Return the record of one run, its quality measured, and print it."""
    what = f"{case.name}  {method.name}, {variant.name}, seed {seed}"
    if isinstance(outcome, Failed):
        print(f"{what}: {outcome.reason}", file=sys.stderr)
        return Run(case.name, method.name, variant.name, seed, failure=outcome.reason)
    points, labels = data_set
    found = quality(points, outcome.centers, case.metric, labels)
    print(
        f"{what}: {outcome.seconds:.3f} s, loss {found.loss:.6g}, clusters of {found.smallest} to {found.largest} "
        f"rows, {found.under_three} under 3, others {outcome.others:.2f} CPUs",
        file=sys.stderr,
    )
    return Run(
        case=case.name,
        method=method.name,
        variant=variant.name,
        seed=seed,
        seconds=round(outcome.seconds, 5),
        cpu_seconds=round(outcome.cpu_seconds, 5),
        others=round(outcome.others, 2),
        **asdict(found),
    )


def _write(folder: Path, runs: Sequence[Run], machine: dict[str, str], notes: Sequence[str]) -> None:
    _write_raw(folder, runs, machine, notes)
    (folder / "benchmark.md").write_text(markdown(runs, machine, notes))
    draw(runs, folder / "benchmark.png")


def _write_raw(folder: Path, runs: Sequence[Run], machine: dict[str, str], notes: Sequence[str]) -> None:
    # A run a line: differences between two versions of the file can be read.
    lines = ",\n  ".join(json.dumps(as_json(run)) for run in runs)
    head = json.dumps({"machine": machine, "notes": notes}, indent=1)
    (folder / "benchmark.json").write_text(f'{head[:-2]},\n "runs": [\n  {lines}\n ]\n}}\n')


def _cases(options: argparse.Namespace) -> list[Case]:
    """Return the cases asked for; without names, those that there is data for."""
    named = options.cases or (QUICK_CASES if options.quick else [case.name for case in CASES])
    cases = [case for case in CASES if case.name in named and case.group.name in options.groups]
    for data, variable in FOLDER_VARIABLES.items():
        if options.folders[data] is None and any(case.data == data for case in cases):
            print(f"No folder was given (--{data}, {variable}): cases of {data} are left out.", file=sys.stderr)
            cases = [case for case in cases if case.data != data]
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


def _notes(options: argparse.Namespace, cases: Sequence[Case]) -> list[str]:
    """Return how the tables are to be read."""
    quick = (
        f"A smoke test: but for tables {QUICK_ROWS:,} rows of each data set, and at most a cluster for "
        f"{QUICK_ROWS_PER_CLUSTER} rows"
    )
    efforts = []
    for group in (group for group in GROUPS if any(case.group is group for case in cases)):
        seeds, limit = options.seeds or group.seeds, options.limit or group.limit
        slow = min(seeds, group.slow_seeds)
        efforts.append(
            f"{group.name}: seeds 0 to {seeds - 1}, for what takes more than {SLOW_SECONDS:g} s a run 0 to {slow - 1}; "
            f"a run of more than {limit:g} s is cut, and the method's costlier settings are left out"
        )
    method, variant = REFERENCE
    of_tables = [
        "tables: median / worst loss over the seeds, divided by the loss of the best of 30 runs of scikit-learn "
        f"({method}, {variant}, seed 0), and the median of s",
        "tables, sizes: smallest-largest cluster over all seeds, median number of clusters under 3 rows; adjusted Rand "
        "index where labels are known",
    ]
    of_many = [
        "smallest, largest: rows of a cluster, over all seeds; under 3 rows: number of such clusters, median; adjusted "
        "Rand index: agreement with known labels, 1 if the clusters are the same",
        "1 - cosine: mean over all rows, between a row and the nearest center; scikit-learn's MiniBatchKMeans knows "
        "squared distances only, and is run on the same rows of length 1",
    ]
    groups = {case.group.name for case in cases}
    return [
        *([quick] if options.quick else []),
        *efforts,
        "points are float32, in memory; only the fit is timed, up to the centers, after a small one that isn't "
        "counted; scikit-learn's times include the labels of all rows, ours, faiss' and SuperKMeans' don't",
        f"others: CPUs that other processes used meanwhile, median; a run of at most {REPEATED_SECONDS:g} s that they "
        f"left too little is repeated up to {REPEATS} times, and the least disturbed counts",
        "s: seconds on the clock; CPU s: of all threads, median, with the time that they spin waiting for each other",
        "msd: mean squared distance of all rows to their nearest center, by the same code for all methods",
        "our s to this msd: on the front of our own settings, interpolated between two of them (linear in msd and in "
        "log time), never extrapolated; ratio: the peer's time / that; above 1 we are faster",
        "on the front: no peer's setting is both as fast and as good as our default",
        "best peer: its setting of the least loss",
        *(of_tables if "tables" in groups else []),
        *(of_many if "many" in groups else []),
    ]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.clustering",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [group.name for group in GROUPS]
    parser.add_argument(
        "--groups",
        nargs="+",
        choices=names,
        default=names,
        metavar="GROUP",
        help=f"groups of cases, of {', '.join(names)}; default: all",
    )
    parser.add_argument(
        "--cases",
        type=_names(case.name for case in CASES),
        help=f"comma-separated, of {', '.join(case.name for case in CASES)}; default: all of the groups",
    )
    parser.add_argument(
        "--methods",
        type=_names((method.name for method in METHODS), separator=";"),
        help=f"separated by ;, of {'; '.join(method.name for method in METHODS)}; default: all that the group has",
    )
    parser.add_argument(
        "--seeds", type=int, help=f"runs of each setting; default: {_by_group('seeds')}, if quick {QUICK_SEEDS}"
    )
    parser.add_argument("--threads", type=int, default=usable_cpus(), help="default: the usable CPUs")
    parser.add_argument(
        "--limit",
        type=float,
        help=f"seconds after which a run is cut; default: {_by_group('limit')}, if quick {QUICK_LIMIT_SECONDS:g}",
    )
    for data, variable in FOLDER_VARIABLES.items():
        parser.add_argument(f"--{data}", type=Path, metavar="DIR", help=f"folder of {data}; default: {variable}")
    parser.add_argument("--output", type=Path, help=f"folder of the results; default: docs, if quick {QUICK_OUTPUT}")
    parser.add_argument(
        "--quick", action="store_true", help="a smoke test of minutes: fewer rows, clusters, seeds and cases"
    )
    parser.add_argument(
        "--update", action="store_true", help="keep the runs in the output's JSON of other methods and cases"
    )
    parser.add_argument("--redraw", action="store_true", help="table and picture again, from the output's JSON")
    options = parser.parse_args()
    options.folders = {data: _folder(getattr(options, data), variable) for data, variable in FOLDER_VARIABLES.items()}
    if options.quick:
        options.seeds = options.seeds or QUICK_SEEDS
        options.limit = options.limit or QUICK_LIMIT_SECONDS
    options.output = options.output or (QUICK_OUTPUT if options.quick else Path("docs"))
    return options


def _folder(given: Path | None, variable: str) -> Path | None:
    named = os.environ.get(variable)
    return given or (Path(named) if named else None)


def _by_group(what: str) -> str:
    return ", ".join(f"{group.name} {getattr(group, what):g}" for group in GROUPS)


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
