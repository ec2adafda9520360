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
from kmeans.formats.buffer import Stream, Window
from kmeans.formats.instances import Instances, Predictions
from kmeans.formats.json import attach, objects, read_id, read_vector, table
from kmeans.formats.pieces import Narrower, Piece, Prepare, in_equal_blocks, joined, joined_wide
from kmeans.formats.sparse import DenseRows

# Text that is parsed at once: Python's number objects should stay in cache.
CHUNK_BYTES = 64 << 10

# Numbers of the rows that are made dense at once.
PIECE_NUMBERS = 1 << 18


def decode(data: bytes, features: int | None = None, *, wide: bool = False) -> Instances:
    """Return the points of all lines, float32 (n, d), and the ids that came with them. Blank lines are skipped.

    The points are float64 if ``wide``.

    Raises
    ------
    DataError
        As :func:`kmeans.formats.json.decode`; rows count the lines that aren't blank, from 1.
    """
    ids: list[Any] = []
    pieces = _pieces(io.BytesIO(data), features, ids, wide=wide)
    points = joined_wide(pieces) if wide else joined(pieces)
    return Instances(points, attach(ids))


def read_blocks(
    stream: Stream,
    features: int | None = None,
    prepare: Prepare | None = None,
    narrower: Narrower | None = None,
) -> Iterator[Float32]:
    """Yield the points of ``stream`` as float32 blocks (b, d); each is valid until the next one is asked for.

    ``prepare`` may change them first, a ``narrower`` gives them coordinates
    (:func:`kmeans.formats.pieces.in_equal_blocks`).

    Raises
    ------
    DataError
        As :func:`decode`, when the line is reached that is wrong.
    """
    return in_equal_blocks(_pieces(stream, features, wide=narrower is not None), prepare, narrower)


def encode(predictions: Predictions) -> bytes:
    """Return a JSON object per row, joined by LF without a final one."""
    return objects(predictions, b"\n")


def _pieces(
    stream: Stream, features: int | None, ids: list[Any] | None = None, *, wide: bool = False
) -> Iterator[Piece]:
    """Yield the vectors of ``stream``, as many at a time as CHUNK_BYTES hold; append ids or None to ``ids``."""
    window, sparse = Window(stream, CHUNK_BYTES), DenseRows(0, features, wide=wide)
    columns, row = 0, 1
    while window.advance(row):
        sparse.source_bytes = window.bytes_seen
        lines = [line for line in window.take_lines().split(b"\n") if line.strip()]
        # A line of text has few numbers, but a sparse vector many zeros.
        while lines:
            step = max(1, PIECE_NUMBERS // columns) if columns else 1
            numbers, fault = _read_lines(lines[:step], row, columns, sparse, ids)
            if len(numbers):
                columns = numbers.shape[1]
                yield Piece(numbers, range(row, row + len(numbers)))
            if fault is not None:
                raise fault
            row += len(numbers)
            del lines[:step]
    if row == 1:
        raise DataError("expected a JSON object per line, found none", hint="Is the file or the request empty?")


def _read_lines(
    lines: list[bytes], row: int, columns: int, sparse: DenseRows, ids: list[Any] | None
) -> tuple[NDArray[Any], DataError | None]:
    """Return the vectors (n, d) of ``lines`` up to the first that is wrong, and what is wrong with it."""
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
