"""JSON Lines: one instance of :mod:`kmeans.formats.json` per line, dense and sparse ones as they come."""

from __future__ import annotations

from typing import Any

import orjson

from kmeans.errors import DataError
from kmeans.formats.instances import Instances, Predictions
from kmeans.formats.json import objects, read_instances


def decode(data: bytes, features: int | None = None) -> Instances:
    """Return the points of all lines, float32 (n, d), and the ids that came with them. Blank lines are skipped.

    Raises
    ------
    DataError
        As :func:`kmeans.formats.json.decode`; rows count the lines that aren't blank, from 1.
    """
    lines = [line for line in data.split(b"\n") if line.strip()]
    if not lines:
        raise DataError("expected a JSON object per line, found none", hint="Is the file or the request empty?")
    return read_instances([_load(line, row) for row, line in enumerate(lines, start=1)], data, features)


def encode(predictions: Predictions) -> bytes:
    """Return a JSON object per row, joined by LF without a final one."""
    return "\n".join(objects(predictions)).encode()


def _load(line: bytes, row: int) -> Any:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise DataError(f"expected a JSON object, but {error}", row=row) from None
