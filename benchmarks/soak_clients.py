"""Requests and clients of the soak: good requests in mixed formats and sizes, and broken ones, with their answers."""

from __future__ import annotations

import datetime
import http.client
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from benchmarks import bodies
from benchmarks.servers import HOST
from kmeans.arrays import Float32
from kmeans.formats.media_type import CSV, JSON, JSON_LINES, NPY, RECORDIO

# A slower answer is an error; SageMaker waits 2 s for a ping.
LIMIT_SECONDS, PING_LIMIT_SECONDS = 60.0, 2.0
PING_EVERY_SECONDS = 1.0

# Maximum number of errors that are kept as text.
KEPT_ERRORS = 20

# Types of good requests and of their answers.
FORMATS = ((CSV, CSV), (CSV, JSON), (JSON, JSON), (JSON_LINES, JSON_LINES), (RECORDIO, RECORDIO), (NPY, JSON))

# Weights of the requests: good ones by their rows, for each format; large ones; broken ones.
WEIGHTS = {1: 80.0, 10: 40.0, 100: 20.0, 1000: 4.0}
LARGE, BROKEN = 0.5, 8.0

# 24 MB of CSV and 22 MB of RecordIO: the limit is 25 MiB.
LARGE_CSV_ROWS, LARGE_RECORDIO_ROWS = 6000, 7000

# Declared length of a body that is rejected before it is sent.
DECLARED_BYTES = 200 << 20


@dataclass(frozen=True, slots=True)
class Request:
    """A request, its relative frequency (``weight``), and the expected status.

    ``status`` is None if the client closes the connection before the answer. ``labels`` are those of the rows by brute
    force, None if the answer has none. ``chunk`` is the number of bytes of each chunk; None sends the body with its
    length. ``declared`` is a Content-Length that is not the body's.
    """

    name: str
    weight: float
    status: int | None
    body: bytes
    content_type: str = CSV
    accept: str = JSON
    path: str = "/invocations"
    labels: NDArray[np.intp] | None = None
    chunk: int | None = None
    declared: int | None = None
    method: str = "POST"

    @property
    def headers(self) -> dict[str, str]:
        """Headers; the id is constant, so that answers to broken requests are equal, too."""
        length = {} if self.chunk else {"Content-Length": str(self.declared or len(self.body))}
        return {"Content-Type": self.content_type, "Accept": self.accept, "X-Request-Id": "soak", **length}

    def ask(self, connection: http.client.HTTPConnection) -> tuple[int | None, bytes]:
        """Send the request and return status and body of the answer."""
        if self.declared is not None:
            return self._send_less_than_declared(connection)
        content = self.body if self.chunk is None else _chunks(self.body, self.chunk)
        connection.request(self.method, self.path, content, self.headers, encode_chunked=self.chunk is not None)
        with closing(connection.getresponse()) as response:
            return response.status, response.read()

    def _send_less_than_declared(self, connection: http.client.HTTPConnection) -> tuple[int | None, bytes]:
        """Send a short body, and close the connection: after the answer, or at once if none is expected."""
        connection.putrequest(self.method, self.path)
        for name, value in self.headers.items():
            connection.putheader(name, value)
        connection.endheaders(self.body)
        try:
            if self.status is None:
                return None, b""
            with closing(connection.getresponse()) as response:
                return response.status, response.read()
        finally:
            connection.close()


def requests(points: Float32, centers: Float32) -> list[Request]:
    """Return the mix: all formats, sizes from one row to a body near the limit, and broken requests."""
    found = bodies.nearest(points, centers)

    def good(content_type: str, accept: str, rows: int, weight: float, chunk: int | None = None) -> Request:
        name = f"{_short(content_type)} to {_short(accept)}, {rows:,} rows{' in chunks' if chunk else ''}"
        body = bodies.encode(points[:rows], content_type)
        return Request(name, weight, 200, body, content_type, accept, labels=found[:rows], chunk=chunk)

    row = bodies.encode(points[:1], CSV)
    mix = [
        good(content_type, accept, rows, weight) for content_type, accept in FORMATS for rows, weight in WEIGHTS.items()
    ]
    mix += [
        good(CSV, JSON, 100, WEIGHTS[100], chunk=8192),
        good(CSV, CSV, LARGE_CSV_ROWS, LARGE),
        good(RECORDIO, RECORDIO, LARGE_RECORDIO_ROWS, LARGE),
    ]
    return mix + broken(row)


