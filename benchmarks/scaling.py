"""``python -m benchmarks.scaling``: jobs on one host and on two, each host a container pinned to one CPU.

Needs Docker, the image, and two CPUs that nobody else uses. Whole jobs are run, on files, and their own logs say where
the time went. Measured are strong and weak scaling, what it takes to add up sums over the hosts, and how well a model
of the cost (``benchmarks.cost_model``) predicts the first from the second and from small jobs on one host. Written to
docs/scaling.md, with a picture and all figures as JSON.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.cluster import Cluster, ContainerError
from benchmarks.cost_model import Shape
from benchmarks.machine import processor
from benchmarks.scaling_report import (
    APART,
    BESIDE,
    CALIBRATION,
    CHECK,
    DEFAULT,
    MAIN,
    START,
    Exchange,
    Figures,
    Run,
    draw,
    markdown,
)
from kmeans.arrays import Float32
from kmeans.formats import recordio

ALLREDUCE = Path(__file__).with_name("allreduce.py").resolve()

# Points lie in a plane of so many dimensions, around centers that overlap there, and a little off it.
TRUE_CLUSTERS, TRUE_DIMENSIONS, SPREAD, NOISE = 200, 32, 0.6, 0.3

# Each data set is so many files, from which jobs take as many as they need, and two small ones.
SHARDS, SMALL_SHARDS = 8, 2

SHAPES = (Shape(784, 10), MAIN, Shape(784, 1000), Shape(64, 100))
EXCHANGED = (Shape(1, 1), Shape(64, 10), Shape(64, 100), *(Shape(784, k) for k in (10, 30, 100, 300, 1000)))
# The last are more than there are CPUs.
EXCHANGING_HOSTS = (2, 4)

# Moves on all rows: of what the model's rates come from, and of what it is to predict.
CALIBRATION_MOVES, CHECK_MOVES = (3, 30), 10


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured.

    Attributes
    ----------
    shard_rows, small_rows
        Rows of a file, and of a small one.
    seeds
        Runs of each job of the main shape.
    shapes
        Of the jobs.
    """

    shard_rows: int
    small_rows: int
    seeds: int
    shapes: tuple[Shape, ...]


FULL = Plan(shard_rows=125_000, small_rows=8_000, seeds=4, shapes=SHAPES)
QUICK = Plan(shard_rows=10_000, small_rows=2_000, seeds=1, shapes=(MAIN, Shape(64, 100)))
QUICK_OUTPUT = Path("build/scaling")


