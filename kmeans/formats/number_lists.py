"""JSON lists of numbers as arrays, without an object of Python for each number: three to five times as fast.

What isn't just so - nested, sparse, with ids, no JSON at all - is left to readers that know more, and know what is
wrong.
"""

from __future__ import annotations

import numpy as np
import simdjson

from kmeans.arrays import MAX_MAGNITUDE, Float32, Float64

# What pysimdjson raises for text that is no JSON, a number beyond 64 bits, and a list of other things than numbers.
_REFUSALS = (ValueError, RuntimeError, TypeError)


def read_table(text: bytes) -> Float32 | None:
    """Return ``[[1, 2], [3, 4], ...]`` as an array (n, d), None if it is anything else or a number isn't finite."""
    try:
        table = simdjson.Parser().parse(text)
        if not isinstance(table, simdjson.Array) or not _is_flat(text, table):
            return None
        lengths = {len(row) if isinstance(row, simdjson.Array) else 0 for row in table}
        if len(lengths) != 1 or 0 in lengths:
            return None
        return _finite(_numbers(table).reshape(len(table), *lengths))
    except _REFUSALS:
        return None


def read_instances(text: bytes) -> Float32 | None:
    """Return ``{"instances": [{"features": [1, 2]}, ...]}`` as an array (n, d), None if it is anything else."""
    try:
        request = simdjson.Parser().parse(text)
        instances = _only(request, "instances")
        if instances is None or not _is_flat(text, instances):
            return None
        lists = [_only(instance, "features") for instance in instances]
        vectors = [_numbers(numbers) for numbers in lists if numbers is not None]
    except _REFUSALS:
        return None
    if not vectors or len(vectors) != len(lists) or {len(vector) for vector in vectors} != {len(vectors[0])}:
        return None
    return _finite(np.stack(vectors))


def count_keys(text: bytes, name: str) -> int:
    """Return how many times a JSON object has the key ``name``; 0 for what pysimdjson doesn't read."""
    try:
        thing = simdjson.Parser().parse(text)
    except _REFUSALS:
        return 0
    return list(thing.keys()).count(name) if isinstance(thing, simdjson.Object) else 0


def _only(thing: object, name: str) -> simdjson.Array | None:
    """Return the list that an object has under ``name`` and nothing besides; None if it is no such object."""
    if not isinstance(thing, simdjson.Object) or len(thing) != 1:
        return None
    value = thing.get(name)
    return value if isinstance(value, simdjson.Array) else None


def _is_flat(text: bytes, lists: simdjson.Array) -> bool:
    """Tell whether no list lies within one of the ``lists``: their buffer would hide that."""
    return text.count(b"[") == len(lists) + 1


def _numbers(numbers: simdjson.Array) -> Float64:
    return np.frombuffer(numbers.as_buffer(of_type="d"))


def _finite(numbers: Float64) -> Float32 | None:
    with np.errstate(over="ignore"):  # becomes infinite, and that is found below
        points = numbers.astype(np.float32)
    # NaN can't be: JSON has none.
    return points if points.size and -MAX_MAGNITUDE <= points.min() <= points.max() <= MAX_MAGNITUDE else None
