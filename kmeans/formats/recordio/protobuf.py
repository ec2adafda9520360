"""Protobuf's wire format, as far as SageMaker's ``Record`` needs it, and the field numbers of ``Record``.

A message is a sequence of fields, each a tag (number and wire type) and its content. Unknown fields are skipped by
their wire type, so messages of later versions can be read. (Protobuf's encoding guide.) The fields::

    Record   1 features: map<string, Value>   2 label: map<string, Value>   3 uid   4 metadata   5 configuration
    entry    1 key   2 value                                          (of either map; the vector's key is "values")
    Value    2 float32_tensor   3 float64_tensor   7 int32_tensor   9 bytes
    Tensor   1 values (packed)   2 keys (packed uint64; present: sparse)   3 shape (packed uint64)

(SageMaker developer guide, "Common Data Formats for Training".)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kmeans.arrays import Int64
from kmeans.errors import DataError

VECTOR_KEY = b"values"
RECORD_FEATURES, RECORD_LABEL, RECORD_UID, RECORD_METADATA = 1, 2, 3, 4
ENTRY_KEY, ENTRY_VALUE = 1, 2
VALUE_FLOAT32, VALUE_FLOAT64, VALUE_INT32 = 2, 3, 7
TENSOR_VALUES, TENSOR_KEYS, TENSOR_SHAPE = 1, 2, 3

# Bytes of packed numbers that are decoded at once: decoding takes forty times their memory.
_CHUNK_BYTES = 64 << 10

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
MAX_VARINT_BYTES = 10


class Field(NamedTuple):
    """One field of a message; its content is ``data[start:stop]``."""

    number: int
    wire: int
    start: int
    stop: int


def fields(data: bytes, start: int, stop: int) -> Iterator[Field]:
    """Yield the fields of the message at ``data[start:stop]``, in order.

    Raises
    ------
    DataError
        If the bytes aren't a message; the error has the offset in ``data``.
    """
    position = start
    while position < stop:
        begin = position
        tag, position = read_varint(data, position, stop)
        number, wire = tag >> 3, tag & 7
        content = position
        if wire == VARINT:
            _, position = read_varint(data, position, stop)
        elif wire == LENGTH:
            length, content = read_varint(data, position, stop)
            position = content + length
        elif wire in (FIXED64, FIXED32):
            position += 8 if wire == FIXED64 else 4
        else:
            raise DataError(f"found an unknown protobuf wire type {wire}", offset=begin)
        if position > stop:
            raise DataError(f"a protobuf field reaches {position - stop} bytes beyond its message", offset=begin)
        yield Field(number, wire, content, position)


def read_varint(data: bytes, position: int, stop: int) -> tuple[int, int]:
    """Return the number at ``position`` (unsigned, 64 bits) and the position after it."""
    number = shift = 0
    begin = position
    while position < stop and shift < 7 * MAX_VARINT_BYTES:
        byte = data[position]
        number |= (byte & 0x7F) << shift
        position += 1
        if byte < 0x80:
            return number & 0xFFFF_FFFF_FFFF_FFFF, position
        shift += 7
    raise DataError("found a number that doesn't end where its message does", offset=begin)


def read_varints(data: bytes | bytearray) -> Int64:
    """Return the packed numbers that are all of ``data`` as int64 (negative ones are ten bytes long)."""
    parts, begin = [np.zeros(0, np.int64)], 0
    while begin < len(data):
        stop = min(begin + _CHUNK_BYTES, len(data))
        # To the end of a number that begins in this chunk; one that is too long ends in an error anyway.
        while stop < len(data) and data[stop - 1] >= 0x80 and stop < begin + _CHUNK_BYTES + MAX_VARINT_BYTES:
            stop += 1
        parts.append(_read_chunk(np.frombuffer(data, np.uint8, stop - begin, begin), begin))
        begin = stop
    return np.concatenate(parts)


def _read_chunk(encoded: NDArray[np.uint8], offset: int) -> Int64:
    ends = np.flatnonzero(encoded < 0x80) + 1
    if not len(ends) or ends[-1] != len(encoded):
        raise DataError("found a number that doesn't end where its message does", offset=offset)
    begins = np.concatenate([[0], ends[:-1]])
    lengths = ends - begins
    if lengths.max() > MAX_VARINT_BYTES:
        raise DataError(f"found a number of more than {MAX_VARINT_BYTES} bytes", offset=offset)
    numbers = np.zeros(len(ends), dtype=np.uint64)
    for byte in range(int(lengths.max())):
        longer = lengths > byte
        numbers[longer] |= (encoded[begins[longer] + byte] & np.uint8(0x7F)).astype(np.uint64) << np.uint64(7 * byte)
    return numbers.view(np.int64)


def varint(number: int) -> bytes:
    """Return ``number`` as a varint; a negative one takes ten bytes."""
    number &= 0xFFFF_FFFF_FFFF_FFFF
    encoded = bytearray()
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def tag(number: int, wire: int) -> bytes:
    """Return the tag of a field."""
    return varint(number << 3 | wire)


def delimited(number: int, content: bytes) -> bytes:
    """Return a field of wire type 2: a string, bytes, or a message."""
    return tag(number, LENGTH) + varint(len(content)) + content