class Bench:
    """Runs the jobs of a plan and keeps what they took.

    Parameters
    ----------
    plan
        How much is measured.
    cluster
        Where.
    folder
        Where the data are written, once.
    """

    def __init__(self, plan: Plan, cluster: Cluster, folder: Path) -> None:
        self._plan = plan
        self._cluster = cluster
        self._folder = folder
        self.runs: list[Run] = []
        self.exchanges: list[Exchange] = []

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
                self.exchanges.append(Exchange(hosts, shape.clusters, shape.columns, **seconds))

    def calibrate(self) -> None:
        """Run the small jobs on one host that the model's rates come from, and those that tell what a start takes.

        Hosts that are containers of one machine share its memory, so the same jobs run two at a time too.
        """
        for shape in self._plan.shapes:
            for moves in CALIBRATION_MOVES:
                for kind in (CALIBRATION, BESIDE):
                    self._run(kind, shape, 0, 1, moves=moves)
                    self._run(kind, shape, 1, 1, moves=moves)
        for seed in range(3):
            self._run(START, self._plan.shapes[0], 0, 2, moves=CALIBRATION_MOVES[0], seed=seed)

    def scale(self) -> None:
        """Run jobs on one host and on two, turn and turn about.

        The machine's speed changes from minute to minute, so what is compared is run one after the other, and each
        time in the reverse order.
        """
        for seed in range(self._plan.seeds):
            for hosts, replicated in ((1, False), (2, False), (2, True))[:: -1 if seed % 2 else 1]:
                self._run(DEFAULT, MAIN, SHARDS, hosts, replicated=replicated, seed=seed)
            self._compare(MAIN, SHARDS, seed)
        for shape in self._plan.shapes:
            if shape != MAIN:
                # What a quarter of the rows cost with 1,000 clusters is enough.
                self._compare(shape, SHARDS if shape.clusters < 1000 else SHARDS // 4)
            self._run(CHECK, shape, 0, 2, moves=CHECK_MOVES)

    def _compare(self, shape: Shape, shards: int, seed: int = 0) -> None:
        """Run a job on one host, on two, on two that both have all rows, and half of it on one.

        Of the main shape, half of it also twice at a time.
        """
        for hosts, taken, replicated in (
            (1, shards, False),
            (2, shards, False),
            (2, shards, True),
            (1, shards // 2, False),
        )[:: -1 if seed % 2 else 1]:
            self._run(CHECK, shape, taken, hosts, replicated=replicated, moves=CHECK_MOVES, seed=seed)
            if shape == MAIN and taken < shards:
                self._run(APART, shape, taken, 1, moves=CHECK_MOVES, seed=seed)

    def _run(
        self,
        kind: str,
        shape: Shape,
        shards: int,
        hosts: int,
        *,
        replicated: bool = False,
        moves: int | None = None,
        seed: int = 0,
    ) -> None:
        """Run a job on so many files, or on the small ones; with a number of ``moves`` neither more nor fewer."""
        fixed = {} if moves is None else {"refine_max_iter": moves, "local_lloyd_tol": 0}
        numbers = range(shards) if shards else range(SHARDS, SHARDS + SMALL_SHARDS)
        files = [_shard(self._folder, shape.columns, number) for number in numbers]
        is_apart = kind in (BESIDE, APART)
        times = self._cluster.train(
            2 if is_apart else hosts,
            files,
            replicated=replicated,
            apart=is_apart,
            k=shape.clusters,
            seed=seed,
            **fixed,
        )
        run = Run(
            kind=kind,
            columns=shape.columns,
            clusters=shape.clusters,
            rows=shards * self._plan.shard_rows or SMALL_SHARDS * self._plan.small_rows,
            hosts=hosts,
            seed=seed,
            replicated=replicated,
            moves=times.moves,
            with_all=times.with_all,
            with_nearby=times.with_nearby,
            seconds=round(times.seconds, 4),
            phases=dict(times.phases),
            mean_squared_distance=times.mean_squared_distance,
            others=round(times.others, 2),
        )
        self.runs.append(run)
        print(
            f"{kind}: {run.rows} x {run.columns}, k = {run.clusters}, {hosts} host(s), seed {seed}: "
            f"{run.seconds:.2f} s, fit {run.fit:.2f} s, {run.moves} moves, others {run.others:.2f} CPUs",
            file=sys.stderr,
        )


def main() -> int:
    """Measure, or draw again, and return the exit code."""
    import docker.errors  # noqa: PLC0415 - not for drawing again

    options = _options()
    raw = options.output / "scaling.json"
    if options.redraw:
        _write(options.output, Figures.read(raw))
        return 0
    if len(os.sched_getaffinity(0)) < 2:
        print("Two hosts need two CPUs, and this process may use one only.", file=sys.stderr)
        return 1
    plan = QUICK if options.quick else FULL
    began, load = time.perf_counter(), os.getloadavg()
    try:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder, Cluster(options.image, Path(folder)) as cluster:
            bench = Bench(plan, cluster, Path(folder))
            for work in (bench.write_data, bench.exchange, bench.calibrate, bench.scale):
                work()
            image = cluster.label
    except docker.errors.DockerException as error:
        print(f"Docker can't run {options.image}: {error}", file=sys.stderr)
        return 1
    except ContainerError as error:
        print(f"A container failed:\n{error}", file=sys.stderr)
        return 1
    machine = {
        "machine": f"{processor()}, {os.cpu_count()} CPUs, {platform.system()} {platform.machine()}",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "image": image,
        "duration": f"{(time.perf_counter() - began) / 60:.1f} minutes",
        "load average before the run": " ".join(f"{value:.1f}" for value in load),
    }
    if options.quick:
        machine["note"] = "a smoke test: few rows, one run of each job"
    options.output.mkdir(parents=True, exist_ok=True)
    figures = Figures(machine, tuple(bench.exchanges), tuple(bench.runs))
    figures.write(raw)
    _write(options.output, figures)
    print((options.output / "scaling.md").read_text())
    return 0


def _write(folder: Path, figures: Figures) -> None:
    (folder / "scaling.md").write_text(markdown(figures))
    draw(figures, folder / "scaling.svg")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("--image", default="kmeans:latest", help="default: kmeans:latest")
    parser.add_argument("--output", type=Path, help=f"folder (default: docs; with --quick {QUICK_OUTPUT})")
    parser.add_argument("--folder", type=Path, help="where 4 GB of data go meanwhile (default: the system's)")
    parser.add_argument("--quick", action="store_true", help="a smoke test: a tenth of the rows")
    parser.add_argument("--redraw", action="store_true", help="write table and picture again, from scaling.json")
    options = parser.parse_args()
    if options.folder is not None and not options.folder.is_dir():
        parser.error(f"--folder {options.folder}: there is no such folder")
    options.output = options.output or (QUICK_OUTPUT if options.quick else Path("docs"))
    return options


def _shard(folder: Path, columns: int, number: int) -> Path:
    return folder / f"{columns}-{number}.recordio"


def _write_shard(folder: Path, columns: int, number: int, rows: int) -> None:
    """Write a file and have it on disk: writing back shall not fall into a run."""
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
