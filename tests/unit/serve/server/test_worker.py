"""What real connections and signals hardly ever hit: too many connections, no files left, a worker that just began."""

import contextlib
import errno
import selectors
import socket
from collections import deque
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn.config import Config

from serve.server import worker as worker_module
from serve.server.worker import PAUSE_SECONDS, Worker


@pytest.fixture
def worker() -> Iterator[Any]:
    """What a worker's main loop works with, of which a test calls the steps."""
    worker: Any = Worker.__new__(Worker)
    with selectors.DefaultSelector() as poller:
        worker.alive, worker.sockets, worker.poller, worker._accepting = True, [], poller, False
        worker.cfg, worker.nr_conns, worker.worker_connections = Config(), 0, 3
        worker.pending_conns, worker.keepalived_conns, worker.enqueued = deque(), deque(), []
        worker.enqueue_req = worker.enqueued.append
        yield worker
        for connection in (*worker.pending_conns, *worker.enqueued):
            connection.close()


@contextlib.contextmanager
def listening(worker: Any) -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        worker.sockets.append(listener)
        worker.set_accept_enabled(True)
        yield listener


def is_closed(client: socket.socket) -> bool:
    client.setblocking(False)
    try:
        return client.recv(1) == b""
    except BlockingIOError:
        return False


def test_connection_limit_closes_the_oldest_silent_connection(worker: Any) -> None:
    with listening(worker) as listener, contextlib.ExitStack() as stack:
        clients = []
        for _ in range(5):
            clients.append(stack.enter_context(socket.create_connection(listener.getsockname())))
            worker.accept(listener)
            assert worker.nr_conns < worker.worker_connections or len(clients) < 3
            if len(clients) == 1:
                clients[0].sendall(b"GET /")  # no longer silent, though nobody has looked yet
        assert [is_closed(client) for client in clients] == [False, True, True, True, False]
        assert len(worker.pending_conns) == worker.nr_conns == 2


@pytest.fixture
def no_file_is_left() -> Any:
    def fail() -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    return SimpleNamespace(accept=fail)


def test_file_limit_closes_the_oldest_silent_connection(worker: Any, no_file_is_left: Any) -> None:
    with listening(worker) as listener, socket.create_connection(listener.getsockname()) as client:
        worker.accept(listener)
        worker.accept(no_file_is_left)
        assert is_closed(client)
        assert (worker.nr_conns, worker._accepting) == (0, True)


def test_file_limit_without_silent_connection_pauses_accepting(
    worker: Any, no_file_is_left: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(worker_module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    with listening(worker):
        worker.accept(no_file_is_left)
        worker.set_accept_enabled(True)
        assert not worker._accepting
        now[0] += PAUSE_SECONDS
        worker.set_accept_enabled(True)
        assert worker._accepting


def test_unexpected_accept_error_is_raised(worker: Any) -> None:
    def fail() -> None:
        raise OSError(errno.EBADF, "Bad file descriptor")

    with pytest.raises(OSError, match="Bad file descriptor"):
        worker.accept(SimpleNamespace(accept=fail))


def test_worker_stopped_at_boot_accepts_waiting_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGTERM came between the fork and the main loop, which first accepts and then stops to."""
    accepted = []
    monkeypatch.setattr(Worker, "accept", lambda _, listener: accepted.append(listener.accept()[0]))
    worker: Any = Worker.__new__(Worker)
    with selectors.DefaultSelector() as poller, socket.create_server(("127.0.0.1", 0)) as listener:
        worker.alive, worker.sockets, worker.poller, worker._accepting = False, [listener], poller, False
        with socket.create_connection(listener.getsockname()):
            worker.set_accept_enabled(True)
            assert listener.fileno() != -1
            worker.set_accept_enabled(False)
        assert len(accepted) == 1
        assert listener.fileno() == -1
        accepted[0].close()
