"""Estimates the memory of a model from the sizes and headers of its files, before they are read.

:func:`kmeans.artifact.load` holds a file's bytes, unpacks them, converts them to float32 and computes their mean and
spread in float64; :class:`kmeans.model.KMeansModel` keeps the centers three times (unchanged, scaled, and transposed
for the product).
"""

from __future__ import annotations

import contextlib
import lzma
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from numpy.lib import format as npy_format

from kmeans.artifact import CARD_FILE, CENTERS_FILE, PRECISE_FILE
from kmeans.formats import mxnet, npy
from kmeans.model import KMeansModel

# For each value of the centers: while it is read, once as float32, twice as float64, and the check whether float32
# keeps them apart (measured); afterwards, three times as float32.
READING_BYTES, KEPT_BYTES = 22, 12
# In addition as float64 if the model has coordinates.
WIDE_BYTES = 8
# For each byte of kmeans.json: the worst case are empty objects of three characters each (measured).
CARD_GROWTH = 40
# The smallest value of an MXNet list.
LIST_VALUE_BYTES = 4

# Exceptions of NumPy and zipfile for an invalid header.
_BAD_HEADER = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    tokenize.TokenError,
    SyntaxError,
    ValueError,
    TypeError,
    EOFError,
    OSError,
    RuntimeError,
)


@dataclass(frozen=True, slots=True)
class _Centers:
    """Centers in a file: bytes of the unpacked archive member, 0 if the file is not an archive, and values."""

    unpacked: int
    values: int


def while_reading(files: Iterable[Path]) -> int:
    """Return the peak memory in bytes of reading a model from ``files``, those of its directory.

    A file that can't be read, or does not belong to a model, counts little: reading it will fail with a reason.
    """
    by_name = {path.name: path for path in files}
    card = by_name.pop(CARD_FILE, None)
    # Next to model_algo-1 only centers.npy is read. Without it there should be one file, and several are refused.
    names = [name for name in (CENTERS_FILE, PRECISE_FILE) if name in by_name]
    centers = [by_name[name] for name in names] if CENTERS_FILE in by_name else list(by_name.values())
    return CARD_GROWTH * (_size(card) if card else 0) + sum(map(_reading_centers, centers))


def once_read(model: KMeansModel, files: Iterable[Path]) -> int:
    """Return the memory in bytes of ``model``, read from ``files``, while it is loaded."""
    card = sum(_size(path) for path in files if path.name == CARD_FILE)
    wide = 0 if model.coordinates.is_identity else WIDE_BYTES
    return (KEPT_BYTES + wide) * model.clusters * model.features + CARD_GROWTH * card


def _reading_centers(path: Path) -> int:
    try:
        with path.open("rb") as file:
            start = file.read(8)
            file.seek(0)
            centers = _centers(file, start, _size(path), is_list=path.name == CENTERS_FILE)
    except _BAD_HEADER:
        return 0
    return 0 if centers is None else _size(path) + centers.unpacked + READING_BYTES * centers.values


def _centers(file: IO[bytes], start: bytes, size: int, *, is_list: bool) -> _Centers | None:
    if is_list or start == mxnet.LIST_MAGIC.to_bytes(8, "little"):
        return _Centers(0, size // LIST_VALUE_BYTES)
    if start.startswith(npy.MAGIC):
        return _Centers(0, size // _value_bytes(file))
    if start.startswith(npy.ZIP_MAGIC):
        return _in_archive(file, size)
    return None


def _in_archive(file: IO[bytes], size: int) -> _Centers:
    unpacked = values = 0
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        for member in members:
            # Other members are not unpacked, and neither is one that grows more.
            is_wanted = len(members) == 1 or member.filename.removesuffix(".npy") in npy.CENTER_NAMES
            if is_wanted and member.file_size <= npy.MAX_GROWTH * size:
                unpacked = max(unpacked, member.file_size)
                with contextlib.suppress(*_BAD_HEADER), archive.open(member) as array:
                    values = max(values, member.file_size // _value_bytes(array))
    return _Centers(unpacked, values)


def _value_bytes(file: IO[bytes]) -> int:
    """Return the bytes of one value of a .npy file, from its header."""
    version = npy_format.read_magic(file)
    read_header = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
    _, _, dtype = read_header(file)
    return max(1, dtype.itemsize)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
