"""Rows as readers parse them, put together into one array or into batches of equal size."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kmeans.arrays import Float32, Float64, as_float32, check_finite
from kmeans.errors import DataError
from kmeans.narrowing import Narrowing

# Changes rows (n, d) in place, or raises a DataError that names one of them, from 1.
Prepare = Callable[[Float32], None]

# Bytes of a batch: it should stay in cache until it is used.
BATCH_BYTES = 2 << 20


@dataclass(frozen=True, slots=True)
class ParsedRows:
    """Rows that were parsed at once.

    Attributes
    ----------
    vectors
        Numbers of any type and layout, (n, d). Often a view of the reader's buffer: valid until the next rows are
        asked for.
    numbers
        The number of each row in the file or request, for errors.
    """

    vectors: NDArray[Any]
    numbers: Sequence[int]

    def points(self) -> Float32:
        """Return the rows as float32 (n, d), C-contiguous, without a copy where they are that already.

        Raises
        ------
        DataError
            If a number is NaN, infinite or too large.
        """
        points: Float32 = self.vectors
        flags = points.flags
        if points.dtype != np.float32 or not (flags.c_contiguous and flags.aligned):
            with np.errstate(over="ignore", invalid="ignore"):
                points = np.require(self.vectors, np.float32, ["C_CONTIGUOUS", "ALIGNED"])
        try:
            check_finite(points)
        except DataError as error:
            raise self._located(error, 0) from None
        return points

    def wide_points(self) -> Float64:
        """Return the rows as float64 (n, d); errors are those of ``points()``."""
        points: Float64 = np.require(self.vectors, np.float64, ["C_CONTIGUOUS", "ALIGNED"])
        try:
            check_finite(as_float32(points))
        except DataError as error:
            raise self._located(error, 0) from None
        return points

    def write(
        self, points: Float32, first: int, prepare: Prepare | None, narrowing: Narrowing | None, labels: int
    ) -> None:
        """Write the rows from ``first`` on into ``points`` (m, d), as many as fit.

        ``prepare`` and ``narrowing`` then change all but the first ``labels`` columns. Errors are those of
        ``points()``, of ``prepare`` and of ``narrowing``, with the number of the row.
        """
        rows = self.vectors[first : first + len(points)]
        with np.errstate(over="ignore", invalid="ignore"):
            points[...] = rows
        try:
            check_finite(points)
            if prepare is not None:
                prepare(points[:, labels:])
            if narrowing is not None:
                with _behind(labels):
                    narrowing.narrow(rows[:, labels:], points[:, labels:])
        except DataError as error:
            raise self._located(error, first) from None

    def _located(self, error: DataError, first: int) -> DataError:
        """Return ``error``, whose row counts from ``first``, with the row's number."""
        if error.row is not None:
            error.row = self.numbers[first + error.row - 1]
        return error


def joined(parsed: Iterable[ParsedRows]) -> Float32:
    """Return all rows as one array (n, d); ``parsed`` isn't empty."""
    parts = [rows.points() for rows in parsed]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def joined_wide(parsed: Iterable[ParsedRows]) -> Float64:
    """Return the same as :func:`joined`, float64."""
    parts = [rows.wide_points() for rows in parsed]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def equal_batches(
    parsed: Iterable[ParsedRows],
    prepare: Prepare | None = None,
    narrowing: Narrowing | None = None,
    count_labels: Callable[[int], int] = lambda _: 0,
) -> Iterator[Float32]:
    """Yield all rows, which have one width, in batches (b, d) of about BATCH_BYTES; the last one may be smaller.

    All batches are in the same memory: each is valid until the next one is asked for.

    Parameters
    ----------
    prepare
        Changes the rows in the batch, some at a time.
    narrowing
        Gives the rows coordinates, which it chooses when the first batch is full.
    count_labels
        Is called once, with the number of columns; returns how many of the first columns are labels, which neither
        ``prepare`` nor ``narrowing`` changes. Its errors are raised.

    Raises
    ------
    DataError
        If a number is NaN, infinite or too large, and what ``parsed``, ``prepare`` and ``narrowing`` raise; with the
        number of the row.
    """
    batch, filled = np.empty((0, 0), dtype=np.float32), 0
    labels: int | None = None
    for some in parsed:
        rows, columns = some.vectors.shape
        if labels is None:
            labels = count_labels(columns)
        if not rows:
            yield some.points()  # says nothing but the width
        elif not len(batch):
            batch = np.empty((max(1, BATCH_BYTES // (4 * columns)), columns), dtype=np.float32)
        done = 0
        while done < rows:
            room = batch[filled : filled + rows - done]
            some.write(room, done, prepare, narrowing, labels)
            done += len(room)
            filled += len(room)
            if filled == len(batch):
                _settle(narrowing, labels)
                yield batch
                filled = 0
    if filled:
        _settle(narrowing, labels or 0)
        yield batch[:filled]


def _settle(narrowing: Narrowing | None, labels: int) -> None:
    if narrowing is not None:
        with _behind(labels):
            narrowing.settle()


@contextmanager
def _behind(labels: int) -> Iterator[None]:
    """Shift the column of an error from that of a row without its labels to that of the whole row."""
    try:
        yield
    except DataError as error:
        error.column = (error.column or 1) + labels
        raise
