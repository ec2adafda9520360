"""JSON Lines: one instance of :mod:`kmeans.formats.json` per line, dense and sparse ones as they come."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from kmeans.arrays import Float32, Float64
from kmeans.errors import DataError
from kmeans.formats.batches import ParsedRows, joined, joined_wide
from kmeans.formats.buffer import Buffer
from kmeans.formats.format import Format
from kmeans.formats.instances import Instances, Predictions
from kmeans.formats.json import attach, objects, read_id, read_vector, table
from kmeans.formats.media_type import JSON_LINES
from kmeans.formats.payloads import PAYLOAD_CHUNK_BYTES, each_line, split_lines
from kmeans.formats.sparse import DenseRows

# Bytes of text that are parsed at once: Python's number objects should stay in cache.
CHUNK_BYTES = 64 << 10

# Numbers of the rows that are made dense at once.
DENSE_NUMBERS = 1 << 18


def decode(data: bytes, features: int | None = None, *, wide: bool = False) -> Instances:
    """Return the points of all lines, float32 (n, d), and the ids that came with them. Blank lines are skipped.

    The points are float64 if ``wide``.

    Raises
    ------
    DataError
        As :func:`kmeans.formats.json.decode`; rows number the lines that aren't blank, from 1.
    """
    ids: list[Any] = []
    parsed = _read(Buffer(io.BytesIO(data)), features, ids, wide=wide)
    points = joined_wide(parsed) if wide else joined(parsed)
    return Instances(points, attach(ids))


def read_rows(buffer: Buffer, features: int | None = None, *, wide: bool = False) -> Iterator[ParsedRows]:
    """Yield the points of ``buffer``, some at a time; sparse ones are float64 if ``wide``.

    Raises
    ------
    DataError
        As :func:`decode`, when the reader gets to the line that is wrong.
    """
    return _read(buffer, features, wide=wide)


def encode(predictions: Predictions) -> bytes:
    """Return a JSON object per row, joined by LF without a final one."""
    return objects(predictions, b"\n")


def _read(
    buffer: Buffer, features: int | None, ids: list[Any] | None = None, *, wide: bool = False
) -> Iterator[ParsedRows]:
    """Yield the vectors of ``buffer``, each time those of CHUNK_BYTES; append ids or None to ``ids``."""
    buffer.reserve(CHUNK_BYTES)
    sparse = DenseRows(0, features, wide=wide)
    columns, row = 0, 1
    while buffer.advance(row):
        sparse.source_bytes = buffer.bytes_seen
        lines = [line for line in buffer.take_lines().split(b"\n") if line.strip()]
        # A line of text has few numbers, but a sparse vector many zeros.
        while lines:
            step = max(1, DENSE_NUMBERS // columns) if columns else 1
            numbers, fault = _read_lines(lines[:step], row, columns, sparse, ids)
            if len(numbers):
                columns = numbers.shape[1]
                yield ParsedRows(numbers, range(row, row + len(numbers)))
            if fault is not None:
                raise fault
            row += len(numbers)
            del lines[:step]
    if row == 1:
        raise DataError("expected a JSON object per line, found none", hint="Is the file or the request empty?")


def _read_lines(
    lines: list[bytes], row: int, columns: int, sparse: DenseRows, ids: list[Any] | None
) -> tuple[NDArray[Any], DataError | None]:
    """Return the vectors (n, d) of ``lines`` before the first one that is wrong, and its error."""
    vectors: list[list[Any] | Float32 | Float64] = []
    fault = None
    try:
        for line in lines:
            instance = _load(line, row + len(vectors))
            vector = read_vector(instance, row + len(vectors), sparse)
            if ids is not None:
                ids.append(read_id(instance, row + len(vectors)))
            vectors.append(vector)
    except DataError as error:
        fault = error
    while vectors:
        try:
            return table(vectors, b"".join(lines), row, columns), fault
        except DataError as error:
            del vectors[(error.row or row) - row :]
            fault = error
    return np.empty((0, columns)), fault


def _load(line: bytes, row: int) -> Any:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise DataError(f"expected a JSON object, but {error}", row=row) from None


def _is_like(head: bytes) -> bool:
    return head.lstrip()[:1] in (b"{", b"[")


FORMAT = Format(
    media_type=JSON_LINES,
    name="JSON Lines",
    aliases=("application/jsonl", "application/x-jsonlines", "application/x-ndjson"),
    is_text_like=_is_like,
    read_rows=read_rows,
    decode=decode,
    split=split_lines,
    split_rows=each_line,
    has_lines=True,
    spare_bytes=PAYLOAD_CHUNK_BYTES,
    encode=encode,
    envelope=(b"", b"\n", b""),
    preference=1,
)
