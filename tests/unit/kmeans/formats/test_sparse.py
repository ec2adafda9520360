from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kmeans.errors import DataError
from kmeans.formats import sparse
from kmeans.formats.sparse import DenseRows


def keys(*numbers: int) -> Any:
    return np.array(numbers, dtype=np.int64)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_values_stand_at_their_keys_and_zeros_elsewhere(dtype: Any) -> None:
    row = DenseRows(100, None).fill(keys(3, 0), np.array([7, 5], dtype=dtype), 5)
    assert row.dtype == np.float32
    assert row.tolist() == [5, 0, 0, 7, 0]


def test_no_keys_are_a_row_of_zeros() -> None:
    assert DenseRows(0, None).fill(keys(), np.empty(0), 3).tolist() == [0, 0, 0]


def test_another_width_than_the_expected_one_is_refused() -> None:
    rows = DenseRows(100, features=4)
    assert rows.fill(keys(1), np.ones(1), 4).tolist() == [0, 1, 0, 0]
    with pytest.raises(DataError, match="expected a sparse vector of width 4, found 5"):
        rows.fill(keys(1), np.ones(1), 5)


@pytest.mark.parametrize("number", [-1, 5, 2**62])
def test_a_key_outside_of_the_width_is_refused(number: int) -> None:
    with pytest.raises(DataError, match="keys from 0 to 4"):
        DenseRows(100, None).fill(keys(0, number), np.ones(2), 5)


def test_keys_and_values_must_be_equally_many() -> None:
    with pytest.raises(DataError, match="as many keys as values, found 2 and 3"):
        DenseRows(100, None).fill(keys(0, 1), np.ones(3), 5)


@pytest.mark.parametrize("width", [0, -1, -(2**40)])
def test_a_width_below_one_is_refused(width: int) -> None:
    with pytest.raises(DataError, match=f"width {width}"):
        DenseRows(100, None).fill(keys(), np.empty(0), width)


def test_rows_may_grow_in_proportion_to_their_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse, "FREE_BYTES", 400)
    monkeypatch.setattr(sparse, "MAX_GROWTH", 2)
    rows = DenseRows(100, None)  # 600 bytes, three rows of 50 float32
    for _ in range(3):
        rows.fill(keys(0), np.ones(1), 50)
    with pytest.raises(DataError, match=r"more than 2 times their size\. Reduce the number of columns"):
        rows.fill(keys(0), np.ones(1), 1)


def test_a_value_beyond_float32_becomes_infinite_without_a_warning() -> None:
    assert DenseRows(100, None).fill(keys(1), np.array([1e300]), 2).tolist() == [0, np.inf]
