"""gunicorn, as this endpoint needs it: one port for IPv4 and IPv6, pings that nothing keeps waiting, no lost request.

What gunicorn's threaded worker doesn't do by itself:

- a ping has a thread of its own, so that it is answered while all other threads compute or wait for slow clients;
- a connection on which nothing has come yet waits in the main loop, not in a thread, and makes room for another one
  where there are too many;
- a client that keeps us waiting is given up after a while (``serve/server/connection.py``);
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
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http import HTTPStatus
from pathlib import Path
from types import FrameType
from typing import Any

from flask import Flask
from gunicorn.app.base import Application
from gunicorn.arbiter import Arbiter
from gunicorn.http import errors as http_errors
from gunicorn.http import wsgi
from gunicorn.workers import gthread

from serve import access_log
from serve.access_log import Record, new_id
from serve.errors import answer_to, error_answer
from serve.health import Readiness
from serve.metrics import Metrics, is_alive
from serve.response import STATUS_LINES
from serve.server.connection import Connection, Response
from serve.server.listener import let_none_in
from serve.settings import Settings

CONFIGURATION = Path(__file__).with_name("gunicorn_conf.py")

# How long a connection that is being made at SIGTERM may take until it is there. SageMaker's network needs a few ms.
HANDSHAKE_SECONDS = 0.1

# A busy client sends its next request as soon as it has an answer. So many milliseconds its thread waits for that, if
# nobody waits for a thread: on the way through the main loop three threads would have to take turns.
FOLLOW_UP_MS = 1

# Of the files that a worker may have open so many are for other things than connections.
SPARE_FILES = 64

# Where none is left, and no connection can make room, so long nothing is accepted: the main loop would turn in vain.
PAUSE_SECONDS = 1.0

# gunicorn has no setting for the Server header. A client doesn't need to know which software to attack.
SERVER = "kmeans"

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
        From :func:`serve.server.listener.open_port`.
    """

    def __init__(
        self, settings: Settings, app: Flask, telemetry: Metrics, readiness: Readiness, listener: socket.socket
    ) -> None:
        self.telemetry = telemetry
        self.readiness = readiness
        self._settings = settings
        self._app = app
        self._listener = listener
        self._rows: dict[int, Worker] = {}
        super().__init__()

    def load_config(self) -> None:
        """Read what is the same everywhere from gunicorn_conf.py, and add the rest."""
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
        """End at once, as gunicorn_conf.py says: the lock that gunicorn would take first may be held right here."""
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
        conn.is_ping = conn.is_nonblocking_ping()
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
        access_log.write(record)
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
