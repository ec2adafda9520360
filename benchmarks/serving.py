"""``python -m benchmarks.serving``: requests and rows per second, and how long an answer takes, beside other servers.

All servers have one worker process and share one CPU; the clients have another. Each shape of request in each format
is first asked once, and the labels must be those of brute force. Then wrk asks without a pause: all servers take their
turn, then the next round begins. At last ours is asked half as often as it could answer, at fixed times and at random
ones, and so is the limit. The table, a picture and all figures go to docs/.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from sklearn.cluster import KMeans

import kmeans
from benchmarks import bodies, open_loop, serving_report
from benchmarks.machine import busy_seconds, processor
from benchmarks.servers import HOST, KINDS, LIMIT, OURS, PROJECT, Question, Servers
from benchmarks.serving_report import Cell, HalfLoad, Run
from kmeans.arrays import Float32

SCRIPT = Path(__file__).with_name("post.lua")

CLUSTERS, FIT_ROWS = 10, 10_000
# Rows of a request, by columns.
SHAPES = {784: (1, 10, 1000), 13: (1,)}

# As many as ours answers at a time: enough to keep one CPU busy, not so many that the queue is what is measured.
CONNECTIONS = 4
SECONDS, ROUNDS, WARM_UP_SECONDS = 2.0, 3, 1.0
FEWEST_REQUESTS, LONGEST_SECONDS = 20, 5.0
QUICK_SECONDS, QUICK_ROUNDS = 1.0, 1
# A cell in which all runs were disturbed is run again, so often at most.
REPEATS = 2

# A half load lasts until so many requests have been sent, but not shorter or longer than this; and how often at fixed
# times and at random ones.
HALF, HALF_LOAD_REQUESTS, HALF_LOAD_SECONDS = 0.5, 500, (1.5, 3.0)
HALF_LOAD_ROUNDS = {"fixed": 3, "random": 1}
ARRIVALS = {OURS: ("fixed", "random"), LIMIT: ("fixed",)}

PEERS = ("flask", "gunicorn", "pandas", "scikit-learn", "mlflow-skinny", "fastapi", "uvicorn", "numpy")


class MissingError(Exception):
    """Something that the measurement needs isn't there."""


