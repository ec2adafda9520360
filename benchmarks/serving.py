"""``python -m benchmarks.serving``: requests and rows per second, and response times, compared with other servers.

All servers have one worker process and share one CPU; the clients have another. Each request in each format is first
sent once, and the labels must be those of brute force. Then wrk sends requests without a pause: to all servers in turn,
in several rounds. At last our server, and the limit, get half as many requests as they could answer, at fixed and at
random times. Results are written to docs/serving-benchmark.json, and rendered to text and a picture.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from sklearn.cluster import KMeans

from benchmarks import bodies, machine, open_loop
from benchmarks.data_sets import folder_of
from benchmarks.results import DOCS, QUICK
from benchmarks.servers import HOST, KINDS, LIMIT, OURS, Question, Servers
from benchmarks.serving_report import DOCUMENT, Cell, HalfLoad, Report, Run, disturbed
from kmeans.arrays import Float32

SCRIPT = Path(__file__).with_name("post.lua")

CLUSTERS, FIT_ROWS = 10, 10_000
# Rows of a request, by columns.
SHAPES = {784: (1, 10, 1000), 13: (1,)}

# As many as our server answers at a time: enough to keep one CPU busy, but no long queue.
CONNECTIONS = 4
SECONDS, ROUNDS, WARM_UP_SECONDS = 2.0, 3, 1.0
FEWEST_REQUESTS, LONGEST_SECONDS = 20, 5.0
QUICK_SECONDS, QUICK_ROUNDS = 1.0, 1
# Maximum number of additional rounds for cells in which all runs were disturbed.
REPEATS = 2

# A half load lasts until HALF_LOAD_REQUESTS have been sent, within limits; rounds at fixed and at random times.
HALF, HALF_LOAD_REQUESTS, HALF_LOAD_SECONDS = 0.5, 500, (1.5, 3.0)
HALF_LOAD_ROUNDS = {"fixed": 3, "random": 1}
ARRIVALS = {OURS: ("fixed", "random"), LIMIT: ("fixed",)}

PEERS = ("flask", "gunicorn", "pandas", "scikit-learn", "mlflow-skinny", "fastapi", "uvicorn", "numpy")


class MissingError(Exception):
    """A prerequisite of the measurement is missing."""


def main() -> int:
    """Run the benchmark and return the exit code."""
    options = _options()
    if options.redraw:
        print(DOCUMENT.render(options.output))
        return 0
    try:
        wrk = _find_wrk()
        server_cpu, client_cpu = _two_cpus()
    except MissingError as error:
        print(error, file=sys.stderr)
        return 2
    began, measured_on = time.monotonic(), _machine(options, wrk)
    with tempfile.TemporaryDirectory() as folder, Servers(Path(folder), server_cpu) as servers:
        # Processes started from here on, wrk and the other client, do not use the servers' CPU.
        os.sched_setaffinity(0, {client_cpu})
        load = Load(servers, wrk, Path(folder), options)
        targets = _prepare(servers, options)
        runs = load.saturate(targets)
        half_loads = load.half(targets, runs)
    content = {
        "machine": {**measured_on, "duration": f"{(time.monotonic() - began) / 60:.1f} minutes"},
        "runs": [asdict(run) for run in runs],
        "half_loads": [asdict(each) for each in half_loads],
    }
    print(DOCUMENT.write(options.output, content))
    return 0


@dataclass(frozen=True, slots=True)
class Target:
    """A cell that can be measured: the port of its server, and the request."""

    cell: Cell
    port: int
    question: Question


def _prepare(servers: Servers, options: argparse.Namespace) -> list[Target]:
    """Start all servers, check their answers to each request, and return what can be measured."""
    points = {784: bodies.images(options.mnist)[:FIT_ROWS], 13: bodies.wines()}
    centers: dict[int, Float32] = {
        columns: KMeans(CLUSTERS, n_init=1, random_state=0).fit(rows).cluster_centers_.astype(np.float32)
        for columns, rows in points.items()
    }
    ports = {(kind.name, columns): servers.start(kind.name, centers[columns]) for kind in KINDS for columns in SHAPES}
    targets: list[Target] = []
    for (name, columns), port in ports.items():
        servers.wait_until_ready(port)
        kind = next(kind for kind in KINDS if kind.name == name)
        for count in SHAPES[columns]:
            rows = points[columns][:count]
            expected = bodies.nearest(rows, centers[columns])
            for media_type in kind.formats:
                question = kind.question(rows, media_type)
                found = kind.labels(question.ask(port), media_type)
                cell = Cell(name, media_type, count, columns)
                if not np.array_equal(found, expected):
                    raise ValueError(f"{cell}: the labels are not those of brute force")
                targets.append(Target(cell, port, question))
    return targets + _limits([item for item in targets if item.cell.server == OURS], servers)


def _limits(ours: Sequence[Target], servers: Servers) -> list[Target]:
    """Start the server of constants, which gets the same requests as ours and returns as many bytes."""
    lengths = {item.cell: len(item.question.ask(item.port)) for item in ours}
    port = servers.start_limit(set(lengths.values()))
    servers.wait_until_ready(port)
    limits = []
    for item in ours:
        length = lengths[item.cell]
        question = replace(item.question, path=f"/{length}")
        if len(question.ask(port)) != length:
            raise ValueError(f"{item.cell}: the limit does not answer with {length} bytes")
        limits.append(Target(item.cell.of(LIMIT), port, question))
    return limits


class Load:
    """Sends requests to servers: without a pause by ``wrk``, and at given times by ``benchmarks.open_loop``."""

    def __init__(self, servers: Servers, wrk: str, folder: Path, options: argparse.Namespace) -> None:
        self._servers = servers
        self._wrk = wrk
        self._folder = folder
        self._options = options

    def saturate(self, targets: Sequence[Target]) -> list[Run]:
        """Run wrk in rounds: the same request to all servers one after another, then the next request."""
        turns = sorted(targets, key=lambda item: (item.cell.columns, item.cell.rows, item.cell.media_type))
        seconds: dict[Cell, float] = {}
        runs: list[Run] = []
        for number in range(self._options.rounds + REPEATS):
            if number >= self._options.rounds:
                again = disturbed(runs)
                turns = [item for item in turns if item.cell in again]
            for item in turns:
                if item.cell not in seconds:
                    # Slow servers get more time, so that a single request makes no difference.
                    rate = self._run_wrk(item, WARM_UP_SECONDS).requests_per_second
                    shortest = max(self._options.seconds, FEWEST_REQUESTS / (rate or 1))
                    seconds[item.cell] = min(LONGEST_SECONDS, shortest)
                run = self._run_wrk(item, seconds[item.cell])
                runs.append(run)
                _print(run, f"{run.requests_per_second:,.0f} requests/s")
        return runs

    def _run_wrk(self, item: Target, seconds: float) -> Run:
        """Run wrk once, and wait until the server has finished the requests that wrk abandoned.

        Raises ValueError if an answer is not 200.
        """
        question = item.question
        body = self._folder / "body"
        body.write_bytes(question.body)
        watch = _Watch(self._servers, item.port)
        # wrk accepts whole seconds only.
        command = [
            *(self._wrk, "--threads", "1", "--connections", str(CONNECTIONS)),
            *("--duration", f"{max(1, round(seconds))}s", "--timeout", "30s", "--script", str(SCRIPT)),
            *(f"http://{HOST}:{item.port}{question.path}", "--", str(body), question.content_type, question.accept),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        others = watch.others()
        self._servers.wait_until_idle(item.port)
        result = json.loads(done.stdout.splitlines()[-1])
        if result["statuses"] or result["others"]:
            raise ValueError(f"{item.cell}: not all requests were answered with 200: {result}")
        rate = result["requests"] / result["microseconds"] * 1e6
        return Run(item.cell, rate, p50=result["p50"] / 1e6, p99=result["p99"] / 1e6, others=others)

    def half(self, targets: Sequence[Target], runs: Sequence[Run]) -> list[HalfLoad]:
        """Send half as many requests as our server, and the limit, could answer.

        All cells are measured in turn, in rounds, so that a disturbance of a few seconds affects one round of a cell.
        """
        report = Report(runs, [])
        generator = np.random.default_rng(0)
        found: list[HalfLoad] = []
        for number in range(1 if self._options.quick else max(HALF_LOAD_ROUNDS.values()) + REPEATS):
            again = disturbed(found)
            for item in targets:
                for arrivals in ARRIVALS.get(item.cell.server, ()):
                    saturated = report.rate(item.cell)
                    if saturated is None or (number >= HALF_LOAD_ROUNDS[arrivals] and item.cell not in again):
                        continue
                    rate = HALF * saturated
                    shortest, longest = HALF_LOAD_SECONDS
                    count = max(2, int(rate * min(longest, max(shortest, HALF_LOAD_REQUESTS / rate))))
                    gaps = np.full(count, 1 / rate) if arrivals == "fixed" else generator.exponential(1 / rate, count)
                    found.append(self._at_times(item, arrivals, rate, np.cumsum(gaps).tolist()))
        return found

    def _at_times(self, item: Target, arrivals: str, rate: float, times: list[float]) -> HalfLoad:
        watch = _Watch(self._servers, item.port)
        p50, p99 = map(float, np.percentile(open_loop.measure(item.port, item.question, times), (50, 99)))
        load = HalfLoad(item.cell, arrivals, rate, len(times), p50=p50, p99=p99, others=watch.others())
        _print(load, f"{rate:,.0f} requests/s at {arrivals} times")
        return load


def _print(measured: Run | HalfLoad, rate: str) -> None:
    times = f"p50 {measured.p50 * 1e3:.2f} ms, p99 {measured.p99 * 1e3:.2f} ms"
    print(f"{measured.cell}: {rate}, {times}, others {measured.others:.2f} CPUs", file=sys.stderr)


class _Watch:
    """Measures from now on how many CPUs are used by processes other than a server and its clients."""

    def __init__(self, servers: Servers, port: int) -> None:
        self._servers = servers
        self._port = port
        self._began = time.perf_counter()
        self._before = self._others_seconds()

    def others(self) -> float:
        """Return the mean number of CPUs that other processes have used."""
        return max(0.0, self._others_seconds() - self._before) / (time.perf_counter() - self._began)

    def _others_seconds(self) -> float:
        usages = resource.getrusage(resource.RUSAGE_CHILDREN), resource.getrusage(resource.RUSAGE_SELF)
        clients = sum(usage.ru_utime + usage.ru_stime for usage in usages)
        return machine.busy_seconds() - clients - self._servers.cpu_seconds(self._port)


def _find_wrk() -> str:
    wrk = shutil.which("wrk")
    if wrk is None:
        raise MissingError("wrk, which sends the requests, isn't installed: apt-get install wrk, or brew install wrk.")
    return wrk


def _two_cpus() -> tuple[int, int]:
    if not hasattr(os, "sched_getaffinity"):
        raise MissingError("Only Linux can pin processes to a CPU: run this there.")
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        raise MissingError("Two CPUs are needed, one for the servers and one for the clients; found 1.")
    return cpus[0], cpus[1]


def _machine(options: argparse.Namespace, wrk: str) -> dict[str, str]:
    """Return the description of machine, program and effort."""
    # wrk prints its version together with its usage, and fails.
    banner = subprocess.run([wrk, "--version"], capture_output=True, text=True, check=False).stdout.split()
    versions = machine.versions(PEERS, [machine.PROJECT / "kmeans", machine.PROJECT / "serve"])
    rows = "MNIST" if options.mnist else "generated, as many zeros as in MNIST"
    return {
        **machine.description(),
        "versions": f"{versions}, {' '.join(banner[:2])}",
        "rows": f"{rows} (784 columns), wine (13), k = {CLUSTERS}",
        "runs": f"{options.rounds} of {max(1, round(options.seconds))} s with {CONNECTIONS} connections, median"
        + (" (a smoke test)" if options.quick else ""),
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__)
    parser.add_argument(
        "--mnist", type=Path, help="folder of MNIST's files; default: KMEANS_MNIST_DIR, otherwise generated rows"
    )
    parser.add_argument("--seconds", type=float, help=f"of each run of wrk; default: {SECONDS:g}")
    parser.add_argument("--rounds", type=int, help=f"default: {ROUNDS}")
    parser.add_argument("--output", type=Path, help=f"folder of the results; default: {DOCS}, with --quick {QUICK}")
    parser.add_argument("--quick", action="store_true", help="a smoke test: one short round")
    parser.add_argument("--redraw", action="store_true", help="only render text and picture, from the output's JSON")
    options = parser.parse_args()
    options.mnist = folder_of("mnist", options.mnist)
    options.seconds = options.seconds or (QUICK_SECONDS if options.quick else SECONDS)
    options.rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
    options.output = options.output or (QUICK if options.quick else DOCS)
    return options


if __name__ == "__main__":
    sys.exit(main())
