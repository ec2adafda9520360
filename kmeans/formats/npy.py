"""NPY: NumPy's own file of one array, and NPZ, a zip of several. Object arrays, which would be pickles, are refused."""

from __future__ import annotations

import io
import lzma
import math
import struct
import tokenize
import zipfile
import zlib
from typing import Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from kmeans.arrays import Float32, as_points
from kmeans.errors import DataError

MAGIC = b"\x93NUMPY"
ZIP_MAGIC = b"PK\x03\x04"

# What zipfile and its decompressors raise for bytes that are no archive, or a damaged one.
_BAD_ARCHIVE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    ValueError,
    EOFError,
    OSError,
    RuntimeError,
)

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
    return as_points(_read(data))


def decode_centers(data: bytes) -> Float32:
    """Return the array of centers of a .npz file: its only one, or the one that is named so.

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
                raise DataError(f"expected one array, or one named {CENTER_NAMES[0]}, found {', '.join(members)}")
            member = members[named[0]]
            # A zip bomb says itself how large it is; whoever lies about that is cut off by the read below.
            if member.file_size > MAX_GROWTH * len(data):
                raise DataError(f"found an array of {member.file_size} bytes in a file of {len(data)}")
            with archive.open(member) as file:
                return decode(file.read(member.file_size + 1))
    except _BAD_ARCHIVE as error:
        raise DataError(f"expected a .npz file, but {error}") from None


# Deflate shrinks zeros a thousand times; centers aren't zeros.
MAX_GROWTH = 100


def _read(data: bytes) -> NDArray[Any]:
    file = io.BytesIO(data)
    try:
        version = npy_format.read_magic(file)
        read_header = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
        shape, in_columns, dtype = read_header(file)
    except (ValueError, EOFError, TypeError, SyntaxError, tokenize.TokenError) as error:
        raise DataError(f"expected a .npy file, but {' '.join(str(error).split())[:200]}") from None
    if dtype.kind not in "fiu":
        raise DataError(f"expected numbers, found an array of {dtype}", offset=file.tell())
    size = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or size != len(data) - file.tell():
        raise DataError(f"expected {size} bytes for shape {shape}, found {len(data) - file.tell()}", offset=file.tell())
    array = np.frombuffer(data, dtype, math.prod(shape), file.tell())
    return array.reshape(shape, order="F" if in_columns else "C")
