"""The servers that are measured: each is a process with one worker, pinned to a given CPU."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from benchmarks import bodies
from benchmarks.machine import ONE_THREAD, PROJECT, allocator_variables
from kmeans import artifact
from kmeans.arrays import Float32
from kmeans.formats.media_type import CSV, JSON
from kmeans.model import KMeansModel

HOST = "127.0.0.1"
START_SECONDS = 120.0

# A server that uses no CPU time during a step (several ticks of the system) is idle.
IDLE_SECONDS, IDLE_STEP_SECONDS = 30.0, 0.05

OURS, SAMPLE, MLFLOW, LIMIT = "ours", "AWS's sample", "MLflow", "the limit"

# Four threads, as many as our server has.
GUNICORN = ("-m", "gunicorn", "--workers", "1", "--worker-class", "gthread", "--threads", "4", "--keep-alive", "65")

ENVIRONMENT = {
    **ONE_THREAD,
    "PYTHONPATH": str(PROJECT),
    # Without it MLflow would send usage data.
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


@dataclass(frozen=True, slots=True)
class Question:
    """A POST request: path with a leading slash, headers, and the rows (n, d) in the form that the server expects."""

    path: str
    content_type: str
    accept: str
    body: bytes

    def ask(self, port: int) -> bytes:
        """Send the request and return the answer; raise ValueError if its status is not 200."""
        with closing(http.client.HTTPConnection(HOST, port, timeout=60)) as connection:
            connection.request("POST", self.path, self.body, {"Content-Type": self.content_type, "Accept": self.accept})
            response = connection.getresponse()
            answer = response.read()
        if response.status != 200:
            raise ValueError(f"expected the status 200, found {response.status}: {answer[:300]!r}")
        return answer


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of server: its name, its components (``title``), and the media types of requests that it reads.

    ``encode`` converts rows and a media type to a body, ``labels`` an answer and the media type of the request to
    labels (n,).
    """

    name: str
    title: str
    formats: Sequence[str]
    encode: Callable[[Float32, str], bytes]
    labels: Callable[[bytes, str], NDArray[Any]]

    def question(self, points: Float32, media_type: str) -> Question:
        """Return the request for ``points``."""
        return Question("/invocations", media_type, media_type, self.encode(points, media_type))


def _mlflow_body(points: Float32, media_type: str) -> bytes:
    if media_type == CSV:
        # MLflow's CSV has a header.
        return b",".join(b"c%d" % column for column in range(points.shape[1])) + b"\n" + bodies.encode(points, CSV)
    return b'{"inputs":' + bodies.as_json(points) + b"}"


KINDS = (
    Kind(OURS, "this project's server", bodies.FORMATS, bodies.encode, bodies.labels),
    Kind(
        SAMPLE,
        "Flask, gunicorn, pandas, scikit-learn: only CSV",
        (CSV,),
        bodies.encode,
        lambda answer, _: np.array([float(line) for line in answer.split()]),
    ),
    Kind(
        MLFLOW,
        "`mlflow models serve` with scikit-learn's KMeans: CSV and JSON, answers in JSON",
        (CSV, JSON),
        _mlflow_body,
        lambda answer, _: np.array(orjson.loads(answer)["predictions"], dtype=np.float64),
    ),
)


