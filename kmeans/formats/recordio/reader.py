"""RecordIO-protobuf to arrays.

Writers write thousands of records one after the other that have the same size and differ only in their values. The
first record of such a run is parsed, the others are compared with it in one NumPy operation, and the values are copied
as a range of columns of a two-dimensional view. Records that are unlike their neighbours are parsed one by one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kmeans.arrays import Float32, Float64, Int64
from kmeans.errors import DataError
from kmeans.formats.batches import ParsedRows, joined, joined_wide
from kmeans.formats.buffer import BUFFER_BYTES, Buffer
from kmeans.formats.instances import METADATA, UID, Instances
from kmeans.formats.recordio.framing import HEADER_BYTES, Frame, read_frame
from kmeans.formats.recordio.protobuf import (
    ENTRY_KEY,
    ENTRY_VALUE,
    FIXED32,
    FIXED64,
    LENGTH,
    RECORD_FEATURES,
    RECORD_METADATA,
    RECORD_UID,
    TENSOR_KEYS,
    TENSOR_SHAPE,
    TENSOR_VALUES,
    VALUE_FLOAT32,
    VALUE_FLOAT64,
    VALUE_INT32,
    VARINT,
    VECTOR_KEY,
    Field,
    fields,
    read_varints,
)
from kmeans.formats.sparse import DenseRows

DTYPES: dict[int, np.dtype[Any]] = {VALUE_FLOAT32: np.dtype("<f4"), VALUE_FLOAT64: np.dtype("<f8")}

# Wire types of values that are not packed.
UNPACKED = {VALUE_FLOAT32: FIXED32, VALUE_FLOAT64: FIXED64, VALUE_INT32: VARINT}

TEXT_FIELDS = {RECORD_UID: UID, RECORD_METADATA: METADATA}

# A vector has one dimension; some writers write (1, n) or (n, 1, 1), which means the same.
MAX_DIMENSIONS = 8

# Rows of a run that are compared at once: first few, because a run may be short, then more and more.
_FIRST_ROWS, _MAX_ROWS = 16, 4096


def decode(data: bytes, features: int | None = None) -> Float32:
    """Return the feature vectors of a file or body as float32 (n, d); sparse ones are made dense.

    Labels, uids and metadata are skipped; :func:`decode_instances` keeps the latter two.

    Parameters
    ----------
    features
        Width that each vector must have; None takes that of the first.

    Raises
    ------
    DataError
        If the bytes aren't RecordIO-protobuf, end within a record, hold a record without a vector under the key
        ``values``, vectors of two widths, NaN or infinity. The error names the record, from 1, and its byte.
    """
    return joined(read_rows(Buffer.over(data), features))


def decode_instances(data: bytes, features: int | None = None, *, wide: bool = False) -> Instances:
    """Return the feature vectors as :func:`decode` does, with each record's uid and metadata attached.

    They are float64 if ``wide``.

    Raises
    ------
    DataError
        As :func:`decode`.
    """
    texts: list[dict[str, str]] = []
    parsed = _read(Buffer.over(data), features, texts, wide=wide)
    points = joined_wide(parsed) if wide else joined(parsed)
    return Instances(points, texts if any(texts) else None)


def read_rows(buffer: Buffer, features: int | None = None, *, wide: bool = False) -> Iterator[ParsedRows]:
    """Yield the feature vectors of ``buffer``, run by run; sparse ones are float64 if ``wide``.

    Raises
    ------
    DataError
        As :func:`decode`, when the reader gets to the record that is wrong.
    """
    buffer.reserve(BUFFER_BYTES)
    return _read(buffer, features, wide=wide)


@dataclass(slots=True)
class _Repeated:
    """A repeated field: in one part if it is packed, else in as many as it has numbers.

    Attributes
    ----------
    packed
        The contents of all parts, one after the other, as one packed part would hold them.
    parts
        How many there are.
    last
        The last one, with its place in the payload.
    """

    packed: bytearray
    parts: int = 0
    last: Field | None = None

    def add(self, payload: bytes, part: Field) -> None:
        """Append the content of ``part``."""
        self.packed += memoryview(payload)[part.start : part.stop]
        self.parts += 1
        self.last = part


@dataclass(slots=True)
class _Tensor:
    """A tensor of one of ``UNPACKED``'s types, yet undecoded."""

    kind: int
    values: _Repeated
    keys: _Repeated
    shape: _Repeated

    @property
    def is_sparse(self) -> bool:
        """With keys a tensor is sparse; with a shape alone it is a sparse vector of zeros."""
        return bool(self.keys.parts) or (bool(self.shape.parts) and not self.values.parts)


