"""``python -m benchmarks.soak``: a small container at saturation, with good, large and broken requests.

For half an hour the image serves with 512 MB and 0.7 CPUs, and more clients than it has threads send requests without a
pause. Every answer is compared with the first of its kind, whose labels are compared with brute force. A ping is sent
each second, and memory is read every two seconds. Any unexpected answer, broken connection or restart is an error.
Results are written to docs/soak.json, and rendered to docs/soak.md.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import docker
import numpy as np

from benchmarks import bodies, machine
from benchmarks.data_sets import folder_of
from benchmarks.results import DOCS, Content, Document
from benchmarks.servers import HOST, answers_ping
from benchmarks.soak_clients import PING_LIMIT_SECONDS, Clients, requests
from kmeans import artifact
from kmeans.model import KMeansModel

PORT = 8080
MEMORY, CPUS = "512m", 0.7
CLUSTERS, ROWS = 10, 10_000

# A worker answers four requests at a time; the others wait, so that it is never idle.
CLIENTS = 8
# Much of the memory is used by bodies that are being received: the median of a window needs many samples.
SAMPLE_EVERY_SECONDS, FEWEST_SAMPLES = 2.0, 30
# Samples per line of progress.
SAMPLES_PER_LINE = 150
START_SECONDS = 60.0

# Fractions of the whole time: the warm-up, and the windows after it and at the end that are compared.
WARM_UP, WINDOW = 1 / 6, 1 / 6
FLAT = 0.02
MEBIBYTE = 1 << 20


@dataclass(frozen=True, slots=True)
class Sample:
    """Memory and CPU time of the container ``seconds`` after the start of the load.

    ``memory_bytes`` are those of its cgroup without the cache of files, ``resident_bytes`` those of each process.
    """

    seconds: float
    memory_bytes: int
    resident_bytes: dict[int, int]
    cpu_seconds: float

    @property
    def resident(self) -> int:
        """Resident memory of all processes; shared pages count for each."""
        return sum(self.resident_bytes.values())


def drift(samples: Sequence[Sample], seconds: float, figure: Callable[[Sample], float]) -> dict[str, float]:
    """Return the change of a figure after the warm-up of a load of ``seconds``; each window needs a sample.

    ``first`` and ``last`` are medians of the windows after the warm-up and at the end, ``drift`` is last / first - 1,
    and ``per_hour`` is the slope of a line through all samples after the warm-up, relative to ``first``.
    """
    warm, window = WARM_UP * seconds, WINDOW * seconds
    counted = [sample for sample in samples if sample.seconds >= warm]
    first = median(figure(sample) for sample in counted if sample.seconds < warm + window)
    last = median(figure(sample) for sample in counted if sample.seconds >= seconds - window)
    slope = np.polyfit([sample.seconds for sample in counted], [figure(sample) for sample in counted], 1)[0]
    return {
        "first": first,
        "last": last,
        "drift": last / first - 1,
        "per_hour": float(slope) * 3600 / first,
        "max": max(map(figure, samples)),
    }


DOCUMENT = Document("soak", lambda _: {"ping_limit": PING_LIMIT_SECONDS})


class Container:
    """A container that serves, observed through the Docker engine."""

    def __init__(self, engine: Any, container: Any) -> None:
        self._engine = engine
        self._container = container

    @property
    def port(self) -> int:
        """The port of this machine that is mapped to the container's port."""
        self._container.reload()
        return int(self._container.attrs["NetworkSettings"]["Ports"][f"{PORT}/tcp"][0]["HostPort"])

    @property
    def image(self) -> str:
        """The image's digest."""
        return str(self._container.image.id)

    def sample(self, began: float) -> Sample:
        """Return the current memory and CPU time."""
        stats = self._engine.api.stats(self._container.id, stream=False, one_shot=True)
        memory = stats["memory_stats"]
        # Version 1 of cgroups calls the files' pages `cache`, version 2 `file`. Both include shared memory.
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
        """Send SIGTERM; return the exit code, whether memory ran out at any time, and the seconds until the end."""
        began = time.monotonic()
        self._container.stop(timeout=30)
        seconds = time.monotonic() - began
        self._container.reload()
        state = self._container.attrs["State"]
        return int(state["ExitCode"]), bool(state["OOMKilled"]), seconds

    def log_tail(self) -> str:
        """Return the last lines of its output."""
        return str(self._container.logs(tail=20).decode(errors="replace"))


@contextmanager
def container(image: str, model: Path) -> Iterator[Container]:
    """Start the image with the resources of a small endpoint, on a read-only file system; remove it at the end."""
    engine = docker.from_env()
    # `run` would look for a missing image on the Internet.
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
    if options.redraw:
        print(DOCUMENT.render(options.output))
        return 0
    points = bodies.images(options.mnist)[:ROWS]
    centers = points[np.random.default_rng(0).choice(len(points), CLUSTERS, replace=False)]
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        model.mkdir()
        artifact.save(KMeansModel(centers), model)
        for path in (Path(folder), model, *model.iterdir()):
            path.chmod(0o755)  # the container's root has no capabilities
        try:
            with container(options.image, model) as served:
                clients = Clients(served.port, requests(points, centers))
                _wait_until_up(served)
                clients.rehearse()
                samples = _load(clients, served, 60 * options.minutes)
                report = _report(options, clients, samples, served)
        except docker.errors.ImageNotFound:
            print(f"There is no image {options.image}: make image, or --image NAME.", file=sys.stderr)
            return 2
        except docker.errors.DockerException as error:
            print(f"A Docker engine is needed: {error}.", file=sys.stderr)
            return 2
    print(DOCUMENT.write(options.output, report))
    return 0


def _wait_until_up(served: Container) -> None:
    end = time.monotonic() + START_SECONDS
    while not answers_ping(served.port):
        if time.monotonic() > end:
            raise TimeoutError(f"the container doesn't answer pings:\n{served.log_tail()}")
        time.sleep(0.1)


def _load(clients: Clients, served: Container, seconds: float) -> list[Sample]:
    """Run all clients for ``seconds``; return the samples of the container."""
    began = time.monotonic()
    end = began + seconds
    # Daemon threads end with an interrupted measurement.
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


def _report(options: argparse.Namespace, clients: Clients, samples: list[Sample], served: Container) -> Content:
    """Stop the container and return all results."""
    seconds = 60 * options.minutes
    image, counted = served.image, clients.metrics()
    exit_code, out_of_memory, stop_seconds = served.stop()
    requested = sum(clients.counts.values())
    answered = sum(clients.counts[request.name] for request in clients.mix if request.status == 200)
    rehearsed = sum(request.status == 200 for request in clients.mix)
    cpu = (samples[-1].cpu_seconds - samples[0].cpu_seconds) / (samples[-1].seconds - samples[0].seconds)
    return {
        "machine": f"{machine.processor()}, {os.cpu_count()} CPUs",
        "date": machine.today(),
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
        "--mnist", type=Path, help="folder of MNIST's files; default: KMEANS_MNIST_DIR, otherwise generated rows"
    )
    parser.add_argument("--output", type=Path, default=DOCS, help="folder of soak.json and soak.md; default: docs")
    parser.add_argument("--redraw", action="store_true", help="only render soak.md, from the output's JSON")
    options = parser.parse_args()
    options.mnist = folder_of("mnist", options.mnist)
    return options


if __name__ == "__main__":
    sys.exit(main())
