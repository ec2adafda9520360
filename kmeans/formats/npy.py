"""NPY: NumPy's own file of one array, and NPZ, a zip of several. Object arrays, which would be pickles, are refused."""

from __future__ import annotations

import io
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.lib import format as npy_format

from kmeans.arrays import Float32, Float64, as_float32
from kmeans.errors import DataError, reason, shown
from kmeans.formats.batches import ParsedRows, joined, joined_wide
from kmeans.formats.buffer import BUFFER_BYTES, Buffer
from kmeans.formats.format import Format
from kmeans.formats.instances import Instances
from kmeans.formats.media_type import NPY

MAGIC = b"\x93NUMPY"
ZIP_MAGIC = b"PK\x03\x04"

# 3.0 differs from 2.0 in the encoding of names, which arrays of numbers don't have.
VERSIONS = ((1, 0), (2, 0), (3, 0))

# More than NumPy accepts as a header.
MAX_HEADER_BYTES = 1 << 16

# zipfile and its decompressors raise these for bytes that aren't an archive, or a damaged one.
_BAD_ARCHIVE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    ValueError,
    EOFError,
    OSError,
    RuntimeError,
)

# NumPy's ways of packing an array into an NPZ. LZMA takes as much memory as the file asks it to.
COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)

# Names of the array of centers in an NPZ that has several.
CENTER_NAMES = ("centers", "centroids", "cluster_centers", "cluster_centers_")


def decode(data: bytes) -> Float32:
    """Return the array of a .npy file as float32 (n, d).

    Raises
    ------
    DataError
        If the bytes aren't such a file, its array isn't two-dimensional and numeric, isn't as long as its header says,
        or holds NaN or infinity.
    """
    return joined(_read(Buffer.over(data)))


def decode_wide(data: bytes) -> Float64:
    """Return the same as :func:`decode`, float64."""
    return joined_wide(_read(Buffer.over(data)))


def decode_own(data: bytes) -> Float32 | Float64:
    """Return the same as :func:`decode`, float64 unless the array is float32."""
    parsed = list(_read(Buffer.over(data)))
    is_narrow = all(rows.vectors.dtype == np.float32 for rows in parsed)
    return joined(parsed) if is_narrow else joined_wide(parsed)


def read_rows(buffer: Buffer, features: int | None = None, *, wide: bool = False) -> Iterator[ParsedRows]:
    """Yield the rows of ``buffer``, some at a time; ``features`` and ``wide`` are not used.

    An array in Fortran's order, whose rows are complete only at its end, is read into memory whole.

    Raises
    ------
    DataError
        As :func:`decode`, when the reader gets to the row that is wrong; for a wrong length, at the end.
    """
    del features, wide
    buffer.reserve(BUFFER_BYTES)
    return _read(buffer)


def encode(array: Float32 | Float64) -> bytes:
    """Return ``array`` as the bytes of a .npy file of the same type."""
    file = io.BytesIO()
    npy_format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)
    return file.getvalue()


def decode_centers(data: bytes) -> Float32:
    """Return the centers of a .npz file as float32; errors are as of :func:`decode_own_centers`."""
    return as_float32(decode_own_centers(data))


