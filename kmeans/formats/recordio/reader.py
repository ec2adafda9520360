"""RecordIO-protobuf to arrays.

Reading relies on what writers do: thousands of records of equal size in a row, equal in every byte but the values. The
first record of such a run is parsed, the others are compared with it in one NumPy operation, and the values are copied
out as a column range of a two-dimensional view. Records that are unlike their neighbours are parsed one by one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kmeans.arrays import Float32, Int64, as_float32, check_finite
from kmeans.errors import DataError
from kmeans.formats.instances import METADATA, UID, Instances
from kmeans.formats.recordio.layout import (
    ENTRY_KEY,
    ENTRY_VALUE,
    FIRST_PART,
    HEADER,
    LAST_PART,
    LENGTH_BITS,
    MAGIC,
    MAGIC_BYTES,
    RECORD_FEATURES,
    RECORD_METADATA,
    RECORD_UID,
    TENSOR_KEYS,
    TENSOR_SHAPE,
    TENSOR_VALUES,
    VALUE_FLOAT32,
    VALUE_FLOAT64,
    VALUE_INT32,
    VECTOR_KEY,
    WHOLE,
)
from kmeans.formats.recordio.protobuf import FIXED32, FIXED64, LENGTH, VARINT, Field, fields, read_varints
from kmeans.formats.sparse import DenseRows

DTYPES: dict[int, np.dtype[Any]] = {VALUE_FLOAT32: np.dtype("<f4"), VALUE_FLOAT64: np.dtype("<f8")}

# Wire types of values that are not packed.
UNPACKED = {VALUE_FLOAT32: FIXED32, VALUE_FLOAT64: FIXED64, VALUE_INT32: VARINT}

TEXT_FIELDS = {RECORD_UID: UID, RECORD_METADATA: METADATA}

# The first block of a run is small, because a run may be short; the following ones are larger and larger.
_FIRST_BLOCK_ROWS, _MAX_BLOCK_ROWS = 16, 4096


def decode(data: bytes, features: int | None = None) -> Float32:
    """Return the feature vectors of a file or body as float32 (n, d); sparse ones are filled up with zeros.

    Labels, uids and metadata are passed over; :func:`decode_instances` keeps the latter two.

    Parameters
    ----------
    features
        Width that each vector must have; None takes that of the first.

    Raises
    ------
    DataError
        If the bytes are no RecordIO-protobuf, end within a record, hold a record without a vector under the key
        ``values``, vectors of two widths, NaN or infinity. The error names the record, from 1, and its byte.
    """
    return _decode(data, features, keep_text=False).points


def decode_instances(data: bytes, features: int | None = None) -> Instances:
    """Return the feature vectors as :func:`decode` does, with each record's uid and metadata attached.

    Raises
    ------
    DataError
        As :func:`decode`.
    """
    return _decode(data, features, keep_text=True)


def looks_like(start: bytes) -> bool:
    """Tell whether ``start``, the first bytes of some file, are those of a RecordIO file."""
    return start[:4] == MAGIC_BYTES


@dataclass(frozen=True, slots=True)
class _Frame:
    """One record: ``payload`` is its message, which lies at ``start`` of the file (if it is in one piece)."""

    payload: bytes
    start: int
    next: int
    is_whole: bool


@dataclass(slots=True)
class _Tensor:
    """Fields of a tensor: spans of bytes in the payload, and whether each values field is packed."""

    kind: int
    values: list[Field]
    keys: list[Field]
    shape: list[Field]

    @property
    def is_sparse(self) -> bool:
        """With keys a tensor is sparse; with a shape alone it is a sparse vector of zeros."""
        return bool(self.keys) or (bool(self.shape) and not self.values)


@dataclass(slots=True)
class _Run:
    """Records read at once: their vectors, and their uids and metadata if wanted and there."""

    points: Float32
    texts: list[dict[str, str]]


def _decode(data: bytes, features: int | None, *, keep_text: bool) -> Instances:
    runs: list[_Run] = []
    rows = position = 0
    sparse = DenseRows(len(data), features)
    while position < len(data):
        try:
            frame = _read_frame(data, position)
            run = _read_run(data, position, frame, sparse, keep_text=keep_text)
            features = features or run.points.shape[1]
            if run.points.shape[1] != features:
                raise DataError(
                    f"expected {features} values{' as in the records before' if rows else ''}, "
                    f"found {run.points.shape[1]}",
                    row=1,
                )
            check_finite(run.points)
        except DataError as error:
            error.row = rows + (error.row or 1)
            raise
        runs.append(run)
        rows += len(run.points)
        position = frame.next if len(run.points) == 1 else position + len(run.points) * (frame.next - position)
    if not runs:
        raise DataError("expected RecordIO records, found none", hint="Is the file or the request empty?")
    points = runs[0].points if len(runs) == 1 else np.concatenate([run.points for run in runs])
    attached = [record for run in runs for record in run.texts] if keep_text else []
    return Instances(points, attached if any(attached) else None)


def _read_frame(data: bytes, position: int) -> _Frame:
    """Read the record at ``position``; one that was cut at magic numbers is put together again."""
    start = position
    parts: list[bytes] = []
    while True:
        if len(data) - position < HEADER.size:
            raise DataError(
                f"the data ends within a record's header: expected 8 bytes, found {len(data) - position}",
                offset=position,
                hint="Was the file cut off?",
            )
        magic, flagged = HEADER.unpack_from(data, position)
        if magic != MAGIC:
            raise DataError(
                f"expected RecordIO's magic number {MAGIC:#x}, found {magic:#x}",
                offset=position,
                hint="Is this RecordIO-protobuf? Set the content type to what it is.",
            )
        part, length = flagged >> LENGTH_BITS, flagged & ((1 << LENGTH_BITS) - 1)
        if (part in (WHOLE, FIRST_PART)) != (not parts) or part > LAST_PART:
            raise DataError(f"found part {part} of a divided record out of order", offset=position + 4)
        position += HEADER.size
        if len(data) - position < length:
            raise DataError(
                f"the data ends within a record: expected {length} bytes, found {len(data) - position}",
                offset=position,
                hint="Was the file cut off?",
            )
        parts.append(data[position : position + length])
        position = min(position + -(-length // 4) * 4, len(data))
        if part in (WHOLE, LAST_PART):
            return _Frame(MAGIC_BYTES.join(parts), start + HEADER.size, position, part == WHOLE)


def _read_run(data: bytes, position: int, frame: _Frame, sparse: DenseRows, *, keep_text: bool) -> _Run:
    """Read the record at ``position``, which is ``frame``, and what follows it and is built alike."""
    try:
        tensor, texts = _read_record(frame.payload)
        if tensor.is_sparse:
            return _Run(_read_sparse(frame, tensor, sparse)[None, :], [texts])
        return _read_dense_run(data, position, frame, tensor, texts if keep_text else {})
    except DataError as error:  # its offset is one within the record
        error.offset = frame.start + (error.offset or 0)
        raise


def _read_record(payload: bytes) -> tuple[_Tensor, dict[str, str]]:
    """Return the tensor under the key ``values`` of a Record's features, and its uid and metadata."""
    tensor, texts = None, {}
    for field in fields(payload, 0, len(payload)):
        if field.wire != LENGTH:
            continue
        if field.number == RECORD_FEATURES:
            tensor = _read_entry(payload, field) or tensor
        elif field.number in TEXT_FIELDS:
            texts[TEXT_FIELDS[field.number]] = payload[field.start : field.stop].decode("utf-8", "replace")
    if tensor is None:
        raise DataError("expected a vector under the key 'values' of the record's features, found none", offset=0)
    return tensor, texts


