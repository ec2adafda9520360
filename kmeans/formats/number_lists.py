"""JSON lists of numbers to arrays, without a Python object for each number: several times as fast.

Requests of any other shape - nested, sparse, with ids, not JSON - are left to the readers that know all shapes and
report what is wrong.
"""

from __future__ import annotations

import numpy as np
import simdjson

from kmeans.arrays import Float32, Float64, is_in_range

# pysimdjson raises these for text that isn't JSON, a number beyond 64 bits, and a list of other things than numbers.
REFUSALS = (ValueError, RuntimeError, TypeError)


def read_points(text: bytes) -> Float32 | None:
    """Return the same as :func:`read_numbers`, float32."""
    numbers = read_numbers(text)
    return None if numbers is None else numbers.astype(np.float32)


def read_numbers(text: bytes) -> Float64 | None:
    """Return the rows of a JSON text, (n, d); None if it has another shape or a number is out of range.

    Numbers in range don't become infinite as float32. The shapes are ``[[1, 2], ...]``, ``[{"features": [1, 2]}, ...]``
    and ``{"instances": ...}`` with one of these.
    """
    try:
        request = simdjson.Parser().parse(text)
        rows = request if isinstance(request, simdjson.Array) else _only(request, "instances")
        if rows is None or not _is_flat(text, rows):
            return None
        lists = [row if isinstance(row, simdjson.Array) else _only(row, "features") for row in rows]
        vectors = [numbers for numbers in lists if numbers is not None]
        widths = {len(vector) for vector in vectors}
        if len(vectors) != len(lists) or len(widths) != 1 or 0 in widths:
            return None
        if isinstance(next(iter(rows)), simdjson.Array):  # all of them, or they have no buffer
            return _in_range(_numbers(rows).reshape(len(rows), *widths))
        if len(vectors) == 1:  # np.stack takes as long as all else here
            return _in_range(_numbers(vectors[0])[None, :])
        return _in_range(np.stack([_numbers(vector) for vector in vectors]))
    except REFUSALS:
        return None


def count_keys(text: bytes, name: str) -> int:
    """Return how many times a JSON object has the key ``name``; 0 for text that pysimdjson doesn't read."""
    try:
        thing = simdjson.Parser().parse(text)
    except REFUSALS:
        return 0
    return list(thing.keys()).count(name) if isinstance(thing, simdjson.Object) else 0


def _only(thing: object, name: str) -> simdjson.Array | None:
    """Return the list of an object whose only key is ``name``; None for anything else."""
    if not isinstance(thing, simdjson.Object) or len(thing) != 1:
        return None
    value = thing.get(name)
    return value if isinstance(value, simdjson.Array) else None


def _is_flat(text: bytes, lists: simdjson.Array) -> bool:
    """Return True if each of ``lists`` is, or has, one list and none in it: their buffer would hide that."""
    return text.count(b"[") == len(lists) + 1


def _numbers(numbers: simdjson.Array) -> Float64:
    return np.frombuffer(numbers.as_buffer(of_type="d"))


def _in_range(numbers: Float64) -> Float64 | None:
    return numbers if numbers.size and is_in_range(numbers) else None
