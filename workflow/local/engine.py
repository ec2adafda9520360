"""Docker containers of jobs and endpoints: labelled, watched and removed."""

from __future__ import annotations

import contextlib
import gc
import secrets
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import docker
import docker.errors
import requests

from workflow.errors import WorkflowError, one_line

# Label of containers and networks; its value is the folder of the workflow, and the kind and name of the owner.
LABEL = "kmeans-workflow"
PORT = 8080

# Errors of a request that Docker refuses, and of an engine that has ended.
DOCKER_ERRORS = (docker.errors.DockerException, requests.RequestException)

SHOWN_LOG_LINES = 20


class Engine:
    """Starts containers of images that are on this machine, and pulls none.

    Parameters
    ----------
    scope
        Distinguishes the containers of workflows: those of another scope are ignored.
    """

    def __init__(self, scope: str) -> None:
        self._scope = scope
        with warnings.catch_warnings():
            # The client doesn't close its socket if no engine answers.
            warnings.simplefilter("ignore", ResourceWarning)
            try:
                self._client = docker.from_env()
                self._client.ping()
            except (docker.errors.DockerException, OSError) as error:
                reason = one_line(error)
                gc.collect()
                raise WorkflowError(
                    f"No Docker engine answers: start Docker, or set DOCKER_HOST; --dry-run needs none. ({reason})"
                ) from None

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def require_image(self, image: str) -> None:
        """Raise WorkflowError if this machine has no such image."""
        try:
            self._client.images.get(image)
        except (docker.errors.ImageNotFound, docker.errors.NullResource):
            raise WorkflowError(
                f"There is no image {image} on this machine: run `python -m workflow image`, or name another one with "
                "--image."
            ) from None

    def start(self, image: str, command: list[str] | None, owner: str, **options: Any) -> Any:
        """Start a container for the job or endpoint ``owner``; the options are those of Docker's client.

        Raises WorkflowError if Docker refuses.
        """
        self.require_image(image)
        container = None
        try:
            container = self._client.containers.create(image, command, labels=self._labels(owner), **options)
            container.start()
        except DOCKER_ERRORS as error:
            if container is not None:
                remove(container)
            raise WorkflowError(f"Docker can't start {image}: {one_line(error)}") from None
        return container

    def serve(
        self, image: str, owner: str, environment: Mapping[str, str], folders: Mapping[Path, str], **options: Any
    ) -> Any:
        """Start ``serve`` in a read-only container, on a free port of the loopback interface.

        ``folders`` maps folders of this machine to paths in the container, where they are mounted read-only.
        """
        volumes = {str(path.resolve()): {"bind": inside, "mode": "ro"} for path, inside in folders.items()}
        return self.start(
            image,
            ["serve"],
            owner,
            environment=dict(environment),
            volumes=volumes,
            ports={f"{PORT}/tcp": ("127.0.0.1", None)},
            read_only=True,
            tmpfs={"/tmp": ""},  # noqa: S108 - in the container
            **options,
        )

    def attach(self, host: str, network: str) -> dict[str, Any]:
        """Return the options of a container in a network, with the host name ``host``."""
        endpoint = self._client.api.create_endpoint_config(aliases=[host])
        return {"network": network, "networking_config": {network: endpoint}, "hostname": host}

    @contextmanager
    def network(self, owner: str, *, is_isolated: bool) -> Iterator[str]:
        """Return a context with a network for one job; an isolated one reaches no other network."""
        name = f"{LABEL}-{secrets.token_hex(6)}"
        try:
            network = self._client.networks.create(
                name, driver="bridge", internal=is_isolated, labels=self._labels(owner)
            )
        except DOCKER_ERRORS as error:
            raise WorkflowError(f"Docker can't make a network: {one_line(error)}") from None
        try:
            yield name
        finally:
            with contextlib.suppress(*DOCKER_ERRORS):
                network.remove()

    def find(self, owner: str) -> list[Any]:
        """Return the containers of a job or endpoint, running or not."""
        label = f"{LABEL}={self._scope}:{owner}"
        found: list[Any] = self._client.containers.list(all=True, ignore_removed=True, filters={"label": label})
        return found

    def remove_all(self, owner: str) -> None:
        """Remove the containers and the network of a job or endpoint."""
        for container in self.find(owner):
            remove(container)
        for network in self._client.networks.list(filters={"label": f"{LABEL}={self._scope}:{owner}"}):
            with contextlib.suppress(*DOCKER_ERRORS):
                network.remove()

    def _labels(self, owner: str) -> dict[str, str]:
        return {LABEL: f"{self._scope}:{owner}"}


class LogCopy(threading.Thread):
    """Copies a container's output into a file until the container ends."""

    def __init__(self, container: Any, file: Path) -> None:
        super().__init__(name=f"log of {container.name}", daemon=True)
        self._container = container
        self._file = file

    def run(self) -> None:
        """Copy chunks until the container ends or is removed."""
        with self._file.open("ab", buffering=0) as file:
            with contextlib.suppress(*DOCKER_ERRORS, OSError):
                for chunk in self._container.logs(stream=True, follow=True):
                    file.write(chunk)
            file.write(b"\n")  # readers ignore a last line without an end


def owner(kind: str, name: str) -> str:
    """Return the owner of a job's or endpoint's containers, a part of their label."""
    return f"{kind}/{name}"


def status(container: Any) -> str:
    """Return Docker's status of a container, for example ``running``; ``removed`` if it is gone."""
    try:
        container.reload()
    except docker.errors.NotFound:
        return "removed"
    return str(container.status)


def exit_code(container: Any) -> int:
    """Return the exit code of a container that has ended."""
    return int(container.wait()["StatusCode"])


def host_port(container: Any) -> int:
    """Return the loopback port of the container's server; raise WorkflowError if the container has ended."""
    container.reload()
    try:
        return int(container.attrs["NetworkSettings"]["Ports"][f"{PORT}/tcp"][0]["HostPort"])
    except (KeyError, IndexError, TypeError):
        raise WorkflowError(f"The server of {container.name} has ended: see its log.") from None


def last_lines(container: Any) -> str:
    """Return the end of a container's log, as one line."""
    return one_line(container.logs(tail=SHOWN_LOG_LINES).decode("utf-8", "replace"))


def stop(container: Any, seconds: int) -> None:
    """Stop a container by SIGTERM, and by SIGKILL after ``seconds``."""
    with contextlib.suppress(*DOCKER_ERRORS):
        container.stop(timeout=seconds)


def remove(container: Any) -> None:
    """Remove a container, running or not."""
    with contextlib.suppress(*DOCKER_ERRORS):
        container.remove(force=True, v=True)