@dataclass(slots=True)
class _Run:
    """Records read at once: their vectors (n, d), of their stored type, and uids and metadata if wanted."""

    vectors: NDArray[Any]
    texts: list[dict[str, str]]


def _read(
    buffer: Buffer, features: int | None, texts: list[dict[str, str]] | None = None, *, wide: bool = False
) -> Iterator[ParsedRows]:
    """Yield the vectors of the records, run by run; append uid and metadata of each record to ``texts``."""
    rows, sparse = 0, DenseRows(0, features, wide=wide)
    while buffer.advance(rows + 1):
        sparse.source_bytes = buffer.bytes_seen
        while len(buffer):
            try:
                frame = read_frame(buffer)
                if frame is None:
                    break
                run = _read_run(buffer, frame, sparse, keep_text=texts is not None)
                features = features or run.vectors.shape[1]
                if run.vectors.shape[1] != features:
                    expected = f"expected {features} values{' as in the records before' if rows else ''}"
                    raise DataError(f"{expected}, found {run.vectors.shape[1]}")
            except DataError as error:
                error.row = rows + 1
                raise
            count = len(run.vectors)
            yield ParsedRows(run.vectors, range(rows + 1, rows + 1 + count))
            if texts is not None:
                texts += run.texts
            rows += count
            buffer.start += count * frame.size
    if not rows:
        raise DataError("expected RecordIO records, found none", hint="Is the file or the request empty?")


def _read_run(buffer: Buffer, frame: Frame, sparse: DenseRows, *, keep_text: bool) -> _Run:
    """Read the record at the buffer's start, which is ``frame``, and the records after it that are like it."""
    try:
        tensor, texts = _read_record(frame.payload)
        if tensor.is_sparse:
            return _Run(_read_sparse(tensor, sparse)[None, :], [texts])
        return _read_dense_run(buffer, frame, tensor, texts if keep_text else {})
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
        if field.wire == LENGTH and field.number in UNPACKED:
            tensor = _read_tensor(payload, field)
    if tensor is None:
        raise DataError("expected a tensor of float32, float64 or int32, found none", offset=entry.start)
    return tensor


def _read_tensor(payload: bytes, message: Field) -> _Tensor:
    repeated = {number: _Repeated(bytearray()) for number in (TENSOR_VALUES, TENSOR_KEYS, TENSOR_SHAPE)}
    for field in fields(payload, message.start, message.stop):
        if field.number not in repeated:
            continue
        unpacked = UNPACKED[message.number] if field.number == TENSOR_VALUES else VARINT
        if field.wire not in (LENGTH, unpacked):
            raise DataError(f"found values of wire type {field.wire} in a tensor", offset=field.start)
        repeated[field.number].add(payload, field)
    return _Tensor(message.number, repeated[TENSOR_VALUES], repeated[TENSOR_KEYS], repeated[TENSOR_SHAPE])


def _read_values(tensor: _Tensor) -> NDArray[Any]:
    if tensor.kind == VALUE_INT32:
        return _read_integers(tensor.values)
    dtype, packed = DTYPES[tensor.kind], tensor.values.packed
    if len(packed) % dtype.itemsize:
        raise DataError(f"found {len(packed)} bytes of {dtype.name} values", offset=0)
    return np.frombuffer(packed, dtype)


