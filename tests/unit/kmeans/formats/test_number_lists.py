"""The fast way must give what JSON's own meaning gives, or nothing at all."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmeans.formats.number_lists import read_instances, read_table

NUMBERS = st.one_of(
    st.integers(-(2**46), 2**46), st.floats(-1e14, 1e14, allow_nan=False), st.sampled_from([0, -0.0, 1e-400, 5e-324])
)
TABLES = st.integers(1, 7).flatmap(lambda d: st.lists(st.lists(NUMBERS, min_size=d, max_size=d), min_size=1))


@given(TABLES)
def test_numbers_are_those_of_pythons_own_parser(table: list[list[float]]) -> None:
    expected = np.array(json.loads(json.dumps(table)), dtype=np.float64).astype(np.float32)
    for text, read in (
        (json.dumps(table), read_table),
        (json.dumps({"instances": [{"features": row} for row in table]}), read_instances),
    ):
        found = read(text.encode())
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
    assert read_table(rows.encode()) is None
    instances = ", ".join(f'{{"features": {row}}}' for row in _rows(rows))
    assert read_instances(f'{{"instances": [{instances}]}}'.encode()) is None


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
        b'{"instances": [[1]]}',
        b'[{"features": [1]}]',
        b'{"instances": [{"features": 1}]}',
        b'\xff{"instances": [{"features": [1]}]}',
    ],
)
def test_what_has_more_than_features_is_left_to_others(text: bytes) -> None:
    assert read_instances(text) is None


def test_deep_text_is_left_to_others() -> None:
    assert read_table(b"[" * 100_000) is None
    assert read_instances(b'{"instances": ' * 100_000) is None
