"""Arrays to RecordIO-protobuf: training data for SageMaker, and the answers of an endpoint.

All records of one call have the same layout, so their frames are one template, repeated, and the values are columns of
it. The bytes are equal to those that version 2 of SageMaker's SDK writes (version 3 can't).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kmeans.arrays import Float32
from kmeans.errors import DataError
from kmeans.formats.instances import ID, METADATA, UID, Predictions
from kmeans.formats.recordio.framing import HEADER_BYTES, frame, header, padded
from kmeans.formats.recordio.protobuf import (
    ENTRY_KEY,
    ENTRY_VALUE,
    MAX_VARINT_BYTES,
    RECORD_FEATURES,
    RECORD_LABEL,
    RECORD_METADATA,
    RECORD_UID,
    TENSOR_VALUES,
    VALUE_FLOAT32,
    VALUE_FLOAT64,
    VALUE_INT32,
    VECTOR_KEY,
    delimited,
    varint,
)

# A varint holds 7 bits a byte.
_LONGER_VARINT_FROM = np.array([1 << bits for bits in range(7, 64, 7)], dtype=np.uint64)

# Rows whose frames are made at once where each must be copied to its place.
_BATCH_ROWS = 1024

LABEL_KINDS = {"f4": VALUE_FLOAT32, "f8": VALUE_FLOAT64, "i8": VALUE_INT32}


def encode(points: Float32, labels: NDArray[Any] | None = None) -> bytes:
    """Return ``points`` (n, d) as RecordIO-protobuf, dense float32.

    Parameters
    ----------
    labels
        One number per point, (n,): float32, float64 or int64, stored as such; other types are refused, as in the SDK.

    Raises
    ------
    DataError
        If the shapes don't fit together or the labels are of another type.

    Examples
    --------
    >>> from kmeans.formats import recordio
    >>> recordio.decode(encode(np.array([[1.5, 2.5]], dtype=np.float32))).tolist()
    [[1.5, 2.5]]
    """
    values = np.ascontiguousarray(points, dtype="<f4")
    if values.ndim != 2 or values.shape[1] == 0:
        raise DataError(f"expected points of shape (n, d) with d >= 1, found an array of shape {values.shape}")
    columns = values.view(np.uint8)
    if labels is None:
        return _frames(_entry(RECORD_FEATURES, VECTOR_KEY, VALUE_FLOAT32, columns.shape[1]), [columns], b"").tobytes()
    numbers = np.asarray(labels)
    kind = LABEL_KINDS.get(numbers.dtype.str[1:])
    if numbers.shape != (len(values),) or kind is None:
        raise DataError(
            f"expected {len(values)} labels of float32, float64 or int64, found an array of {numbers.dtype}, "
            f"shape {numbers.shape}"
        )
    if kind == VALUE_INT32:
        return _encode_with_integers(columns, numbers)
    head = _entry(RECORD_FEATURES, VECTOR_KEY, VALUE_FLOAT32, columns.shape[1])
    label = np.ascontiguousarray(numbers[:, None]).astype(numbers.dtype.newbyteorder("<")).view(np.uint8)
    between = _entry(RECORD_LABEL, VECTOR_KEY, kind, label.shape[1])
    return _frames(head, [columns, label], between).tobytes()


def encode_predictions(predictions: Predictions) -> bytes:
    """Return an answer of the built-in image's form: a Record per row with two labels of one float32 each.

    They are ``closest_cluster`` and ``distance_to_cluster``; uid and metadata are returned unchanged, an ``id`` of
    JSON as uid. Those of a row that could not be read are NaN.
    """
    first = _entry(RECORD_LABEL, b"closest_cluster", VALUE_FLOAT32, 4)
    second = _entry(RECORD_LABEL, b"distance_to_cluster", VALUE_FLOAT32, 4)
    values = [values.astype("<f4") for values in (predictions.labels, predictions.distances)]
    if predictions.missing is not None:
        for column in values:
            column[predictions.missing] = np.nan
    columns = [column[:, None].view(np.uint8) for column in values]
    if predictions.attached is None:
        return _frames(first, columns, second).tobytes()
    frames = []
    for row, attached in enumerate(predictions.attached):
        payload = first + columns[0][row].tobytes() + second + columns[1][row].tobytes()
        uid = attached.get(UID, attached.get(ID))
        payload += b"" if uid is None else delimited(RECORD_UID, str(uid).encode())
        payload += delimited(RECORD_METADATA, attached[METADATA].encode()) if METADATA in attached else b""
        frames.append(frame(payload))
    return b"".join(frames)


# Writing the heads, which are always the same, takes longer than the rest of an answer of one row.
@lru_cache(64)
def _entry(field: int, key: bytes, kind: int, size: int) -> bytes:
    """Return the head of a map entry whose tensor ends with ``size`` bytes of values, which follow it."""
    # From the inside out: each message is the head of the next, and all of them end with the values.
    tensor = _open(TENSOR_VALUES, size)
    value = _open(kind, len(tensor) + size) + tensor
    entry = delimited(ENTRY_KEY, key) + _open(ENTRY_VALUE, len(value) + size) + value
    return _open(field, len(entry) + size) + entry


def _open(field: int, length: int) -> bytes:
    """Return the head of a length-delimited field whose content, ``length`` bytes, follows it."""
    return delimited(field, b"")[:-1] + varint(length)


def _frames(head: bytes, columns: list[NDArray[np.uint8]], between: bytes) -> NDArray[np.uint8]:
    """Return frames (n, size): ``head``, the first column, and, if there is a second, ``between`` and that."""
    payload = len(head) + len(between) + sum(column.shape[1] for column in columns)
    frames = np.zeros((len(columns[0]), HEADER_BYTES + padded(payload)), dtype=np.uint8)
    position = 0
    spans: list[bytes | NDArray[np.uint8]] = [header(payload) + head, columns[0], between, *columns[1:]]
    for span in spans:
        content = np.frombuffer(span, np.uint8) if isinstance(span, bytes) else span
        frames[:, position : position + content.shape[-1]] = content
        position += content.shape[-1]
    return frames


def _encode_with_integers(columns: NDArray[np.uint8], labels: NDArray[np.int64]) -> bytes:
    """Encode with varint labels, whose length depends on their value: one template for each length."""
    numbers = labels.astype(np.uint64)
    lengths = 1 + np.searchsorted(_LONGER_VARINT_FROM, numbers, side="right")
    head = _entry(RECORD_FEATURES, VECTOR_KEY, VALUE_FLOAT32, columns.shape[1])
    entries = {length: _entry(RECORD_LABEL, VECTOR_KEY, VALUE_INT32, length) for length in np.unique(lengths).tolist()}
    if len(entries) == 1:
        ((length, entry),) = entries.items()
        return _frames(head, [columns, _varints(numbers, length)], entry).tobytes()
    sizes = np.zeros(MAX_VARINT_BYTES + 1, dtype=np.int64)
    for length, entry in entries.items():
        payload = len(head) + columns.shape[1] + len(entry) + length
        sizes[length] = HEADER_BYTES + padded(payload)
    ends = np.cumsum(sizes[lengths])
    written = np.empty(int(ends[-1]), dtype=np.uint8)
    for length, entry in entries.items():
        chosen = np.flatnonzero(lengths == length)
        for first in range(0, len(chosen), _BATCH_ROWS):
            rows = chosen[first : first + _BATCH_ROWS]
            frames = _frames(head, [columns[rows], _varints(numbers[rows], length)], entry)
            for begin, content in zip((ends[rows] - sizes[length]).tolist(), frames, strict=True):
                written[begin : begin + len(content)] = content
    return written.tobytes()


def _varints(numbers: NDArray[np.uint64], length: int) -> NDArray[np.uint8]:
    """Return ``numbers`` (n,), which all take ``length`` bytes as varints, as these bytes (n, length)."""
    shifts = np.arange(0, 7 * length, 7, dtype=np.uint64)
    encoded = (numbers[:, None] >> shifts & np.uint64(0x7F)).astype(np.uint8)
    encoded[:, :-1] |= 0x80
    return encoded
