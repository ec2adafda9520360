"""What the readers of training formats give: pieces of rows, which are put together to one array or to equal blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from kmeans.arrays import Float32, Float64, as_float32, check_finite
from kmeans.errors import DataError

# Changes rows (n, d) in place, or raises a DataError that names one of them, from 1.
Prepare = Callable[[Float32], None]

# Size of the blocks that a stream is read in. They should stay in cache until they are used.
BLOCK_BYTES = 2 << 20


class Narrower(Protocol):
    """Gives rows of a file coordinates (:mod:`kmeans.narrowing`)."""

    @property
    def is_settled(self) -> bool:
        """Whether the coordinates are chosen."""

    def see(self, rows: NDArray[Any]) -> None:
        """Take note of the rows (n, d), which come next."""

    def settle(self) -> bool:
        """Choose the coordinates; return False if the rows keep their own."""

    def write(self, rows: NDArray[Any], points: Float32) -> None:
        """Write the coordinates of ``rows`` (n, d) into ``points`` (n, d)."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows that were read at once.

    Attributes
    ----------
    vectors
        Numbers of any type and layout, (n, d). They may lie in the reader's window, so they are valid until the next
        piece is asked for.
    rows
        The number of each row, for errors.
    """

    vectors: NDArray[Any]
    rows: Sequence[int]

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
        self._check(points, 0)
        return points

    def wide_points(self) -> Float64:
        """Return the rows as float64 (n, d); errors are as of ``points()``."""
        points: Float64 = np.require(self.vectors, np.float64, ["C_CONTIGUOUS", "ALIGNED"])
        self._check(as_float32(points), 0)
        return points

    def write(
        self, points: Float32, first: int, prepare: Prepare | None = None, narrower: Narrower | None = None
    ) -> None:
        """Write the rows from ``first`` on into ``points`` (m, d), as many as fit, and ``prepare`` them there.

        A ``narrower`` gives them coordinates. Errors are as of ``points()``, and those of ``prepare`` and the narrower
        with the number of the row.
        """
        rows = self.vectors[first : first + len(points)]
        with np.errstate(over="ignore", invalid="ignore"):
            points[...] = rows
        self._check(points, first, prepare)
        if narrower is not None:
            narrower.see(rows)
            try:
                narrower.write(rows, points)
            except DataError as error:
                raise self._located(error, first) from None

    def _check(self, points: Float32, first: int, prepare: Prepare | None = None) -> None:
        try:
            check_finite(points)
            if prepare is not None:
                prepare(points)
        except DataError as error:
            raise self._located(error, first) from None

    def _located(self, error: DataError, first: int) -> DataError:
        """Return ``error``, whose row counts from ``first``, with the row's number."""
        if error.row is not None:
            error.row = self.rows[first + error.row - 1]
        return error


def joined(pieces: Iterable[Piece]) -> Float32:
    """Return the rows of all ``pieces``, of which there is at least one, as one array (n, d)."""
    parts = [piece.points() for piece in pieces]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def joined_wide(pieces: Iterable[Piece]) -> Float64:
    """Return the same as :func:`joined`, float64."""
    parts = [piece.wide_points() for piece in pieces]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def in_equal_blocks(
    pieces: Iterable[Piece], prepare: Prepare | None = None, narrower: Narrower | None = None
) -> Iterator[Float32]:
    """Yield the rows of ``pieces``, all of one width, in blocks (b, d) of about BLOCK_BYTES; the last may be smaller.

    All blocks lie in the same memory: each is valid until the next one is asked for. ``prepare`` may change the rows
    there, some at a time; the errors that it raises get the number that a row has in the file. A ``narrower`` gives the
    rows coordinates, which it chooses when the first block is full.
    """
    block, filled = np.empty((0, 0), dtype=np.float32), 0
    unsettled = _Unsettled(narrower)
    for piece in pieces:
        rows, columns = piece.vectors.shape
        if not rows:
            yield piece.points()  # says nothing but the width
        elif not len(block):
            block = np.empty((max(1, BLOCK_BYTES // (4 * columns)), columns), dtype=np.float32)
        done = 0
        while done < rows:
            room = block[filled : filled + rows - done]
            piece.write(room, done, prepare, narrower)
            unsettled.keep(piece.vectors[done : done + len(room)])
            done += len(room)
            filled += len(room)
            if filled == len(block):
                unsettled.settle(block)
                yield block
                filled = 0
    if filled:
        unsettled.settle(block)
        yield block[:filled]


class _Unsettled:
    """The rows of a first block until their coordinates are chosen."""

    def __init__(self, narrower: Narrower | None) -> None:
        self._narrower = None if narrower is None or narrower.is_settled else narrower
        self._parts: list[NDArray[Any]] = []

    def keep(self, rows: NDArray[Any]) -> None:
        """Keep a copy of the rows (n, d), which come next in the block."""
        if self._narrower is not None:
            self._parts.append(rows.copy())

    def settle(self, block: Float32) -> None:
        """Choose the coordinates, and give them to the rows in ``block`` (b, d)."""
        if self._narrower is None:
            return
        if self._narrower.settle():
            begin = 0
            for rows in self._parts:
                self._narrower.write(rows, block[begin : begin + len(rows)])
                begin += len(rows)
        self._narrower, self._parts = None, []
