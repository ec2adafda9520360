"""RecordIO-protobuf: SageMaker's format for training data (``application/x-recordio-protobuf``).

A file is a row of frames, and each frame holds one ``Record`` message::

    frame    u32 magic 0xCED7230A | u32 length (low 29 bits) and part flag (top 3) | payload | zeros to a multiple of 4
    Record   1 features: map<string, Value>   2 label: map<string, Value>   3 uid   4 metadata   5 configuration
    Value    2 float32_tensor   3 float64_tensor   7 int32_tensor   9 bytes
    Tensor   1 values (packed)   2 keys (packed uint64; present: sparse)   3 shape (packed uint64)

(SageMaker developer guide, "Common Data Formats for Training"; dmlc-core's ``recordio.h``; protobuf's encoding guide.)

Reading relies on what writers do: thousands of records of equal size in a row, equal in every byte but the values. The
first record of such a run is parsed, the others are compared with it in one NumPy operation, and the values are copied
out as a column range of a two-dimensional view. Records that are unlike their neighbours are parsed one by one.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kmeans.arrays import Float32, Float64, check_finite
from kmeans.errors import DataError

MAGIC = 0xCED7230A
MAGIC_BYTES = struct.pack("<I", MAGIC)
VECTOR_KEY = b"values"

# Fields of the messages above.
RECORD_FEATURES = 1
ENTRY_KEY, ENTRY_VALUE = 1, 2
VALUE_FLOAT32, VALUE_FLOAT64, VALUE_INT32 = 2, 3, 7
TENSOR_VALUES, TENSOR_KEYS, TENSOR_SHAPE = 1, 2, 3

# Wire types of protobuf.
VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5

WHOLE, FIRST_PART, LAST_PART = 0, 1, 3
_HEADER = struct.Struct("<II")
_DTYPES: dict[int, np.dtype[Any]] = {VALUE_FLOAT32: np.dtype("<f4"), VALUE_FLOAT64: np.dtype("<f8")}
_LENGTH_BITS = 29

# Rows of a run compared and copied at once; bounds temporary memory.
_RUN_BLOCK_ROWS = 4096


def decode(data: bytes) -> Float32:
    """Return the feature vectors of a file or body as float32 (n, d). Labels and all other fields are passed over.

    Raises
    ------
    DataError
        If the bytes are no RecordIO-protobuf, end within a record, hold a record without a dense vector under the key
        ``values``, vectors of two widths, NaN or infinity. The error names the record, from 1, and its byte.
    """
    parts: list[Float32] = []
    rows = position = 0
    while position < len(data):
        try:
            points, position = _next_run(data, position)
            expected = parts[0].shape[1] if parts else points.shape[1]
            if points.shape[1] != expected:
                raise DataError(f"expected {expected} values as in the records before, found {points.shape[1]}", row=1)
            check_finite(points)
        except DataError as error:
            error.row = rows + (error.row or 1)
            raise
        parts.append(points)
        rows += len(points)
    if not parts:
        raise DataError("expected RecordIO records, found none", hint="Is the file or the request empty?")
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def encode(points: Float32) -> bytes:
    """Return ``points`` (n, d) as RecordIO-protobuf, dense float32, equal to the bit to what SageMaker's SDK writes.

    Examples
    --------
    >>> decode(encode(np.array([[1.5, 2.5]], dtype=np.float32))).tolist()
    [[1.5, 2.5]]
    """
    values = np.ascontiguousarray(points, dtype="<f4")
    if values.ndim != 2 or values.shape[1] == 0:
        raise DataError(f"expected points of shape (n, d) with d >= 1, found an array of shape {values.shape}")
    width = 4 * values.shape[1]
    # From the inside out: each message is the head of the next, and all of them end with the values.
    tensor = _tag(TENSOR_VALUES) + _varint(width)
    value = _tag(VALUE_FLOAT32) + _varint(len(tensor) + width) + tensor
    key = _tag(ENTRY_KEY) + _varint(len(VECTOR_KEY)) + VECTOR_KEY
    entry = key + _tag(ENTRY_VALUE) + _varint(len(value) + width) + value
    record = _tag(RECORD_FEATURES) + _varint(len(entry) + width) + entry
    length = len(record) + width
    head = _HEADER.pack(MAGIC, length) + record
    frames = np.zeros((len(values), 8 + _padded(length)), dtype=np.uint8)
    frames[:, : len(head)] = np.frombuffer(head, np.uint8)
    frames[:, len(head) : len(head) + width] = values.view(np.uint8).reshape(len(values), width)
    return frames.tobytes()


def looks_like(start: bytes) -> bool:
    """Tell whether ``start``, the first bytes of some file, are those of a RecordIO file."""
    return start[:4] == MAGIC_BYTES


@dataclass(frozen=True, slots=True)
class _Frame:
    """One record: ``payload`` is its message, which lies at ``start`` of the file (if it is in one piece)."""

    payload: bytes
    start: int
    next: int
    whole: bool


@dataclass(frozen=True, slots=True)
class _Vector:
    """A feature vector; ``span`` is where its values lie within the payload, if they lie there in one piece."""

    values: Float32
    span: tuple[int, int] | None
    dtype: np.dtype[Any] | None


def _next_run(data: bytes, position: int) -> tuple[Float32, int]:
    """Return the vectors of the record at ``position`` and of all that follow and are built alike, and what is next."""
    frame = _read_frame(data, position)
    try:
        vector = _read_record(frame.payload)
    except DataError as error:
        error.offset = frame.start + (error.offset or 0)
        raise
    one = vector.values[None, :]
    if vector.span is None or vector.dtype is None or not frame.whole:
        return one, frame.next
    stride = frame.next - position
    candidates = (len(data) - position) // stride
    if candidates < 2:
        return one, frame.next
    records = np.frombuffer(data, np.uint8, candidates * stride, position).reshape(candidates, stride)
    first, last = (8 + edge for edge in vector.span)
    free = [(8 + start, 8 + stop) for start, stop in _free_spans(frame.payload)]
    found: list[Float32] = []
    for begin in range(0, candidates, _RUN_BLOCK_ROWS):
        block = records[begin : begin + _RUN_BLOCK_ROWS]
        alike = _alike(block, records[0], free)
        found.append(np.ascontiguousarray(block[:alike, first:last]).view(vector.dtype).astype(np.float32, copy=False))
        if alike < len(block):
            break
    points = found[0] if len(found) == 1 else np.concatenate(found)
    return points, position + len(points) * stride


def _alike(block: NDArray[np.uint8], model: NDArray[np.uint8], free: list[tuple[int, int]]) -> int:
    """Return how many rows at the start of ``block`` equal ``model`` in all bytes outside the ``free`` spans."""
    equal = np.ones(len(block), dtype=bool)
    edges = [0, *(edge for span in free for edge in span), len(model)]
    for start, stop in zip(edges[::2], edges[1::2], strict=True):
        equal &= (block[:, start:stop] == model[start:stop]).all(axis=1)
    return len(block) if equal.all() else int(equal.argmin())


def _read_frame(data: bytes, position: int) -> _Frame:
    """Read the record at ``position``; one that was cut at magic numbers is put together again."""
    start = position
    parts: list[bytes] = []
    while True:
        if len(data) - position < _HEADER.size:
            raise DataError(
                f"the data ends within a record's header: expected 8 bytes, found {len(data) - position}",
                offset=position,
                hint="Was the file cut off?",
            )
        magic, flagged = _HEADER.unpack_from(data, position)
        if magic != MAGIC:
            raise DataError(
                f"expected RecordIO's magic number {MAGIC:#x}, found {magic:#x}",
                offset=position,
                hint="Is this RecordIO-protobuf? Set the channel's content type to what it is.",
            )
        part, length = flagged >> _LENGTH_BITS, flagged & ((1 << _LENGTH_BITS) - 1)
        if (part in (WHOLE, FIRST_PART)) != (not parts) or part > LAST_PART:
            raise DataError(f"found part {part} of a divided record out of order", offset=position + 4)
        position += _HEADER.size
        if len(data) - position < length:
            raise DataError(
                f"the data ends within a record: expected {length} bytes, found {len(data) - position}",
                offset=position,
                hint="Was the file cut off?",
            )
        parts.append(data[position : position + length])
        position = min(position + _padded(length), len(data))
        if part in (WHOLE, LAST_PART):
            return _Frame(MAGIC_BYTES.join(parts), start + _HEADER.size, position, part == WHOLE)


def _read_record(payload: bytes) -> _Vector:
    """Return the dense vector under the key ``values`` of a Record's features."""
    vector = None
    for number, wire, start, stop in _fields(payload, 0, len(payload)):
        if number == RECORD_FEATURES and wire == LENGTH:
            key, value = b"", (stop, stop)
            for inner, inner_wire, inner_start, inner_stop in _fields(payload, start, stop):
                if inner == ENTRY_KEY and inner_wire == LENGTH:
                    key = payload[inner_start:inner_stop]
                elif inner == ENTRY_VALUE and inner_wire == LENGTH:
                    value = (inner_start, inner_stop)
            if key == VECTOR_KEY:
                vector = _read_value(payload, *value)
    if vector is None:
        raise DataError("expected a vector under the key 'values' of the record's features, found none", offset=0)
    return vector


