"""One JSON line on stdout for each request, and none for a ping that is answered with 200.

A line says what SageMaker's own logs don't: how long each stage took, how many rows there were, and under which ids the
caller and the tracing know the request.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson

# Where a request's record lies in its WSGI environment.
RECORD = "kmeans.record"

REQUEST_ID_HEADERS = ("X-Amzn-SageMaker-Inference-Id", "X-Request-Id")
MAX_REQUEST_ID = 128
MAX_PATH = 200

# The same as WSGI names them.
_REQUEST_ID_KEYS = tuple(f"HTTP_{name.upper().replace('-', '_')}" for name in REQUEST_ID_HEADERS)

# W3C Trace Context: version, trace id, parent id, flags.
TRACE_PARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")

STDOUT = 1

# When this program was started, and the numbers of the requests in this process.
_START, _NUMBERS = time.time_ns(), itertools.count(1)
# A large body may have to wait for another one before it is decoded.
STAGES = ("read", "wait", "decode", "predict", "encode")

# What a line says only where there is something to say.
OPTIONAL = ("code", "model", "bad_rows", "trace_id", "span_id")


@dataclass(slots=True)
class Record:
    """What is known of a request while it is answered.

    Attributes
    ----------
    request_id
        The caller's own id if it gave a printable one, else a new one.
    trace_id, span_id
        From ``traceparent``; None without a valid one.
    method, path
        As the client sent them.
    model
        Name of the model, where there are several.
    status, code
        Of the answer; the code is an error's.
    rows, bad_rows
        Rows that were predicted, and those answered with a placeholder.
    bytes_in, bytes_out
        Length of the bodies.
    seconds
        Duration of each of ``STAGES``.
    """

    request_id: str
    trace_id: str | None
    span_id: str | None
    method: str
    path: str
    began: float = field(default_factory=time.perf_counter)
    model: str | None = None
    status: int = 0
    code: str | None = None
    rows: int = 0
    bad_rows: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    total_seconds: float = 0.0

    @classmethod
    def of(cls, environ: Mapping[str, Any]) -> Record:
        """Return the record of a request that has just come in."""
        trace = TRACE_PARENT.fullmatch(environ.get("HTTP_TRACEPARENT", ""))
        return cls(
            request_id=_request_id(environ),
            trace_id=trace[1] if trace else None,
            span_id=trace[2] if trace else None,
            method=environ["REQUEST_METHOD"],
            path=environ["PATH_INFO"],
        )

    def line(self) -> bytes:
        """Return the record as a line of JSON."""
        milliseconds = {name: round(1000 * seconds, 3) for name, seconds in self.seconds.items()}
        milliseconds["total"] = round(1000 * self.total_seconds, 3)
        content: dict[str, Any] = {
            "time": datetime.now(UTC),
            "event": "request",
            "request_id": self.request_id,
            "method": self.method,
            "path": self.path[:MAX_PATH],
            "status": self.status,
            "rows": self.rows,
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
            "ms": milliseconds,
        }
        for name in OPTIONAL:
            value = getattr(self, name)
            if value:
                content[name] = value
        return orjson.dumps(content, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z)


def write(record: Record) -> None:
    """Write the line of a request that is over.

    In one call of the system, so that lines of several processes don't mix. Who closed our stdout wants no log.
    """
    if record.status == 200 and record.path == "/ping":
        return
    with contextlib.suppress(OSError):
        os.write(STDOUT, record.line())


def new_id() -> str:
    """Return an id that no other request has."""
    # Unlike a random one it needs no call of the system, at which another thread would take over.
    return f"{_START:x}-{os.getpid():x}-{next(_NUMBERS):x}"


def _request_id(environ: Mapping[str, Any]) -> str:
    for name in _REQUEST_ID_KEYS:
        given: str = environ.get(name, "")
        if given and len(given) <= MAX_REQUEST_ID and given.isascii() and given.isprintable():
            return given
    return new_id()
