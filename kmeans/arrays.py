"""Array types, and checks of arrays.

``n`` points, ``d`` features, ``k`` clusters. Points and centers are float32, sums float64, counts int64.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kmeans.errors import DataError, reason, shortened

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]


class Batch(NamedTuple):
    """Rows, float32 (b, d), and their weights, float64 (b,); None for weights of 1."""

    points: Float32
    weights: Float64 | None = None


# Squares of numbers beyond this, summed over a million columns, leave float32's range.
MAX_MAGNITUDE = 1e15

# Longer names of types are shortened in messages.
MAX_SHOWN = 40

CHECK_BLOCK_ROWS = 4096  # bounds the memory of the search for a faulty value


def as_numbers(values: ArrayLike) -> NDArray[Any]:
    """Return ``values`` as an array of booleans, integers or floats, without a copy where it is one already.

    Raises
    ------
    DataError
        If it holds anything else (texts, objects, complex numbers, dates), masked values, or rows of several lengths.
    """
    try:
        array = np.asarray(values)
    except (ValueError, TypeError, OverflowError) as error:
        is_ragged = "inhomogeneous" in str(error)
        found = "rows of different lengths" if is_ragged else f"what NumPy can't convert ({reason(error)})"
        raise DataError(f"expected an array of numbers, found {found}") from None
    if type(values) is not np.ndarray and np.ma.is_masked(values):
        raise DataError("expected numbers, found masked values", hint="Drop or fill such rows.")
    if array.dtype.kind not in "biuf":
        raise DataError(
            f"expected numbers, found an array of type {shortened(str(array.dtype), MAX_SHOWN)}",
            hint="Convert all columns to numbers first, such as by astype(float).",
        )
    return array


def as_points(array: ArrayLike, dimensions: int | None = None) -> Float32:
    """Return ``array`` as C-contiguous float32 of shape (n, d).

    It isn't copied if it is that already.

    Raises
    ------
    DataError
        If it isn't two-dimensional, has no columns, has a width other than ``dimensions``, or holds NaN, infinity or
        numbers beyond 1e15.
    """
    wide = as_numbers(array)
    _check_shape(wide, dimensions)
    points = as_float32(wide)
    check_finite(points)
    return points


def as_wide_points(array: ArrayLike, dimensions: int | None = None) -> Float64:
    """Return ``array`` as float64 of shape (n, d), with the errors of `as_points`."""
    wide = as_numbers(array)
    _check_shape(wide, dimensions)
    points = np.ascontiguousarray(wide, dtype=np.float64)
    check_wide(points)
    return points


def check_wide(points: Float64) -> None:
    """Raise the DataError of :func:`check_finite` for ``points`` (n, d) as float32."""
    # A value that float32 rounds to 1e15 is in range.
    if not is_in_range(points):
        check_finite(as_float32(points))


def as_float32(array: NDArray[Any]) -> Float32:
    """Return ``array`` as C-contiguous float32.

    Values beyond its range become infinite, without a warning.
    """
    if array.dtype == np.float32 and array.flags.c_contiguous:
        return array
    with np.errstate(over="ignore", invalid="ignore"):
        return np.ascontiguousarray(array, dtype=np.float32)


def check_finite(points: Float32) -> None:
    """Raise a DataError if ``points`` (n, d) has NaN, infinity or huge numbers.

    The error has the row and the column of the first one.
    """
    for first, block in in_blocks(points, CHECK_BLOCK_ROWS):
        if is_in_range(block):
            continue
        row, column = (int(index) for index in np.argwhere(~(np.abs(block) <= MAX_MAGNITUDE))[0])
        value = block[row, column]
        if np.isfinite(value):
            problem = f"expected a number within +-{MAX_MAGNITUDE:g}, found {value:g}"
        else:
            found = "NaN" if np.isnan(value) else "an infinite value or one beyond float32"
            problem = f"expected a finite number, found {found}"
        raise DataError(
            problem,
            row=first + row + 1,
            column=column + 1,
            hint="Drop or fill such rows.",
        )


def _check_shape(array: NDArray[Any], dimensions: int | None) -> None:
    if array.ndim != 2 or array.shape[1] == 0:
        raise DataError(f"expected points of shape (n, d) with d >= 1, found an array of shape {array.shape}")
    if dimensions is not None and array.shape[1] != dimensions:
        raise DataError(f"expected {dimensions} columns, found {array.shape[1]}")


def is_in_range(numbers: NDArray[np.float32] | NDArray[np.float64]) -> bool:
    """Return True if all values are finite and at most 1e15 in magnitude.

    An empty array is in range.
    """
    # No number is larger than the root of the sum of their squares, which is faster than minimum and maximum. These
    # decide if the sum is larger. NaN compares as false.
    if np.vdot(numbers, numbers) <= MAX_MAGNITUDE**2:
        return True
    return bool(numbers.min() >= -MAX_MAGNITUDE and numbers.max() <= MAX_MAGNITUDE)


def in_blocks(points: NDArray[Any], rows: int) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield (first row, view of at most ``rows`` rows), in order."""
    for first in range(0, len(points), rows):
        yield first, points[first : first + rows]