def decode_own_centers(data: bytes) -> Float32 | Float64:
    """Return the array of centers of a .npz file: its only one, or the one that is named so.

    It is float64 unless it is float32 in the file.

    Raises
    ------
    DataError
        As :func:`decode`, or if the file has several arrays and none is named as centers.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
            named = [name for name in CENTER_NAMES if name in members] or list(members)
            if len(named) != 1:
                found = ", ".join(map(shown, list(members)[:MAX_SHOWN])) or "none"
                raise DataError(f"expected one array, or one named {CENTER_NAMES[0]}, found {found}")
            member = members[named[0]]
            if member.compress_type not in COMPRESSIONS:
                found = f"ZIP's method {member.compress_type}"
                raise DataError(f"expected an array that is stored or deflated, as NumPy does it, found {found}")
            # A zip bomb declares its size; if it lies, the read below stops at the declared size.
            if member.file_size > MAX_GROWTH * len(data):
                raise DataError(f"found an array of {member.file_size} bytes in a file of {len(data)}")
            with archive.open(member) as file:
                return decode_own(file.read(member.file_size + 1))
    except _BAD_ARCHIVE as error:
        raise DataError(f"expected a .npz file, but {_what_is_wrong(error)}") from None


# An error names at most this many arrays of an archive.
MAX_SHOWN = 5

# Deflate shrinks zeros a thousand times; centers aren't zeros.
MAX_GROWTH = 100


def _read(buffer: Buffer) -> Iterator[ParsedRows]:
    """Yield the rows, each time those in the buffer; at least once, even if there are no rows."""
    rows, columns, dtype, in_columns = _read_header(buffer)
    begin, size = buffer.position, rows * columns * dtype.itemsize
    if in_columns:
        content = buffer.take_rest()
        if len(content) == size:
            yield ParsedRows(np.frombuffer(content, dtype).reshape((rows, columns), order="F"), range(1, rows + 1))
    else:
        yield from _read_in_order(buffer, rows, columns, dtype)
    while buffer.advance():  # counts what shouldn't be there
        buffer.start = buffer.stop
    if buffer.position - begin != size:
        found = buffer.position - begin
        raise DataError(f"expected {size} bytes for shape ({rows}, {columns}), found {found}", offset=begin)


def _read_in_order(buffer: Buffer, rows: int, columns: int, dtype: np.dtype[Any]) -> Iterator[ParsedRows]:
    if not rows:
        yield ParsedRows(np.empty((0, columns), dtype), range(0))
    done, row_bytes = 0, columns * dtype.itemsize
    while done < rows and buffer.advance(done + 1):
        count = min(len(buffer) // row_bytes, rows - done)
        if count:
            vectors = np.frombuffer(buffer.content, dtype, count * columns, buffer.start).reshape(count, columns)
            yield ParsedRows(vectors, range(done + 1, done + 1 + count))
            done += count
            buffer.start += count * row_bytes
        elif buffer.is_last:
            return


def _read_header(buffer: Buffer) -> tuple[int, int, np.dtype[Any], bool]:
    """Return rows, columns and type of the array, and whether it is in Fortran's order; use up the header."""
    while buffer.advance() and len(buffer) < MAX_HEADER_BYTES and not buffer.is_last:
        pass
    file = io.BytesIO(bytes(memoryview(buffer.content)[buffer.start : buffer.stop][:MAX_HEADER_BYTES]))
    try:
        version = npy_format.read_magic(file)
        if version not in VERSIONS:
            raise DataError(
                f"expected a .npy file of version 1.0, 2.0 or 3.0, found {version[0]}.{version[1]}", offset=6
            )
        read_header = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
        shape, in_columns, dtype = read_header(file)
    except (RecursionError, MemoryError):  # Python's parser, of a header of a few thousand signs or brackets
        raise DataError("expected a .npy file, but its header is nested too deeply") from None
    except (ValueError, EOFError, TypeError, SyntaxError, tokenize.TokenError) as error:
        raise DataError(f"expected a .npy file, but {_what_is_wrong(error)}") from None
    buffer.start += file.tell()
    if dtype.kind not in "fiu":
        raise DataError(f"expected numbers, found an array of {dtype}", offset=buffer.position)
    if len(shape) != 2 or shape[0] < 0 or shape[1] < 1:
        raise DataError(f"expected points of shape (n, d) with d >= 1, found an array of shape {shape}")
    return shape[0], shape[1], dtype, in_columns


def _what_is_wrong(error: Exception) -> str:
    # Without NumPy's advice to trust the file, on further lines, and without addresses in memory.
    return reason(error).partition(": <")[0]


def _instances(body: bytes, _: int | None, /, *, wide: bool = False) -> Instances:
    return Instances(decode_wide(body) if wide else decode(body))


FORMAT = Format(media_type=NPY, name="NPY", magic=MAGIC, read_rows=read_rows, decode=_instances)
