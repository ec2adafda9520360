"""The server under load, with slow and silent clients, and stopped in the middle of it."""

import contextlib
import http.client
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from .opt_ml import OptMl
from .samples import csv, digits, nearest, predictions, read_centers
from .server import HOST, Answer, Server, accepts_connections, serving, start
from .waiting import wait_until

pytestmark = pytest.mark.slow

POINTS = digits()[:20]
CSV = csv(POINTS)
LARGE = csv(np.tile(digits(), (5, 1)))

# SageMaker gives up a ping after so long.
PING_SECONDS = 2
THREADS = 4

# A server whose patience with slow clients ends soon.
IMPATIENT = (
    sys.executable,
    "-c",
    "import sys; from serve import __main__; from serve.server import connection;"
    "connection.GRACE_SECONDS = 0.5; sys.exit(__main__.main())",
)


@pytest.fixture
def single(trained: OptMl, tmp_path: Path) -> Iterator[Server]:
    with serving(trained.base, tmp_path / "output", SAGEMAKER_MODEL_SERVER_WORKERS="1") as server:
        yield server


def ping(server: Server) -> int:
    """Return the status of a ping that is answered in time; a TimeoutError if it isn't."""
    with contextlib.closing(http.client.HTTPConnection(HOST, server.port, timeout=PING_SECONDS)) as connection:
        connection.request("GET", "/ping")
        return connection.getresponse().status


def test_pings_are_answered_while_all_threads_are_busy(single: Server) -> None:
    with contextlib.ExitStack() as clients:
        uploads = [clients.enter_context(single.upload(len(CSV))) for _ in range(THREADS)]
        assert all(upload.is_wanted for upload in uploads)
        more = [clients.enter_context(single.connection()) for _ in range(3)]
        for connection in more:
            connection.putrequest("POST", "/invocations")
            connection.putheader("Content-Length", "100")
            connection.endheaders()
        assert [ping(single) for _ in range(5)] == [200] * 5
        for upload in uploads:
            upload.connection.sendall(CSV)
            assert upload.answer().status == 200


def test_pings_are_answered_during_incomplete_pings(single: Server) -> None:
    with contextlib.ExitStack() as clients:
        for _ in range(THREADS + 2):
            client = clients.enter_context(socket.create_connection((HOST, single.port), timeout=30))
            client.sendall(b"GET /ping HTTP/1.1\r\nHost:")
        assert ping(single) == 200


@pytest.mark.parametrize("line", [b"Content-Length: 100000", b"Transfer-Encoding: chunked", b"Connection: close"])
def test_pings_are_answered_during_pings_that_never_end(single: Server, line: bytes) -> None:
    """Clients that announce a body and send none, or don't close when the server has."""
    with contextlib.ExitStack() as clients:
        for _ in range(THREADS - 1):
            client = clients.enter_context(socket.create_connection((HOST, single.port), timeout=30))
            client.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\n" + line + b"\r\n\r\n")
        assert ping(single) == 200


def test_silent_connections_occupy_no_thread(single: Server) -> None:
    with contextlib.ExitStack() as clients:
        for _ in range(20 * THREADS):
            clients.enter_context(socket.create_connection((HOST, single.port), timeout=30))
        assert ping(single) == 200
        assert single.invoke(CSV).status == 200


# A server that may have few files open, and fewer connections.
FEW_FILES = ("sh", "-c", f'ulimit -n 256 && exec "{sys.executable}" -m serve')


