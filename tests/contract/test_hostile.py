"""What attackers and broken clients send. After each of it: 200 or 4xx, no word of the inside, and all is well."""

import contextlib
import gzip
import io
import os
import pickle
import re
import socket
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from .opt_ml import OptMl
from .samples import csv, digits, instances, npy
from .server import HOST, Server, serving
from .waiting import wait_until

POINTS = digits()[:3]
CSV = csv(POINTS)
ROW = CSV.splitlines()[0]
WIDTH = POINTS.shape[1]
MIB = 1 << 20
LIMIT_MIB = 4
WORKERS = 2

# A worker's memory when it has answered all this: what the interpreter and NumPy take (80 MB), and what one body of
# the limit grows to in the worst format (JSON, 40 times), which glibc may keep.
MAX_WORKER_BYTES = (100 + 40 * LIMIT_MIB) * MIB

PING_SECONDS = 2.0
LEAKS = (b"Traceback", b'File "', b"/opt/", b".py", b"site-packages", b"0x7f", b"Error:", b"numpy", b"pickle")


@pytest.fixture(scope="module")
def hostile(trained: OptMl, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, set[int]]]:
    """A server that takes no more than 4 MiB, and the ids of its workers at its start."""
    output: Path = tmp_path_factory.mktemp("hostile") / "output"
    settings = {"SAGEMAKER_MAX_PAYLOAD_IN_MB": str(LIMIT_MIB), "SAGEMAKER_MODEL_SERVER_WORKERS": str(WORKERS)}
    with serving(trained.base, output, **settings) as server:
        wait_until(lambda: len(server.workers()) == WORKERS, "the workers")
        yield server, server.workers()


@pytest.fixture
def server(hostile: tuple[Server, set[int]]) -> Iterator[Server]:
    """The same; after each test it must be as it was before."""
    server, workers = hostile
    yield server
    assert_well(server, workers)


def assert_well(server: Server, workers: set[int]) -> None:
    """Assert that pings and requests are answered, by the same processes, of bounded size, and no defect is logged."""
    began = time.monotonic()
    assert server.ask("GET", "/ping").status == 200
    assert time.monotonic() - began < PING_SECONDS
    assert server.invoke(CSV).status == 200
    assert server.workers() == workers
    for worker in workers:
        assert resident_bytes(worker) < MAX_WORKER_BYTES
    assert "Traceback" not in server.output.read_text()


def resident_bytes(process: int) -> int:
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def assert_harmless(status: int, body: bytes) -> None:
    assert status == 200 or 400 <= status < 500, (status, body)
    if status != 200:
        assert len(body) <= 1024
    for leak in LEAKS:
        assert leak not in body, body


def sent(server: Server, *parts: bytes, half_closed: bool = False) -> tuple[int, bytes]:
    """Send raw bytes and return status and body of the first answer; 0 if the server hung up without one."""
    with socket.create_connection((HOST, server.port), timeout=30) as connection:
        with contextlib.suppress(ConnectionError):  # the server may refuse, and hang up, before all is sent
            for part in parts:
                connection.sendall(part)
        if half_closed:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_WR)
        return answer_of(connection)


def answer_of(connection: socket.socket) -> tuple[int, bytes]:
    received = b""
    with contextlib.suppress(ConnectionError):
        while not is_whole(received) and (part := connection.recv(65536)):
            received += part
    head, _, body = received.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n").partition(b"\r\n\r\n")
    found = re.match(rb"HTTP/1\.\d (\d{3}) ", head)
    return (int(found[1]) if found else 0), body


def all_answers(server: Server, request: bytes) -> bytes:
    """Send raw bytes and return all that comes until the server hangs up."""
    received = b""
    with socket.create_connection((HOST, server.port), timeout=30) as connection:
        connection.sendall(request)
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(65536):
                received += part
    return received


def is_whole(received: bytes) -> bool:
    head, end, body = received.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n").partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", head)
    return bool(end and length) and len(body) >= int(length[1] if length else 0)


def head(*lines: bytes, path: bytes = b"/invocations", kind: bytes = b"text/csv") -> bytes:
    first = (b"POST " + path + b" HTTP/1.1", b"Host: x", b"Content-Type: " + kind)
    return b"\r\n".join((*first, *lines, b"", b""))


# Bodies.

NESTED_INSTANCE = b'{"instances": [{"features": %s}]}'


