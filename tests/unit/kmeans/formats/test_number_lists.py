"""The fast way must give what JSON's own meaning gives, or nothing at all."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmeans.formats.number_lists import read_points

NUMBERS = st.one_of(
    st.integers(-(2**46), 2**46), st.floats(-1e14, 1e14, allow_nan=False), st.sampled_from([0, -0.0, 1e-400, 5e-324])
)
TABLES = st.integers(1, 7).flatmap(lambda d: st.lists(st.lists(NUMBERS, min_size=d, max_size=d), min_size=1))


@given(TABLES)
def test_numbers_are_those_of_pythons_own_parser(table: list[list[float]]) -> None:
    expected = np.array(json.loads(json.dumps(table)), dtype=np.float64).astype(np.float32)
    objects = [{"features": row} for row in table]
    for shape in (table, objects, {"instances": table}, {"instances": objects}):
        found = read_points(json.dumps(shape).encode())
        assert found is not None
        assert found.dtype == np.float32
        assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    "rows",
    [
        "[]",
        "[[]]",
        "[[1, 2], [3]]",
        "[[1, [2]], [3, 4]]",
        "[[[1, 2]], [[3, 4]]]",
        "[[1, 2], 3]",
        "[1, 2]",
        "[[1, true]]",
        "[[1, null]]",
        '[[1, "2"]]',
        '[[1, {"a": 2}]]',
        "[[1e39]]",
        "[[1e400]]",
        "[[18446744073709551616]]",
        "[[01]]",
        "[[1, 2]",
        "[[NaN]]",
        "7",
        "",
        '"[["',
    ],
)
def test_what_is_no_table_of_finite_numbers_is_left_to_others(rows: str) -> None:
    instances = ", ".join(f'{{"features": {row}}}' for row in _rows(rows))
    for text in (rows, f"[{instances}]"):
        assert read_points(text.encode()) is None
        assert read_points(f'{{"instances": {text}}}'.encode()) is None


def _rows(rows: str) -> list[str]:
    """The parts of a list as text; the text itself if it is none."""
    try:
        parsed = json.loads(rows)
    except ValueError:
        return [rows]
    return [json.dumps(row) for row in parsed] if isinstance(parsed, list) else [rows]


@pytest.mark.parametrize(
    "text",
    [
        b'{"instances": [{"features": [1], "id": 7}]}',
        b'{"instances": [{"features": [1], "features": [2]}]}',
        b'{"instances": [{"features": [1]}], "configuration": {}}',
        b'{"instances": [{"data": {"features": {"values": [1]}}}]}',
        b'{"instances": {"features": [1]}}',
        b'{"instances": [{"Features": [1]}]}',
        b'[[1], {"features": [2]}]',
        b'[{"features": [1]}, [2, 3]]',
        b'[{"features": [[1]]}]',
        b'[[1], {"features": [[2]]}, {}]',
        b'{"features": [1]}',
        b'[{"instances": [[1]]}]',
        b'{"instances": [{"features": 1}]}',
        b'\xff{"instances": [{"features": [1]}]}',
    ],
)
def test_what_has_more_than_features_is_left_to_others(text: bytes) -> None:
    assert read_points(text) is None


def test_deep_text_is_left_to_others() -> None:
    assert read_points(b"[" * 100_000) is None
    assert read_points(b'{"instances": ' * 100_000) is None
