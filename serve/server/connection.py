"""A client's connection: reads requests and their bodies, writes responses, and limits how long each may take.

gunicorn's own connection, with what it lacks: a client that stops in the middle of a request, or does not take the
response, is disconnected after a while, and so is a client that does either byte by byte.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import time
from collections.abc import Mapping
from typing import IO, Any

from gunicorn import util
from gunicorn.http import wsgi
from gunicorn.http.body import Body, LengthReader
from gunicorn.http.errors import NoMoreData, ParseException
from gunicorn.http.unreader import SocketUnreader
from gunicorn.workers import gthread

from kmeans.errors import DataError
from serve.errors import BodyTimeoutError, PayloadTooLargeError

# The header Server, for which gunicorn has no setting. A client does not need to know which software to attack.
SERVER = "kmeans"

# A client is disconnected after this time without a byte, in either direction. A whole request may take any time.
SILENCE_SECONDS = 60

# A client may keep the server waiting this long for a whole request or response, and longer if bytes move at this rate
# on average. SageMaker sends megabytes per second; a client that sends byte by byte means to keep a thread busy.
GRACE_SECONDS = 60.0
MIN_BYTES_PER_SECOND = 16 << 10

# How long the last bytes of a response may take to reach the client before the connection is closed.
LINGER_SECONDS = 1.0

# The beginnings of a ping, and how many bytes are searched for the end of its head: SageMaker's has 100 bytes.
PINGS = (b"GET /ping ", b"HEAD /ping ", b"GET /ping?")
HEAD_END = b"\r\n\r\n"
BODY_HEADERS = (b"content-length", b"transfer-encoding")
PEEKED_BYTES = 2048

# Bytes of a body that are received at once: few enough to stay in cache until they are copied to their place.
RECEIVED_BYTES = 256 << 10

# How long the rest of the body of a refused request is read and discarded, and how many bytes at once.
DISCARD_SECONDS = 1.0
DISCARD_CHUNK_BYTES = 1 << 16


class Pace:
    """How long a client has kept the server waiting for the bytes of one request or response."""

    def __init__(self) -> None:
        self._bytes = 0
        self._seconds = 0.0

    def add(self, size: int, seconds: float) -> None:
        """Count ``size`` bytes that moved after ``seconds`` of waiting.

        Raises
        ------
        TimeoutError
            If the sum of all waiting exceeds :data:`GRACE_SECONDS` plus one second for each
            :data:`MIN_BYTES_PER_SECOND` bytes.
        """
        self._bytes += size
        self._seconds += seconds
        if self._seconds > GRACE_SECONDS + self._bytes / MIN_BYTES_PER_SECOND:
            raise TimeoutError(f"{self._bytes} bytes in {self._seconds:.0f} s")


class Unreader(SocketUnreader):  # type: ignore[misc]  # gunicorn has no type hints
    """The source of gunicorn's parser; raises TimeoutError if the bytes of a request arrive too slowly."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self.pace = Pace()

    def chunk(self, size_hint: int | None = None) -> bytes:
        """Return received bytes, after waiting for some if there are none."""
        began = time.monotonic()
        content: bytes = super().chunk(size_hint)
        self.pace.add(len(content), time.monotonic() - began)
        return content

    def read_exactly(self, size: int) -> bytearray:
        """Return ``size`` bytes, or fewer if the connection ends before.

        gunicorn's own reader copies each byte of a large body several times, which takes longer than receiving it.
        """
        content = bytearray(self.take_buffered())
        while len(content) < size:
            received = self.chunk(min(size - len(content), RECEIVED_BYTES))
            if not received:
                break
            content += received
        # A chunk may be longer than its hint: the rest belongs to the next request.
        self.buf.write(content[size:])
        del content[size:]
        return content


def read_body(environ: Mapping[str, Any], limit: int) -> bytes | bytearray:
    """Return the body of a request of at most ``limit`` bytes.

    A body whose Content-Length is larger is refused before it is read. A limit of the HTTP server would silently
    truncate a chunked body, and a truncated CSV is a valid CSV.

    Parameters
    ----------
    environ
        The request's WSGI environment.

    Raises
    ------
    serve.errors.PayloadTooLargeError
        If the body is longer.
    serve.errors.BodyTimeoutError
        If the client stops sending.
    kmeans.errors.DataError
        If the body is empty or incomplete.
    """
    declared = environ.get("CONTENT_LENGTH") or ""
    is_chunked = "HTTP_TRANSFER_ENCODING" in environ
    length = int(declared) if declared.isdecimal() else 0
    if length > limit:
        raise PayloadTooLargeError(limit)
    if not length and not is_chunked:
        raise DataError("the request's body is empty")
    try:
        content = _read_to_end(environ["wsgi.input"], length, limit)
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


