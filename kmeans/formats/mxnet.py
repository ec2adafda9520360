"""MXNet's NDArray list: the format of ``model_algo-1``, the built-in image's model file.

All integers little-endian (layout taken from files that MXNet 1.9.1 wrote)::

    u64 0x112            list magic
    u64 0                reserved
    u64 1                number of arrays
    u32 0xF993FAC9       NDArray version 2 (0xF993FACA: version 3, the same fields)
    i32 0                storage: dense
    u32 ndim, i64 x ndim shape
    i32 1, i32 0         device: cpu, number 0
    i32                  dtype: 0 float32, 1 float64
    values               row-major
    u64 0                number of names

MXNet itself is neither needed nor wanted: it has had no release since 2022 and doesn't run with today's NumPy.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from kmeans.arrays import Float32, as_float32
from kmeans.errors import DataError

LIST_MAGIC = 0x112
ARRAY_MAGICS = (0xF993FAC9, 0xF993FACA)
DTYPES: dict[int, np.dtype[Any]] = {0: np.dtype("<f4"), 1: np.dtype("<f8")}
DENSE, CPU = 0, 1

_LIST = struct.Struct("<QQQ")
_ARRAY = struct.Struct("<IiI")
_TYPE = struct.Struct("<iii")
_COUNT = struct.Struct("<Q")


def encode(array: Float32) -> bytes:
    """Return ``array`` (k, d) as the bytes of a list that holds this one array, float32."""
    return b"".join(
        (
            _LIST.pack(LIST_MAGIC, 0, 1),
            _ARRAY.pack(ARRAY_MAGICS[0], DENSE, array.ndim),
            struct.pack(f"<{array.ndim}q", *array.shape),
            _TYPE.pack(CPU, 0, 0),
            np.ascontiguousarray(array, dtype="<f4").tobytes(),
            _COUNT.pack(0),
        )
    )


def decode(data: bytes) -> Float32:
    """Return the one array (k, d) of a list as float32.

    Raises
    ------
    DataError
        If the bytes aren't such a list, hold more than one array, another number of dimensions or another type, or
        end early.
    """
    reader = _Reader(data)
    magic, _, arrays = reader.take(_LIST, "the list's header")
    if magic != LIST_MAGIC:
        raise DataError(f"expected an MXNet NDArray list (magic 0x112), found {magic:#x}", offset=0)
    if arrays != 1:
        raise DataError(f"expected one array of centers, found {arrays}", offset=16)
    magic, storage, dimensions = reader.take(_ARRAY, "the array's header")
    if magic not in ARRAY_MAGICS:
        raise DataError(f"expected an NDArray of version 2 or 3, found magic {magic:#x}", offset=24)
    if storage != DENSE:
        raise DataError("expected a dense array, found a sparse one", offset=28)
    if dimensions != 2:
        raise DataError(f"expected centers of shape (k, d), found {dimensions} dimensions", offset=32)
    rows, columns = reader.take(struct.Struct("<qq"), "the shape")
    _, _, code = reader.take(_TYPE, "the type")
    if code not in DTYPES:
        raise DataError(f"expected float32 or float64 values, found type code {code}", offset=reader.position - 4)
    if rows < 1 or columns < 1:
        raise DataError(f"expected at least one center, found shape ({rows}, {columns})", offset=36)
    size = rows * columns * DTYPES[code].itemsize
    if size > len(data) - reader.position:
        raise DataError(
            f"expected {size} bytes of values for shape ({rows}, {columns}), found {len(data) - reader.position}",
            offset=reader.position,
        )
    values = np.frombuffer(data, DTYPES[code], rows * columns, reader.position)
    reader.position += size
    reader.take(_COUNT, "the number of names")
    return as_float32(values.reshape(rows, columns))


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self.position = 0

    def take(self, layout: struct.Struct, what: str) -> tuple[int, ...]:
        if len(self._data) - self.position < layout.size:
            raise DataError(f"the file ends within {what}", offset=len(self._data))
        fields: tuple[int, ...] = layout.unpack_from(self._data, self.position)
        self.position += layout.size
        return fields
