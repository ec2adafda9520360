"""JSON requests and answers, in the shapes of the built-in image.

A request is ``{"instances": [instance, ...]}``, or the list alone, and an instance is one of::

    {"features": [1, 2]}
    {"data": {"features": {"values": [1, 2]}}}
    {"data": {"features": {"keys": [0], "shape": [2], "values": [1]}}}      sparse

also a bare ``[1, 2]``, and ``{"data": {"any name": [1, 2]}}``. An ``"id"`` next to them is returned;
``"configuration"`` is ignored. The answer is
``{"predictions": [{"closest_cluster": 1.0, "distance_to_cluster": 3.0}, ...]}``.
(SageMaker developer guide, "K-Means Response Formats" and "Common Data Formats for Inference".)
"""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from kmeans.arrays import Float32, Float64, Int64, as_points, as_wide_points
from kmeans.errors import DataError, shown
from kmeans.formats.format import Format
from kmeans.formats.instances import ID, Instances, Predictions
from kmeans.formats.media_type import JSON
from kmeans.formats.number_lists import count_keys, read_numbers, read_points
from kmeans.formats.payloads import PAYLOAD_CHUNK_BYTES, each_instance, split_instances
from kmeans.formats.sparse import DenseRows

# What an answer begins with, what separates its predictions, and what it ends with.
ENVELOPE = (b'{"predictions": [', b", ", b"]}")

SHAPE = '{"instances": [{"features": [number, ...]}, ...]}'


def decode(data: bytes, features: int | None = None, *, wide: bool = False) -> Instances:
    """Return the points of a request, float32 (n, d), and the ids that came with them.

    Parameters
    ----------
    features
        Width that sparse vectors must have; None for any.
    wide
        Whether the points are float64.

    Raises
    ------
    DataError
        If the bytes aren't JSON or a request of these shapes, hold anything but finite numbers, or rows of two widths.
        Rows number instances from 1, columns their numbers from 1.
    """
    points = read_numbers(data) if wide else read_points(data)
    if points is not None:
        return Instances(points)
    try:
        request = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise DataError(f"expected JSON, but {error}") from None
    # AWS's inference toolkit sends a bare list.
    instances = request.get("instances") if isinstance(request, dict) else request
    # The last one would win, and in a large request, which is read in chunks, some of each. Counting reads it again.
    may_repeat = b"\\" in data or data.count(b'"instances"') > 1
    if isinstance(request, dict) and may_repeat and count_keys(data, "instances") > 1:
        raise DataError('expected one list of instances, found the key "instances" several times')
    if not isinstance(instances, list):
        raise DataError(f"expected a JSON object of the form {SHAPE}, found {_kind(request)}")
    if not instances:
        raise DataError("expected at least one instance, found none")
    sparse = DenseRows(len(data), features, wide=wide)
    vectors = [read_vector(instance, row, sparse) for row, instance in enumerate(instances, start=1)]
    ids = [read_id(instance, row) for row, instance in enumerate(instances, start=1)]
    numbers = table(vectors, data)
    return Instances(as_wide_points(numbers) if wide else as_points(numbers), attach(ids))


def table(
    vectors: list[list[Any] | Float32 | Float64], source: bytes, first_row: int = 1, columns: int = 0
) -> NDArray[Any]:
    """Return ``vectors`` as an array of numbers (n, d).

    Parameters
    ----------
    source
        The text that they were parsed from.
    first_row
        Number of the first of them.
    columns
        Width of the rows before; 0 if there are none.

    Raises
    ------
    DataError
        If a vector is empty, holds anything but numbers, or has another width than those before it.
    """
    expected = columns or len(vectors[0])
    if not expected:
        raise DataError("expected points of shape (n, d) with d >= 1, found a vector without a number", row=first_row)
    try:
        numbers = np.array(vectors)
    except (ValueError, OverflowError):  # rows of several widths, or lists within lists
        numbers = np.empty(0, dtype=object)
    # A bool among numbers would silently become 0 or 1.
    is_sound = numbers.ndim == 2 and numbers.shape[1] == expected and numbers.dtype.kind in "iuf"
    if not is_sound or b"true" in source or b"false" in source:
        for row, vector in enumerate(vectors, start=first_row):
            _check_numbers(vector, row)
            if len(vector) != expected:
                raise DataError(f"expected {expected} numbers as in the rows before, found {len(vector)}", row=row)
        numbers = np.array(vectors, dtype=np.float64)
    return numbers