def _read_to_end(stream: IO[bytes], length: int, limit: int) -> bytes | bytearray:
    """Read ``length`` bytes, or, if that is 0 (a chunked body), to the end or one byte beyond the limit."""
    if 0 < length <= RECEIVED_BYTES:
        return stream.read(length)
    if length and isinstance(stream, Body) and (whole := receive(stream, length)) is not None:
        return whole
    content, wanted = bytearray(), length or limit + 1
    while len(content) < wanted:
        part = stream.read(min(RECEIVED_BYTES, wanted - len(content)))
        if not part:
            break
        content += part
    return content


def receive(body: Body, length: int) -> bytearray | None:
    """Return all ``length`` bytes of gunicorn's ``body``, none of which has been read; None if the body is chunked.

    If the connection ends before, return the bytes that have arrived.
    """
    reader = body.reader
    if not isinstance(reader, LengthReader) or not isinstance(reader.unreader, Unreader) or reader.length != length:
        return None
    reader.length = 0
    body.failed = True  # until all is read, the beginning of the next request is unknown
    content: bytearray = reader.unreader.read_exactly(length)
    body.failed = False
    return content


def discard_body(environ: Mapping[str, Any]) -> None:
    """Read and discard the rest of a refused request's body: many clients send it all before they read the response.

    A slow client is disconnected after a second: neither a thread nor the main loop must wait for it.
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


class Connection(gthread.TConn):  # type: ignore[misc]
    """A client's connection; silence for too long is an error of reading or writing."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._is_closed = False
        self.is_ping = False
        # Not Python's own timeouts: they would have to be set again wherever gunicorn makes a socket blocking.
        silence = struct.pack("ll", SILENCE_SECONDS, 0)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, silence)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, silence)

    def begin(self) -> None:
        """Prepare to read a request, the first one or another."""
        self.sock.setblocking(True)
        if not self.initialized:
            self.init()
            self.parser.unreader = Unreader(self.sock)
        self.parser.unreader.pace = Pace()

    def has_more(self, milliseconds: int) -> bool:
        """Wait for a next request or the end of the connection; return whether either has arrived."""
        if self.parser.unreader.buf.getvalue():
            return True
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        return bool(poll.poll(milliseconds))

    def is_nonblocking_ping(self) -> bool:
        """Return whether the next request is a ping that can be read and answered without waiting for the client."""
        # The parser's buffer comes first, and may hold any request.
        if self.parser is not None and self.parser.unreader.buf.getvalue():
            return False
        start = self.peek() or b""
        # The head is complete, and announces no body.
        if not start.startswith(PINGS) or HEAD_END not in start or any(name in start.lower() for name in BODY_HEADERS):
            return False
        # If a client takes no responses, the connection's buffer is full.
        poll = select.poll()
        poll.register(self.sock, select.POLLOUT)
        return bool(poll.poll(0))

    def peek(self) -> bytes | None:
        """Return the first unread bytes, None if none have arrived; ``b""`` is the end of the connection."""
        try:
            return bytes(self.sock.recv(PEEKED_BYTES, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except BlockingIOError:
            return None
        except OSError:
            return b""

    def close(self, graceful: bool = False) -> None:
        """Close the connection, once; if ``graceful``, the client can still read what was sent."""
        if self._is_closed:
            return
        self._is_closed = True
        if graceful:
            util.close_graceful(self.sock, timeout=LINGER_SECONDS)
        else:
            util.close(self.sock)


class Response(wsgi.Response):  # type: ignore[misc]
    """A response whose head is sent together with the beginning of its body: one system call, one packet."""

    headers_sent: bool
    _head = b""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.version = SERVER
        self._pace = Pace()

    def send_headers(self) -> None:
        """Build the head, once."""
        if not self.headers_sent:
            lines = (*self.default_headers(), *(f"{name}: {value}\r\n" for name, value in self.headers), "\r\n")
            self._head = "".join(lines).encode("latin-1")
            self.headers_sent = True

    def close(self) -> None:
        """Send the rest: the head of a response without a body, the end of a chunked one."""
        self.send_headers()
        self._send(b"0\r\n\r\n" if self.chunked else b"")

    def _emit_body(self, data: bytes) -> None:
        self._send(b"%X\r\n%b\r\n" % (len(data), data) if self.chunked else data)

    def _send(self, data: bytes) -> None:
        head, self._head = self._head, b""
        left = memoryview(head + data)
        while left:
            began = time.monotonic()
            sent = self.sock.send(left)
            self._pace.add(sent, time.monotonic() - began)
            left = left[sent:]
