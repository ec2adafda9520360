"""What a soak asks: good requests in mixed formats and sizes, and broken ones, each with the answer that is due."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks import bodies
from kmeans.arrays import Float32
from kmeans.formats.media_type import CSV, JSON, JSON_LINES, NPY, RECORDIO

# How often requests are drawn: good ones by their rows, in each format; large ones; broken ones.
WEIGHTS = {1: 80.0, 10: 40.0, 100: 20.0, 1000: 4.0}
LARGE, BROKEN = 0.5, 8.0

# 24 MB of CSV and 22 MB of RecordIO: the limit is 25 MiB.
LARGE_CSV_ROWS, LARGE_RECORDIO_ROWS = 6000, 7000

# A body that is refused before it comes.
DECLARED_BYTES = 200 << 20


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent, how often, and the status that must come back.

    Attributes
    ----------
    name
        What the report calls it.
    weight
        How often it is drawn, relative to the others.
    status
        Of the answer; None if the client goes away before it could come.
    labels
        Of the rows, found by brute force; None if the answer has none.
    chunk
        Bytes of each chunk; None sends the body with its length.
    declared
        Content-Length where it isn't the body's.
    """

    name: str
    weight: float
    status: int | None
    body: bytes
    content_type: str = CSV
    accept: str = JSON
    path: str = "/invocations"
    labels: NDArray[np.intp] | None = None
    chunk: int | None = None
    declared: int | None = None
    method: str = "POST"

    @property
    def headers(self) -> dict[str, str]:
        """Headers; the id makes answers to broken requests equal, too."""
        length = {} if self.chunk else {"Content-Length": str(self.declared or len(self.body))}
        return {"Content-Type": self.content_type, "Accept": self.accept, "X-Request-Id": "soak", **length}

    def ask(self, connection: http.client.HTTPConnection) -> tuple[int | None, bytes]:
        """Send the request and return status and body of the answer."""
        if self.declared is not None:
            return self._ask_for_too_much(connection)
        content = self.body if self.chunk is None else _pieces(self.body, self.chunk)
        connection.request(self.method, self.path, content, self.headers, encode_chunked=self.chunk is not None)
        with closing(connection.getresponse()) as response:
            return response.status, response.read()

    def _ask_for_too_much(self, connection: http.client.HTTPConnection) -> tuple[int | None, bytes]:
        """Send less than is declared, and go away: after the answer, or at once if none is expected."""
        connection.putrequest(self.method, self.path)
        for name, value in self.headers.items():
            connection.putheader(name, value)
        connection.endheaders(self.body)
        try:
            if self.status is None:
                return None, b""
            with closing(connection.getresponse()) as response:
                return response.status, response.read()
        finally:
            connection.close()


def requests(points: Float32, centers: Float32) -> list[Request]:
    """Return the mix: formats, sizes from one row to a body near the limit, and what is wrong with requests."""
    found = bodies.nearest(points, centers)

    def good(content_type: str, accept: str, rows: int, weight: float, chunk: int | None = None) -> Request:
        encode = {JSON_LINES: _json_lines, NPY: _npy}.get(content_type, lambda part: bodies.encode(part, content_type))
        name = f"{_short(content_type)} to {_short(accept)}, {rows:,} rows{' in chunks' if chunk else ''}"
        return Request(name, weight, 200, encode(points[:rows]), content_type, accept, labels=found[:rows], chunk=chunk)

    row = bodies.encode(points[:1], CSV)
    mix = [
        good(content_type, accept, rows, weight)
        for content_type, accept in (
            (CSV, CSV),
            (CSV, JSON),
            (JSON, JSON),
            (JSON_LINES, JSON_LINES),
            (RECORDIO, RECORDIO),
            (NPY, JSON),
        )
        for rows, weight in WEIGHTS.items()
    ]
    mix += [
        good(CSV, JSON, 100, WEIGHTS[100], chunk=8192),
        good(CSV, CSV, LARGE_CSV_ROWS, LARGE),
        good(RECORDIO, RECORDIO, LARGE_RECORDIO_ROWS, LARGE),
    ]
    return mix + broken(row)


def broken(row: bytes) -> list[Request]:
    """Return requests that can't be answered as they wish."""
    cells = row.rstrip().split(b",")
    records = bodies.encode(np.ones((2, len(cells)), np.float32), RECORDIO)
    return [
        Request("a word among the numbers", BROKEN, 400, b",".join([*cells[:-1], b"seven"])),
        Request("NaN", BROKEN, 400, b",".join([*cells[:-1], b"nan"])),
        Request("one column too few", BROKEN, 400, b",".join(cells[:-1])),
        Request("JSON, nested 100,000 deep", BROKEN, 400, b"[" * 100_000, JSON),
        Request("RecordIO, cut off", BROKEN, 400, records[:-9], RECORDIO),
        Request("NPY with a pickle", BROKEN, 400, _pickled(), NPY),
        Request("a type that nobody reads", BROKEN, 415, row, "application/x-pickle"),
        Request("an answer that nobody writes", BROKEN, 406, row, CSV, "image/png"),
        Request("a path that isn't there", BROKEN, 404, row, path="/predict"),
        Request("another method", BROKEN, 405, b"", method="PUT"),
        Request("a body that is too large", BROKEN, 413, b"", declared=DECLARED_BYTES),
        Request("a client that goes away", BROKEN, None, row, declared=2 * len(row)),
    ]


def labels(answer: bytes, media_type: str) -> NDArray[np.float64]:
    """Return the labels (n,) in an answer, that of JSON Lines too."""
    if media_type == JSON_LINES:
        answer, media_type = b'{"predictions":[' + b",".join(answer.splitlines()) + b"]}", JSON
    return bodies.labels(answer, media_type)


def _pieces(content: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


def _json_lines(points: Float32) -> bytes:
    return b'{"features":' + bodies.as_json(points)[1:-1].replace(b"],[", b']}\n{"features":[') + b"}"


def _npy(points: Float32) -> bytes:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {points.shape}, }}"
    return _npy_header(header) + points.tobytes()


def _pickled() -> bytes:
    """Return the head of an array of objects, as NumPy writes it before a pickle."""
    return _npy_header("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }") + b"\x80\x04N."


def _npy_header(text: str) -> bytes:
    line = text.ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(line).to_bytes(2, "little") + line.encode()


def _short(media_type: str) -> str:
    return media_type.partition("/")[2].removeprefix("x-")
