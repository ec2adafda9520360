"""How long a client may let the server wait, and which requests are pings that keep nobody waiting."""

import contextlib
import select
import socket
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from gunicorn.config import Config

from serve.server import connection as connection_module
from serve.server.connection import (
    GRACE_SECONDS,
    MIN_BYTES_PER_SECOND,
    RECEIVED_BYTES,
    Connection,
    Pace,
    Response,
    Unreader,
    receive,
)

MEGABYTE = 1 << 20


def test_pace_within_grace_period_is_accepted() -> None:
    pace = Pace()
    for _ in range(int(GRACE_SECONDS)):
        pace.add(1, 1.0)
    with pytest.raises(TimeoutError, match="61 bytes in 61 s"):
        pace.add(1, 1.0)


@pytest.mark.parametrize("rate", [MIN_BYTES_PER_SECOND, 10 * MEGABYTE])
def test_pace_at_minimum_rate_is_accepted_for_any_length(rate: int) -> None:
    pace = Pace()
    for _ in range(0, 100 * MEGABYTE, rate):
        pace.add(rate, 1.0)


def test_pace_credits_earlier_fast_bytes() -> None:
    """A megabyte earns 64 s."""
    pace = Pace()
    pace.add(MEGABYTE, 0.0)
    pace.add(0, GRACE_SECONDS + 64)
    with pytest.raises(TimeoutError):
        pace.add(0, 0.1)


@pytest.fixture
def wait(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Let time go by."""
    now = [1000.0]

    def pass_by(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(connection_module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return pass_by


class SlowSocket:
    """Each byte, in either direction, takes 10 s."""

    def __init__(self, wait: Callable[[float], None]) -> None:
        self.wait = wait
        self.sent = b""

    def recv(self, _: int) -> bytes:
        self.wait(10)
        return b"1"

    def send(self, content: memoryview) -> int:
        self.wait(10)
        self.sent += content[:1]
        return 1


def test_reading_slow_bytes_raises_timeout(wait: Callable[[float], None]) -> None:
    unreader = Unreader(SlowSocket(wait))  # type: ignore[arg-type]
    assert unreader.read(6) == b"111111"
    wait(1000)  # what the server does meanwhile is not the client's fault
    with pytest.raises(TimeoutError):
        unreader.read(1)


def response(slow: SlowSocket) -> Any:
    request = SimpleNamespace(version=(1, 1), method="GET", should_close=lambda: False)
    found = Response(request, slow, Config())
    found.start_response("200 OK", [("Content-Type", "text/csv"), ("Content-Length", "10000")])
    return found


def test_writing_slow_bytes_raises_timeout(wait: Callable[[float], None]) -> None:
    slow = SlowSocket(wait)
    with pytest.raises(TimeoutError):
        response(slow).write(b"1" * 10_000)
    assert slow.sent == b"HTTP/1."


def test_response_sent_in_parts_arrives_whole(wait: Callable[[float], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "GRACE_SECONDS", 1e6)
    slow = SlowSocket(wait)
    answer = response(slow)
    answer.write(b"1" * 9_000)
    answer.write(b"2" * 1_000)
    answer.close()
    assert slow.sent.endswith(b"\r\n\r\n" + b"1" * 9_000 + b"2" * 1_000)


@pytest.fixture
def pair() -> Iterator[tuple[Connection, socket.socket]]:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as client,
    ):
        accepted, address = listener.accept()
        connection = Connection(Config(), accepted, address, listener.getsockname())
        yield connection, client
        connection.close()


def test_each_request_of_a_connection_has_its_own_pace(
    pair: tuple[Connection, socket.socket], wait: Callable[[float], None]
) -> None:
    connection, client = pair
    for _ in range(2):
        client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n1,2")
        connection.begin()
        connection.parser.unreader.pace.add(0, GRACE_SECONDS - 1)
        assert next(connection.parser).body.read(3) == b"1,2"
    with pytest.raises(TimeoutError):
        connection.parser.unreader.pace.add(0, 2)


@pytest.mark.parametrize("length", [1, 3, RECEIVED_BYTES, 3 * RECEIVED_BYTES + 5])
@pytest.mark.parametrize("ends_early", [False, True])
def test_body_is_read_exactly_to_its_end(pair: tuple[Connection, socket.socket], length: int, ends_early: bool) -> None:
    connection, client = pair
    body = np.random.default_rng(length).bytes(length)
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
    sent = head % length + (body[:-1] if ends_early else body + head % 2 + b"xy")

    def send() -> None:
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)

    sender = threading.Thread(target=send)
    sender.start()
    connection.begin()
    request = next(connection.parser)
    assert bytes(receive(request.body, length) or b"") == sent[len(head % length) :][:length]
    assert request.body.read() == b""
    sender.join()
    if not ends_early:
        assert next(connection.parser).body.read() == b"xy"


@pytest.mark.parametrize("length", [8192, 9000, 16000])
def test_body_before_a_pipelined_request_is_read_exactly(pair: tuple[Connection, socket.socket], length: int) -> None:
    """Both requests have arrived before the first is read, and its last bytes are fewer than gunicorn receives."""
    connection, client = pair
    body = np.random.default_rng(length).bytes(length)
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
    client.sendall(head % length + body + head % 2 + b"xy")
    connection.begin()
    assert bytes(receive(next(connection.parser).body, length) or b"") == body
    assert next(connection.parser).body.read() == b"xy"


def test_chunked_body_is_left_to_gunicorn(pair: tuple[Connection, socket.socket]) -> None:
    connection, client = pair
    client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nxy\r\n0\r\n\r\n")
    connection.begin()
    body = next(connection.parser).body
    assert receive(body, 2) is None
    assert body.read() == b"xy"


def test_connection_after_a_failed_body_takes_no_request(
    pair: tuple[Connection, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    connection, client = pair
    client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nxy")
    connection.begin()
    body = next(connection.parser).body
    monkeypatch.setattr(connection_module, "GRACE_SECONDS", -1e9)
    client.sendall(b"z")
    with pytest.raises(TimeoutError):
        receive(body, 100)
    with pytest.raises(StopIteration):
        next(connection.parser)


PING = b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n"


def answer_one(connection: Connection) -> None:
    """Read the next request, as a thread of a worker does."""
    connection.begin()
    next(connection.parser)


def test_complete_ping_is_nonblocking(pair: tuple[Connection, socket.socket]) -> None:
    connection, client = pair
    assert not connection.is_nonblocking_ping()
    for _ in range(2):
        client.sendall(PING)
        assert connection.is_nonblocking_ping()
        answer_one(connection)


def test_ping_behind_an_unanswered_request_is_blocking(pair: tuple[Connection, socket.socket]) -> None:
    """Of what the parser has read at once another request is left: that comes next, not what lies on the socket."""
    connection, client = pair
    client.sendall(PING + b"POST /invocations HTTP/1.1\r\n")
    assert connection.is_nonblocking_ping()
    answer_one(connection)
    client.sendall(PING)
    assert connection.peek() == PING
    assert not connection.is_nonblocking_ping()


def test_ping_of_a_client_with_full_buffer_is_blocking(pair: tuple[Connection, socket.socket]) -> None:
    connection, client = pair
    with contextlib.suppress(BlockingIOError):
        while True:
            connection.sock.send(b"x" * 65536)
    client.sendall(PING)
    assert connection.peek() == PING
    assert not connection.is_nonblocking_ping()
    while select.select([client], [], [], 0)[0]:
        client.recv(1 << 20)
    assert connection.is_nonblocking_ping()
