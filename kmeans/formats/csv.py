"""CSV: one point per line, numbers only, separated by commas.

Lines end with LF or CRLF; blank lines and a byte order mark are skipped; there is no header. The fast path hands the
text to a JSON parser (a CSV of plain numbers is a JSON list but for its line ends), many times as fast as
``numpy.loadtxt``. What JSON's grammar refuses (``.5``, ``+1``, text) takes the slow path, which reads cell by cell and
knows the row and column of whatever is wrong.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kmeans.arrays import Float32, Float64
from kmeans.errors import DataError, shown
from kmeans.formats.buffer import Stream, Window
from kmeans.formats.instances import Predictions
from kmeans.formats.number_lists import read_numbers
from kmeans.formats.pieces import Narrower, Piece, Prepare, in_equal_blocks, joined, joined_wide

BYTE_ORDER_MARK = b"\xef\xbb\xbf"

# What stands for the label and the distance of a row that could not be read.
MISSING = b"nan"

# Text that is parsed at once: it, and what becomes of it, should stay in cache.
CHUNK_BYTES = 256 << 10


def decode(data: bytes) -> Float32:
    """Return the numbers of ``data`` as float32 (n, columns).

    Raises
    ------
    DataError
        If a cell is no finite number, a line has another number of cells than the first, or there is no line at all.
        Rows are counted as an editor counts lines, from 1.
    """
    # The window and the pieces copy the text twice more, and for a request of a few rows take longer than parsing.
    points = _fast_chunks(data, np.float32)
    return joined(_pieces(io.BytesIO(data))) if points is None else points


def decode_wide(data: bytes) -> Float64:
    """Return the same as :func:`decode`, float64."""
    points = _fast_chunks(data, np.float64)
    return joined_wide(_pieces(io.BytesIO(data))) if points is None else points


def read_blocks(stream: Stream, prepare: Prepare | None = None, narrower: Narrower | None = None) -> Iterator[Float32]:
    """Yield the numbers of ``stream`` as float32 blocks (b, columns); each is valid until the next one is asked for.

    ``prepare`` may change them first, a ``narrower`` gives them coordinates
    (:func:`kmeans.formats.pieces.in_equal_blocks`).

    Raises
    ------
    DataError
        As :func:`decode`, when the line is reached that is wrong.
    """
    return in_equal_blocks(_pieces(stream), prepare, narrower)


def encode(predictions: Predictions) -> bytes:
    """Return ``label,distance`` lines, joined by LF without a final one, each number as Python's ``repr`` writes it."""
    text = predictions.text()
    if text is not None:
        return text.replace(b"],[", b"\n").replace(b"null", MISSING)
    return b"\n".join(b"%b,%b" % (_text(label), _text(distance)) for label, distance, _ in predictions.rows())


def _text(number: float | None) -> bytes:
    return MISSING if number is None else repr(number).encode()


def _pieces(stream: Stream) -> Iterator[Piece]:
    """Yield the rows of ``stream``, as many at a time as CHUNK_BYTES hold."""
    window = Window(stream, CHUNK_BYTES)
    columns, line_number, is_empty = 0, 1, True
    while window.advance(line_number):
        text = window.take_lines()
        if line_number == 1:
            text = text.removeprefix(BYTE_ORDER_MARK)
        if b"\r" in text:
            text = text.replace(b"\r\n", b"\n")
        points, fault = _fast(text, columns), None
        if points is not None:
            piece = Piece(points, range(line_number, line_number + len(points)))
        else:
            piece, fault = _slow(text, line_number, columns)
        if len(piece.rows):
            columns, is_empty = piece.vectors.shape[1], False
            yield piece
        if fault is not None:
            raise fault
        line_number += text.count(b"\n")
    if is_empty:
        raise DataError("expected rows of numbers, found none", hint="Is the file or the request empty?")


def _fast_chunks(data: bytes, dtype: type[np.float32 | np.float64]) -> NDArray[Any] | None:
    """Return the numbers of ``data`` if all is as it should be, else None; a chunk at a time."""
    parts: list[Float64] = []
    start = 0
    while start < len(data):
        stop = len(data) if len(data) - start <= CHUNK_BYTES else data.rfind(b"\n", start, start + CHUNK_BYTES) + 1
        end = stop - data.endswith(b"\n", start, stop)  # to cut it off later is a copy more
        points = _fast(data[start:end], parts[0].shape[1] if parts else 0)
        if points is None:
            return None
        parts.append(points)
        start = stop
    # Joined and made float32 in one pass.
    return np.concatenate(parts, dtype=dtype, casting="same_kind") if parts else None


def _fast(chunk: bytes, columns: int) -> Float64 | None:
    """Return the numbers of a chunk in which all is as it should be, else None."""
    if b"[" in chunk:  # a row of JSON within a line
        return None
    rows = chunk.removesuffix(b"\n").replace(b"\n", b"],[")
    points = read_numbers(b"".join((b"[[", rows, b"]]")), is_flat=True)
    return points if points is not None and columns in (0, points.shape[1]) else None


def _slow(chunk: bytes, line_number: int, columns: int) -> tuple[Piece, DataError | None]:
    """Return the rows of a chunk up to the first that is wrong, and what is wrong with it; blank lines are left out."""
    rows: list[list[float]] = []
    lines: list[int] = []
    fault = None
    try:
        for number, line in enumerate(chunk.split(b"\n"), start=line_number):
            if not line.strip():
                continue
            cells = line.split(b",")
            columns = columns or len(cells)
            row = [_number(cell, number, column, cells) for column, cell in enumerate(cells, start=1)]
            if len(row) != columns:
                raise DataError(f"expected {columns} columns as in the rows before, found {len(row)}", row=number)
            rows.append(row)
            lines.append(number)
    except DataError as error:
        fault = error
    return Piece(np.array(rows, dtype=np.float64).reshape(len(rows), columns), lines), fault


def _number(cell: bytes, row: int, column: int, cells: list[bytes]) -> float:
    # Python's float() also reads 1_000, which no other CSV reader does.
    if b"_" not in cell:
        try:
            return float(cell)
        except ValueError:
            pass
    if not cell.strip():
        raise DataError("expected a number, found an empty cell", row=row, column=column)
    is_header = row == 1 and cell.isascii() and b"\0" not in cell and not any(_is_number(other) for other in cells)
    raise DataError(
        f"expected a number, found {shown(cell.strip())}",
        row=row,
        column=column,
        hint="The first row looks like a header: remove it." if is_header else None,
    )


def _is_number(cell: bytes) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