def read_vector(instance: Any, row: int, sparse: DenseRows) -> list[Any] | Float32 | Float64:
    """Return the vector of a parsed instance, number ``row``: a sparse one made dense, a dense one unchecked.

    Raises
    ------
    DataError
        If the instance has none of the shapes above.
    """
    vector = instance
    if isinstance(vector, dict) and "data" in vector:
        vector = vector["data"]
        if isinstance(vector, dict) and "features" not in vector and len(vector) == 1:
            (vector,) = vector.values()
    if isinstance(vector, dict) and "features" in vector:
        vector = vector["features"]
    if isinstance(vector, dict) and "keys" in vector:
        return _sparse_vector(vector, row, sparse)
    if isinstance(vector, dict):
        vector = vector.get("values")
    if not isinstance(vector, list):
        raise DataError(f'expected {{"features": [number, ...]}}, found {_kind(instance)}', row=row)
    return vector


def read_id(instance: Any, row: int) -> Any:
    """Return the id of a parsed instance, number ``row``; None if it has none.

    Raises
    ------
    DataError
        If it is nested too deeply to be written in an answer.
    """
    value = instance.get(ID) if isinstance(instance, dict) else None
    if isinstance(value, list | dict):
        try:
            orjson.dumps(value)
        except orjson.JSONEncodeError:
            raise DataError("expected an id that isn't nested as deep as this one", row=row) from None
    return value


def attach(ids: list[Any]) -> list[dict[str, Any]] | None:
    """Return the ``attached`` of :class:`Instances` for ``ids``, each an id or None; None if there is no id."""
    if all(value is None for value in ids):
        return None
    return [{} if value is None else {ID: value} for value in ids]


def encode(predictions: Predictions) -> bytes:
    """Return an answer with Python's own number format and spacing, as the built-in image writes it."""
    head, separator, tail = ENVELOPE
    return head + objects(predictions, separator) + tail


def objects(predictions: Predictions, separator: bytes) -> bytes:
    """Return each prediction as a JSON object, with ``separator`` between them."""
    text = predictions.text()
    if text is None:
        return separator.join(
            f'{{"closest_cluster": {_text(label)}, "distance_to_cluster": {_text(distance)}'
            f"{_attachments(attached)}}}".encode()
            for label, distance, attached in predictions.rows()
        )
    # "]" is where a row ends, until the commas within rows are something else.
    pairs = text.replace(b"],[", b"]").replace(b",", b', "distance_to_cluster": ')
    return b'{"closest_cluster": ' + pairs.replace(b"]", b"}" + separator + b'{"closest_cluster": ') + b"}"


def _text(number: float | None) -> str:
    return "null" if number is None else repr(number)


def _attachments(attached: dict[str, Any]) -> str:
    return "".join(f', "{name}": {orjson.dumps(value).decode()}' for name, value in attached.items())


def _sparse_vector(vector: dict[str, Any], row: int, sparse: DenseRows) -> Float32 | Float64:
    keys, shape, values = vector.get("keys"), vector.get("shape"), vector.get("values")
    if not isinstance(keys, list) or not isinstance(values, list) or not isinstance(shape, list) or len(shape) != 1:
        raise DataError('expected {"keys": [...], "shape": [width], "values": [...]}', row=row)
    _check_numbers(values, row)
    try:
        return sparse.fill(_whole_numbers(keys), np.array(values, dtype=np.float64), int(_whole_numbers(shape)[0]))
    except DataError as error:
        error.row = row
        raise


def _whole_numbers(numbers: list[Any]) -> Int64:
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < 1 << 63:
            raise DataError(f"expected whole numbers for keys and shape, found {_kind(number)}")
    return np.array(numbers, dtype=np.int64)


def _check_numbers(vector: list[Any] | Float32 | Float64, row: int) -> None:
    """Raise a DataError for the first thing in ``vector`` that isn't a number."""
    for column, value in enumerate(vector if isinstance(vector, list) else (), start=1):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise DataError(f"expected a number, found {_kind(value)}", row=row, column=column)


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, str):
        return f"the text {shown(value)}"
    if isinstance(value, bool | int | float):
        return str(value).lower()
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return f"an object with {', '.join(map(shown, list(value)[:5])) or 'no keys'}"


FORMAT = Format(
    media_type=JSON,
    name="JSON",
    decode=decode,
    split=split_instances,
    split_rows=each_instance,
    # A chunk may be the whole of a request that doesn't begin with its instances.
    spare_bytes=8 * PAYLOAD_CHUNK_BYTES,
    long_row_hint="Put the instances first, before any other key.",
    encode=encode,
    envelope=ENVELOPE,
    preference=2,
    is_json_document=True,
)