def main() -> int:
    """Run the benchmark and return the exit code."""
    options = _options()
    options.output.mkdir(parents=True, exist_ok=True)
    file = options.output / "serving-benchmark.json"
    if options.redraw:
        serving_report.write(serving_report.from_json(file.read_text()), options.output)
        return 0
    try:
        wrk = _find_wrk()
        server_cpu, client_cpu = _two_cpus()
    except MissingError as error:
        print(error, file=sys.stderr)
        return 2
    began = time.monotonic()
    machine = _machine(options, wrk)
    with tempfile.TemporaryDirectory() as folder, Servers(Path(folder), server_cpu) as servers:
        # What is started from here on, wrk and the other client, stays away from the servers' CPU.
        os.sched_setaffinity(0, {client_cpu})
        cells = _prepare(servers, options)
        runs = _saturate(wrk, Path(folder), cells, servers, options)
        half_loads = _half_loads(cells, runs, servers, options)
    machine["duration"] = f"{(time.monotonic() - began) / 60:.1f} minutes"
    report = serving_report.Report(machine, runs, half_loads)
    serving_report.write(report, options.output)
    print((options.output / "serving-benchmark.md").read_text())
    return 0


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A cell that can be measured: which server it asks, and what."""

    cell: Cell
    port: int
    question: Question


def _prepare(servers: Servers, options: argparse.Namespace) -> list[_Prepared]:
    """Start all servers, ask each of them everything once, and return what can be measured."""
    points = {784: bodies.images(options.mnist)[:FIT_ROWS], 13: bodies.wines()}
    centers: dict[int, Float32] = {
        columns: KMeans(CLUSTERS, n_init=1, random_state=0).fit(rows).cluster_centers_.astype(np.float32)
        for columns, rows in points.items()
    }
    ports = {(kind.name, columns): servers.start(kind.name, centers[columns]) for kind in KINDS for columns in SHAPES}
    prepared: list[_Prepared] = []
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
                    raise ValueError(f"{cell}: the labels aren't those of brute force")
                prepared.append(_Prepared(cell, port, question))
    return prepared + _limits([item for item in prepared if item.cell.server == OURS], servers)


def _limits(ours: Sequence[_Prepared], servers: Servers) -> list[_Prepared]:
    """Start the server of constants, which gets our requests and gives as many bytes back as we do."""
    lengths = {item.cell: len(item.question.ask(item.port)) for item in ours}
    port = servers.start_limit(set(lengths.values()))
    servers.wait_until_ready(port)
    limits = []
    for item in ours:
        sent, length = item.question, lengths[item.cell]
        question = Question(f"/{length}", sent.content_type, sent.accept, sent.body)
        if len(question.ask(port)) != length:
            raise ValueError(f"{item.cell}: the limit doesn't answer with {length} bytes")
        limits.append(_Prepared(Cell(LIMIT, item.cell.media_type, item.cell.rows, item.cell.columns), port, question))
    return limits


def _saturate(
    wrk: str, folder: Path, cells: Sequence[_Prepared], servers: Servers, options: argparse.Namespace
) -> list[Run]:
    """Let wrk ask each server without a pause: the same cell of all servers one after another, then the next cell."""
    turns = sorted(cells, key=lambda item: (item.cell.columns, item.cell.rows, item.cell.media_type))
    seconds: dict[Cell, float] = {}
    runs: list[Run] = []
    for number in range(options.rounds + REPEATS):
        if number >= options.rounds:
            disturbed = serving_report.disturbed(runs)
            turns = [item for item in turns if item.cell in disturbed]
        for item in turns:
            body = folder / "body"
            body.write_bytes(item.question.body)
            if item.cell not in seconds:
                # Slow servers get more time, so that a request more or less makes no difference.
                rate = _ask_without_pause(wrk, body, item, servers, WARM_UP_SECONDS).requests_per_second
                seconds[item.cell] = min(LONGEST_SECONDS, max(options.seconds, FEWEST_REQUESTS / (rate or 1)))
            run = _ask_without_pause(wrk, body, item, servers, seconds[item.cell])
            runs.append(run)
            print(
                f"{item.cell}: {run.requests_per_second:,.0f} requests/s, p50 {run.p50 * 1e3:.2f} ms, "
                f"p99 {run.p99 * 1e3:.2f} ms, others {run.others:.2f} CPUs",
                file=sys.stderr,
            )
    return runs


def _ask_without_pause(wrk: str, body: Path, item: _Prepared, servers: Servers, seconds: float) -> Run:
    """Run wrk once, and wait until the server has done with what wrk left behind.

    Raises
    ------
    ValueError
        If not all answers are right.
    """
    question = item.question
    watch = _Watch(servers, item.port)
    # wrk itself takes whole seconds alone.
    done = subprocess.run(
        [
            *(wrk, "--threads", "1", "--connections", str(CONNECTIONS), "--duration", f"{max(1, round(seconds))}s"),
            *("--timeout", "30s", "--script", str(SCRIPT), f"http://{HOST}:{item.port}{question.path}"),
            *("--", str(body), question.content_type, question.accept),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    others = watch.others()
    servers.wait_until_idle(item.port)
    result = json.loads(done.stdout.splitlines()[-1])
    if result["statuses"] or result["others"]:
        raise ValueError(f"{item.cell}: not all requests were answered with 200: {result}")
    return Run(
        item.cell,
        requests_per_second=result["requests"] / result["microseconds"] * 1e6,
        p50=result["p50"] / 1e6,
        p99=result["p99"] / 1e6,
        others=others,
    )


def _half_loads(
    cells: Sequence[_Prepared], runs: Sequence[Run], servers: Servers, options: argparse.Namespace
) -> list[HalfLoad]:
    """Ask our server half as often as it could answer, and the limit, whose tail is the machine's alone."""
    report = serving_report.Report({}, runs, [])
    generator = np.random.default_rng(0)
    found: list[HalfLoad] = []
    # All take their turn, then the next round begins: what disturbs a few seconds falls into one round of a cell.
    for number in range(1 if options.quick else max(HALF_LOAD_ROUNDS.values()) + REPEATS):
        disturbed = serving_report.disturbed(found)
        for item in cells:
            for arrivals in ARRIVALS.get(item.cell.server, ()):
                saturated = report.of(item.cell)
                if saturated is None or (number >= HALF_LOAD_ROUNDS[arrivals] and item.cell not in disturbed):
                    continue
                rate = HALF * saturated.requests_per_second
                shortest, longest = HALF_LOAD_SECONDS
                count = max(2, int(rate * min(longest, max(shortest, HALF_LOAD_REQUESTS / rate))))
                gaps = np.full(count, 1 / rate) if arrivals == "fixed" else generator.exponential(1 / rate, count)
                found.append(_ask_at_times(item, servers, arrivals, rate, np.cumsum(gaps).tolist()))
    return found