def _read_entry(payload: bytes, entry: Field) -> _Tensor | None:
    """Return the tensor of an entry of the features, None if its key is not ``values``."""
    key, value = b"", None
    for field in fields(payload, entry.start, entry.stop):
        if field.wire == LENGTH and field.number == ENTRY_KEY:
            key = payload[field.start : field.stop]
        elif field.wire == LENGTH and field.number == ENTRY_VALUE:
            value = field
    if key != VECTOR_KEY:
        return None
    tensor = None
    for field in fields(payload, value.start, value.stop) if value else ():
        if field.wire == LENGTH and field.number in (VALUE_FLOAT32, VALUE_FLOAT64, VALUE_INT32):
            parts: dict[int, list[Field]] = {TENSOR_VALUES: [], TENSOR_KEYS: [], TENSOR_SHAPE: []}
            for inner in fields(payload, field.start, field.stop):
                unpacked = UNPACKED[field.number] if inner.number == TENSOR_VALUES else VARINT
                if inner.number in parts and inner.wire not in (LENGTH, unpacked):
                    raise DataError(f"found values of wire type {inner.wire} in a tensor", offset=inner.start)
                parts.get(inner.number, []).append(inner)
            tensor = _Tensor(field.number, parts[TENSOR_VALUES], parts[TENSOR_KEYS], parts[TENSOR_SHAPE])
    if tensor is None:
        raise DataError("expected a tensor of float32, float64 or int32, found none", offset=entry.start)
    return tensor


