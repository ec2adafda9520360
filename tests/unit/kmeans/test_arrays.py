from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kmeans.arrays import CHECK_BLOCK_ROWS, MAX_MAGNITUDE, as_points, check_finite, in_blocks, is_in_range
from kmeans.errors import DataError


def test_points_that_are_as_they_should_be_are_not_copied() -> None:
    points = np.ones((3, 2), dtype=np.float32)
    assert as_points(points) is points or np.shares_memory(as_points(points), points)


@pytest.mark.parametrize(
    "array",
    [
        [[1, 2], [3, 4]],
        np.array([[1, 2], [3, 4]]),
        np.array([[1.0, 3.0], [2.0, 4.0]]).T,
        np.array([[1, 2], [3, 4]], "<f2"),
    ],
)
def test_numbers_become_rows_of_float32(array: Any) -> None:
    points = as_points(array)
    assert points.dtype == np.float32
    assert points.flags.c_contiguous
    assert points.tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize("shape", [(), (3,), (3, 0), (2, 2, 2)])
def test_another_shape_is_refused_and_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError) as raised:
        as_points(np.zeros(shape))
    assert str(shape) in str(raised.value)


def test_another_width_is_refused_with_both() -> None:
    with pytest.raises(DataError, match="expected 3 columns, found 2"):
        as_points(np.zeros((4, 2)), dimensions=3)


@pytest.mark.parametrize("row", [0, CHECK_BLOCK_ROWS - 1, CHECK_BLOCK_ROWS, 2 * CHECK_BLOCK_ROWS + 5])
@pytest.mark.parametrize(("value", "found"), [(np.nan, "NaN"), (np.inf, "infinite"), (-np.inf, "infinite")])
def test_the_first_number_that_is_none_is_named(row: int, value: float, found: str) -> None:
    points = np.ones((2 * CHECK_BLOCK_ROWS + 10, 4), dtype=np.float32)
    points[row, 2] = value
    points[row:, 3] = np.nan
    with pytest.raises(DataError, match=found) as raised:
        check_finite(points)
    assert (raised.value.row, raised.value.column) == (row + 1, 3)


def test_infinities_that_cancel_are_found() -> None:
    with pytest.raises(DataError, match="row 1, column 1"):
        check_finite(np.array([[np.inf, -np.inf]], dtype=np.float32))


@pytest.mark.parametrize("sign", [-1, 1])
def test_numbers_whose_squares_could_overflow_are_refused(sign: int) -> None:
    check_finite(np.full((100, 10), sign * MAX_MAGNITUDE, dtype=np.float32))
    points = np.zeros((100, 10), dtype=np.float32)
    points[41, 6] = sign * 2 * MAX_MAGNITUDE
    with pytest.raises(DataError, match=r"row 42, column 7: expected a number within \+-1e\+15, found -?2e\+15"):
        check_finite(points)


@pytest.mark.parametrize("type_", [np.float32, np.float64])
def test_is_in_range_with_large_squares_checks_each_number(type_: type) -> None:
    assert is_in_range(np.empty((0, 3), type_))
    assert is_in_range(np.full((50, 40), -MAX_MAGNITUDE, type_))
    for value in (1.0001 * MAX_MAGNITUDE, -1e30, np.inf, -np.inf, np.nan):
        for rest in (0.0, MAX_MAGNITUDE):
            numbers: NDArray[Any] = np.full((50, 40), rest, type_)
            numbers[7, 3] = value
            assert not is_in_range(numbers)


@pytest.mark.parametrize("value", [1e39, -1e300])
def test_a_number_beyond_float32_is_refused(value: float) -> None:
    with pytest.raises(DataError, match="beyond float32"):
        as_points(np.array([[value]]))


def test_a_signalling_nan_is_refused_as_any_other() -> None:
    with pytest.raises(DataError, match="NaN"):
        as_points(np.frombuffer(struct.pack("<Q", 0x7FF0000000000001), np.float64).reshape(1, 1))


@pytest.mark.parametrize(("n", "rows", "sizes"), [(0, 3, []), (1, 3, [1]), (6, 3, [3, 3]), (7, 3, [3, 3, 1])])
def test_blocks_cover_every_row_in_order(n: int, rows: int, sizes: list[int]) -> None:
    points = np.arange(2 * n).reshape(n, 2)
    blocks = list(in_blocks(points, rows))
    assert [len(block) for _, block in blocks] == sizes
    assert [first for first, _ in blocks] == list(range(0, n, rows))
    assert [row for _, block in blocks for row in block.tolist()] == points.tolist()
