"""JSON requests and answers, in the shapes of the built-in image.

Request: ``{"instances": [{"features": [1, 2]}, ...]}``; an instance may also be
``{"data": {"features": {"values": [1, 2]}}}``. Answer:
``{"predictions": [{"closest_cluster": 1.0, "distance_to_cluster": 3.0}, ...]}``.
(SageMaker developer guide, "K-Means Response Formats" and "Common Data Formats for Inference".)
"""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson

from kmeans.arrays import Float32, Float64, Int64, as_points
from kmeans.errors import DataError, shown

SHAPE = '{"instances": [{"features": [number, ...]}, ...]}'


def decode(data: bytes) -> Float32:
    """Return the points of a request as float32 (n, d).

    Raises
    ------
    DataError
        If the bytes are no JSON, not of the request's shape, hold anything but finite numbers, or rows of two widths.
        Rows count instances from 1, columns their numbers from 1.
    """
    try:
        request = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise DataError(f"expected JSON, but {error}") from None
    instances = request.get("instances") if isinstance(request, dict) else None
    if not isinstance(instances, list):
        raise DataError(f"expected a JSON object of the form {SHAPE}, found {_kind(request)}")
    if not instances:
        raise DataError("expected at least one instance, found an empty list")
    vectors = [_vector(instance, row) for row, instance in enumerate(instances, start=1)]
    try:
        numbers = np.array(vectors)
    except (ValueError, OverflowError):  # rows of several widths, or lists within lists
        numbers = np.empty(0, dtype=object)
    # A bool among numbers would become 0 or 1 without a word.
    if numbers.ndim != 2 or numbers.dtype.kind not in "iuf" or b"true" in data or b"false" in data:
        _check_vectors(vectors)
        numbers = np.array(vectors, dtype=np.float64)
    return as_points(numbers)


def encode(labels: Float64 | Int64, distances: Float64) -> bytes:
    """Return an answer with Python's own number format and spacing, as the built-in image writes it."""
    predictions = ", ".join(
        f'{{"closest_cluster": {label!r}, "distance_to_cluster": {distance!r}}}'
        for label, distance in zip(labels.tolist(), distances.tolist(), strict=True)
    )
    return f'{{"predictions": [{predictions}]}}'.encode()


def _vector(instance: Any, row: int) -> list[Any]:
    vector = instance
    if isinstance(vector, dict) and "data" in vector:
        vector = vector["data"]
    if isinstance(vector, dict) and "features" in vector:
        vector = vector["features"]
    if isinstance(vector, dict) and "keys" not in vector:
        vector = vector.get("values")
    if not isinstance(vector, list):
        raise DataError(f'expected {{"features": [number, ...]}}, found {_kind(instance)}', row=row)
    return vector


def _check_vectors(vectors: list[list[Any]]) -> None:
    """Raise a DataError for the first thing in ``vectors`` that isn't a number, or the first row of another width."""
    for row, vector in enumerate(vectors, start=1):
        for column, value in enumerate(vector, start=1):
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise DataError(f"expected a number, found {_kind(value)}", row=row, column=column)
        if len(vector) != len(vectors[0]):
            raise DataError(f"expected {len(vectors[0])} numbers as in the rows before, found {len(vector)}", row=row)


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
