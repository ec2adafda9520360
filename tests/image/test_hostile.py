"""A server in 256 MB, with all restrictions of Docker, and hostile requests."""

import gzip
import io
import json
import pickle
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from .containers import OFFLINE, Containers, Endpoint, serve, wait_until
from .samples import csv, digits

pytestmark = [pytest.mark.image, pytest.mark.slow]

POINTS = digits()[:100]
MEMORY = 256 << 20
LIMIT = 25 << 20
WORKERS = 2
PING_SECONDS = 2.0
LEAKS = (b"Traceback", b'File "', b"/opt/", b".py", b"site-packages", b"numpy")

# Of the SageMaker kind: no swap, and no more memory than this.
SMALL = {"mem_limit": MEMORY, "memswap_limit": MEMORY}


@pytest.fixture(scope="module")
def small(digits_model: Path, containers: Containers) -> Iterator[Endpoint]:
    """A server in 256 MB that all tests share: what one leaves behind, the next one meets."""
    environment = {"SAGEMAKER_MODEL_SERVER_WORKERS": str(WORKERS)}
    with serve(containers, digits_model, environment=environment, **SMALL) as endpoint:
        wait_until(lambda: len(processes(endpoint)) == 1 + WORKERS, "the workers")
        yield endpoint


@pytest.fixture
def endpoint(small: Endpoint) -> Iterator[Endpoint]:
    """The same; after each test no process of it has been killed, and it answers."""
    before = processes(small)
    yield small
    began = time.monotonic()
    assert small.ask("GET", "/ping").status == 200
    assert time.monotonic() - began < PING_SECONDS
    assert small.ask("POST", "/invocations", csv(POINTS), Content_Type="text/csv").status == 200
    assert processes(small) == before
    assert "Traceback" not in small.running.log


def processes(endpoint: Endpoint) -> list[str]:
    """The ids of the container's processes, as the machine counts them."""
    table = endpoint.running.container.top(ps_args="-o pid")
    return sorted(row[0] for row in table["Processes"])


def repeated(unit: bytes, first: bytes = b"", last: bytes = b"") -> bytes:
    """Return a body of just under the limit."""
    return first + unit * ((LIMIT - len(first) - len(last)) // len(unit)) + last


def npy_of_objects() -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([[{}]], dtype=object), allow_pickle=True)
    return file.getvalue()


SPARSE = b'{"features":{"keys":[],"shape":[64],"values":[]}}'

BODIES: dict[str, tuple[str, int, Callable[[], bytes]]] = {
    "13 million rows": ("text/csv", 400, lambda: repeated(b"1\n")),
    "13 million columns": ("text/csv", 400, lambda: repeated(b"1,", last=b"1")),
    "8 million columns the slow way": ("text/csv", 400, lambda: repeated(b".5,", last=b"1")),
    "6 million rows of JSON": ("application/json", 400, lambda: repeated(b"[1],", b"[", b"[1]]")),
    "8 million empty objects": ("application/json", 400, lambda: repeated(b"{},", b"[", b"{}]")),
    "13 million numbers in a row of JSON": ("application/json", 400, lambda: repeated(b"1,", b"[[", b"1]]")),
    "8 million empty lists in a row": ("application/json", 400, lambda: repeated(b"[],", b"[[", b"1]]")),
    "6 million lines of JSON": ("application/jsonlines", 400, lambda: repeated(b"[1]\n")),
    "half a million sparse rows": ("application/jsonlines", 200, lambda: repeated(SPARSE + b"\n")),
    "26 million brackets": ("application/json", 400, lambda: b"[" * LIMIT),
    "a number of 26 million digits": ("application/json", 400, lambda: repeated(b"9", b"[[", b"]]")),
    "13 million quotes in a text": (
        "application/json",
        400,
        lambda: repeated(b'\\"', b'[{"id":"', b'},{","features":[1]}]'),
    ),
    "a text of half a million quotes": (
        "application/json",
        400,
        lambda: b'[{"id":"' + b'\\"' * 540_000 + b'},{","features":[1]}]',
    ),
    "a text of 6 MB": ("application/json", 400, lambda: b'[{"id":"' + b"x" * (6 << 20) + b'},{","features":[1]}]'),
    "a text of 26 MB": ("application/json", 400, lambda: repeated(b"x", b'[{"id":"', b'},{","features":[1]}]')),
    "gzip": ("text/csv", 400, lambda: gzip.compress(bytes(LIMIT))),
    "a pickle": ("application/x-npy", 400, lambda: pickle.dumps([1.0])),
    "an NPY of objects": ("application/x-npy", 400, npy_of_objects),
    "random bytes as RecordIO": (
        "application/x-recordio-protobuf",
        400,
        lambda: np.random.default_rng(0).bytes(1 << 20),
    ),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_hostile_body_is_answered_in_256_mb(endpoint: Endpoint, name: str) -> None:
    content_type, status, body = BODIES[name]
    answer = endpoint.ask("POST", "/invocations", body(), Content_Type=content_type, Accept="application/jsonlines")
    assert answer.status == status, answer.body[:1024]
    if status != 200:
        assert len(answer.body) <= 1024
        assert json.loads(answer.body)["error"]["code"] == "invalid_payload"
        for leak in LEAKS:
            assert leak not in answer.body


def test_slow_clients_leave_pings_alone(endpoint: Endpoint) -> None:
    head = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\nContent-Length: 9\r\n\r\n1"
    clients = [socket.create_connection(("127.0.0.1", endpoint.port), timeout=30) for _ in range(50)]
    try:
        for number, client in enumerate(clients):
            client.sendall(head[: len(head) - number % 20])
        for _ in range(5):
            began = time.monotonic()
            assert endpoint.ask("GET", "/ping").status == 200
            assert time.monotonic() - began < PING_SECONDS
    finally:
        for client in clients:
            client.close()


def test_model_that_is_a_bomb_ends_the_container_with_its_cause(containers: Containers, tmp_path: Path) -> None:
    """The model is an archive of centers that unpacks to 2 GB; no network is needed."""
    tmp_path.chmod(0o755)
    file = io.BytesIO()
    np.savez_compressed(file, centers=np.zeros((1 << 14, 1 << 12), dtype=np.float32))
    (tmp_path / "centers.npz").write_bytes(file.getvalue())
    volumes = {str(tmp_path): {"bind": "/opt/ml/model", "mode": "ro"}}
    finished = containers.run(["serve"], volumes=volumes, **OFFLINE, **SMALL)
    assert finished.exit_code == 1
    assert "found an array of" in finished.log
    assert "Traceback" not in finished.log
