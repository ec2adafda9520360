"""``python -m benchmarks.soak``: a small container at saturation for half an hour, by good, large and broken requests.

The image serves with 512 MB and 0.7 CPUs while more clients than it has threads ask without a pause. Every answer is
compared with the first of its kind, whose labels are compared with brute force. A ping is sent each second, memory is
read every two seconds. Any answer that isn't the expected one, any broken connection and any restart is an error.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import docker
import numpy as np

from benchmarks import bodies
from benchmarks.machine import processor
from benchmarks.soak_clients import HOST, Clients
from benchmarks.soak_report import MEBIBYTE, Sample, as_json, drift, summary
from benchmarks.soak_requests import requests
from kmeans import artifact
from kmeans.model import KMeansModel

PORT = 8080
MEMORY, CPUS = "512m", 0.7
CLUSTERS, ROWS = 10, 10_000

# A worker answers four requests at a time: the others wait, so that it is never idle.
CLIENTS = 8
# Bodies that are under way make up much of the memory: the median of a window needs many samples.
SAMPLE_EVERY_SECONDS, FEWEST_SAMPLES = 2.0, 30
SAMPLES_PER_LINE = 150  # that tell how it goes
START_SECONDS = 60.0


class Container:
    """A container that serves, seen through the Docker engine."""

    def __init__(self, engine: Any, container: Any) -> None:
        self._engine = engine
        self._container = container

    @property
    def port(self) -> int:
        """The port of this machine behind which its own is found."""
        self._container.reload()
        return int(self._container.attrs["NetworkSettings"]["Ports"][f"{PORT}/tcp"][0]["HostPort"])

    @property
    def image(self) -> str:
        """The image's digest."""
        return str(self._container.image.id)

    def sample(self, began: float) -> Sample:
        """Return what it takes now."""
        stats = self._engine.api.stats(self._container.id, stream=False, one_shot=True)
        memory = stats["memory_stats"]
        # Version 1 of cgroups calls the files' pages `cache`, version 2 `file`. Both count shared memory as such.
        detail = memory["stats"]
        files = detail.get("cache", detail.get("file", 0)) - detail.get("shmem", 0)
        processes = self._container.top(ps_args="-eo pid,rss")["Processes"]
        return Sample(
            round(time.monotonic() - began, 1),
            memory["usage"] - files,
            {int(pid): int(kilobytes) << 10 for pid, kilobytes in processes},
            stats["cpu_stats"]["cpu_usage"]["total_usage"] / 1e9,
        )

    def stop(self) -> tuple[int, bool, float]:
        """Send SIGTERM; return exit code, whether memory ran out at any time, and how long the end took."""
        began = time.monotonic()
        self._container.stop(timeout=30)
        seconds = time.monotonic() - began
        self._container.reload()
        state = self._container.attrs["State"]
        return int(state["ExitCode"]), bool(state["OOMKilled"]), seconds

    def log_tail(self) -> str:
        """Return the last lines of what it printed."""
        return str(self._container.logs(tail=20).decode(errors="replace"))


@contextmanager
def container(image: str, model: Path) -> Iterator[Container]:
    """Start the image as small as an endpoint may be, on a read-only file system; remove it at the end."""
    engine = docker.from_env()
    # Not `run`, which would look for a missing image on the Internet.
    made = engine.containers.create(
        image,
        "serve",
        mem_limit=MEMORY,
        memswap_limit=MEMORY,
        nano_cpus=int(CPUS * 1e9),
        read_only=True,
        tmpfs={"/tmp": ""},  # noqa: S108 - the container's own
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        volumes={str(model): {"bind": "/opt/ml/model", "mode": "ro"}},
        ports={f"{PORT}/tcp": (HOST, None)},
        # A line for each request would fill the disk.
        log_config=docker.types.LogConfig(type="json-file", config={"max-size": "10m", "max-file": "1"}),
    )
    try:
        made.start()
        yield Container(engine, made)
    finally:
        made.remove(force=True, v=True)


def main() -> int:
    """Run the soak and return the exit code."""
    options = _options()
    file = options.output / "soak.json"
    if options.redraw:
        (options.output / "soak.md").write_text(summary(json.loads(file.read_text())))
        return 0
    seconds = 60 * options.minutes
    points = bodies.images(options.mnist)[:ROWS]
    generator = np.random.default_rng(0)
    centers = points[generator.choice(len(points), CLUSTERS, replace=False)]
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        model.mkdir()
        artifact.save(KMeansModel(centers), model)
        for path in (Path(folder), model, *model.iterdir()):
            path.chmod(0o755)  # the container's root has no more rights than others
        try:
            with container(options.image, model) as served:
                clients = Clients(served.port, requests(points, centers))
                _wait_until_up(clients, served)
                clients.rehearse()
                samples = _load(clients, served, seconds)
                report = _report(options, clients, samples, served)
        except docker.errors.ImageNotFound:
            print(f"There is no image {options.image}: make image, or --image NAME.", file=sys.stderr)
            return 2
        except docker.errors.DockerException as error:
            print(f"A Docker engine is needed: {error}.", file=sys.stderr)
            return 2
    options.output.mkdir(parents=True, exist_ok=True)
    file.write_text(as_json(report))
    (options.output / "soak.md").write_text(summary(report))
    print(summary(report))
    return 0


