"""Containers of the image under test: jobs that end, and servers that are asked and stopped."""

import contextlib
import http.client
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# A user that exists neither here nor in the image: nothing is readable by the accident of who made it.
STRANGER = 12345
# More than any of these containers needs, on any machine: it ends a test that hangs.
DEADLINE = 300.0
# The strictest start that Docker offers. The image has to work without what this takes away.
HARDENED: Mapping[str, Any] = {
    "user": str(STRANGER),
    "read_only": True,
    "tmpfs": {"/tmp": ""},  # noqa: S108 - the container's own
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges"],
}
OFFLINE: Mapping[str, Any] = {**HARDENED, "network_mode": "none"}


def wait_until(condition: Callable[[], bool], what: str, seconds: float = DEADLINE, pause: float = 0.05) -> None:
    """Ask until the answer is yes; the failure names what was waited for."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds:.0f} s for {what}"
        time.sleep(pause)


@dataclass(frozen=True)
class Finished:
    """What a container leaves behind: its exit code, and its standard output and error."""

    exit_code: int
    out: str
    err: str

    @property
    def log(self) -> str:
        return self.out + self.err


class Running:
    """A container between its start and its removal."""

    def __init__(self, container: Any) -> None:
        self.container = container

    @property
    def alive(self) -> bool:
        self.container.reload()
        return str(self.container.status) == "running"

    def port(self, inside: int) -> int:
        """The port of the loopback interface behind which the container's own is found."""
        self.container.reload()
        return int(self.container.attrs["NetworkSettings"]["Ports"][f"{inside}/tcp"][0]["HostPort"])

    def command_line(self, pid: int) -> list[str]:
        _, content = self.container.exec_run(["cat", f"/proc/{pid}/cmdline"])
        return [part.decode() for part in content.rstrip(b"\0").split(b"\0")]

    @property
    def log(self) -> str:
        return str(self.container.logs().decode())

    def stop(self) -> None:
        """What `docker stop` and SageMaker do: SIGTERM, and SIGKILL after 30 s."""
        self.container.stop(timeout=30)

    def finish(self) -> Finished:
        """Wait for the end of the container."""
        wait_until(lambda: not self.alive, "the end of the container")
        return Finished(
            exit_code=int(self.container.wait()["StatusCode"]),
            out=self.container.logs(stdout=True, stderr=False).decode(),
            err=self.container.logs(stdout=False, stderr=True).decode(),
        )


class Containers:
    """Starts containers of one image, and removes every one of them."""

    def __init__(self, engine: Any, image: Any) -> None:
        self._engine = engine
        self.image = image

    @contextlib.contextmanager
    def start(self, command: list[str] | None = None, **options: Any) -> Iterator[Running]:
        """Start a container as `docker run` does; `options` are those of the Docker SDK."""
        container = self._engine.containers.create(self.image.id, command, **options)
        try:
            container.start()
            yield Running(container)
        finally:
            container.remove(force=True, v=True)

    def run(self, command: list[str] | None = None, **options: Any) -> Finished:
        """Run a container to its end."""
        with self.start(command, **options) as running:
            return running.finish()

    def output(self, *command: str) -> str:
        """What a program in the image prints."""
        finished = self.run(list(command))
        assert finished.exit_code == 0, finished.log
        return finished.out


class Job:
    """A folder like SageMaker's /opt/ml, and containers that work on it."""

    def __init__(self, root: Path, containers: Containers) -> None:
        self.root = root
        self.model = root / "model"
        self.failure = root / "output" / "failure"
        self._containers = containers
        for name in ("input/config", "input/data/train", "model", "output/data"):
            (root / name).mkdir(parents=True)
        # After all are made, and not by mkdir's mode, which the umask would narrow: the container's user is a stranger.
        for folder in (root, *(path for path in root.rglob("*") if path.is_dir())):
            folder.chmod(0o777)
        self.write_config("resourceconfig", {"current_host": "algo-1", "hosts": ["algo-1"]})
        self.train_on("text/csv;label_size=0")

    def write_config(self, name: str, content: object) -> None:
        (self.root / "input" / "config" / f"{name}.json").write_text(json.dumps(content))

    def set_hyperparameters(self, **values: str) -> None:
        self.write_config("hyperparameters", values)

    def train_on(self, content_type: str) -> None:
        channel = {"TrainingInputMode": "File", "ContentType": content_type}
        self.write_config("inputdataconfig", {"train": channel})

    def data_file(self, name: str) -> Path:
        return self.root / "input" / "data" / "train" / name

    def run(self, command: list[str] | None = None, **options: Any) -> Finished:
        """Run a container on this folder, without a command as the image wants it; `options` replace `OFFLINE`'s."""
        with self.start(command, **options) as running:
            return running.finish()

    def start(self, command: list[str] | None = None, **options: Any) -> contextlib.AbstractContextManager[Running]:
        volumes = {str(self.root): {"bind": "/opt/ml", "mode": "rw"}}
        return self._containers.start(command, volumes=volumes, **{**OFFLINE, **options})

    def hand_over(self) -> None:
        """Make what the container's user has left removable for the user who runs the tests."""
        if os.getuid() != 0:
            self.run(["/bin/chmod", "-R", "a+rwX", "/opt/ml"], user="0", cap_drop=[])


@dataclass(frozen=True)
class Answer:
    """An HTTP response that has been read to its end."""

    status: int
    content_type: str
    server: str
    body: bytes


@dataclass(frozen=True)
class Endpoint:
    """A server in a container, seen from outside."""

    running: Running
    port: int

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        """Send one request; underscores in the names of headers stand for hyphens."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            connection.request(method, path, body, {name.replace("_", "-"): text for name, text in headers.items()})
            response = connection.getresponse()
            content_type, server = response.getheader("Content-Type", ""), response.getheader("Server", "")
            return Answer(response.status, content_type, server, response.read())

    @property
    def ready(self) -> bool:
        # Docker's proxy of the port accepts before the server does, and then hangs up.
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.ask("GET", "/ping").status == 200
        assert self.running.alive, self.running.finish().log
        return False


@contextlib.contextmanager
def serve(containers: Containers, model: Path, port: int = 8080, **options: Any) -> Iterator[Endpoint]:
    """Start a server with the folder `model`, read-only as on SageMaker, and wait until it is ready."""
    with containers.start(
        ["serve"],
        volumes={str(model): {"bind": "/opt/ml/model", "mode": "ro"}},
        ports={f"{port}/tcp": ("127.0.0.1", None)},
        **{**HARDENED, **options},
    ) as running:
        endpoint = Endpoint(running, running.port(port))
        wait_until(lambda: endpoint.ready, "GET /ping to answer 200")
        yield endpoint