def saved(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


class Trap:
    """A pickle of this writes a file where it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def npy_header(header: bytes, content: bytes = b"") -> bytes:
    return b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header + content


def array_of(shape: bytes, kind: bytes = b"'<f4'") -> bytes:
    return npy_header(b"{'descr': %s, 'fortran_order': False, 'shape': %s}" % (kind, shape))


def tensor(*parts: tuple[int, bytes]) -> bytes:
    """Return a RecordIO file of one record, whose tensor holds ``parts``: number of the field, content."""
    content = b"".join(bytes([number << 3 | 2]) + varint(len(part)) + part for number, part in parts)
    for front in (b"\x12", b"\x0a\x06values\x12", b"\x0a"):  # float32 tensor, entry of the map, features
        content = front + varint(len(content)) + content
    return b"\x0a\x23\xd7\xce" + len(content).to_bytes(4, "little") + content + bytes(-len(content) % 4)


def varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])


BODIES: dict[str, tuple[str, int, Callable[[], bytes]]] = {
    "JSON 100 deep": ("application/json", 400, lambda: NESTED_INSTANCE % (b"[" * 100 + b"]" * 100)),
    "JSON 100,000 deep": ("application/json", 400, lambda: b"[" * 100_000 + b"]" * 100_000),
    "objects 100,000 deep": ("application/json", 400, lambda: b'{"a":' * 100_000),
    "an id 500 deep": (
        "application/json",
        400,
        lambda: b'[{"features": [%s], "id": %s}]' % (ROW, b"[" * 500 + b"]" * 500),
    ),
    "half a million quotes in a text": (
        "application/json",
        400,
        lambda: b'[{"id":"' + b'\\"' * 540_000 + b'},{","features":[1]}]',
    ),
    "a text of 3 MiB": ("application/json", 400, lambda: b'[{"id":"' + b"x" * 3 * MIB + b'},{","features":[1]}]'),
    "1e400 in JSON": ("application/json", 400, lambda: NESTED_INSTANCE % b"[1e400]"),
    "1e400 in CSV": ("text/csv", 400, lambda: b"1e400," + ROW.partition(b",")[2]),
    "NaN in CSV": ("text/csv", 400, lambda: b"nan," + ROW.partition(b",")[2]),
    "NaN in JSON": ("application/json", 400, lambda: NESTED_INSTANCE % b"[NaN]"),
    "NaN in NPY": ("application/x-npy", 400, lambda: npy(np.full_like(POINTS, np.nan))),
    "a number of a million digits": ("application/json", 400, lambda: NESTED_INSTANCE % (b"[" + b"9" * MIB + b"]")),
    "the same in CSV": ("text/csv", 400, lambda: b"9" * MIB),
    "10,000 columns": ("text/csv", 400, lambda: b",".join([b"1"] * 10_000)),
    "10,000 columns in JSON": ("application/json", 400, lambda: instances(np.ones((1, 10_000), np.float32))),
    "two million columns": ("text/csv", 400, lambda: b"1," * (2 * MIB - 1) + b"1"),
    "two million columns the slow way": ("text/csv", 400, lambda: b".5," * MIB + b".5"),
    "a million rows": ("text/csv", 400, lambda: b"1\n" * 1_000_000),
    "a million rows of JSON": ("application/json", 400, lambda: b"[" + b"[1]," * (MIB - 2) + b"[1]]"),
    "a million empty objects": ("application/json", 400, lambda: b"[" + b"{}," * MIB + b"{}]"),
    "a million lines of JSON": ("application/jsonlines", 400, lambda: b"[1]\n" * MIB),
    "a million line ends": ("text/csv", 400, lambda: b"\n" * MIB),
    "a million commas": ("text/csv", 400, lambda: b"," * MIB),
    "NUL bytes": ("text/csv", 400, lambda: bytes(MIB)),
    "NUL bytes in JSON": ("application/json", 400, lambda: bytes(1000)),
    "invalid UTF-8": ("application/json", 400, lambda: b'{"\xff\xfe": "\xc0\x80"}'),
    "invalid UTF-8 in CSV": ("text/csv", 400, lambda: b"\xff\xfe\xc0\x80," + ROW),
    "gzip as CSV": ("text/csv", 400, lambda: gzip.compress(CSV)),
    "gzip as NPY": ("application/x-npy", 400, lambda: gzip.compress(npy(POINTS))),
    "an NPY of objects": ("application/x-npy", 400, lambda: saved(np.array([[{}, []]], dtype=object))),
    "a pickle as NPY": ("application/x-npy", 400, lambda: pickle.dumps([1.0] * WIDTH)),
    "an NPY of 10^18 rows": ("application/x-npy", 400, lambda: array_of(b"(1000000000000000000, 64)")),
    "an NPY of 10^30 columns": ("application/x-npy", 400, lambda: array_of(b"(1, %d)" % 10**30)),
    "an NPY of texts of 2 GB": ("application/x-npy", 400, lambda: array_of(b"(1, 64)", b"'U500000000'")),
    "a header of signs": ("application/x-npy", 400, lambda: npy_header(b"-" * 9000 + b"1")),
    "a header of sums": ("application/x-npy", 400, lambda: npy_header(b"1+" * 4000 + b"1")),
    "a header that names things": ("application/x-npy", 400, lambda: npy_header(b"{'descr': __import__('os')}")),
    "a sparse row of 2^62": (
        "application/json",
        400,
        lambda: NESTED_INSTANCE % b'{"keys": [0], "shape": [4611686018427387904], "values": [1]}',
    ),
    "a sparse record of 2^62": (
        "application/x-recordio-protobuf",
        400,
        lambda: tensor((1, bytes(4)), (2, b"\0"), (3, varint(1 << 62))),
    ),
    "a record of 300 dimensions": (
        "application/x-recordio-protobuf",
        400,
        lambda: tensor((2, b""), (3, varint(1 << 62) * 300)),
    ),
    "a record that says 512 MB": (
        "application/x-recordio-protobuf",
        400,
        lambda: b"\x0a\x23\xd7\xce\xff\xff\xff\x1f" + bytes(100),
    ),
    "a tensor of 300,000 pieces": (
        "application/x-recordio-protobuf",
        400,
        lambda: tensor(*[(1, bytes(4))] * 300_000),
    ),
    "random bytes": ("application/x-recordio-protobuf", 400, lambda: np.random.default_rng(0).bytes(MIB)),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_hostile_body_is_refused_in_a_sentence(server: Server, name: str) -> None:
    content_type, status, body = BODIES[name]
    answer = server.invoke(body(), content_type)
    assert_harmless(answer.status, answer.body)
    assert answer.status == status, answer.body
    assert answer.error["message"].count("\n") == 0


@pytest.mark.parametrize("content_type", ["application/x-npy", "application/x-recordio-protobuf", "text/csv"])
def test_a_pickle_is_never_opened(server: Server, tmp_path: Path, content_type: str) -> None:
    trap = Trap(tmp_path / "opened")
    for body in (saved(np.array([[trap]], dtype=object)), pickle.dumps(trap), b"\x93NUMPY\1\0" + pickle.dumps(trap)):
        answer = server.invoke(body, content_type)
        assert answer.status == 400
        assert_harmless(answer.status, answer.body)
    assert not (tmp_path / "opened").exists()


def test_a_bomb_in_content_encoding_is_not_unpacked(server: Server) -> None:
    """Content codings aren't supported: the bytes are parsed unchanged, and aren't CSV."""
    bomb = zlib.compressobj(9, zlib.DEFLATED, 31)
    packed = b"".join(bomb.compress(b"0\n" * MIB) for _ in range(100)) + bomb.flush()
    assert len(packed) < LIMIT_MIB * MIB < 100 * MIB
    for coding in ("gzip", "deflate", "br", "gzip, gzip"):
        answer = server.invoke(packed, Content_Encoding=coding)
        assert answer.status in (400, 415)
        assert_harmless(answer.status, answer.body)


def test_many_hostile_bodies_at_once_leave_pings_alone(server: Server) -> None:
    body = b"[" + b"[1]," * (MIB - 2) + b"[1]]"
    request = head(b"Content-Length: %d" % len(body), kind=b"application/json") + body
    with contextlib.ExitStack() as clients:
        connections = [
            clients.enter_context(socket.create_connection((HOST, server.port), timeout=60)) for _ in range(WORKERS * 2)
        ]
        for connection in connections:
            connection.sendall(request)
        began = time.monotonic()
        assert server.ask("GET", "/ping").status == 200
        assert time.monotonic() - began < PING_SECONDS
        for connection in connections:
            assert answer_of(connection)[0] == 400


# Lengths and chunks.


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ([b"Content-Length: -1"], 400),
        ([b"Content-Length: +3"], 400),
        ([b"Content-Length: 3_0"], 400),
        ([b"Content-Length: 0x3"], 400),
        ([b"Content-Length: 3, 3"], 400),
        ([b"Content-Length: 3", b"Content-Length: 4"], 400),
        ([b"Content-Length: \xb3"], 400),
        ([b"Content-Length: 3", b"Transfer-Encoding: chunked"], 400),
        ([b"Transfer-Encoding: chunked", b"Content-Length: 3"], 400),
        ([b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"], 400),
        ([b"Transfer-Encoding: chunked, identity"], 400),
        ([b"Transfer-Encoding : chunked"], 400),
        ([b"Transfer-Encoding: \x0bchunked"], 400),
        ([b"Content-Length: 99999999999999999999"], 413),
        ([b"Content-Length: " + b"9" * 5000], 413),
        ([b"Content-Length: %d" % (LIMIT_MIB * MIB + 1)], 413),
    ],
)
def test_a_length_that_is_none_is_refused(server: Server, lines: list[bytes], status: int) -> None:
    found, body = sent(server, head(*lines), b"3\r\n1,2\r\n0\r\n\r\n", half_closed=True)
    assert_harmless(found, body)
    assert found in (status, 400)


@pytest.mark.parametrize(
    "chunks",
    [
        b"zz\r\n1,2\r\n0\r\n\r\n",
        b"-1\r\n1,2\r\n0\r\n\r\n",
        b"0x3\r\n1,2\r\n0\r\n\r\n",
        b"3_0\r\n1,2\r\n0\r\n\r\n",
        b"\r\n",
        b"3\r\n1,2,3\r\n0\r\n\r\n",
        b"3\n1,2\n0\n\n",
        b"ffffffffffffffff\r\n1,2\r\n",
        b"f" * 5000 + b"\r\n1,2\r\n",
        b"3;" + b"x" * 100_000 + b"\r\n1,2\r\n0\r\n\r\n",
        b"3\r\n1,2\r\n",
        b"3\r\n1,",
        b"",
    ],
)
def test_chunks_that_are_none_are_refused(server: Server, chunks: bytes) -> None:
    status, body = sent(server, head(b"Transfer-Encoding: chunked"), chunks, half_closed=True)
    assert_harmless(status, body)
    assert status >= 400


def test_bad_chunks_behind_a_refusal_are_not_answered_once_more(server: Server) -> None:
    """Refused for its headers; any body is discarded."""
    for chunks in (b"zz\r\n1,2\r\n", b"fff\rfffff\n1,2", b"3\r\n1,2,3\r\n", b"ffff\r\n1"):
        request = head(b"Transfer-Encoding: chunked", kind=b"image/png") + chunks
        received = all_answers(server, request)
        assert received.count(b"HTTP/1.1 ") == 1
        assert received.startswith(b"HTTP/1.1 415")


def test_what_follows_a_refused_request_is_not_taken_for_another(server: Server) -> None:
    smuggled = b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n"
    request = head(b"Content-Length: %d" % len(smuggled), b"Transfer-Encoding: chunked") + b"0\r\n\r\n" + smuggled
    received = all_answers(server, request)
    assert received.count(b"HTTP/1.1 ") == 1
    assert received.startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize("chunked", [False, True], ids=["with its length", "in chunks"])
def test_a_body_beyond_the_limit_is_413(server: Server, chunked: bool) -> None:
    content = b"1\n" * (LIMIT_MIB * MIB)
    parts = (content[first : first + MIB] for first in range(0, len(content), MIB))
    answer = server.invoke(parts if chunked else content)
    assert answer.status == 413
    assert_harmless(answer.status, answer.body)


# Headers.


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param([b"X-%d: 1" % number for number in range(10_000)], id="10,000 headers"),
        pytest.param([b"X-Long: " + b"x" * 100_000], id="a long header"),
        pytest.param([b"X-Many: " + b"a," * 50_000], id="a long list"),
        pytest.param([b"x" * 100_000], id="a long line that is no header"),
        pytest.param([b"X-Nul: a\0b"], id="NUL"),
        pytest.param([b"X-Split: a\rSet-Cookie: b"], id="a line end within"),
        pytest.param([b" X-Folded: a"], id="folded"),
        pytest.param([b"X Space: a"], id="a blank in a name"),
        pytest.param([b": a"], id="no name"),
        pytest.param([b"Content-Type: application/json"], id="two content types"),
        pytest.param([b"Host: y", b"Host: z"], id="several hosts"),
        pytest.param([b"Expect: nonsense"], id="another expectation"),
        pytest.param([b"Upgrade: h2c", b"Connection: Upgrade, HTTP2-Settings", b"HTTP2-Settings: AAAA"], id="h2c"),
    ],
)
def test_headers_out_of_measure_are_refused_or_passed_over(server: Server, lines: list[bytes]) -> None:
    status, body = sent(server, head(*lines, b"Content-Length: %d" % len(ROW)), ROW)
    assert_harmless(status, body)


def test_an_attribute_cant_put_in_a_header_of_its_own(server: Server) -> None:
    for value in ("a\tb", "x" * 1025, "\u00e9"):
        with server.connection() as connection:
            connection.request(
                "POST",
                "/invocations",
                ROW,
                {"Content-Type": "text/csv", "X-Amzn-SageMaker-Custom-Attributes": value},
            )
            response = connection.getresponse()
            assert response.status == 200
            assert response.headers["X-Amzn-SageMaker-Custom-Attributes"] is None
            response.read()


@pytest.mark.parametrize("line", [b"\x16\x03\x01\x02\0\1\0\1\xfc", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\0" * 5000])
def test_another_protocol_is_refused(server: Server, line: bytes) -> None:
    status, body = sent(server, line, half_closed=True)
    assert status == 0 or 400 <= status < 500, (status, body)
    assert_harmless(status or 400, body)


# Clients that are slow, or half gone.


def test_slow_clients_hold_up_nobody(server: Server) -> None:
    """Many clients in the middle of their headers or bodies, and none of them sends more than a byte at a time."""
    with contextlib.ExitStack() as clients:
        slow = [clients.enter_context(socket.create_connection((HOST, server.port), timeout=30)) for _ in range(40)]
        request = head(b"Content-Length: %d" % len(ROW)) + ROW
        for number, connection in enumerate(slow):
            connection.sendall(request[: len(request) * number // len(slow)])
        for _ in range(5):
            began = time.monotonic()
            assert server.ask("GET", "/ping").status == 200
            assert time.monotonic() - began < PING_SECONDS
            for connection in slow:
                connection.sendall(b"0")  # harmful to none but itself


def test_a_request_that_comes_byte_by_byte_is_answered(server: Server) -> None:
    request = head(b"Content-Length: %d" % len(ROW)) + ROW
    with socket.create_connection((HOST, server.port), timeout=30) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in request:
            connection.sendall(bytes([byte]))
        status, body = answer_of(connection)
    assert status == 200
    assert b"closest_cluster" in body


def test_a_half_closed_connection_gets_its_answer(server: Server) -> None:
    status, body = sent(server, head(b"Content-Length: %d" % len(ROW)), ROW, half_closed=True)
    assert status == 200
    assert b"closest_cluster" in body


@pytest.mark.parametrize("part", [0.0, 0.3, 0.9, 0.99])
def test_half_closed_connection_within_a_request_is_refused(server: Server, part: float) -> None:
    request = head(b"Content-Length: %d" % len(ROW)) + ROW
    status, body = sent(server, request[: int(part * len(request))], half_closed=True)
    assert status in (0, 400), body
    assert_harmless(status or 400, body)


def test_clients_that_reset_their_connections_harm_nobody(server: Server) -> None:
    request = head(b"Content-Length: %d" % len(CSV)) + CSV
    for stop in range(0, len(request), len(request) // 20):
        with socket.create_connection((HOST, server.port), timeout=30) as connection:
            # On closing, a reset instead of an end.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            connection.sendall(request[:stop])


def test_a_client_that_never_reads_its_answers_harms_nobody(server: Server) -> None:
    """Requests one behind the other, until the server's answers fill the buffers of the connection."""
    request = head(b"Content-Length: %d" % len(CSV)) + CSV
    with socket.create_connection((HOST, server.port), timeout=30) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.setblocking(False)
        with contextlib.suppress(BlockingIOError, ConnectionError):
            for _ in range(10_000):
                connection.sendall(request)
        assert server.ask("GET", "/ping").status == 200
        assert server.invoke(CSV).status == 200


@pytest.mark.parametrize(
    "path",
    [b"/../../etc/passwd", b"/%2e%2e/%2e%2e/etc/passwd", b"/%00", b"/\xff", b"/ping/../invocations", b"//ping", b"*"],
)
def test_a_path_leads_nowhere(server: Server, path: bytes) -> None:
    status, body = sent(server, b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n\r\n")
    assert_harmless(status, body)
    assert b"root:" not in body
