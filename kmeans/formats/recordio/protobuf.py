"""Protobuf's wire format, as much of it as SageMaker's ``Record`` needs (protobuf's encoding guide).

A message is a row of fields, each a tag (number and wire type) and its content. Unknown fields are passed over by their
wire type, so messages of later versions can be read.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from kmeans.arrays import Int64
from kmeans.errors import DataError

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
        If the bytes are no message; the error has the offset in ``data``.
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
    """Return the number at ``position`` (unsigned, 64 bits) and the position behind it."""
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


def read_varints(data: bytes, start: int, stop: int) -> Int64:
    """Return the packed numbers at ``data[start:stop]`` as int64 (negative ones are ten bytes long)."""
    encoded = np.frombuffer(data, np.uint8, stop - start, start)
    ends = np.flatnonzero(encoded < 0x80) + 1
    if len(encoded) and (not len(ends) or ends[-1] != len(encoded)):
        raise DataError("found a number that doesn't end where its message does", offset=start)
    begins = np.concatenate([[0], ends[:-1]]) if len(ends) else ends
    lengths = ends - begins
    if len(lengths) and lengths.max() > MAX_VARINT_BYTES:
        raise DataError(f"found a number of more than {MAX_VARINT_BYTES} bytes", offset=start)
    numbers = np.zeros(len(ends), dtype=np.uint64)
    for byte in range(int(lengths.max(initial=0))):
        longer = lengths > byte
        numbers[longer] |= (encoded[begins[longer] + byte] & np.uint8(0x7F)).astype(np.uint64) << np.uint64(7 * byte)
    return numbers.view(np.int64)


def varint(number: int) -> bytes:
    """Return ``number`` as the wire has it; a negative one takes ten bytes."""
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