def _read_value(payload: bytes, start: int, stop: int) -> _Vector:
    tensor = None
    for number, wire, inner_start, inner_stop in _fields(payload, start, stop):
        if wire == LENGTH and number in (VALUE_FLOAT32, VALUE_FLOAT64, VALUE_INT32):
            tensor = _read_tensor(payload, number, inner_start, inner_stop)
    if tensor is None:
        raise DataError("expected a tensor of float32, float64 or int32, found none", offset=start)
    return tensor


def _read_tensor(payload: bytes, kind: int, start: int, stop: int) -> _Vector:
    spans: list[tuple[int, int]] = []
    unpacked: list[int] = []
    sparse = False
    for number, wire, inner_start, inner_stop in _fields(payload, start, stop):
        if number == TENSOR_VALUES:
            spans.append((inner_start, inner_stop))
            unpacked.append(wire)
        sparse |= number == TENSOR_KEYS or (number == TENSOR_SHAPE and not spans)
    if sparse:
        raise DataError(
            "expected a dense vector, found a sparse one", offset=start, hint="Write the rows as dense float32 vectors."
        )
    if kind == VALUE_INT32:
        values = _read_integers(payload, spans)
    else:
        packed = b"".join(payload[first:last] for first, last in spans)
        if len(packed) % _DTYPES[kind].itemsize:
            raise DataError(f"found {len(packed)} bytes of values, no multiple of their size", offset=start)
        values = np.frombuffer(packed, _DTYPES[kind])
    if not len(values):
        raise DataError("expected at least one value in the vector, found none", offset=start)
    plain = len(spans) == 1 and unpacked == [LENGTH] and kind in _DTYPES
    with np.errstate(over="ignore"):
        as_float32 = values.astype(np.float32)
    return _Vector(as_float32, spans[0] if plain else None, _DTYPES.get(kind))


