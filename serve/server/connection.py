"""A client's connection: how long it may keep us waiting, whether a ping comes on it, and how an answer leaves.

gunicorn's own connection, with what it lacks: a client that stops in the middle of a request, or takes no answer, is
given up after a while, and so is one that does either byte by byte.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from typing import Any

from gunicorn import util
from gunicorn.http import wsgi
from gunicorn.http.body import Body, LengthReader
from gunicorn.http.unreader import SocketUnreader
from gunicorn.workers import gthread

# Without a byte for so long, in either direction, a client is given up. A request as a whole may take any time.
SILENCE_SECONDS = 60

# For a request or an answer as a whole a client may let us wait so long, and longer only as far as bytes have moved at
# this rate. SageMaker sends megabytes per second; whoever sends byte by byte means to keep a thread busy.
GRACE_SECONDS = 60.0
MIN_BYTES_PER_SECOND = 16 << 10

# How long the last bytes of an answer may take to a client before its connection is closed.
LINGER_SECONDS = 1.0

# A ping, and the place where its head must end: SageMaker's is 100 bytes long.
PINGS = (b"GET /ping ", b"HEAD /ping ", b"GET /ping?")
HEAD_END = b"\r\n\r\n"
BODY_HEADERS = (b"content-length", b"transfer-encoding")
PEEKED_BYTES = 2048

# What is received at once of a body: no more than stays in cache until it is where it belongs.
STEP_BYTES = 256 << 10


class Pace:
    """How long a client has let us wait for the bytes of one request, or of its answer."""

    def __init__(self) -> None:
        self._bytes = 0
        self._seconds = 0.0

    def add(self, size: int, seconds: float) -> None:
        """Count ``size`` bytes that have come or gone after ``seconds`` of waiting.

        Raises
        ------
        TimeoutError
            If all waiting together is more than :data:`GRACE_SECONDS` and what :data:`MIN_BYTES_PER_SECOND` allows.
        """
        self._bytes += size
        self._seconds += seconds
        if self._seconds > GRACE_SECONDS + self._bytes / MIN_BYTES_PER_SECOND:
            raise TimeoutError(f"{self._bytes} bytes in {self._seconds:.0f} s")


class Unreader(SocketUnreader):  # type: ignore[misc]
    """What gunicorn's parser reads a connection by; a request that comes too slowly is an error of reading."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self.pace = Pace()

    def chunk(self, size_hint: int | None = None) -> bytes:
        """Return what has come, after waiting for it if nothing has."""
        began = time.monotonic()
        content: bytes = super().chunk(size_hint)
        self.pace.add(len(content), time.monotonic() - began)
        return content

    def read_exactly(self, size: int) -> bytearray:
        """Return ``size`` bytes, or fewer if the connection ends before.

        Of a large body gunicorn's own reader copies each byte several times, which takes longer than receiving it.
        """
        held = self.take_buffered()
        content = bytearray(held[:size])
        self.buf.write(held[size:])
        while len(content) < size:
            received = self.chunk(min(size - len(content), STEP_BYTES))
            if not received:
                break
            content += received
        return content


def read_body(body: Body, length: int) -> bytearray | None:
    """Return all ``length`` bytes of a request's body, of which nothing is read yet; None if it comes in chunks.

    Of one that ends too early what there is.
    """
    reader = body.reader
    if not isinstance(reader, LengthReader) or not isinstance(reader.unreader, Unreader) or reader.length != length:
        return None
    reader.length = 0
    body.failed = True  # until it is read: where the next request begins is unknown
    content: bytearray = reader.unreader.read_exactly(length)
    body.failed = False
    return content


class Connection(gthread.TConn):  # type: ignore[misc]
    """A client's connection; one that says nothing for too long is an error of reading or writing."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._is_closed = False
        self.is_ping = False
        # Not Python's own timeouts: they would have to be renewed wherever gunicorn makes a socket blocking again.
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
        """Wait for a next request, or for the end of the connection; return whether anything has come."""
        if self.parser.unreader.buf.getvalue():
            return True
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        return bool(poll.poll(milliseconds))

    def is_nonblocking_ping(self) -> bool:
        """Tell whether the next request is a ping that keeps nobody waiting: neither for itself nor for its answer."""
        # What the parser has read ahead comes first, and may be anything.
        if self.parser is not None and self.parser.unreader.buf.getvalue():
            return False
        start = self.peek() or b""
        # It is there as a whole, and brings no body.
        if not start.startswith(PINGS) or HEAD_END not in start or any(name in start.lower() for name in BODY_HEADERS):
            return False
        # Of a client that takes no answers the connection's buffer is full.
        poll = select.poll()
        poll.register(self.sock, select.POLLOUT)
        return bool(poll.poll(0))

    def peek(self) -> bytes | None:
        """Return the first bytes that have come and are not read yet, None if nothing has; ``b""`` is the end."""
        try:
            return bytes(self.sock.recv(PEEKED_BYTES, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except BlockingIOError:
            return None
        except OSError:
            return b""

    def close(self, graceful: bool = False) -> None:
        """Close the connection, once; gracefully means that the client can still read what was sent."""
        if self._is_closed:
            return
        self._is_closed = True
        if graceful:
            util.close_graceful(self.sock, timeout=LINGER_SECONDS)
        else:
            util.close(self.sock)


class Response(wsgi.Response):  # type: ignore[misc]
    """An answer whose head leaves together with the beginning of its body: one call of the system, one packet."""

    headers_sent: bool
    _head = b""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._pace = Pace()

    def send_headers(self) -> None:
        """Make the head, once."""
        if not self.headers_sent:
            lines = (*self.default_headers(), *(f"{name}: {value}\r\n" for name, value in self.headers), "\r\n")
            self._head = "".join(lines).encode("latin-1")
            self.headers_sent = True

    def close(self) -> None:
        """Send what is left: the head of an answer without a body, the end of one in chunks."""
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
