"""A protobuf and RecordIO writer of a few lines, independent of ours, that can also write what no good writer would."""

from __future__ import annotations

import struct
from collections.abc import Sequence

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
MAGIC = struct.pack("<I", 0xCED7230A)


def varint(number: int) -> bytes:
    number %= 1 << 64
    encoded = b""
    while number > 0x7F:
        encoded += bytes([number % 128 + 128])
        number //= 128
    return encoded + bytes([number])


def tag(number: int, wire: int) -> bytes:
    return varint(number * 8 + wire)


def field(number: int, content: bytes) -> bytes:
    return tag(number, LENGTH) + varint(len(content)) + content


def floats(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


def doubles(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}d", *values)


def varints(*values: int) -> bytes:
    return b"".join(varint(value) for value in values)


def float32_tensor(*values: float) -> bytes:
    return field(2, field(1, floats(*values)))


def float64_tensor(*values: float) -> bytes:
    return field(3, field(1, doubles(*values)))


def int32_tensor(*values: int) -> bytes:
    return field(7, field(1, varints(*values)))


def sparse_tensor(keys: Sequence[int], values: Sequence[float], shape: Sequence[int]) -> bytes:
    """Return a float32 tensor of the fields that aren't empty, as protobuf leaves out empty ones."""
    parts = [field(1, floats(*values)) if values else b""]
    parts += [field(2, varints(*keys)) if keys else b"", field(3, varints(*shape)) if shape else b""]
    return field(2, b"".join(parts))


def entry(number: int, value: bytes, key: bytes = b"values") -> bytes:
    """Return an entry of a map field: 1 for features, 2 for labels."""
    return field(number, field(1, key) + field(2, value))


def record(value: bytes) -> bytes:
    """Return a Record whose features have ``value`` under the key ``values``."""
    return entry(1, value)


def frame(payload: bytes, flag: int = 0) -> bytes:
    return MAGIC + struct.pack("<I", flag << 29 | len(payload)) + payload + bytes(-len(payload) % 4)


def frame_cut_at_magic(payload: bytes) -> bytes:
    """Return a payload's frames as dmlc-core writes them: cut wherever the magic number stands at a multiple of 4."""
    parts, begin = [], 0
    for position in range(0, len(payload) - 3, 4):
        if payload[position : position + 4] == MAGIC:
            parts.append(payload[begin:position])
            begin = position + 4
    parts.append(payload[begin:])
    flags = [0] if len(parts) == 1 else [1, *[2] * (len(parts) - 2), 3]
    return b"".join(frame(part, flag) for part, flag in zip(parts, flags, strict=True))


def file_of(*values: bytes) -> bytes:
    """Return a file of one Record for each of ``values``."""
    return b"".join(frame(record(value)) for value in values)