@pytest.mark.parametrize("start", [b"", b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n"], ids=["silent", "idle"])
def test_new_clients_are_answered_when_file_limit_is_reached(trained: OptMl, tmp_path: Path, start: bytes) -> None:
    """Of those on which nothing was ever said, or nothing more after a ping, the oldest make room."""
    settings = {"SAGEMAKER_MODEL_SERVER_WORKERS": "1"}
    with (
        serving(trained.base, tmp_path / "output", FEW_FILES, **settings) as server,
        contextlib.ExitStack() as clients,
    ):
        workers = server.workers()
        connections = []
        for _ in range(400):
            connections.append(clients.enter_context(socket.create_connection((HOST, server.port), timeout=30)))
            connections[-1].sendall(start)
        assert [ping(server) for _ in range(5)] == [200] * 5
        assert server.invoke(CSV).status == 200
        while connections[0].recv(65536):
            pass  # the answer, if there is one, before the end
        assert server.workers() == workers
    assert "Traceback" not in (tmp_path / "output").read_text()


def test_ping_thread_answers_only_pings(single: Server) -> None:
    """A ping and more, as many bytes as the parser reads at once, and then a ping again: as the body of a POST."""
    ping_first, asked = b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /health HTTP/1.1\r\nHost: x\r\nX-Fill: "
    post = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\n"
    post += b"Expect: 100-continue\r\nContent-Length: 1000\r\n\r\n"
    fill = b"x" * (8192 - len(ping_first + asked + b"\r\n\r\n" + post))
    with socket.create_connection((HOST, single.port), timeout=30) as client:
        client.sendall(ping_first + asked + fill + b"\r\n\r\n" + post + ping_first)
        received = b""
        while b"100 Continue" not in received:  # the POST is under way, and waits for the rest of its body
            part = client.recv(65536)
            assert part, received
            received += part
        assert ping(single) == 200


def drip(connections: Iterable[socket.socket]) -> None:
    """Send byte by byte on all connections, until the server has answered or hung up on each."""
    waiting, deadline = set(connections), time.monotonic() + 30
    while waiting:
        assert time.monotonic() < deadline, f"{len(waiting)} connections still wait"
        for connection in waiting:
            with contextlib.suppress(OSError):
                connection.send(b"1")
        waiting -= set(select.select(list(waiting), [], [], 0.05)[0])


def test_body_sent_byte_by_byte_is_refused_with_408(trained: OptMl, tmp_path: Path) -> None:
    settings = {"SAGEMAKER_MODEL_SERVER_WORKERS": "1"}
    with (
        serving(trained.base, tmp_path / "output", IMPATIENT, **settings) as server,
        contextlib.ExitStack() as clients,
    ):
        uploads = [clients.enter_context(server.upload(1 << 20)) for _ in range(THREADS)]
        assert all(upload.is_wanted for upload in uploads)
        drip(upload.connection for upload in uploads)
        for upload in uploads:
            answer = upload.answer()
            assert (answer.status, answer.error["code"]) == (408, "request_timeout")
        assert server.invoke(CSV).status == 200


def test_head_sent_byte_by_byte_is_disconnected(trained: OptMl, tmp_path: Path) -> None:
    with (
        serving(trained.base, tmp_path / "output", IMPATIENT, SAGEMAKER_MODEL_SERVER_WORKERS="1") as server,
        contextlib.ExitStack() as clients,
    ):
        heads = [clients.enter_context(socket.create_connection((HOST, server.port), timeout=30)) for _ in range(5)]
        for head in heads:
            head.sendall(b"POST /invocations HTTP/1.1\r\nHost: ")
        drip(heads)
        assert [head.recv(1) for head in heads] == [b""] * len(heads)
        assert server.invoke(CSV).status == 200


def test_busy_clients_do_not_starve_others(single: Server) -> None:
    """Each sends its next request as soon as it has an answer, and there are more of them than threads."""
    stop = threading.Event()

    def ask_again_and_again() -> int:
        answers = 0
        with single.connection() as connection:
            while not stop.is_set():
                connection.request("POST", "/invocations", CSV, {"Content-Type": "text/csv"})
                response = connection.getresponse()
                response.read()
                assert response.status == 200
                answers += 1
        return answers

    with ThreadPoolExecutor(3 * THREADS) as clients:
        busy = [clients.submit(ask_again_and_again) for _ in range(3 * THREADS)]
        try:
            assert [single.invoke(CSV).status for _ in range(20)] == [200] * 20
        finally:
            stop.set()
        assert min(client.result() for client in busy) > 1, "none of them waits for ever"


def test_pings_are_answered_under_full_load(trained: OptMl, tmp_path: Path) -> None:
    with serving(trained.base, tmp_path / "output", SAGEMAKER_MODEL_SERVER_WORKERS="2") as server:
        stop = threading.Event()

        def invoke() -> list[int]:
            statuses = []
            while not stop.is_set():
                statuses.append(server.invoke(LARGE).status)
            return statuses

        with ThreadPoolExecutor(4 * THREADS) as clients:
            loads = [clients.submit(invoke) for _ in range(4 * THREADS)]
            try:
                assert [ping(server) for _ in range(20)] == [200] * 20
            finally:
                stop.set()
            answered = [status for load in loads for status in load.result()]
    assert len(answered) >= 4 * THREADS
    assert set(answered) == {200}


def test_more_clients_than_threads_get_their_own_answers(server: Server, trained: OptMl) -> None:
    centers = read_centers(trained.model)

    def converse(first: int) -> bool:
        points = digits()[first : first + 3]
        with server.connection() as connection:
            for _ in range(10):
                connection.request("POST", "/invocations", csv(points), {"Content-Type": "text/csv"})
                with connection.getresponse() as response:
                    found = predictions("application/json", Answer.of(response).body)
                np.testing.assert_array_equal(found[:, 0], nearest(points, centers)[0])
        return True

    with ThreadPoolExecutor(32) as clients:
        assert all(clients.map(converse, range(0, 320, 10)))


@pytest.mark.parametrize("workers", ["1", "2"])
def test_sigterm_under_load_loses_no_request(trained: OptMl, tmp_path: Path, workers: str) -> None:
    """Each client keeps its connection, or makes a new one for each request, until none is accepted any more."""
    with serving(trained.base, tmp_path / "output", SAGEMAKER_MODEL_SERVER_WORKERS=workers) as server:
        answered = [0] * 12

        def converse(number: int) -> None:
            while True:
                with server.connection() as connection:
                    try:
                        connection.connect()
                    except ConnectionRefusedError:
                        return
                    while True:
                        connection.request("POST", "/invocations", CSV, {"Content-Type": "text/csv"})
                        with connection.getresponse() as response:  # whatever else may happen here is a lost request
                            assert response.status == 200
                            assert len(predictions("application/json", response.read())) == len(POINTS)
                            is_closed = response.headers["Connection"] == "close"
                        answered[number] += 1
                        if is_closed or number % 2:
                            break

        with ThreadPoolExecutor(len(answered)) as clients:
            conversations = [clients.submit(converse, number) for number in range(len(answered))]
            wait_until(lambda: min(answered) >= 5, "every client to be answered five times")
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(timeout=30) == 0
            for conversation in conversations:
                conversation.result()
    assert "Traceback" not in server.output.read_text()


def awaits(process: int, number: signal.Signals) -> bool:
    """Tell whether a signal was sent to a process that stands still and has not got it yet."""
    fields = dict(line.split(":") for line in Path(f"/proc/{process}/status").read_text().splitlines())
    return bool(int(fields["ShdPnd"], 16) >> (number - 1) & 1)


def test_sigterm_answers_connections_not_yet_accepted(trained: OptMl, tmp_path: Path) -> None:
    """What the system has accepted while the worker stood still is not lost when it is told to stop."""
    with serving(trained.base, tmp_path / "output", SAGEMAKER_MODEL_SERVER_WORKERS="1") as server:
        (worker,) = server.workers()
        stopped = False
        os.kill(worker, signal.SIGSTOP)
        try:
            with contextlib.ExitStack() as stack:
                clients = [stack.enter_context(server.connection()) for _ in range(5)]
                for client in clients:
                    client.request("POST", "/invocations", CSV, {"Content-Type": "text/csv"})
                server.process.send_signal(signal.SIGTERM)
                wait_until(lambda: awaits(worker, signal.SIGTERM), "the worker to be told to stop")
                os.kill(worker, signal.SIGCONT)
                stopped = True
                for client in clients:
                    with client.getresponse() as response:
                        assert response.status == 200
                        assert response.headers["Connection"] == "close"
                assert server.process.wait(timeout=30) == 0
        finally:
            if not stopped:
                os.kill(worker, signal.SIGCONT)
    assert not accepts_connections(server.port)


def test_sigterm_does_not_wait_for_silent_connections(single: Server) -> None:
    with socket.create_connection((HOST, single.port), timeout=30):
        assert ping(single) == 200  # by now the worker has accepted the silent one
        single.process.send_signal(signal.SIGTERM)
        assert single.process.wait(timeout=15) == 0


def test_server_leaves_no_files_in_shared_memory(trained: OptMl, tmp_path: Path) -> None:
    """POSIX semaphores and named shared memory are files there; serverless endpoints have neither."""
    shared = Path("/dev/shm")  # noqa: S108 - only looked at
    before = set(shared.iterdir())
    with serving(trained.base, tmp_path / "output") as server:
        assert server.invoke(CSV).status == 200
        assert {path for path in shared.iterdir() if path.name.startswith(("sem.", "psm_", "wgunicorn"))} <= before


def test_port_in_use_ends_the_server_with_one_sentence(trained: OptMl, tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("0.0.0.0", 0))
        other.listen()
        port = other.getsockname()[1]
        with start(trained.base, tmp_path / "output", SAGEMAKER_BIND_TO_PORT=str(port)) as server:
            assert server.process.wait(timeout=30) == 1
    said = (tmp_path / "output").read_text()
    assert said == f"Port {port} can't be opened: Address already in use.\n"
