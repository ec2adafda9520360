"""CSV: one point per line, numbers only, separated by commas.

Lines end with LF or CRLF; blank lines and a byte order mark are skipped; there is no header. The fast path passes the
text to a JSON parser (a CSV of plain numbers is a JSON list except for its line ends), many times as fast as
``numpy.loadtxt``. Text that JSON's grammar refuses (``.5``, ``+1``, words) takes the slow path, which reads cell by
cell and knows the row and column of a fault.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import simdjson
from numpy.typing import NDArray

from kmeans.arrays import Float32, Float64, is_in_range
from kmeans.errors import DataError, shown
from kmeans.formats.batches import ParsedRows, joined, joined_wide
from kmeans.formats.buffer import Buffer
from kmeans.formats.format import Format
from kmeans.formats.instances import Instances, Predictions
from kmeans.formats.media_type import CSV
from kmeans.formats.number_lists import REFUSALS
from kmeans.formats.payloads import BYTE_ORDER_MARK, PAYLOAD_CHUNK_BYTES, each_line, split_lines

# The label and the distance of a row that could not be read.
MISSING = b"nan"

# Bytes of text that are parsed at once: they, and the numbers, should stay in cache.
CHUNK_BYTES = 256 << 10


def decode(data: bytes) -> Float32:
    """Return the numbers of ``data`` as float32 (n, columns).

    Raises
    ------
    DataError
        If a cell isn't a finite number, a line has another number of cells than the first, or there is no line. Rows
        are numbered as an editor numbers lines, from 1.
    """
    # A buffer would copy the text twice, which takes longer than parsing a request of a few rows.
    points = _fast_chunks(data, np.float32)
    return joined(read_rows(Buffer(io.BytesIO(data)))) if points is None else points


def decode_wide(data: bytes) -> Float64:
    """Return the same as :func:`decode`, float64."""
    points = _fast_chunks(data, np.float64)
    return joined_wide(read_rows(Buffer(io.BytesIO(data)))) if points is None else points


def read_rows(buffer: Buffer, features: int | None = None, *, wide: bool = False) -> Iterator[ParsedRows]:
    """Yield the rows of ``buffer``, some at a time; ``features`` and ``wide`` are not used.

    Raises
    ------
    DataError
        As :func:`decode`, when the reader gets to the line that is wrong.
    """
    del features, wide
    buffer.reserve(CHUNK_BYTES)
    columns, line_number, is_empty = 0, 1, True
    while buffer.advance(line_number):
        text = buffer.take_lines()
        if line_number == 1:
            text = text.removeprefix(BYTE_ORDER_MARK)
        if b"\r" in text:
            text = text.replace(b"\r\n", b"\n")
        points, fault = _fast(text, columns), None
        if points is not None:
            rows = ParsedRows(points, range(line_number, line_number + len(points)))
        else:
            rows, fault = _slow(text, line_number, columns)
        if len(rows.numbers):
            columns, is_empty = rows.vectors.shape[1], False
            yield rows
        if fault is not None:
            raise fault
        line_number += text.count(b"\n")
    if is_empty:
        raise DataError("expected rows of numbers, found none", hint="Is the file or the request empty?")


def encode(predictions: Predictions) -> bytes:
    """Return ``label,distance`` lines, joined by LF without a final one, each number as Python's ``repr`` writes it."""
    text = predictions.text()
    if text is not None:
        return text.replace(b"],[", b"\n").replace(b"null", MISSING)
    return b"\n".join(b"%b,%b" % (_text(label), _text(distance)) for label, distance, _ in predictions.rows())


def _text(number: float | None) -> bytes:
    return MISSING if number is None else repr(number).encode()


def _fast_chunks(data: bytes, dtype: type[np.float32 | np.float64]) -> NDArray[Any] | None:
    """Return the numbers of ``data``, parsed chunk by chunk; None if the slow path must parse any of it."""
    parts: list[Float64] = []
    start = 0
    while start < len(data):
        stop = len(data) if len(data) - start <= CHUNK_BYTES else data.rfind(b"\n", start, start + CHUNK_BYTES) + 1
        end = stop - data.endswith(b"\n", start, stop)  # to cut it off later would be another copy
        points = _fast(data[start:end], parts[0].shape[1] if parts else 0)
        if points is None:
            return None
        parts.append(points)
        start = stop
    # Joined and made float32 in one pass.
    return np.concatenate(parts, dtype=dtype, casting="same_kind") if parts else None


def _fast(chunk: bytes, columns: int) -> Float64 | None:
    """Return the numbers of a chunk of plain numbers and ``columns`` columns (0: any number); else None."""
    if b"[" in chunk:  # a JSON list within a line
        return None
    lines = chunk.removesuffix(b"\n").replace(b"\n", b"],[")
    try:
        rows: Any = simdjson.Parser().parse(b"".join((b"[[", lines, b"]]")))
        widths = {len(row) for row in rows}
        points: Float64 = np.frombuffer(rows.as_buffer(of_type="d")).reshape(len(rows), *widths)
    except REFUSALS:
        return None
    if not points.size or columns not in (0, points.shape[1]) or not is_in_range(points):
        return None
    return points


def _slow(chunk: bytes, line_number: int, columns: int) -> tuple[ParsedRows, DataError | None]:
    """Return the rows of a chunk before the first one that is wrong, and its error; blank lines are skipped."""
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
    return ParsedRows(np.array(rows, dtype=np.float64).reshape(len(rows), columns), lines), fault


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


def _instances(body: bytes, _: int | None, /, *, wide: bool = False) -> Instances:
    return Instances(decode_wide(body) if wide else decode(body))


def _is_like(head: bytes) -> bool:
    return head.lstrip()[:1] not in (b"{", b"[")


FORMAT = Format(
    media_type=CSV,
    name="CSV",
    aliases=("csv", "application/csv"),
    is_text_like=_is_like,
    read_rows=read_rows,
    has_label_columns=True,
    decode=_instances,
    split=split_lines,
    split_rows=each_line,
    has_lines=True,
    counts_blank_lines=True,
    # The decoder parses a chunk in parts; with longer chunks, the cost of each chunk is paid half as often.
    chunk_factor=2,
    spare_bytes=PAYLOAD_CHUNK_BYTES,
    encode=encode,
    envelope=(b"", b"\n", b""),
)