def _read_integers(repeated: _Repeated) -> Int64:
    try:
        return read_varints(repeated.packed)
    except DataError as error:  # its offset is one within the packed numbers
        error.offset = repeated.last.start if repeated.last and repeated.parts == 1 else 0
        raise


def _read_sparse(tensor: _Tensor, sparse: DenseRows) -> Float32 | Float64:
    if not tensor.shape.parts:
        raise DataError("expected a shape beside the keys of a sparse vector, found none", offset=0)
    shape = _read_integers(tensor.shape)
    if len(shape) > MAX_DIMENSIONS:
        raise DataError(
            f"expected a sparse vector of at most {MAX_DIMENSIONS} dimensions, found {len(shape)}", offset=0
        )
    width = math.prod(shape.tolist())
    keys = _read_integers(tensor.keys)
    try:
        return sparse.fill(keys, _read_values(tensor), width)
    except DataError as error:
        error.offset = 0
        raise


def _read_dense_run(buffer: Buffer, frame: Frame, tensor: _Tensor, texts: dict[str, str]) -> _Run:
    """Read the record at the buffer's start and, at once, all records after it that are like it."""
    values, vector = _read_values(tensor), tensor.values.last
    if not len(values):
        raise DataError("expected at least one value in the vector, found none", offset=0)
    alone = tensor.values.parts == 1 and tensor.kind in DTYPES and frame.is_whole
    rows = len(buffer) // frame.size if alone else 0
    if vector is None or vector.wire != LENGTH or rows < 2:
        return _Run(values[None, :], [texts])
    records = np.frombuffer(buffer.content, np.uint8, rows * frame.size, buffer.start).reshape(rows, frame.size)
    outer = [field for field in fields(frame.payload, 0, len(frame.payload)) if field.wire == LENGTH]
    # In a run, only the vector's values and the contents of all fields but the features may differ. Everything else
    # (tags, lengths, keys) fixes the layout and must be equal.
    free = [vector if field.start <= vector.start < field.stop else field for field in outer
            if field.number != RECORD_FEATURES or field.start <= vector.start < field.stop]  # fmt: skip
    run = records[: _alike(records, free)]
    columns = run[:, HEADER_BYTES + vector.start : HEADER_BYTES + vector.stop]
    kept = [field for field in outer if TEXT_FIELDS.get(field.number) in texts]
    return _Run(columns.view(DTYPES[tensor.kind]), _texts(run, kept))


def _alike(records: NDArray[np.uint8], free: list[Field]) -> int:
    """Return how many rows at the start of ``records`` equal the first in all bytes outside the ``free`` spans."""
    edges = [0, *(HEADER_BYTES + edge for span in free for edge in (span.start, span.stop)), records.shape[1]]
    begin, rows = 0, _FIRST_ROWS
    while begin < len(records):
        batch = records[begin : begin + rows]
        equal = np.ones(len(batch), dtype=bool)
        for start, stop in zip(edges[::2], edges[1::2], strict=True):
            equal &= (batch[:, start:stop] == records[0, start:stop]).all(axis=1)
        if not equal.all():
            return begin + int(equal.argmin())
        begin, rows = begin + len(batch), min(4 * rows, _MAX_ROWS)
    return len(records)


def _texts(run: NDArray[np.uint8], kept: list[Field]) -> list[dict[str, str]]:
    """Return uid and metadata of each record of a run; the same empty dictionary for all if there are none."""
    if not kept:
        return [{}] * len(run)
    records = [row.tobytes() for row in run[:, HEADER_BYTES:]]
    return [
        {TEXT_FIELDS[field.number]: record[field.start : field.stop].decode("utf-8", "replace") for field in kept}
        for record in records
    ]