def _read_values(frame: _Frame, tensor: _Tensor) -> NDArray[Any]:
    if tensor.kind == VALUE_INT32:
        return _read_integers(frame.payload, tensor.values)
    dtype = DTYPES[tensor.kind]
    packed = b"".join(frame.payload[field.start : field.stop] for field in tensor.values)
    if len(packed) % dtype.itemsize:
        raise DataError(f"found {len(packed)} bytes of {dtype.name} values", offset=0)
    return np.frombuffer(packed, dtype)


def _read_integers(payload: bytes, parts: list[Field]) -> Int64:
    return np.concatenate([np.zeros(0, np.int64), *(read_varints(payload, part.start, part.stop) for part in parts)])


def _read_sparse(frame: _Frame, tensor: _Tensor, sparse: DenseRows) -> Float32:
    if not tensor.shape:
        raise DataError("expected a shape beside the keys of a sparse vector, found none", offset=0)
    width = math.prod(_read_integers(frame.payload, tensor.shape).tolist())
    keys = _read_integers(frame.payload, tensor.keys)
    try:
        return sparse.fill(keys, _read_values(frame, tensor), width)
    except DataError as error:
        error.offset = 0
        raise


def _read_dense_run(data: bytes, position: int, frame: _Frame, tensor: _Tensor, texts: dict[str, str]) -> _Run:
    """Read the record at ``position`` and, in one piece, all following ones that are built alike."""
    values = _read_values(frame, tensor)
    if not len(values):
        raise DataError("expected at least one value in the vector, found none", offset=0)
    alone = len(tensor.values) == 1 and tensor.values[0].wire == LENGTH and tensor.kind in DTYPES and frame.is_whole
    stride = frame.next - position
    records = np.frombuffer(data, np.uint8, (len(data) - position) // stride * stride if alone else 0, position)
    records = records.reshape(-1, stride)
    if len(records) < 2:
        return _Run(as_float32(values)[None, :], [texts])
    vector = tensor.values[0]
    outer = [field for field in fields(frame.payload, 0, len(frame.payload)) if field.wire == LENGTH]
    # What may differ within a run: the vector's values, and the contents of all fields but the features. Everything
    # else (tags, lengths, keys) fixes the layout and must be equal.
    free = [vector if field.start <= vector.start < field.stop else field for field in outer
            if field.number != RECORD_FEATURES or field.start <= vector.start < field.stop]  # fmt: skip
    run = records[: _alike(records, free)]
    columns = np.ascontiguousarray(run[:, HEADER.size + vector.start : HEADER.size + vector.stop])
    points = as_float32(columns.view(DTYPES[tensor.kind]))
    kept = [field for field in outer if TEXT_FIELDS.get(field.number) in texts]
    return _Run(points, _texts(run, kept))


def _alike(records: NDArray[np.uint8], free: list[Field]) -> int:
    """Return how many rows at the start of ``records`` equal the first in all bytes outside the ``free`` spans."""
    edges = [0, *(HEADER.size + edge for span in free for edge in (span.start, span.stop)), records.shape[1]]
    begin, rows = 0, _FIRST_BLOCK_ROWS
    while begin < len(records):
        block = records[begin : begin + rows]
        equal = np.ones(len(block), dtype=bool)
        for start, stop in zip(edges[::2], edges[1::2], strict=True):
            equal &= (block[:, start:stop] == records[0, start:stop]).all(axis=1)
        if not equal.all():
            return begin + int(equal.argmin())
        begin, rows = begin + len(block), min(4 * rows, _MAX_BLOCK_ROWS)
    return len(records)


def _texts(run: NDArray[np.uint8], kept: list[Field]) -> list[dict[str, str]]:
    """Return uid and metadata of each record of a run; the same empty dictionary for all if there are none."""
    if not kept:
        return [{}] * len(run)
    records = [row.tobytes() for row in run[:, HEADER.size :]]
    return [
        {TEXT_FIELDS[field.number]: record[field.start : field.stop].decode("utf-8", "replace") for field in kept}
        for record in records
    ]
