"""A server process on a free port, and a client that is nothing but the standard library."""

import contextlib
import http.client
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .opt_ml import PROJECT, environment
from .waiting import wait_until

SERVE = (sys.executable, "-m", "serve")
HOST = "127.0.0.1"
INVITATION = b"HTTP/1.1 100 Continue\r\n\r\n"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def accepts_connections(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


@dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @classmethod
    def of(cls, response: http.client.HTTPResponse) -> "Answer":
        return cls(response.status, response.headers, response.read())

    @property
    def content_type(self) -> str:
        return self.headers["Content-Type"]

    @property
    def error(self) -> dict[str, Any]:
        error: dict[str, Any] = json.loads(self.body)["error"]
        return error


@dataclass(frozen=True)
class Server:
    process: subprocess.Popen[bytes]
    port: int
    output: Path

    @contextlib.contextmanager
    def connection(self) -> Iterator[http.client.HTTPConnection]:
        with contextlib.closing(http.client.HTTPConnection(HOST, self.port, timeout=30)) as connection:
            yield connection

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send one request on a connection of its own; a body that is no bytes goes in chunks without a length."""
        with self.connection() as connection:
            connection.request(method, path, body, headers or {})
            with connection.getresponse() as response:
                return Answer.of(response)

    def invoke(self, body: bytes | Iterable[bytes], content_type: str | None = "text/csv", **headers: str) -> Answer:
        """POST to /invocations; ``headers`` are written with underscores."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if content_type is not None:
            given["Content-Type"] = content_type
        return self.ask("POST", "/invocations", body, given)

    @contextlib.contextmanager
    def upload(self, length: int) -> Iterator["Upload"]:
        """Begin a request with a CSV body of ``length`` bytes, of which the caller sends as many as it likes.

        The server says 100 when it has read the headers: then the request is under way for certain.
        """
        with socket.create_connection((HOST, self.port), timeout=30) as connection:
            head = (
                "POST /invocations HTTP/1.1",
                f"Host: {HOST}",
                "Content-Type: text/csv",
                f"Content-Length: {length}",
                "Expect: 100-continue",
            )
            connection.sendall("\r\n".join((*head, "", "")).encode())
            start = connection.recv(len(INVITATION), socket.MSG_PEEK | socket.MSG_WAITALL)
            if start == INVITATION:
                connection.recv(len(INVITATION))  # what follows isn't to be read here
            yield Upload(connection, start == INVITATION)

    def workers(self) -> set[int]:
        """Return the ids of the worker processes."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return set(map(int, children.split()))

    def stop(self) -> int:
        """Send SIGTERM and return the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=30)


@dataclass(frozen=True)
class Upload:
    connection: socket.socket
    is_wanted: bool

    def answer(self) -> Answer:
        response = http.client.HTTPResponse(self.connection, method="POST")
        with contextlib.closing(response):
            response.begin()
            return Answer.of(response)


@contextlib.contextmanager
def start(base: Path, output: Path, command: Sequence[str] = SERVE, **variables: str) -> Iterator[Server]:
    """Start a server without waiting for it; it is stopped at the end in any case."""
    port = free_port()
    variables = {"SAGEMAKER_BIND_TO_PORT": str(port)} | variables
    with (
        output.open("wb") as out,
        subprocess.Popen(
            command, cwd=PROJECT, env=environment(base, **variables), stdout=out, stderr=subprocess.STDOUT
        ) as process,
    ):
        try:
            yield Server(process, port, output)
        finally:
            _end(process)


@contextlib.contextmanager
def serving(base: Path, output: Path, command: Sequence[str] = SERVE, **variables: str) -> Iterator[Server]:
    """Start a server and wait until it answers pings."""
    with start(base, output, command, **variables) as server:

        def is_up_or_gone() -> bool:
            if server.process.poll() is not None:
                return True
            return accepts_connections(server.port) and server.ask("GET", "/ping").status == 200

        wait_until(is_up_or_gone, "the first ping")
        assert server.process.poll() is None, output.read_text()
        yield server


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