def _ask_at_times(item: _Prepared, servers: Servers, arrivals: str, rate: float, times: list[float]) -> HalfLoad:
    watch = _Watch(servers, item.port)
    p50, p99 = map(float, np.percentile(open_loop.measure(item.port, item.question, times), (50, 99)))
    load = HalfLoad(item.cell, arrivals, rate, len(times), p50=p50, p99=p99, others=watch.others())
    print(
        f"{item.cell}: {rate:,.0f} requests/s at {arrivals} times, p50 {p50 * 1e3:.2f} ms, p99 {p99 * 1e3:.2f} ms, "
        f"others {load.others:.2f} CPUs",
        file=sys.stderr,
    )
    return load


class _Watch:
    """Tells how busy the CPUs were with anything but a server and its clients, from now on."""

    def __init__(self, servers: Servers, port: int) -> None:
        self._servers = servers
        self._port = port
        self._began = time.perf_counter()
        self._before = self._others_seconds()

    def others(self) -> float:
        """Return the CPUs that others have used, as a mean."""
        return max(0.0, self._others_seconds() - self._before) / (time.perf_counter() - self._began)

    def _others_seconds(self) -> float:
        usages = resource.getrusage(resource.RUSAGE_CHILDREN), resource.getrusage(resource.RUSAGE_SELF)
        clients = sum(usage.ru_utime + usage.ru_stime for usage in usages)
        return busy_seconds() - clients - self._servers.cpu_seconds(self._port)


def _find_wrk() -> str:
    wrk = shutil.which("wrk")
    if wrk is None:
        raise MissingError("wrk, which asks the servers, isn't installed: apt-get install wrk, or brew install wrk.")
    return wrk


def _two_cpus() -> tuple[int, int]:
    if not hasattr(os, "sched_getaffinity"):
        raise MissingError("Processes can be given a CPU of their own on Linux alone: run this there.")
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        raise MissingError("Two CPUs are needed, one for the servers and one for the clients; found 1.")
    return cpus[0], cpus[1]


def _machine(options: argparse.Namespace, wrk: str) -> dict[str, str]:
    """Return what the figures depend on besides the code."""
    # wrk says its version with its usage, as an error.
    banner = subprocess.run([wrk, "--version"], capture_output=True, text=True, check=False).stdout.split()
    packages = ", ".join(f"{name} {version(name)}" for name in PEERS)
    return {
        "machine": f"{processor()}, {os.cpu_count()} CPUs, {platform.system()} {platform.machine()}",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "versions": f"kmeans {kmeans.__version__} ({_revision()}, sources {_digest()}), "
        f"Python {platform.python_version()}, {' '.join(banner[:2])}, {packages}",
        "rows": f"{'MNIST' if options.mnist else 'drawn, as many zeros as in MNIST'} (784 columns), wine (13), "
        f"k = {CLUSTERS}",
        "runs": f"{options.rounds} of {max(1, round(options.seconds))} s with {CONNECTIONS} connections, median"
        + (" (a smoke test)" if options.quick else ""),
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


def _digest() -> str:
    """Return a digest of what answers."""
    digest = hashlib.sha256()
    for package in ("kmeans", "serve"):
        for source in sorted((PROJECT / package).rglob("*.py")):
            digest.update(source.read_bytes())
    return digest.hexdigest()[:12]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__)
    parser.add_argument(
        "--mnist", type=Path, help="folder of MNIST's files; default: KMEANS_MNIST_DIR; else drawn rows"
    )
    parser.add_argument("--seconds", type=float, help=f"of each run of wrk; default: {SECONDS:g}")
    parser.add_argument("--rounds", type=int, help=f"default: {ROUNDS}")
    parser.add_argument("--output", type=Path, help="folder of the results; default: docs, if quick build/benchmark")
    parser.add_argument("--quick", action="store_true", help="a smoke test: one short round")
    parser.add_argument("--redraw", action="store_true", help="table and picture again, from the output's JSON")
    options = parser.parse_args()
    folder = os.environ.get("KMEANS_MNIST_DIR")
    options.mnist = options.mnist or (Path(folder) if folder else None)
    options.seconds = options.seconds or (QUICK_SECONDS if options.quick else SECONDS)
    options.rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
    options.output = options.output or Path("build/benchmark" if options.quick else "docs")
    return options


if __name__ == "__main__":
    sys.exit(main())
