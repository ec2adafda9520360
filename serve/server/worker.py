"""gunicorn's threaded worker, extended for this server.

- pings have their own thread, so they are answered while all other threads compute or wait for slow clients;
- a connection without data waits in the main loop, not in a thread, and is closed where connections are too many;
- a client that is silent or too slow is disconnected after a while (``serve/server/connection.py``);
- connections that the system has accepted before SIGTERM are answered too;
- malformed HTTP is answered in the same JSON as all other errors (``serve/server/malformed.py``).
"""

from __future__ import annotations

import errno
import select
import selectors
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import FrameType
from typing import Any

from gunicorn.http import errors as http_errors
from gunicorn.http import wsgi
from gunicorn.workers import gthread

from serve.server import malformed
from serve.server.connection import Connection, Response
from serve.server.master import STOP_SIGNALS

# How long a thread waits for the next request of the client that it has just answered, if no connection waits for a
# thread. Through the main loop the request would take three switches between threads.
FOLLOW_UP_MS = 1

# How long no connection is accepted when file descriptors are exhausted and no connection can be closed instead.
PAUSE_SECONDS = 1.0


class Worker(gthread.ThreadWorker):  # type: ignore[misc]  # gunicorn has no type hints
    """A process that answers requests in several threads."""

    _paused_until = 0.0

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._row = self.app.row_for(self)  # still in the master's process
        # Connections with a request that waits for a thread.
        self._waiting: set[Connection] = set()

    def init_process(self) -> None:
        """Start the worker; called in its own process."""
        self.app.telemetry.claim(self._row)
        self._ping_pool = ThreadPoolExecutor(1, "ping")
        super().init_process()

    def init_signals(self) -> None:
        """Install the worker's signal handlers, then receive the stop signals that the master has blocked."""
        super().init_signals()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)

    def run(self) -> None:
        """Answer requests until SIGTERM; /ping answers 503 until the model has passed its self-test."""
        self.tpool.submit(self._test)
        super().run()
        self._ping_pool.shutdown(wait=False)

    def handle_quit(self, sig: int, frame: FrameType | None) -> None:
        """End at once, by ``worker_int`` of gunicorn_conf.py.

        gunicorn would first shut down the thread pool, whose lock this thread may hold.
        """
        self.cfg.worker_int(self)

    def _test(self) -> None:
        try:
            self.app.readiness.test()
        except Exception as error:  # /ping continues to answer 503
            self.log.error("The model can't be served: %s", error)

    def accept(self, listener: Any) -> None:
        """Accept a connection; a thread gets it as soon as data has arrived."""
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
        """Close the connection that has been idle longest; return False if no connection is idle.

        Connections without any request come first.
        """
        for connections in (self.pending_conns, self.keepalived_conns):
            for connection in connections:
                if connection.peek() is None:  # otherwise it is about to be read
                    connections.remove(connection)
                    self.poller.unregister(connection.sock)
                    self.nr_conns -= 1
                    connection.close()
                    return True
        return False

    def enqueue_req(self, conn: Connection) -> None:
        """Give a connection with a request to a thread: pings have their own."""
        conn.is_ping = conn.is_nonblocking_ping()
        self._waiting.add(conn)
        future = (self._ping_pool if conn.is_ping else self.tpool).submit(self.handle, conn)
        future.add_done_callback(lambda done: self.method_queue.defer(self.finish_request, conn, done))

    def handle(self, conn: Connection) -> bool:
        """Answer requests that follow one another; return whether to keep the connection. Runs in a thread."""
        self._waiting.discard(conn)
        while self._answer_one(conn):
            if conn.is_ping or self._waiting or not self.alive or not conn.has_more(FOLLOW_UP_MS):
                return True
        return False

    def _answer_one(self, conn: Connection) -> bool:
        """Answer a request; return whether to keep the connection."""
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
            # Here and not in the main loop, which a graceful close would block. A ping has no body to wait for.
            conn.close(graceful=not conn.is_ping)
        return is_kept

    def handle_request(self, req: Any, conn: Connection) -> bool:
        """Answer a request by the application; return whether the connection can be used for another."""
        lengths = [value for name, value in req.headers if name == "CONTENT-LENGTH"]
        if any(length.isdecimal() and int(length) > self.app.max_payload_bytes for length in lengths):
            # gunicorn would answer any Expect with 100 Continue, but this request will be refused.
            req._expected_100_continue = False
        response, environ = wsgi.create(req, conn.sock, conn.client, conn.server, self.cfg, response_class=Response)
        environ["wsgi.multithread"] = True
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
            # The client sees that the response ends too early; it would take a second one for the rest.
            self.log.exception("an answer could not be finished")
            return False
        finally:
            close = getattr(pieces, "close", None)
            if close is not None:
                close()
        return not response.should_close()

    def handle_error(self, req: Any, client: socket.socket, addr: Any, exc: Exception) -> None:
        """Answer a request that is not valid HTTP, or that failed outside of the application."""
        malformed.answer(exc, req, client, self.app.telemetry)

    def set_accept_enabled(self, enabled: bool) -> None:
        """Start or stop accepting connections; a stopping worker first accepts those that are established."""
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
        """Close idle connections by ``deadline``, including those without any request."""
        super()._cap_keepalive(deadline)
        for connection in self.pending_conns:
            connection.timeout = min(connection.timeout, deadline)
