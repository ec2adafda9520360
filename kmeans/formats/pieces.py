"""What the readers of training formats give: pieces of rows, which are put together to one array or to equal blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kmeans.arrays import Float32, check_finite
from kmeans.errors import DataError

# Changes rows (n, d) in place, or raises a DataError that names one of them, from 1.
Prepare = Callable[[Float32], None]

# Size of the blocks that a stream is read in. They should stay in cache until they are used.
BLOCK_BYTES = 2 << 20


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

    def write(self, points: Float32, first: int, prepare: Prepare | None = None) -> None:
        """Write the rows from ``first`` on into ``points`` (m, d), as many as fit, and ``prepare`` them there.

        Errors are as of ``points()``, and those of ``prepare`` with the number of the row.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            points[...] = self.vectors[first : first + len(points)]
        self._check(points, first, prepare)

    def _check(self, points: Float32, first: int, prepare: Prepare | None = None) -> None:
        try:
            check_finite(points)
            if prepare is not None:
                prepare(points)
        except DataError as error:
            if error.row is not None:
                error.row = self.rows[first + error.row - 1]
            raise


def joined(pieces: Iterable[Piece]) -> Float32:
    """Return the rows of all ``pieces``, of which there is at least one, as one array (n, d)."""
    parts = [piece.points() for piece in pieces]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def in_equal_blocks(pieces: Iterable[Piece], prepare: Prepare | None = None) -> Iterator[Float32]:
    """Yield the rows of ``pieces``, all of one width, in blocks (b, d) of about BLOCK_BYTES; the last may be smaller.

    All blocks lie in the same memory: each is valid until the next one is asked for. ``prepare`` may change the rows
    there, some at a time; the errors that it raises get the number that a row has in the file.
    """
    block, filled = np.empty((0, 0), dtype=np.float32), 0
    for piece in pieces:
        rows, columns = piece.vectors.shape
        if not rows:
            yield piece.points()  # says nothing but the width
        elif not len(block):
            block = np.empty((max(1, BLOCK_BYTES // (4 * columns)), columns), dtype=np.float32)
        done = 0
        while done < rows:
            room = block[filled : filled + rows - done]
            piece.write(room, done, prepare)
            done += len(room)
            filled += len(room)
            if filled == len(block):
                yield block
                filled = 0
    if filled:
        yield block[:filled]
