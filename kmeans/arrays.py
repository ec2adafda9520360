"""The arrays that travel through the house, named by what they hold.

``n`` points, ``d`` features, ``k`` clusters. Points and centers are float32, sums float64, counts int64.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kmeans.errors import DataError

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

FINITE_BLOCK_ROWS = 4096  # bounds the memory that the search for a NaN takes


def as_points(array: ArrayLike, dimensions: int | None = None) -> Float32:
    """Return ``array`` as C-contiguous float32 of shape (n, d), without a copy where it is that already.

    Raises
    ------
    DataError
        If it isn't two-dimensional, has no columns, has another width than ``dimensions``, or holds NaN or infinity.
    """
    wide = np.asarray(array)
    if wide.ndim != 2 or wide.shape[1] == 0:
        raise DataError(f"expected points of shape (n, d) with d >= 1, found an array of shape {wide.shape}")
    if dimensions is not None and wide.shape[1] != dimensions:
        raise DataError(f"expected {dimensions} columns, found {wide.shape[1]}")
    with np.errstate(over="ignore"):  # what overflows float32 becomes infinite, and is reported below
        points = np.ascontiguousarray(wide, dtype=np.float32)
    check_finite(points)
    return points


def check_finite(points: Float32) -> None:
    """Raise a DataError that names the first row and column of NaN or infinity in ``points`` (n, d)."""
    for first, block in in_blocks(points, FINITE_BLOCK_ROWS):
        # A sum is finite unless a term isn't (or it overflows, which the exact look below tells apart).
        with np.errstate(over="ignore", invalid="ignore"):
            suspicious = not np.isfinite(np.add.reduce(block, axis=None))
        if suspicious and not (finite := np.isfinite(block)).all():
            row, column = np.argwhere(~finite)[0]
            found = "NaN" if np.isnan(block[row, column]) else "an infinite value or one beyond float32"
            raise DataError(
                f"expected a finite number, found {found}",
                row=first + int(row) + 1,
                column=int(column) + 1,
                hint="Drop or fill such rows.",
            )


def in_blocks(points: NDArray[Any], rows: int) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield (first row, view of at most ``rows`` rows), in order."""
    for first in range(0, len(points), rows):
        yield first, points[first : first + rows]
