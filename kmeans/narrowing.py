"""Narrow rows to float32 while they are read, in coordinates that keep differences.

The coordinates are chosen from the first rows and checked against a sample of all rows at the end of the first pass. If
the sample needs others - a column is constant at first, say - the rows are read again where that is possible; where it
isn't, a warning names the column. All hosts have the same coordinates.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kmeans.arrays import MAX_MAGNITUDE, Float32, Float64, is_in_range
from kmeans.collectives import Collectives, SingleHost
from kmeans.coordinates import IDENTITY, Coordinates, coarse_columns, measure, sample_rows
from kmeans.errors import DataError

# The rows are read again with other coordinates at most this many times.
MAX_RESTARTS = 2


class Narrowing:
    """Chooses the coordinates of a data set, and gives rows these coordinates.

    Each host calls :meth:`end_pass` at the end of the same passes, also if it had no rows; and, if it had some, the
    readers call :meth:`settle` at the end of their first batch.

    Parameters
    ----------
    hosts
        Those that read the data set.
    divides
        Whether each host reads other rows; else all read the same.
    restarts
        How many times the rows may be read again.
    coordinates
        Fixed ones, as those of other data; None to choose them.

    Attributes
    ----------
    coordinates
        Those chosen so far.
    is_settled
        Whether they are chosen.
    warnings
        Sentences about columns of which float32 doesn't keep the differences; on the leader.
    """

    def __init__(
        self,
        hosts: Collectives | None = None,
        *,
        divides: bool = False,
        restarts: int = MAX_RESTARTS,
        coordinates: Coordinates | None = None,
    ) -> None:
        self.coordinates = coordinates or IDENTITY
        self.is_settled = coordinates is not None
        self.warnings: list[str] = []
        self._hosts = hosts or SingleHost()
        self._divides = divides and self._hosts.size > 1
        self._restarts = restarts
        self._is_watching = not self.is_settled
        self._parts: list[NDArray[Any]] = []
        self._pending: list[tuple[NDArray[Any], Float32]] = []
        self._taken = self._seen = self._next = self._settled_after = 0
        self._step = 1
        self._was_float32 = True
        self._largest = 0.0

    @property
    def is_idle(self) -> bool:
        """Whether rows only need to be converted to float32."""
        return self.is_settled and not self._is_watching and self.coordinates.is_identity

    def narrow(self, rows: NDArray[Any], points: Float32) -> None:
        """Write the coordinates of ``rows`` (n, d), which come next, into ``points`` (n, d), which hold the rows.

        Before the coordinates are chosen, the rows are remembered: :meth:`settle` writes their coordinates.

        Raises
        ------
        DataError
            If float32 doesn't hold them, and they can't be read again.
        """
        self._sample_some(rows)
        if self.is_settled:
            self._write(rows, points)
        else:
            self._pending.append((rows.copy(), points))

    def _sample_some(self, rows: NDArray[Any]) -> None:
        """Take some of the ``rows`` (n, d), which come next, into the sample."""
        # Rows of another width are refused later.
        if not self._is_watching or (self._parts and rows.shape[1] != self._parts[0].shape[1]):
            return
        first = self._next - self._seen
        self._seen += len(rows)
        if first >= len(rows):
            return
        limit = sample_rows(rows.shape[1])
        if self._divides:
            limit = max(1, limit // self._hosts.size)
        while not self._parts and len(rows) > 2 * limit * self._step:
            self._step *= 2
        taken = rows[first :: self._step]
        self._next += len(taken) * self._step
        self._was_float32 = self._was_float32 and rows.dtype == np.float32
        self._parts.append(taken.copy())
        self._taken += len(taken)
        while self._taken > 2 * limit:
            self._parts = [np.concatenate(self._parts)[::2]]
            self._taken, self._step = len(self._parts[0]), 2 * self._step
            self._next = self._taken * self._step

    def settle(self) -> None:
        """Choose the coordinates, and give them to the rows that came before; do nothing if they are chosen.

        Raises
        ------
        DataError
            As :meth:`narrow`.
        """
        if self.is_settled:
            return
        self._choose()
        self._settled_after = self._seen
        pending, self._pending = self._pending, []
        for rows, points in pending:
            self._write(rows, points)

    def _write(self, rows: NDArray[Any], points: Float32) -> None:
        if self.coordinates.is_identity or self.coordinates.features not in (None, rows.shape[1]):
            return
        points[...] = self.coordinates.narrow(rows)
        if self.coordinates.scale <= 1 or is_in_range(points):
            return
        if self._is_watching and self._restarts:
            self._largest = max(self._largest, float(np.abs(self.coordinates.of(rows)).max()))
            points[...] = 0  # until they are read again
            return
        row, column = (int(index) for index in np.argwhere(~(np.abs(points) <= MAX_MAGNITUDE))[0])
        limit = MAX_MAGNITUDE / self.coordinates.scale
        raise DataError(
            f"expected a number within +-{limit:.3g}, as the first rows are that small, found {rows[row, column]:g}",
            row=row + 1,
            column=column + 1,
            hint="Use File mode, or bring the columns to one scale.",
        )

    def end_pass(self) -> bool:
        """Check the coordinates; return whether the rows must be read again."""
        if not self._is_watching:
            return False
        if not self.is_settled:
            self._choose()  # this host had no rows, and others wait for it
        before = self.coordinates
        is_new = self._seen > self._settled_after or self._largest > 0
        if self._hosts.any(is_new):
            self._choose()
        is_changed = not self.coordinates.equals(before)
        if is_changed and not self._restarts:
            self._warn_of_change(before)
            self.coordinates, is_changed = before, False
        self._restarts -= is_changed
        self._is_watching = is_changed
        self._begin_pass()
        return is_changed

    def _begin_pass(self) -> None:
        self._parts = []
        self._taken = self._seen = self._next = self._settled_after = 0
        self._step = 1
        self._was_float32 = True
        self._largest = 0.0

    def _sample(self) -> Float64:
        return np.concatenate(self._parts, dtype=np.float64) if self._parts else np.empty((0, 0))

    def _choose(self) -> None:
        """Choose, on the leader and for all, the coordinates that the sample needs."""
        sample, largest, was_float32 = self._gathered()
        if self._hosts.rank == 0:
            measured = measure(sample, self.coordinates, largest=largest)
            self.coordinates = measured.coordinates
            self.warnings = [_lost(column) for column in measured.lost]
            if was_float32:
                self.warnings += [_was_lost(column, step) for column, step in coarse_columns(sample).items()]
        self.is_settled = True
        if self._hosts.size > 1:
            offset = self.coordinates.offset
            message = np.concatenate([[self.coordinates.scale], np.empty(0) if offset is None else offset])
            scale, *received = self._hosts.broadcast(message).tolist()
            self.coordinates = Coordinates(np.array(received) if received else None, scale)

    def _warn_of_change(self, before: Coordinates) -> None:
        """Warn of columns that show their need for other coordinates too late."""
        old, new = before.offset, self.coordinates.offset
        if new is None or (old is not None and np.array_equal(old, new)):
            return
        changed = np.flatnonzero(new != (0.0 if old is None else old)).tolist()
        self.warnings += [_late(column, float(new[column])) for column in changed]

    def _gathered(self) -> tuple[Float64, float, bool]:
        """Return all hosts' sample, its largest coordinate, and if it was float32."""
        sample = self._sample()
        if not self._divides:
            return sample, self._largest, self._was_float32
        shapes = self._hosts.gather(np.array([[*sample.shape, self._largest, float(self._was_float32)]]))
        values = self._hosts.gather(sample.reshape(-1, 1)).ravel()
        widths = {int(width) for rows, width, *_ in shapes.tolist() if rows}
        if len(widths) != 1:  # none, or an error that is found where the rows are
            return np.empty((0, 0)), 0.0, False
        return values.reshape(-1, *widths), float(shapes[:, 2].max()), bool(shapes[:, 3].all())


def _lost(column: int) -> str:
    return (
        f"column {column + 1}: many of its values differ by less than float32 tells apart, and these differences are "
        "lost. Are there rows far from the others, or two quantities in one column?"
    )


def _was_lost(column: int, step: float) -> str:
    return (
        f"column {column + 1}: its values came as float32, which has steps of {step:g} at their size, and any smaller "
        "differences are lost. Send the column as float64, or subtract a constant from it first."
    )


def _late(column: int, value: float) -> str:
    return (
        f"column {column + 1}: its values near {value:g} differ by little compared with their size, which the first "
        "rows don't show, so some differences are lost. Use File mode, or subtract a constant from the column."
    )
