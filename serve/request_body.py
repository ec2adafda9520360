"""A request's body: read whole up to a limit, and what is left of it thrown away when the request was refused."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Mapping
from typing import IO, Any

from gunicorn.http.body import Body
from gunicorn.http.errors import NoMoreData, ParseException

from kmeans.errors import DataError
from serve.errors import BodyTimeoutError, PayloadTooLargeError
from serve.server.connection import STEP_BYTES, read_body

# How long the rest of a body that was refused is read and thrown away.
DISCARD_SECONDS = 1.0
DISCARD_CHUNK_BYTES = 1 << 16


def read(environ: Mapping[str, Any], limit: int) -> bytes | bytearray:
    """Return the body of a request; refuse one of more than ``limit`` bytes, before it is read if it says so itself.

    Raises
    ------
    serve.errors.PayloadTooLargeError
        If the body is longer. A server's own limit would cut a chunked body off without a word, and a shorter CSV is a
        valid CSV.
    serve.errors.BodyTimeoutError
        If the client stops sending.
    kmeans.errors.DataError
        If there is no body, or only the beginning of one.
    """
    declared = environ.get("CONTENT_LENGTH") or ""
    is_chunked = "HTTP_TRANSFER_ENCODING" in environ
    length = int(declared) if declared.isdecimal() else 0
    if length > limit:
        raise PayloadTooLargeError(limit)
    if not length and not is_chunked:
        raise DataError("the request's body is empty")
    try:
        content = _read_steps(environ["wsgi.input"], length, limit)
    except (TimeoutError, BlockingIOError):
        raise BodyTimeoutError from None
    except (ParseException, NoMoreData):
        raise DataError("the request's chunked body is malformed or ends within a chunk") from None
    if len(content) > limit:
        raise PayloadTooLargeError(limit)
    if len(content) < length:
        raise DataError(f"the request's body ends after {len(content)} of {length} bytes")
    if not content:
        raise DataError("the request's body is empty")
    return content


def _read_steps(stream: IO[bytes], length: int, limit: int) -> bytes | bytearray:
    """Read ``length`` bytes, or, if that is 0 (a chunked body), to the end or one byte beyond the limit."""
    if 0 < length <= STEP_BYTES:
        return stream.read(length)
    if length and isinstance(stream, Body) and (whole := read_body(stream, length)) is not None:
        return whole
    content, wanted = bytearray(), length or limit + 1
    while len(content) < wanted:
        part = stream.read(min(STEP_BYTES, wanted - len(content)))
        if not part:
            break
        content += part
    return content


def discard(environ: Mapping[str, Any]) -> None:
    """Read on, for a while, what a refused client is still sending: many clients send all before they read the answer.

    Whoever is slow about it is cut off: neither a thread nor the server's main loop shall wait for such a client.
    """
    stream: IO[bytes] = environ["wsgi.input"]
    connection: socket.socket | None = environ.get("gunicorn.socket")
    if connection is None:
        return
    deadline = time.monotonic() + DISCARD_SECONDS
    try:
        connection.settimeout(DISCARD_SECONDS)
        while time.monotonic() < deadline:
            if not stream.read(DISCARD_CHUNK_BYTES):
                return
    except (OSError, ParseException):
        pass
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
