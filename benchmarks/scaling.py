"""``python -m benchmarks.scaling``: jobs on one host and on two, each host a container pinned to one CPU.

Needs Docker, the image, and two idle CPUs. Whole jobs run on files, and their logs contain the time of each phase. The
benchmark measures strong and weak scaling, the cost of adding up sums over the hosts, and how well a model of the cost
(``benchmarks.cost_model``) predicts the scaling from these sums and from small jobs on one host. Results are written to
docs/scaling.json, and rendered to docs/scaling.md and a picture.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks import machine
from benchmarks.containers import Cluster, ContainerError
from benchmarks.cost_model import Shape
from benchmarks.results import DOCS, Content
from benchmarks.scaling_report import APART, CALIBRATION, CHECK, CONCURRENT, DEFAULT, DOCUMENT, MAIN, START, Run
from kmeans.arrays import Float32
from kmeans.formats import recordio

ALLREDUCE = Path(__file__).with_name("allreduce.py").resolve()

# Points are in a plane of TRUE_DIMENSIONS, around centers that overlap there, with noise in all columns.
TRUE_CLUSTERS, TRUE_DIMENSIONS, SPREAD, NOISE = 200, 32, 0.6, 0.3

# Files of each data set, of which a job uses as many as it needs, and small files.
SHARDS, SMALL_SHARDS = 8, 2

SHAPES = (Shape(784, 10), MAIN, Shape(784, 1000), Shape(64, 100))
EXCHANGED = (Shape(1, 1), Shape(64, 10), Shape(64, 100), *(Shape(784, k) for k in (10, 30, 100, 300, 1000)))
# Four hosts are more than there are CPUs.
EXCHANGING_HOSTS = (2, 4)

# Moves on all rows: of the jobs that the model's rates come from, and of those that it predicts.
CALIBRATION_MOVES, CHECK_MOVES = (3, 30), 10


@dataclass(frozen=True, slots=True)
class Plan:
    """Effort of the measurement: rows of a file and of a small one, runs of each main job, shapes of the jobs."""

    shard_rows: int
    small_rows: int
    seeds: int
    shapes: tuple[Shape, ...]


FULL = Plan(shard_rows=125_000, small_rows=8_000, seeds=4, shapes=SHAPES)
QUICK = Plan(shard_rows=10_000, small_rows=2_000, seeds=1, shapes=(MAIN, Shape(64, 100)))
QUICK_OUTPUT = Path("build/scaling")


@dataclass(frozen=True, slots=True)
class Job:
    """A job on ``shards`` files, or on the small ones if there are none; ``moves`` is exact if it is given."""

    kind: str
    shape: Shape
    shards: int
    hosts: int
    replicated: bool = False
    moves: int | None = None
    seed: int = 0


class Bench:
    """Runs the jobs of a plan on a cluster, with data written once to ``folder``, and keeps their times."""

    def __init__(self, plan: Plan, cluster: Cluster, folder: Path) -> None:
        self._plan = plan
        self._cluster = cluster
        self._folder = folder
        self.runs: list[Run] = []
        self.exchanges: list[Content] = []

    def write_data(self) -> None:
        """Write the files of all data sets."""
        rows = [self._plan.shard_rows] * SHARDS + [self._plan.small_rows] * SMALL_SHARDS
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            for columns in {shape.columns for shape in self._plan.shapes}:
                list(threads.map(partial(_write_shard, self._folder, columns), range(len(rows)), rows))

    def exchange(self) -> None:
        """Measure sums over the hosts."""
        shapes = ",".join(f"{shape.clusters}x{shape.columns}" for shape in EXCHANGED)
        for hosts in EXCHANGING_HOSTS:
            printed = self._cluster.run(hosts, ALLREDUCE, shapes).outputs[0]
            found = json.loads(next(line for line in printed.splitlines() if line.startswith("{")))
            for shape in EXCHANGED:
                seconds = found[f"{shape.clusters}x{shape.columns}"]
                self.exchanges.append({"hosts": hosts, **asdict(shape), **seconds})

    def calibrate(self) -> None:
        """Run the small jobs on one host that the model's rates come from, and jobs that measure the start.

        Hosts that are containers of one machine share its memory, so the same jobs also run two at a time.
        """
        for shape in self._plan.shapes:
            for moves in CALIBRATION_MOVES:
                for kind in (CALIBRATION, CONCURRENT):
                    for shards in (0, 1):
                        self._run(Job(kind, shape, shards, 1, moves=moves))
        for seed in range(3):
            self._run(Job(START, self._plan.shapes[0], 0, 2, moves=CALIBRATION_MOVES[0], seed=seed))

    def scale(self) -> None:
        """Run jobs on one host and on two.

        The machine's speed changes from minute to minute, so runs that are compared follow one another, with each seed
        in the reverse order.
        """
        for seed in range(self._plan.seeds):
            jobs = [
                Job(DEFAULT, MAIN, SHARDS, hosts, replicated, seed=seed)
                for hosts, replicated in ((1, False), (2, False), (2, True))
            ]
            for job in jobs[:: -1 if seed % 2 else 1]:
                self._run(job)
            self._compare(MAIN, SHARDS, seed)
        for shape in self._plan.shapes:
            if shape != MAIN:
                # With 1,000 clusters a quarter of the rows is enough.
                self._compare(shape, SHARDS if shape.clusters < 1000 else SHARDS // 4)
            self._run(Job(CHECK, shape, 0, 2, moves=CHECK_MOVES))

    def _compare(self, shape: Shape, shards: int, seed: int = 0) -> None:
        """Run a job on one host, on two, on two that both have all rows, and half of it on one.

        Half of a job of the main shape also runs twice at a time.
        """
        jobs = [
            Job(CHECK, shape, taken, hosts, replicated, CHECK_MOVES, seed)
            for hosts, taken, replicated in (
                (1, shards, False),
                (2, shards, False),
                (2, shards, True),
                (1, shards // 2, False),
            )
        ]
        for job in jobs[:: -1 if seed % 2 else 1]:
            self._run(job)
            if shape == MAIN and job.shards < shards:
                self._run(Job(APART, shape, job.shards, 1, moves=CHECK_MOVES, seed=seed))

    def _run(self, job: Job) -> None:
        """Run a job, keep its times, and print a line."""
        shape, shards = job.shape, job.shards
        fixed = {} if job.moves is None else {"refine_max_iter": job.moves, "local_lloyd_tol": 0}
        numbers = range(shards) if shards else range(SHARDS, SHARDS + SMALL_SHARDS)
        is_apart = job.kind in (CONCURRENT, APART)
        times = self._cluster.train(
            2 if is_apart else job.hosts,
            [_shard(self._folder, shape.columns, number) for number in numbers],
            replicated=job.replicated,
            apart=is_apart,
            k=shape.clusters,
            seed=job.seed,
            **fixed,
        )
        rows = shards * self._plan.shard_rows or SMALL_SHARDS * self._plan.small_rows
        run = Run(job.kind, shape.columns, shape.clusters, rows, job.hosts, job.seed, job.replicated, **times)
        self.runs.append(run)
        print(
            f"{run.kind}: {run.rows} x {run.columns}, k = {run.clusters}, {run.hosts} host(s), seed {run.seed}: "
            f"{run.seconds:.2f} s, fit {run.fit:.2f} s, {run.moves} moves, others {run.others:.2f} CPUs",
            file=sys.stderr,
        )


def main() -> int:
    """Measure, or only render, and return the exit code."""
    import docker.errors  # noqa: PLC0415 - not for rendering

    options = _options()
    if options.redraw:
        print(DOCUMENT.render(options.output))
        return 0
    if len(os.sched_getaffinity(0)) < 2:
        print("Two hosts need two CPUs, and this process may only use one.", file=sys.stderr)
        return 1
    try:
        content = _measure(options)
    except docker.errors.DockerException as error:
        print(f"Docker can't run {options.image}: {error}", file=sys.stderr)
        return 1
    except ContainerError as error:
        print(f"A container failed:\n{error}", file=sys.stderr)
        return 1
    print(DOCUMENT.write(options.output, content))
    return 0


def _measure(options: argparse.Namespace) -> Content:
    began, measured_on = time.perf_counter(), machine.description()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder, Cluster(options.image, Path(folder)) as cluster:
        bench = Bench(QUICK if options.quick else FULL, cluster, Path(folder))
        for work in (bench.write_data, bench.exchange, bench.calibrate, bench.scale):
            work()
    measured_on |= {"image": cluster.label, "duration": f"{(time.perf_counter() - began) / 60:.1f} minutes"}
    if options.quick:
        measured_on["note"] = "a smoke test: few rows, one run of each job"
    return {
        "machine": measured_on,
        "exchanges": bench.exchanges,
        "runs": [asdict(run) for run in bench.runs],
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("--image", default="kmeans:latest", help="default: kmeans:latest")
    parser.add_argument("--output", type=Path, help=f"folder (default: docs; with --quick {QUICK_OUTPUT})")
    parser.add_argument("--folder", type=Path, help="temporary folder of 4 GB of data (default: the system's)")
    parser.add_argument("--quick", action="store_true", help="a smoke test: a tenth of the rows")
    parser.add_argument("--redraw", action="store_true", help="only render text and picture, from scaling.json")
    options = parser.parse_args()
    if options.folder is not None and not options.folder.is_dir():
        parser.error(f"--folder {options.folder}: there is no such folder")
    options.output = options.output or (QUICK_OUTPUT if options.quick else DOCS)
    return options


def _shard(folder: Path, columns: int, number: int) -> Path:
    return folder / f"{columns}-{number}.recordio"


def _write_shard(folder: Path, columns: int, number: int, rows: int) -> None:
    """Write a file to disk completely, so that no write happens during a run."""
    with _shard(folder, columns, number).open("wb") as file:
        file.write(recordio.encode(_points(columns, number, rows)))
        file.flush()
        os.fsync(file.fileno())


def _points(columns: int, number: int, rows: int) -> Float32:
    """Return the points of a file, float32 (rows, columns)."""
    of_all = np.random.default_rng(0)
    centers = of_all.normal(scale=SPREAD, size=(TRUE_CLUSTERS, TRUE_DIMENSIONS)).astype(np.float32)
    plane = of_all.normal(scale=TRUE_DIMENSIONS**-0.5, size=(TRUE_DIMENSIONS, columns)).astype(np.float32)
    generator = np.random.default_rng((1, number))
    within = generator.standard_normal((rows, TRUE_DIMENSIONS), dtype=np.float32)
    within += centers[generator.integers(0, TRUE_CLUSTERS, rows)]
    points = generator.standard_normal((rows, columns), dtype=np.float32)
    points *= np.float32(NOISE)
    points += within @ plane
    return points


if __name__ == "__main__":
    sys.exit(main())
