"""Clients that ask without a pause and compare each answer, and one that pings."""

from __future__ import annotations

import datetime
import http.client
import random
import threading
import time
from collections import Counter
from contextlib import closing, suppress
from dataclasses import dataclass, field

import numpy as np

from benchmarks.soak_requests import Request, labels

HOST = "127.0.0.1"

# An answer that takes longer is an error, a ping's of more than SageMaker's 2 s too.
LIMIT_SECONDS, PING_LIMIT_SECONDS = 60.0, 2.0
PING_EVERY_SECONDS = 1.0

# Of errors so many are kept as text.
KEPT_ERRORS = 20


@dataclass(slots=True)
class Clients:
    """What the clients have seen together.

    Attributes
    ----------
    counts
        Answers as expected, by the request's name.
    rows
        Rows in them.
    errors, error_count
        What was not expected; the first as text.
    pings
        Seconds of each ping.
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
        """Ask each request once, hold its labels against brute force, and remember the answer.

        Raises
        ------
        ValueError
            If an answer isn't right.
        """
        for request in self.mix:
            with closing(self._connection()) as connection:
                status, answer = request.ask(connection)
            if status != request.status:
                raise ValueError(f"{request.name}: expected {request.status}, found {status}: {answer[:300]!r}")
            if request.labels is not None and not np.array_equal(labels(answer, request.accept), request.labels):
                raise ValueError(f"{request.name}: the labels aren't those of brute force")
            self.answers[request.name] = answer

    def ask_until(self, end: float, seed: int) -> None:
        """Draw requests and ask them, without a pause, on one connection for as long as the server keeps it."""
        generator = random.Random(seed)  # noqa: S311 - which request comes next is no secret
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
        """Ping each second on a connection of its own, as a health check does."""
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
        """Return what the server itself has counted."""
        with closing(self._connection()) as connection:
            connection.request("GET", "/metrics")
            text = connection.getresponse().read().decode()
        lines = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, _, value in lines}

    def is_up(self) -> bool:
        """Tell whether a ping is answered with 200."""
        with suppress(OSError, http.client.HTTPException), closing(self._connection(PING_LIMIT_SECONDS)) as connection:
            connection.request("GET", "/ping")
            return connection.getresponse().status == 200
        return False

    def _connection(self, seconds: float = LIMIT_SECONDS) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(HOST, self.port, timeout=seconds)

    def _fail(self, text: str) -> None:
        with self._lock:
            self.error_count += 1
            if len(self.errors) < KEPT_ERRORS:
                self.errors.append(f"{datetime.datetime.now(datetime.UTC):%H:%M:%S} {text}")