def _read_integers(payload: bytes, spans: list[tuple[int, int]]) -> Float64:
    numbers = []
    for start, stop in spans:
        position = start
        while position < stop:
            number, position = _read_varint(payload, position, stop)
            numbers.append(number - (1 << 64) if number >> 63 else number)
    return np.array(numbers, dtype=np.float64)


def _free_spans(payload: bytes) -> list[tuple[int, int]]:
    """Return the parts of a record that may differ within a run: the vector's values, and all fields but the features.

    Everything else (tags, lengths, keys) fixes the layout and must be equal.
    """
    spans = []
    for number, wire, start, stop in _fields(payload, 0, len(payload)):
        if number == RECORD_FEATURES and wire == LENGTH:
            vector = _read_record(payload).span
            if vector is not None and start <= vector[0] <= stop:
                spans.append(vector)
        elif wire == LENGTH:
            spans.append((start, stop))
    return spans


def _fields(data: bytes, position: int, stop: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield (number, wire type, start, stop of the content) for each field of the message at data[position:stop]."""
    while position < stop:
        begin = position
        tag, position = _read_varint(data, position, stop)
        number, wire = tag >> 3, tag & 7
        if wire == VARINT:
            start, (_, position) = position, _read_varint(data, position, stop)
        elif wire == LENGTH:
            length, start = _read_varint(data, position, stop)
            position = start + length
        elif wire in (FIXED64, FIXED32):
            start, position = position, position + (8 if wire == FIXED64 else 4)
        else:
            raise DataError(f"found an unknown protobuf wire type {wire}", offset=begin)
        if position > stop:
            raise DataError(f"a protobuf field reaches {position - stop} bytes beyond its message", offset=begin)
        yield number, wire, start, position


def _read_varint(data: bytes, position: int, stop: int) -> tuple[int, int]:
    number = shift = 0
    begin = position
    while position < stop and shift < 70:
        byte = data[position]
        number |= (byte & 0x7F) << shift
        position += 1
        if byte < 0x80:
            return number & 0xFFFFFFFFFFFFFFFF, position
        shift += 7
    raise DataError("found a number that doesn't end where its message does", offset=begin)


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _tag(number: int) -> bytes:
    return _varint(number << 3 | LENGTH)


def _padded(length: int) -> int:
    return (length + 3) // 4 * 4