def broken(row: bytes) -> list[Request]:
    """Return requests that the server must reject."""
    cells = row.rstrip().split(b",")
    records = bodies.encode(np.ones((2, len(cells)), np.float32), RECORDIO)
    return [
        Request("a word among the numbers", BROKEN, 400, b",".join([*cells[:-1], b"seven"])),
        Request("NaN", BROKEN, 400, b",".join([*cells[:-1], b"nan"])),
        Request("one column too few", BROKEN, 400, b",".join(cells[:-1])),
        Request("JSON, nested 100,000 deep", BROKEN, 400, b"[" * 100_000, JSON),
        Request("RecordIO, cut off", BROKEN, 400, records[:-9], RECORDIO),
        Request("NPY with a pickle", BROKEN, 400, bodies.npy(np.array([None])), NPY),
        Request("a type that nobody reads", BROKEN, 415, row, "application/x-pickle"),
        Request("an answer that nobody writes", BROKEN, 406, row, CSV, "image/png"),
        Request("a path that isn't there", BROKEN, 404, row, path="/predict"),
        Request("another method", BROKEN, 405, b"", method="PUT"),
        Request("a body that is too large", BROKEN, 413, b"", declared=DECLARED_BYTES),
        Request("a client that goes away", BROKEN, None, row, declared=2 * len(row)),
    ]


def _chunks(content: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


def _short(media_type: str) -> str:
    return media_type.partition("/")[2].removeprefix("x-")


@dataclass(slots=True)
class Clients:
    """Clients of one server, and their common results.

    ``counts`` are the expected answers by name of the request, and ``rows`` the rows in them. ``error_count`` is the
    number of other answers, of which ``errors`` has the first as text. ``pings`` are seconds.
    """

    port: int
    mix: list[Request]
    answers: dict[str, bytes] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    rows: int = 0
    errors: list[str] = field(default_factory=list)
    error_count: int = 0
    pings: list[float] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def rehearse(self) -> None:
        """Send each request once, compare its labels with brute force, and store the answer.

        Raises ValueError if an answer is wrong.
        """
        for request in self.mix:
            with closing(self._connection()) as connection:
                status, answer = request.ask(connection)
            if status != request.status:
                raise ValueError(f"{request.name}: expected {request.status}, found {status}: {answer[:300]!r}")
            if request.labels is not None and not np.array_equal(bodies.labels(answer, request.accept), request.labels):
                raise ValueError(f"{request.name}: the labels are not those of brute force")
            self.answers[request.name] = answer

    def ask_until(self, end: float, seed: int) -> None:
        """Send random requests without a pause, on one connection as long as the server keeps it open."""
        generator = random.Random(seed)  # noqa: S311 - not for security
        weights = [request.weight for request in self.mix]
        with closing(self._connection()) as connection:
            while time.monotonic() < end:
                request = generator.choices(self.mix, weights)[0]
                try:
                    status, answer = request.ask(connection)
                except (OSError, http.client.HTTPException) as error:
                    connection.close()
                    self._fail(f"{request.name}: {type(error).__name__}: {error}")
                    continue
                if status != request.status or answer != self.answers[request.name]:
                    self._fail(f"{request.name}: expected {request.status}, found {status}: {answer[:200]!r}")
                    continue
                with self._lock:
                    self.counts[request.name] += 1
                    self.rows += 0 if request.labels is None else len(request.labels)

    def ping_until(self, end: float) -> None:
        """Ping each second on a new connection, as a health check does."""
        due = time.monotonic()
        while due < end:
            time.sleep(max(0.0, due - time.monotonic()))
            began = time.perf_counter()
            try:
                with closing(self._connection(PING_LIMIT_SECONDS)) as connection:
                    connection.request("GET", "/ping")
                    status = connection.getresponse().status
                if status != 200:
                    self._fail(f"ping: expected 200, found {status}")
            except (OSError, http.client.HTTPException) as error:
                self._fail(f"ping: {type(error).__name__}: {error}")
            self.pings.append(time.perf_counter() - began)
            due += PING_EVERY_SECONDS

    def metrics(self) -> dict[str, float]:
        """Return the server's counters."""
        with closing(self._connection()) as connection:
            connection.request("GET", "/metrics")
            text = connection.getresponse().read().decode()
        lines = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, _, value in lines}

    def _connection(self, seconds: float = LIMIT_SECONDS) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(HOST, self.port, timeout=seconds)

    def _fail(self, text: str) -> None:
        with self._lock:
            self.error_count += 1
            if len(self.errors) < KEPT_ERRORS:
                self.errors.append(f"{datetime.datetime.now(datetime.UTC):%H:%M:%S} {text}")