class Servers:
    """Servers that run at the same time on the CPU with the number ``cpu``; models and logs are in ``folder``.

    Only the server that gets requests uses the CPU.
    """

    def __init__(self, folder: Path, cpu: int) -> None:
        self._folder = folder
        self._cpu = cpu
        self._stack = ExitStack()
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Servers:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def start(self, name: str, centers: Float32) -> int:
        """Start a server of the kind ``name`` with these centers and return its port; it may not be ready yet."""
        port = free_port()
        folder = _made(self._folder / str(port))
        file = folder / "centers.npy"
        np.save(file, centers)
        if name == OURS:
            artifact.save(KMeansModel(centers), _made(folder / "model"))
            variables = {
                **allocator_variables("serve"),
                "SAGEMAKER_BASE_DIR": str(folder),
                "SAGEMAKER_BIND_TO_PORT": str(port),
                "SAGEMAKER_MODEL_SERVER_WORKERS": "1",
            }
            self._run(["-m", "serve"], port, folder, variables)
        elif name == SAMPLE:
            self._run_gunicorn("sample", port, folder, {"CENTERS": str(file)})
        else:
            model = folder / "mlflow"
            subprocess.run(
                [sys.executable, "-m", "benchmarks.serving_peers", str(file), str(model)],
                cwd=folder,
                env=_environment({}),
                check=True,
            )
            command = ["-m", "mlflow", "models", "serve", "--model-uri", str(model), "--env-manager", "local"]
            self._run([*command, "--host", HOST, "--port", str(port), "--workers", "1"], port, folder, {})
        return port

    def start_limit(self, lengths: set[int]) -> int:
        """Start the server that answers with constants of these lengths and return its port."""
        port = free_port()
        variables = {"ANSWER_LENGTHS": ",".join(map(str, sorted(lengths)))}
        self._run_gunicorn("limit", port, _made(self._folder / str(port)), variables)
        return port

    def wait_until_ready(self, port: int) -> None:
        """Wait until the server answers a ping.

        Raises RuntimeError with the server's output if it ends, or does not start in time.
        """
        end = time.monotonic() + START_SECONDS
        while not answers_ping(port):
            if self._processes[port].poll() is not None or time.monotonic() > end:
                log = (self._folder / str(port) / "log").read_text(errors="replace")
                raise RuntimeError(f"a server doesn't start:\n{log[-3000:]}")
            time.sleep(0.05)

    def wait_until_idle(self, port: int) -> None:
        """Wait until the server has finished all requests, including those that a client has abandoned.

        Raises RuntimeError if it does not become idle in time.
        """
        end = time.monotonic() + IDLE_SECONDS
        before, now = -1.0, self.cpu_seconds(port)
        while now > before:
            if time.monotonic() > end:
                raise RuntimeError("a server uses CPU time though no requests are sent")
            time.sleep(IDLE_STEP_SECONDS)
            before, now = now, self.cpu_seconds(port)

    def cpu_seconds(self, port: int) -> float:
        """Return the CPU time of a server's processes so far."""
        return _cpu_seconds(self._processes[port].pid)

    def _run_gunicorn(self, app: str, port: int, folder: Path, variables: Mapping[str, str]) -> None:
        name = f"benchmarks.serving_peers:{app}()"
        self._run([*GUNICORN, "--bind", f"{HOST}:{port}", name], port, folder, variables)

    def _run(self, arguments: Sequence[str], port: int, folder: Path, variables: Mapping[str, str]) -> None:
        log = self._stack.enter_context((folder / "log").open("wb"))
        with pinned(self._cpu):
            process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=folder,
                env=_environment(variables),
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._processes[port] = process
        self._stack.callback(_end, process)


def free_port() -> int:
    """Return an unused port."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


@contextmanager
def pinned(cpu: int) -> Iterator[None]:
    """Pin this thread, and the processes that it starts, to one CPU."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _environment(variables: Mapping[str, str]) -> dict[str, str]:
    # MLflow starts uvicorn by its name.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return {**os.environ, **ENVIRONMENT, "PATH": path, **variables}


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def answers_ping(port: int) -> bool:
    """Return whether a server on this machine answers a ping with 200."""
    with (
        suppress(OSError, http.client.HTTPException),
        closing(http.client.HTTPConnection(HOST, port, timeout=5)) as connection,
    ):
        connection.request("GET", "/ping")
        return connection.getresponse().status == 200
    return False


def _end(process: subprocess.Popen[bytes]) -> None:
    """Stop a server and all processes that it started, which are one process group."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _cpu_seconds(pid: int) -> float:
    """Return user and system time of a process and its descendants, as Linux reports."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return 0.0
    own = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return own + sum(_cpu_seconds(int(child)) for child in children)
