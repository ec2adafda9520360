"""A request and its response: the record of the request, its line in the log, and the answer.

Each request has one line of JSON on stdout, except a ping that is answered with 200. The line has what SageMaker's own
logs lack: the time of each stage, the number of rows, and the ids of the caller and of tracing.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import orjson
from flask import Response

# The key of a request's record in its WSGI environment.
RECORD = "kmeans.record"

REQUEST_ID_HEADERS = ("X-Amzn-SageMaker-Inference-Id", "X-Request-Id")
MAX_REQUEST_ID = 128
MAX_PATH = 200

# The same headers as keys of a WSGI environment.
_REQUEST_ID_KEYS = tuple(f"HTTP_{name.upper().replace('-', '_')}" for name in REQUEST_ID_HEADERS)

# W3C Trace Context: version, trace id, parent id, flags.
TRACE_PARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")

STDOUT = 1

# When this program was started, and the numbers of the requests in this process.
_START, _NUMBERS = time.time_ns(), itertools.count(1)

# Stages of an invocation. A large body may have to wait for another one before it is decoded.
STAGES = ("read", "wait", "decode", "predict", "encode")

# Fields that a line has only if they have a value.
OPTIONAL = ("code", "model", "bad_rows", "trace_id", "span_id")


@dataclass(slots=True)
class Record:
    """The facts about a request that the log and the metrics report.

    Attributes
    ----------
    request_id
        The caller's id if it is printable, otherwise a new one.
    trace_id, span_id
        From ``traceparent``; None without a valid one.
    method, path
        As the client sent them.
    model
        Name of the model on a multi-model endpoint.
    status, code
        HTTP status of the answer, and the code of an error.
    rows, bad_rows
        Number of predicted rows, and of rows answered with a placeholder.
    bytes_in, bytes_out
        Length of the request's and the response's body.
    seconds
        Duration of each of ``STAGES``.
    total_seconds
        Duration of the request, without sending the answer.
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
        """Return the record of a new request from its WSGI environment."""
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


def write_log_line(record: Record) -> None:
    """Write the log line of a finished request.

    It is one system call, so lines of several processes don't mix. Errors are ignored if stdout is closed.
    """
    if record.status == 200 and record.path == "/ping":
        return
    with contextlib.suppress(OSError):
        os.write(STDOUT, record.line())


def new_id() -> str:
    """Return a unique request id."""
    # A random id would need a system call, at which the interpreter may switch to another thread.
    return f"{_START:x}-{os.getpid():x}-{next(_NUMBERS):x}"


def _request_id(environ: Mapping[str, Any]) -> str:
    for name in _REQUEST_ID_KEYS:
        given: str = environ.get(name, "")
        if given and len(given) <= MAX_REQUEST_ID and given.isascii() and given.isprintable():
            return given
    return new_id()


JSON_TYPE = "application/json"

STATUS_LINES = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, headers and body of the response to a request, independent of the web framework.

    Attributes
    ----------
    status
        HTTP status.
    media_type
        Content-Type, without parameters.
    body
        The bytes, in one or more chunks. A list or tuple has a known length; any other iterable is sent with chunked
        transfer encoding.
    headers
        Further headers, as (name, value).
    """

    status: int
    media_type: str
    body: Iterable[bytes] = ()
    headers: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of_json(cls, content: object, status: int = HTTPStatus.OK) -> Answer:
        """Return an answer with ``content`` as JSON."""
        return cls(status, JSON_TYPE, [orjson.dumps(content)])

    @property
    def length(self) -> int | None:
        """Bytes of the body, None if they are not known before they are sent."""
        return sum(map(len, self.body)) if isinstance(self.body, list | tuple) else None

    def header_list(self) -> list[tuple[str, str]]:
        """Return all headers in the form of WSGI."""
        headers = [("Content-Type", self.media_type), *self.headers]
        length = self.length
        return headers if length is None else [*headers, ("Content-Length", str(length))]

    def to_flask(self) -> Response:
        """Return the answer as a Flask response."""
        return Response(self.body, self.status, self.header_list())
