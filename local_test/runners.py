"""Two ways to run ``train`` and ``serve`` on a folder that looks like ``/opt/ml``: as processes, and in the image."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

PROJECT = Path(__file__).resolve().parents[1]
READY_WITHIN = 30.0
STOP_WITHIN = 30


class Runner(Protocol):
    """Runs the two commands of the image."""

    def train(self, base: Path) -> int:
        """Run a training job on ``base``, its log on stdout; return its exit code."""

    def serving(self, base: Path, port: int) -> AbstractContextManager[None]:
        """Return a context in which the model in ``base`` is served on 127.0.0.1:``port``."""


class ServerError(Exception):
    """The server ended, or did not become ready in time."""


class ProcessRunner:
    """Runs the packages of this checkout with this Python, on a moved ``/opt/ml`` (``SAGEMAKER_BASE_DIR``)."""

    def train(self, base: Path) -> int:
        """Run ``python -m train``."""
        command = [sys.executable, "-m", "train"]
        return subprocess.run(command, cwd=PROJECT, env=_environment(base), check=False).returncode

    @contextmanager
    def serving(self, base: Path, port: int) -> Iterator[None]:
        """Run ``python -m serve`` until the context ends; then stop it by SIGTERM, as SageMaker does."""
        environment = _environment(base) | {"SAGEMAKER_BIND_TO_PORT": str(port)}
        with subprocess.Popen([sys.executable, "-m", "serve"], cwd=PROJECT, env=environment) as server:
            try:
                _wait_until_ready(port, lambda: server.poll() is None)
                yield
            finally:
                server.terminate()
                server.wait(STOP_WITHIN)


class DockerRunner:
    """Runs the image through Docker's API, with ``base`` mounted at ``/opt/ml``."""

    def __init__(self, image: str) -> None:
        import docker  # noqa: PLC0415 - not needed without Docker

        self._client = docker.from_env()
        self._image = image
        self._client.ping()
        self._client.images.get(image)

    def train(self, base: Path) -> int:
        """Run ``docker run IMAGE train`` without network and with a read-only root, the strictest a host may be."""
        container = self._client.containers.run(
            self._image,
            "train",
            detach=True,
            network_mode="none",
            read_only=True,
            tmpfs={"/tmp": ""},  # noqa: S108 - in the container
            volumes={str(base): {"bind": "/opt/ml", "mode": "rw"}},
        )
        try:
            for chunk in container.logs(stream=True, follow=True):
                sys.stdout.write(chunk.decode("utf-8", "replace"))
                sys.stdout.flush()
            return int(container.wait()["StatusCode"])
        finally:
            container.remove(force=True)

    @contextmanager
    def serving(self, base: Path, port: int) -> Iterator[None]:
        """Run ``docker run -p PORT:8080 IMAGE serve`` until the context ends."""
        container = self._client.containers.run(
            self._image,
            "serve",
            detach=True,
            ports={"8080/tcp": ("127.0.0.1", port)},
            read_only=True,
            tmpfs={"/tmp": ""},  # noqa: S108 - in the container
            volumes={str(base / "model"): {"bind": "/opt/ml/model", "mode": "ro"}},
        )

        def is_running() -> bool:
            container.reload()
            return bool(container.status in ("created", "running"))

        try:
            try:
                _wait_until_ready(port, is_running)
            except ServerError as error:
                raise ServerError(f"{error}: {container.logs().decode('utf-8', 'replace').strip()}") from None
            yield
        finally:
            container.stop(timeout=STOP_WITHIN)
            container.remove(force=True)


def _environment(base: Path) -> dict[str, str]:
    return {**os.environ, "SAGEMAKER_BASE_DIR": str(base), "PYTHONUNBUFFERED": "1"}


def _wait_until_ready(port: int, is_running: Callable[[], bool]) -> None:
    """Send GET /ping, as SageMaker does, until the response is 200.

    Raises
    ------
    ServerError
        If the server ends, or is not ready in time.
    """
    deadline = time.monotonic() + READY_WITHIN
    while time.monotonic() < deadline:
        if not is_running():
            raise ServerError("the server ended before it was ready")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.02)
    raise ServerError(f"the server was not ready within {READY_WITHIN:g} s")