def _wait_until_up(clients: Clients, served: Container) -> None:
    end = time.monotonic() + START_SECONDS
    while not clients.is_up():
        if time.monotonic() > end:
            raise TimeoutError(f"the container doesn't answer pings:\n{served.log_tail()}")
        time.sleep(0.1)


def _load(clients: Clients, served: Container, seconds: float) -> list[Sample]:
    """Ask with all clients for so long; return what the container took meanwhile."""
    began = time.monotonic()
    end = began + seconds
    # As daemons they don't keep an interrupted measurement going.
    threads = [threading.Thread(target=clients.ask_until, args=(end, seed), daemon=True) for seed in range(CLIENTS)]
    threads.append(threading.Thread(target=clients.ping_until, args=(end,), daemon=True))
    for thread in threads:
        thread.start()
    samples = []
    due = began
    every = min(SAMPLE_EVERY_SECONDS, seconds / FEWEST_SAMPLES)
    while (now := time.monotonic()) < end:
        if now < due:
            time.sleep(due - now)
        samples.append(served.sample(began))
        due = max(due + every, time.monotonic())
        sample = samples[-1]
        if len(samples) % SAMPLES_PER_LINE == 1:
            print(
                f"{sample.seconds / 60:5.1f} minutes: {sum(clients.counts.values()):,} requests, {clients.error_count} "
                f"errors, {sample.memory_bytes / MEBIBYTE:.1f} MiB",
                file=sys.stderr,
            )
    for thread in threads:
        thread.join()
    return samples


def _report(options: argparse.Namespace, clients: Clients, samples: list[Sample], served: Container) -> dict[str, Any]:
    """Stop the container and return all that was measured."""
    seconds = 60 * options.minutes
    image, counted = served.image, clients.metrics()
    exit_code, out_of_memory, stop_seconds = served.stop()
    requested = sum(clients.counts.values())
    answered = sum(clients.counts[request.name] for request in clients.mix if request.status == 200)
    rehearsed = sum(request.status == 200 for request in clients.mix)
    cpu = (samples[-1].cpu_seconds - samples[0].cpu_seconds) / (samples[-1].seconds - samples[0].seconds)
    return {
        "machine": f"{processor()}, {os.cpu_count()} CPUs",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "image": image,
        "limits": {"memory": MEMORY, "cpus": CPUS},
        "minutes": options.minutes,
        "clients": CLIENTS,
        "rows": "MNIST" if options.mnist else "synthetic",
        "requests": requested,
        "requests_per_second": requested / seconds,
        "rows_predicted": clients.rows,
        "by_request": {
            request.name: {"status": request.status, "bytes": len(request.body), "count": clients.counts[request.name]}
            for request in clients.mix
        },
        "errors": clients.error_count,
        "first_errors": clients.errors,
        "server_counted_200": counted.get('kmeans_requests_total{route="/invocations",status="200"}', 0.0) - rehearsed,
        "clients_counted_200": answered,
        "server_counted_500": sum(
            value for name, value in counted.items() if name.startswith("kmeans_requests_total") and 'status="5' in name
        ),
        "cpu_share": cpu / CPUS,
        "pings": {
            "count": len(clients.pings),
            "p50": float(np.percentile(clients.pings, 50)),
            "p99": float(np.percentile(clients.pings, 99)),
            "max": max(clients.pings),
        },
        "memory": drift(samples, seconds, lambda sample: sample.memory_bytes),
        "resident": drift(samples, seconds, lambda sample: sample.resident),
        "processes": sorted({len(sample.resident_bytes) for sample in samples}),
        "processes_ever": len({pid for sample in samples for pid in sample.resident_bytes}),
        "exit_code": exit_code,
        "out_of_memory": out_of_memory,
        "stop_seconds": stop_seconds,
        "samples": [asdict(sample) for sample in samples],
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--image", default="kmeans:latest", help="default: kmeans:latest")
    parser.add_argument("--minutes", type=float, default=30.0, help="default: 30")
    parser.add_argument(
        "--mnist", type=Path, help="folder of MNIST's files; default: KMEANS_MNIST_DIR; else drawn rows"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("docs"), help="folder of soak.json and soak.md; default: docs"
    )
    parser.add_argument("--redraw", action="store_true", help="soak.md again, from the output's JSON")
    options = parser.parse_args()
    folder = os.environ.get("KMEANS_MNIST_DIR")
    options.mnist = options.mnist or (Path(folder) if folder else None)
    return options


if __name__ == "__main__":
    sys.exit(main())
