"""Answers in every format: the same bytes as row by row, and what stands for rows that could not be read."""

import json as standard_json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmeans.formats import csv, json, jsonlines, recordio
from kmeans.formats.instances import Predictions

DISTANCES = st.floats(0, float(np.finfo(np.float32).max), width=32)
ROWS = st.lists(st.tuples(st.integers(0, 10_000), DISTANCES, st.booleans()), min_size=1, max_size=20)


def predictions(rows: list[tuple[int, float, bool]], dtype: Any, *, with_missing: bool) -> Predictions:
    labels, distances, missing = (np.array(column) for column in zip(*rows, strict=True))
    return Predictions(labels.astype(dtype), distances.astype(np.float64), None, missing if with_missing else None)


def shown(value: float | None, missing: str) -> str:
    return missing if value is None else repr(value)


@given(ROWS, st.sampled_from([np.float64, np.int64]), st.booleans())
def test_every_number_is_written_as_python_writes_it(
    rows: list[tuple[int, float, bool]], dtype: Any, with_missing: bool
) -> None:
    found = predictions(rows, dtype, with_missing=with_missing)
    lines = [f"{shown(label, 'nan')},{shown(distance, 'nan')}" for label, distance, _ in found.rows()]
    assert csv.encode(found).decode() == "\n".join(lines)
    objects = [
        f'{{"closest_cluster": {shown(label, "null")}, "distance_to_cluster": {shown(distance, "null")}}}'
        for label, distance, _ in found.rows()
    ]
    assert jsonlines.encode(found).decode() == "\n".join(objects)
    assert json.encode(found).decode() == f'{{"predictions": [{", ".join(objects)}]}}'


@pytest.mark.parametrize("distance", [0.0, 1e-4, 9.9e-5, 1e-45, 1e15, 1e16, 3.4e38, 0.1, 12.5])
def test_numbers_at_the_edges_of_pythons_notation(distance: float) -> None:
    found = Predictions(np.array([3.0]), np.array([distance]))
    assert csv.encode(found) == f"3.0,{distance!r}".encode()


def test_a_row_that_could_not_be_read_is_missing_in_every_format() -> None:
    labels, distances = np.array([1, 2], dtype=np.int64), np.array([0.5, 0.25])
    found = Predictions(labels, distances, None, np.array([False, True]))
    assert csv.encode(found) == b"1,0.5\nnan,nan"
    assert standard_json.loads(json.encode(found))["predictions"][1] == {
        "closest_cluster": None,
        "distance_to_cluster": None,
    }
    whole = recordio.encode_predictions(Predictions(labels, distances))
    written = recordio.encode_predictions(found)
    assert written[: len(whole) // 2] == whole[: len(whole) // 2]
    assert written.count(np.float32(np.nan).tobytes()) == 2


def test_what_was_attached_stays_with_a_row_that_could_not_be_read() -> None:
    found = Predictions(np.array([1.0, 2.0]), np.array([0.5, 0.25]), [{}, {"id": 7}], np.array([False, True]))
    assert standard_json.loads(json.encode(found))["predictions"][1] == {
        "closest_cluster": None,
        "distance_to_cluster": None,
        "id": 7,
    }
