"""``python -m benchmarks.clustering``: time and quality of k-means and its peers.

Every method gets the same points (float32, in memory), the same k, the same seeds and the same number of threads. Only
the fit is timed, after a small one that is not counted. Quality is the loss over all rows and the sizes of the clusters
(``benchmarks.quality``), computed by the same code for all methods.

Cases are in three groups with their own methods: few clusters, tables (skewed and small ones, by ratio to the best of
30 runs of scikit-learn), and many clusters. Cases whose data is in a folder are left out without it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from benchmarks import machine
from benchmarks.cases import CASES, GROUPS, QUICK_CASES, TABLES, Case
from benchmarks.clustering_report import DOCUMENT, Run, as_json, from_json
from benchmarks.data_sets import FOLDER_VARIABLES, Data, folder_of, load
from benchmarks.methods import METHODS, Method, Variant
from benchmarks.quality import quality
from benchmarks.results import DOCS, QUICK, Content
from benchmarks.runner import Failed, MethodProcess, Timed
from kmeans.system import usable_cpus

# A setting whose run takes longer than this is run with fewer seeds.
SLOW_SECONDS = 30.0

# A run is disturbed if other processes used this many CPUs of those that its threads need. It is repeated if it is
# short.
DISTURBED_CPUS, REPEATS, REPEATED_SECONDS = 0.2, 2, 5.0

QUICK_SEEDS, QUICK_ROWS, QUICK_ROWS_PER_CLUSTER, QUICK_LIMIT_SECONDS = 2, 10_000, 20, 10.0

PEERS = ("numpy", "scikit-learn", "faiss-cpu", "superkmeans", "bkmeans")


def main() -> int:
    """Run the benchmark and return the exit code."""
    options = _options()
    if options.redraw:
        print(DOCUMENT.render(options.output))
        return 0
    cases = _cases(options)
    methods = [method for method in METHODS if not options.methods or method.name in options.methods]
    before = DOCUMENT.read(options.output) if options.update else None
    runs = kept_runs(before, cases, methods) if before else []
    started, text = time.perf_counter(), "No case was run."
    with tempfile.TemporaryDirectory() as folder:
        content = _content(options, cases, sources=_freeze(Path(folder)))
        if before:
            content = _updated(before, content, cases, methods)
        file = Path(folder) / "points.npy"
        for data in dict.fromkeys(case.data for case in cases):
            data_set = _load(data, options)
            np.save(file, data_set[0])
            for case in (case for case in cases if case.data == data):
                runs += Comparison(_fitting(case, options), data_set, file, methods, options).runs()
                spent = f"{(time.perf_counter() - started) / 60:.1f} minutes"
                if not before:
                    content["machine"]["duration"] = spent
                content["runs"] = [as_json(run) for run in sorted_runs(runs)]
                # After every case, so that results are kept if the benchmark is interrupted.
                text = DOCUMENT.write(options.output, content)
                print(f"{case.name} done, {spent} so far", file=sys.stderr)
    print(text)
    return 0


def _content(options: argparse.Namespace, cases: Sequence[Case], sources: Path) -> Content:
    """Return the description of the measurement, without runs."""
    groups = [group for group in GROUPS if any(case.group is group for case in cases)]
    efforts = {}
    for group in groups:
        seeds, limit = options.seeds or group.seeds, options.limit or group.limit
        efforts[group.name] = {"seeds": seeds, "slow_seeds": min(seeds, group.slow_seeds), "limit": limit}
    return {
        "machine": {
            **machine.description(),
            "threads": str(options.threads),
            "versions": machine.versions(PEERS, [sources]),
        },
        "quick": {"rows": QUICK_ROWS, "rows_per_cluster": QUICK_ROWS_PER_CLUSTER} if options.quick else None,
        "efforts": efforts,
        "protocol": {"slow_seconds": SLOW_SECONDS, "repeats": REPEATS, "repeated_seconds": REPEATED_SECONDS},
        "later": [],
    }


def _updated(before: Content, content: Content, cases: Sequence[Case], methods: Sequence[Method]) -> Content:
    """Return ``content`` for results that keep runs of ``before``: its machine, and what is run now."""
    now, then = content["machine"], before["machine"]
    run = {
        "date": now["date"],
        "program": now["versions"].partition(", Python")[0],
        "machine": "" if now["machine"] == then["machine"] else f"another machine ({now['machine']})",
        "methods": [] if len(methods) == len(METHODS) else [method.name for method in methods],
        "cases": [] if len(cases) == len(CASES) else [case.name for case in cases],
    }
    return {
        **content,
        "machine": then,
        "efforts": {**content["efforts"], **before.get("efforts", {})},
        "later": [*before.get("later", []), run],
    }


def kept_runs(content: Content, cases: Sequence[Case], methods: Sequence[Method]) -> list[Run]:
    """Return the stored runs that are not run again."""
    again = {(case.name, method.name) for case in cases for method in methods}
    return [from_json(run) for run in content["runs"] if (run["case"], run["method"]) not in again]


def sorted_runs(runs: Sequence[Run]) -> list[Run]:
    """Return the runs of known cases and variants in the order of the table."""
    cases = [case.name for case in CASES]
    variants = [(method.name, variant.name) for method in METHODS for variant in method.variants]
    known = [run for run in runs if run.case in cases and (run.method, run.variant) in variants]
    return sorted(known, key=lambda run: (cases.index(run.case), variants.index((run.method, run.variant)), run.seed))


def _load(data: str, options: argparse.Namespace) -> Data:
    """Return points and known labels of ``data``; with ``--quick`` only of every n-th row, except for tables."""
    points, labels = load(data, options.folders)
    if not options.quick or any(case.group is TABLES for case in CASES if case.data == data):
        return points, labels
    step = max(1, len(points) // QUICK_ROWS)
    return (
        np.ascontiguousarray(points[::step][:QUICK_ROWS]),
        None if labels is None else labels[::step][:QUICK_ROWS],
    )


def _fitting(case: Case, options: argparse.Namespace) -> Case:
    """Return ``case``; with ``--quick`` with no more clusters than its rows allow."""
    if not options.quick or case.group is TABLES:
        return case
    return replace(case, k=min(case.k, QUICK_ROWS // QUICK_ROWS_PER_CLUSTER))


def _freeze(folder: Path) -> Path:
    """Copy the program to ``folder``, let all processes import the copy, and return the folder of ``kmeans`` in it.

    Processes are started during the whole benchmark, and the sources may be edited meanwhile.
    """
    # The allocator's settings are read from container/bin.
    for part in ("kmeans", "benchmarks", "container/bin"):
        shutil.copytree(machine.PROJECT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    sys.path.insert(0, str(folder))
    return folder / "kmeans"


class Comparison:
    """The runs of ``methods`` on one case, whose points are also in the NPY file ``file``."""

    def __init__(
        self, case: Case, data_set: Data, file: Path, methods: Sequence[Method], options: argparse.Namespace
    ) -> None:
        self._case = case
        self._data_set = data_set
        self._threads = options.threads
        self._limit = options.limit or case.group.limit
        self._seeds = options.seeds or case.group.seeds
        self._variants = {method.name: method.variants_for(case, len(data_set[0])) for method in methods}
        self._turns = [(method, variant) for method in methods for variant in self._variants[method.name]]
        self._processes = {
            method.name: MethodProcess(method, file, case.k, self._threads, first=self._variants[method.name][0])
            for method in methods
            if self._variants[method.name]
        }

    def runs(self) -> list[Run]:
        """Run all variants with one seed, then with the next, so that a busy minute affects all methods alike."""
        seeds_left = {
            (method.name, variant.name): min(self._seeds, variant.seeds or self._seeds)
            for method, variant in self._turns
        }
        runs: list[Run] = []
        try:
            for seed in range(self._seeds):
                for method, variant in self._turns:
                    if seeds_left[method.name, variant.name] <= seed:
                        continue
                    outcome = self._measure(self._processes[method.name], variant, seed)
                    runs.append(self._run(method, variant, seed, outcome))
                    if isinstance(outcome, Failed):
                        # Neither this variant nor a costlier one is tried again.
                        variants = self._variants[method.name]
                        costlier = variants[variants.index(variant) :]
                        seeds_left.update({(method.name, each.name): 0 for each in costlier})
                    elif outcome.seconds > SLOW_SECONDS:
                        fewer = min(self._case.group.slow_seeds, seeds_left[method.name, variant.name])
                        seeds_left[method.name, variant.name] = fewer
        finally:
            for process in self._processes.values():
                process.end()
        return runs

    def _measure(self, process: MethodProcess, variant: Variant, seed: int) -> Timed | Failed:
        """Return one run; if other processes kept the CPUs busy, the least disturbed of a few."""
        spare = max(0, (os.cpu_count() or 1) - self._threads)
        best = process.run(variant, seed, self._limit)
        for _ in range(REPEATS):
            if isinstance(best, Failed) or best.others <= spare + DISTURBED_CPUS or best.seconds > REPEATED_SECONDS:
                break
            again = process.run(variant, seed, self._limit)
            if isinstance(again, Timed) and again.others < best.others:
                best = again
        return best

    def _run(self, method: Method, variant: Variant, seed: int, outcome: Timed | Failed) -> Run:
        """Measure the quality of one run, print a line, and return the record."""
        what = f"{self._case.name}  {method.name}, {variant.name}, seed {seed}"
        run = Run(self._case.name, method.name, variant.name, seed)
        if isinstance(outcome, Failed):
            print(f"{what}: {outcome.reason}", file=sys.stderr)
            return replace(run, failure=outcome.reason)
        points, labels = self._data_set
        found = quality(points, outcome.centers, self._case.metric, labels)
        print(
            f"{what}: {outcome.seconds:.3f} s, CPU {outcome.cpu_seconds:.3f} s, loss {found.loss:.6g}, clusters of "
            f"{found.smallest} to {found.largest} rows, {found.under_three} under 3, others {outcome.others:.2f} CPUs",
            file=sys.stderr,
        )
        return replace(
            run,
            seconds=round(outcome.seconds, 5),
            cpu_seconds=round(outcome.cpu_seconds, 5),
            others=round(outcome.others, 2),
            **asdict(found),
        )


def _cases(options: argparse.Namespace) -> list[Case]:
    """Return the chosen cases, without those whose folder was not given."""
    named = options.cases or (QUICK_CASES if options.quick else [case.name for case in CASES])
    cases = [case for case in CASES if case.name in named and case.group.name in options.groups]
    for data, variable in FOLDER_VARIABLES.items():
        if options.folders[data] is None and any(case.data == data for case in cases):
            print(f"No folder was given (--{data}, {variable}): cases of {data} are left out.", file=sys.stderr)
            cases = [case for case in cases if case.data != data]
    return cases


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.clustering",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    groups, cases, methods = ([each.name for each in known] for known in (GROUPS, CASES, METHODS))
    seeds = ", ".join(f"{each.name} {each.seeds}" for each in GROUPS)
    limits = ", ".join(f"{each.name} {each.limit:g}" for each in GROUPS)
    group_help = f"groups of cases, of {', '.join(groups)}; default: all"
    add("--groups", nargs="+", choices=groups, default=groups, metavar="GROUP", help=group_help)
    add("--cases", type=_names(cases), help=f"comma-separated, of {', '.join(cases)}; default: all of the groups")
    add("--methods", type=_names(methods, separator=";"), help=f"separated by ;, of {'; '.join(methods)}; default: all")
    add("--seeds", type=int, help=f"runs of each setting; default: {seeds}, with --quick {QUICK_SEEDS}")
    add("--threads", type=int, default=usable_cpus(), help="default: the usable CPUs")
    limit = f"seconds after which a run is stopped; default: {limits}, with --quick {QUICK_LIMIT_SECONDS:g}"
    add("--limit", type=float, help=limit)
    for data, variable in FOLDER_VARIABLES.items():
        add(f"--{data}", type=Path, metavar="DIR", help=f"folder of {data}; default: {variable}")
    add("--output", type=Path, help=f"folder of the results; default: {DOCS}, with --quick {QUICK}")
    add("--quick", action="store_true", help="a smoke test of minutes: fewer rows, clusters, seeds and cases")
    add("--update", action="store_true", help="keep the runs in the output's JSON of other methods and cases")
    add("--redraw", action="store_true", help="only render text and picture, from the output's JSON")
    options = parser.parse_args()
    options.folders = {data: folder_of(data, getattr(options, data)) for data in FOLDER_VARIABLES}
    if options.quick:
        options.seeds = options.seeds or QUICK_SEEDS
        options.limit = options.limit or QUICK_LIMIT_SECONDS
    options.output = options.output or (QUICK if options.quick else DOCS)
    return options


def _names(known: Sequence[str], separator: str = ",") -> Callable[[str], list[str]]:
    """Return a parser of lists of ``known`` names."""

    def parse(text: str) -> list[str]:
        names = [name.strip() for name in text.split(separator)]
        for name in (name for name in names if name not in known):
            raise argparse.ArgumentTypeError(f"{name!r} is not one of {', '.join(map(repr, known))}")
        return names

    return parse


if __name__ == "__main__":
    sys.exit(main())
