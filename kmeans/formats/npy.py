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
from kmeans.formats.buffer import WINDOW_BYTES, Stream, Window
from kmeans.formats.pieces import Narrower, Piece, Prepare, in_equal_blocks, joined, joined_wide

MAGIC = b"\x93NUMPY"
ZIP_MAGIC = b"PK\x03\x04"

# All that there are. 3.0 differs from 2.0 in the encoding of names, which arrays of numbers don't have.
VERSIONS = ((1, 0), (2, 0), (3, 0))

# More than NumPy accepts as a header.
MAX_HEADER_BYTES = 1 << 16

# What zipfile and its decompressors raise for bytes that are no archive, or a damaged one.
_BAD_ARCHIVE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    ValueError,
    EOFError,
    OSError,
    RuntimeError,
)

# How NumPy packs an array into an NPZ. LZMA, for one, takes as much memory as the file asks it to.
COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)

# Names of the array of centers in an NPZ that has several.
CENTER_NAMES = ("centers", "centroids", "cluster_centers", "cluster_centers_")


def decode(data: bytes) -> Float32:
    """Return the array of a .npy file as float32 (n, d).

    Raises
    ------
    DataError
        If the bytes are no such file, its array is not two-dimensional and numeric, not as long as its header says, or
        holds NaN or infinity.
    """
    return joined(_pieces(Window.over(data)))


def decode_wide(data: bytes) -> Float64:
    """Return the same as :func:`decode`, float64."""
    return joined_wide(_pieces(Window.over(data)))


def decode_own(data: bytes) -> Float32 | Float64:
    """Return the same as :func:`decode`, float64 unless the array is float32."""
    pieces = list(_pieces(Window.over(data)))
    is_narrow = all(piece.vectors.dtype == np.float32 for piece in pieces)
    return joined(pieces) if is_narrow else joined_wide(pieces)


def read_blocks(stream: Stream, prepare: Prepare | None = None, narrower: Narrower | None = None) -> Iterator[Float32]:
    """Yield the rows of ``stream`` as float32 blocks (b, d); each is valid until the next one is asked for.

    An array in Fortran's order, whose rows are complete only at its end, is read into memory whole. ``prepare`` may
    change the rows first, a ``narrower`` gives them coordinates (:func:`kmeans.formats.pieces.in_equal_blocks`).

    Raises
    ------
    DataError
        As :func:`decode`, when the row is reached that is wrong; a wrong length comes out at the end.
    """
    return in_equal_blocks(_pieces(Window(stream, WINDOW_BYTES)), prepare, narrower)


def encode(array: Float32 | Float64) -> bytes:
    """Return ``array`` as the bytes of a .npy file of its own type."""
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
            # A zip bomb says itself how large it is; whoever lies about that is cut off by the read below.
            if member.file_size > MAX_GROWTH * len(data):
                raise DataError(f"found an array of {member.file_size} bytes in a file of {len(data)}")
            with archive.open(member) as file:
                return decode_own(file.read(member.file_size + 1))
    except _BAD_ARCHIVE as error:
        raise DataError(f"expected a .npz file, but {_what_is_wrong(error)}") from None


# Of the arrays that an archive holds instead so many are named.
MAX_SHOWN = 5

# Deflate shrinks zeros a thousand times; centers aren't zeros.
MAX_GROWTH = 100


def _pieces(window: Window) -> Iterator[Piece]:
    """Yield the rows, as many at a time as lie in the window; at least one piece, which may have no rows."""
    rows, columns, dtype, in_columns = _read_header(window)
    begin, size = window.position, rows * columns * dtype.itemsize
    if in_columns:
        content = window.take_rest()
        if len(content) == size:
            yield Piece(np.frombuffer(content, dtype).reshape((rows, columns), order="F"), range(1, rows + 1))
    else:
        yield from _row_pieces(window, rows, columns, dtype)
    while window.advance():  # only to count what shouldn't be there
        window.start = window.stop
    if window.position - begin != size:
        found = window.position - begin
        raise DataError(f"expected {size} bytes for shape ({rows}, {columns}), found {found}", offset=begin)


def _row_pieces(window: Window, rows: int, columns: int, dtype: np.dtype[Any]) -> Iterator[Piece]:
    if not rows:
        yield Piece(np.empty((0, columns), dtype), range(0))
    done, row_bytes = 0, columns * dtype.itemsize
    while done < rows and window.advance(done + 1):
        count = min(len(window) // row_bytes, rows - done)
        if count:
            vectors = np.frombuffer(window.buffer, dtype, count * columns, window.start).reshape(count, columns)
            yield Piece(vectors, range(done + 1, done + 1 + count))
            done += count
            window.start += count * row_bytes
        elif window.is_last:
            return


def _read_header(window: Window) -> tuple[int, int, np.dtype[Any], bool]:
    """Return rows, columns and type of the array, and whether it lies in Fortran's order; use the header up."""
    while window.advance() and len(window) < MAX_HEADER_BYTES and not window.is_last:
        pass
    file = io.BytesIO(bytes(memoryview(window.buffer)[window.start : window.stop][:MAX_HEADER_BYTES]))
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
    window.start += file.tell()
    if dtype.kind not in "fiu":
        raise DataError(f"expected numbers, found an array of {dtype}", offset=window.position)
    if len(shape) != 2 or shape[0] < 0 or shape[1] < 1:
        raise DataError(f"expected points of shape (n, d) with d >= 1, found an array of shape {shape}")
    return shape[0], shape[1], dtype, in_columns


def _what_is_wrong(error: Exception) -> str:
    # Without NumPy's advice to trust the file, on further lines, and without addresses in memory.
    return reason(error).partition(": <")[0]
