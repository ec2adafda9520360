"""gunicorn, as this endpoint needs it: one port for IPv4 and IPv6, pings that nothing keeps waiting, no lost request.

What gunicorn's threaded worker doesn't do by itself:

- a ping has a thread of its own, so that it is answered while all other threads compute or wait for slow clients;
- a connection on which nothing has come yet waits in the main loop, not in a thread, and makes room for another one
  where there are too many;
- a client that stops in the middle of a request, or takes no answer, is given up after a while, and so is one that
  does either byte by byte;
- connections that the system has accepted when SIGTERM comes are answered too;
- what is no HTTP is answered in the same JSON as all other errors.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import resource
import select
import selectors
import socket
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http import HTTPStatus
from pathlib import Path
from types import FrameType
from typing import Any

from flask import Flask
from gunicorn import util
from gunicorn.app.base import Application
from gunicorn.arbiter import Arbiter
from gunicorn.http import errors as http_errors
from gunicorn.http import wsgi
from gunicorn.http.unreader import SocketUnreader
from gunicorn.workers import gthread

from serve import request_log
from serve.answer import STATUS_LINES
from serve.errors import answer_to, error_answer
from serve.health import Readiness
from serve.port import let_none_in
from serve.request_log import Record, new_id
from serve.settings import Settings
from serve.telemetry import Telemetry, is_alive

CONFIGURATION = Path(__file__).resolve().parents[1] / "container" / "gunicorn.conf.py"

# How long a connection that is being made at SIGTERM may take until it is there. SageMaker's network needs a few ms.
HANDSHAKE_SECONDS = 0.1

# Without a byte for so long, in either direction, a client is given up. A request as a whole may take any time.
SILENCE_SECONDS = 60

# For a request or an answer as a whole a client may let us wait so long, and longer only as far as bytes have moved at
# this rate. SageMaker sends megabytes per second; whoever sends byte by byte means to keep a thread busy.
GRACE_SECONDS = 60.0
MIN_BYTES_PER_SECOND = 16 << 10

# A busy client sends its next request as soon as it has an answer. So many milliseconds its thread waits for that, if
# nobody waits for a thread: on the way through the main loop three threads would have to take turns.
FOLLOW_UP_MS = 1

# How long the last bytes of an answer may take to a client before its connection is closed.
LINGER_SECONDS = 1.0

# Of the files that a worker may have open so many are for other things than connections.
SPARE_FILES = 64

# Where none is left, and no connection can make room, so long nothing is accepted: the main loop would turn in vain.
PAUSE_SECONDS = 1.0

# gunicorn has no setting for the Server header. A client doesn't need to know which software to attack.
SERVER = "kmeans"

# A ping, and the place where its head must end: SageMaker's is 100 bytes long.
PINGS = (b"GET /ping ", b"HEAD /ping ", b"GET /ping?")
HEAD_END = b"\r\n\r\n"
BODY_HEADERS = (b"content-length", b"transfer-encoding")
PEEKED_BYTES = 2048

# Of what gunicorn finds wrong with the HTTP itself: status of the answer.
HTTP_STATUSES: dict[type[Exception], HTTPStatus] = {
    http_errors.LimitRequestLine: HTTPStatus.REQUEST_URI_TOO_LONG,
    http_errors.LimitRequestHeaders: HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    http_errors.ExpectationFailed: HTTPStatus.EXPECTATION_FAILED,
    http_errors.UnsupportedTransferCoding: HTTPStatus.NOT_IMPLEMENTED,
}


class Server(Application):  # type: ignore[misc]  # gunicorn has no type hints
    """What gunicorn's arbiter runs: the application, and what its workers share.

    Parameters
    ----------
    listener
        From :func:`serve.port.open_port`.
    """

    def __init__(
        self, settings: Settings, app: Flask, telemetry: Telemetry, readiness: Readiness, listener: socket.socket
    ) -> None:
        self.telemetry = telemetry
        self.readiness = readiness
        self._settings = settings
        self._app = app
        self._listener = listener
        self._rows: dict[int, Worker] = {}
        super().__init__()

    def load_config(self) -> None:
        """Read what is the same everywhere from gunicorn.conf.py, and add the rest."""
        self.load_config_from_file(str(CONFIGURATION))
        self.cfg.set("bind", f"fd://{self._listener.fileno()}")
        self.cfg.set("workers", self._settings.workers)
        self.cfg.set("threads", self._settings.threads)
        self.cfg.set("worker_class", Worker)
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = max(files - SPARE_FILES, 2 * self._settings.threads)
        self.cfg.set("worker_connections", min(self.cfg.worker_connections, most))

    def load(self) -> Flask:
        """Return the WSGI application."""
        return self._app

    def run(self) -> None:
        """Serve until SIGTERM; ends by SystemExit."""
        Master(self).run()

    @property
    def max_payload_bytes(self) -> int:
        """Longest body that any route takes."""
        return self._settings.max_payload_bytes

    def row_for(self, worker: Worker) -> int:
        """Return the row of the telemetry for a new worker: one that no living worker counts in."""
        taken = {row for row, other in self._rows.items() if is_alive(other.pid)}
        row = next(row for row in itertools.count() if row not in taken)
        self._rows[row] = worker
        return min(row, self.telemetry.rows - 1)


class Master(Arbiter):  # type: ignore[misc]
    """The process that starts the workers, and ends them so that no connection is lost."""

    def stop(self, graceful: bool = True) -> None:
        """Let no connection in any more, close the port, and let the workers end what they have."""
        if graceful and any([let_none_in(listener.sock) for listener in self.LISTENERS]):
            time.sleep(HANDSHAKE_SECONDS)
        super().stop(graceful)


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

    def is_small_talk(self) -> bool:
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


class Worker(gthread.ThreadWorker):  # type: ignore[misc]
    """A process that answers requests in several threads."""

    _paused_until = 0.0

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._row = self.app.row_for(self)  # this is still the parent's process
        # Connections whose requests no thread has begun to answer.
        self._waiting: set[Connection] = set()

    def init_process(self) -> None:
        """Begin to work, in the new process."""
        self.app.telemetry.claim(self._row)
        self._ping_pool = ThreadPoolExecutor(1, "ping")
        super().init_process()

    def run(self) -> None:
        """Answer requests until SIGTERM; the model has to answer one first."""
        self.tpool.submit(self._test)
        super().run()
        self._ping_pool.shutdown(wait=False)

    def handle_quit(self, sig: int, frame: FrameType | None) -> None:
        """End at once, as gunicorn.conf.py says: the lock that gunicorn would take first may be held right here."""
        self.cfg.worker_int(self)

    def _test(self) -> None:
        try:
            self.app.readiness.test()
        except Exception as error:  # /ping goes on answering 503
            self.log.error("The model can't be served: %s", error)

    def accept(self, listener: Any) -> None:
        """Accept a connection, and give it to a thread as soon as something has come."""
        try:
            client, address = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            if not self._close_silent():
                self._paused_until = time.monotonic() + PAUSE_SECONDS
                self.set_accept_enabled(False)
            return
        self.nr_conns += 1
        if self.nr_conns >= self.worker_connections:
            self._close_silent()
        connection = Connection(self.cfg, client, address, listener.getsockname())
        if connection.peek() is None:
            self._await_data(connection)
        else:
            self.enqueue_req(connection)

    def _close_silent(self) -> bool:
        """Close the connection that has waited longest for its client to say something; return whether there is one.

        Those that never said anything come first.
        """
        for connections in (self.pending_conns, self.keepalived_conns):
            for connection in connections:
                if connection.peek() is None:  # else it is about to be read
                    connections.remove(connection)
                    self.poller.unregister(connection.sock)
                    self.nr_conns -= 1
                    connection.close()
                    return True
        return False

    def enqueue_req(self, conn: Connection) -> None:
        """Give a connection on which a request has begun to a thread: a ping to one of its own."""
        conn.is_ping = conn.is_small_talk()
        self._waiting.add(conn)
        future = (self._ping_pool if conn.is_ping else self.tpool).submit(self.handle, conn)
        future.add_done_callback(lambda done: self.method_queue.defer(self.finish_request, conn, done))

    def handle(self, conn: Connection) -> bool:
        """Answer requests as long as one follows the other; return whether more may come. Runs in a thread."""
        self._waiting.discard(conn)
        while self._answer_one(conn):
            if conn.is_ping or self._waiting or not self.alive or not conn.has_more(FOLLOW_UP_MS):
                return True
        return False

    def _answer_one(self, conn: Connection) -> bool:
        """Answer a request; return whether the connection is kept for another."""
        request, is_kept = None, False
        try:
            conn.begin()
            request = next(conn.parser)
            is_kept = bool(request) and self._keepalive_after(conn, self.handle_request(request, conn))
        except (http_errors.NoMoreData, StopIteration, OSError) as gone:
            self.log.debug("a client is gone: %s", gone)
        except Exception as error:
            self.handle_error(request, conn.sock, conn.client, error)
        if not is_kept:
            # Here and not in the main loop, which it would stop. Of a ping nothing is left to come.
            conn.close(graceful=not conn.is_ping)
        return is_kept

    def handle_request(self, req: Any, conn: Connection) -> bool:
        """Let the application answer a request; return whether the connection can carry another."""
        lengths = [value for name, value in req.headers if name == "CONTENT-LENGTH"]
        if any(length.isdecimal() and int(length) > self.app.max_payload_bytes for length in lengths):
            # gunicorn would invite the body of each request that asks, and this one is going to be refused.
            req._expected_100_continue = False
        response, environ = wsgi.create(req, conn.sock, conn.client, conn.server, self.cfg, response_class=Response)
        environ["wsgi.multithread"] = True
        self.nr += 1
        if not self.alive or len(self.keepalived_conns) >= self.max_keepalived:
            response.force_close()
        pieces = self.wsgi(environ, response.start_response)
        try:
            for piece in pieces:
                response.write(piece)
            response.close()
        except OSError:
            raise
        except Exception:
            # The client sees that the answer ends too early; a second one would be taken for the rest of it.
            self.log.exception("an answer could not be finished")
            return False
        finally:
            close = getattr(pieces, "close", None)
            if close is not None:
                close()
        return not response.should_close()

    def handle_error(self, req: Any, client: socket.socket, addr: Any, exc: Exception) -> None:
        """Answer what is no HTTP, or not such as we take."""
        record = Record(new_id(), None, None, getattr(req, "method", None) or "-", getattr(req, "path", "-"))
        self.app.telemetry.begin()
        if isinstance(exc, http_errors.ParseException):
            status = HTTP_STATUSES.get(type(exc), HTTPStatus.BAD_REQUEST)
            answer = error_answer(
                status, "invalid_request", "the request is no valid HTTP of this server's kind.", record
            )
        else:
            answer = answer_to(exc, record)
        record.status = answer.status
        self.app.telemetry.end(record)
        request_log.write(record)
        headers = [("Server", SERVER), ("Connection", "close"), *answer.header_list()]
        head = "".join(f"{name}: {value}\r\n" for name, value in headers)
        with contextlib.suppress(OSError):
            client.sendall(f"HTTP/1.1 {STATUS_LINES[answer.status]}\r\n{head}\r\n".encode() + b"".join(answer.body))

    def set_accept_enabled(self, enabled: bool) -> None:
        """Begin or stop to accept connections; at the worker's end those that have come are accepted first."""
        if enabled and self._is_paused():
            return
        if not enabled and not self.alive and self._accepting:
            for listener in self.sockets:
                while not self._is_paused() and self._has_connection(listener):
                    self.accept(listener)
        super().set_accept_enabled(enabled)
        if not enabled and not self.alive:
            for listener in self.sockets:
                listener.close()

    def _is_paused(self) -> bool:
        return time.monotonic() < self._paused_until

    def _has_connection(self, listener: Any) -> bool:
        return bool(select.select([listener], [], [], 0)[0])

    def _await_data(self, connection: Connection) -> None:
        connection.sock.setblocking(False)
        connection.set_timeout()
        self.pending_conns.append(connection)
        callback = partial(self.on_pending_socket_readable, connection)
        self.poller.register(connection.sock, selectors.EVENT_READ, callback)

    def _cap_keepalive(self, deadline: float) -> None:
        """Close idle connections by ``deadline``, also those on which nothing has come yet."""
        super()._cap_keepalive(deadline)
        for connection in self.pending_conns:
            connection.timeout = min(connection.timeout, deadline)
