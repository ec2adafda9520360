"""The hosts of a job: containers of the image, each pinned to one CPU, on a separate bridge network."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.machine import allocator_variables, busy_seconds

# A container that runs longer is an error.
LIMIT_SECONDS = 300

READ_BYTES = 4 << 20

PROGRAM = "/benchmark.py"

PHASE = re.compile(r"\] (\w+) took: [\d.]+%, \(([\d.]+) secs\)")
MOVES = re.compile(r"\] refined the centers (\d+) times")
COMPARED = re.compile(r"\] compared rows (\d+) times with all \d+ centers(?:, (\d+) times with those around)?")
QUALITY = re.compile(r"train mean_squared_distance <loss>=(\S+)")
# The last output of the shell: user and system time of the shell itself, and of its children.
CPU_TIMES = re.compile(r"(?:(\d+)m([\d.]+)s (\d+)m([\d.]+)s\n){2}\Z")


class ContainerError(Exception):
    """A container failed; the text is its output."""


@dataclass(frozen=True, slots=True)
class Ended:
    """Containers that were started together and have ended.

    ``seconds`` is the time from the start of the first to the end of the last, ``others`` the mean number of CPUs that
    other processes used, and ``outputs`` has the output of each host.
    """

    seconds: float
    others: float
    outputs: tuple[str, ...]


class Cluster:
    """Runs jobs and programs in containers of ``image``; as a context it removes its network at the end.

    The image is looked up once, because its name may be given to another image meanwhile; ``label`` describes it. Each
    host's ``/opt/ml`` is created in ``folder``, which must be on the file system of the data.
    """

    def __init__(self, image: str, folder: Path) -> None:
        import docker  # noqa: PLC0415 - not for rendering

        self._engine = docker.from_env(timeout=LIMIT_SECONDS)
        found = self._engine.images.get(image)
        self._image = str(found.id)
        labels = found.labels or {}
        version, revision = (
            labels.get(f"org.opencontainers.image.{name}", "unknown") for name in ("version", "revision")
        )
        self.label = f"{image}, version {version}, revision {revision}, {self._image[7:19]}"
        self._folder = folder
        self._cpus = sorted(os.sched_getaffinity(0))
        self._stack = ExitStack()
        self._network = ""

    def __enter__(self) -> Cluster:
        network = self._engine.networks.create(f"kmeans-scaling-{secrets.token_hex(4)}", driver="bridge")
        self._stack.callback(network.remove)
        self._network = network.name
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def train(
        self,
        hosts: int,
        shards: Sequence[Path],
        *,
        replicated: bool = False,
        apart: bool = False,
        **hyperparameters: float,
    ) -> dict[str, Any]:
        """Run a job on the files ``shards``, distributed over the ``hosts``, or ``replicated`` on each of them.

        With ``apart`` each host has all files and runs the whole job alone, at the same time as the others. Returns
        times and results by the names of :class:`benchmarks.scaling_report.Run`; phases are those of the slowest host.
        Raises ContainerError if a container fails.
        """
        names = _names(hosts)
        with self._folders(names) as folders:
            for rank, (name, folder) in enumerate(zip(names, folders, strict=True)):
                distribution = "FullyReplicated" if replicated else "ShardedByS3Key"
                together = [name] if apart else names
                _write_configuration(folder / "input" / "config", name, together, distribution, hyperparameters)
                for shard in shards if replicated or apart else shards[rank::hosts]:
                    (folder / "input" / "data" / "train" / shard.name).hardlink_to(shard)
            _bring_into_memory(shards)
            ended = self._run(names, "train", [(folder, "/opt/ml") for folder in folders])
            return _times(ended, jobs=hosts if apart else 1)

    def run(self, hosts: int, program: Path, *arguments: str) -> Ended:
        """Run a Python ``program`` on each of the ``hosts`` with the arguments: names of all hosts, ``arguments``.

        Raises ContainerError if it fails.
        """
        names = _names(hosts)
        return self._run(
            names, " ".join(["python3", PROGRAM, ",".join(names), *arguments]), [(program, PROGRAM)] * hosts
        )

    @contextmanager
    def _folders(self, names: Sequence[str]) -> Iterator[list[Path]]:
        folders = [self._folder / name for name in names]
        try:
            for folder in folders:
                for part in ("input/config", "input/data/train", "model", "output"):
                    (folder / part).mkdir(parents=True)
            yield folders
        finally:
            for folder in folders:
                shutil.rmtree(folder, ignore_errors=True)

    def _run(self, names: Sequence[str], command: str, mounts: Sequence[tuple[Path, str]]) -> Ended:
        # The shell reports the CPU time of its children.
        script = f"{command}; code=$?; times; exit $code"
        with ExitStack() as stack:
            containers = []
            for number, (name, (source, target)) in enumerate(zip(names, mounts, strict=True)):
                container = self._engine.containers.create(
                    self._image,
                    ["sh", "-c", script],
                    hostname=name,
                    cpuset_cpus=str(self._cpus[number % len(self._cpus)]),
                    environment=allocator_variables("train"),  # as in container/bin/train; for programs, too
                    network=self._network,
                    networking_config={self._network: self._engine.api.create_endpoint_config(aliases=[name])},
                    volumes={str(source): {"bind": target, "mode": "rw"}},
                )
                stack.callback(container.remove, force=True, v=True)
                containers.append(container)
            with ThreadPoolExecutor(len(containers)) as threads:
                busy, started = busy_seconds(), time.perf_counter()
                codes = list(threads.map(_run_to_its_end, containers))
                seconds, busy = time.perf_counter() - started, busy_seconds() - busy
            outputs = tuple(str(container.logs().decode()) for container in containers)
        if any(codes):
            raise ContainerError("\n".join(outputs))
        return Ended(seconds, max(0.0, busy - sum(map(_cpu_seconds, outputs))) / seconds, outputs)


def _bring_into_memory(files: Sequence[Path]) -> None:
    """Read the files into the page cache, so that the disk does not affect the measurement."""
    buffer = bytearray(READ_BYTES)
    for path in files:
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def _run_to_its_end(container: Any) -> int:
    container.start()
    return int(container.wait()["StatusCode"])


def _names(hosts: int) -> list[str]:
    return [f"algo-{number}" for number in range(1, hosts + 1)]


def _write_configuration(
    folder: Path, name: str, names: Sequence[str], distribution: str, hyperparameters: Mapping[str, float]
) -> None:
    channel = {"ContentType": "application/x-recordio-protobuf", "S3DistributionType": distribution}
    for file, content in {
        "hyperparameters": {key: str(value) for key, value in hyperparameters.items()},
        "inputdataconfig": {"train": channel},
        "resourceconfig": {"current_host": name, "hosts": names, "network_interface_name": "eth0"},
    }.items():
        (folder / f"{file}.json").write_text(json.dumps(content))


def _cpu_seconds(output: str) -> float:
    """Return the CPU time of a container's processes; 0 if it is not in the output."""
    found = CPU_TIMES.search(output)
    if found is None:
        return 0.0
    minutes, seconds, more_minutes, more_seconds = map(float, found.groups())
    return 60 * (minutes + more_minutes) + seconds + more_seconds


def _times(ended: Ended, jobs: int) -> dict[str, Any]:
    """Return the times of the slowest host, and the comparisons of one of the ``jobs``, which are alike."""
    phases: dict[str, float] = {}
    for output in ended.outputs:
        for name, seconds in PHASE.findall(output):
            phases[name] = max(phases.get(name, 0.0), float(seconds))
    moves, quality = (pattern.search(ended.outputs[0]) for pattern in (MOVES, QUALITY))
    if moves is None or quality is None:
        raise ContainerError(f"expected the result of the fit in the log of the leader, found:\n{ended.outputs[0]}")
    compared = [(int(all_), int(nearby or 0)) for output in ended.outputs for all_, nearby in COMPARED.findall(output)]
    return {
        "moves": int(moves[1]),
        "with_all": sum(all_ for all_, _ in compared) // jobs,
        "with_nearby": sum(nearby for _, nearby in compared) // jobs,
        "seconds": round(ended.seconds, 4),
        "phases": phases,
        "mean_squared_distance": float(quality[1]),
        "others": round(ended.others, 2),
    }
