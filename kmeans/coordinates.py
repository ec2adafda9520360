"""Coordinates in which float32 keeps the differences between rows.

They have an offset for each column, and one scale: ``(x - offset) * scale`` is computed in float64 and then stored as
float32. A column of timestamps near 1.7e9 has steps of 128 in float32, and squares of values near 1e-25 are 0. The
scale is a power of two, so it rounds nothing. Centers, distances and losses are reported in the units of the data. For
other data the coordinates are the identity, and the rows are fitted unchanged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kmeans.arrays import (
    MAX_MAGNITUDE,
    Float32,
    Float64,
    as_float32,
    as_numbers,
    as_wide_points,
    in_blocks,
    is_in_range,
)
from kmeans.callbacks import Callbacks
from kmeans.checkpoint import Checkpoints, State

# Number of rows, and of their values, from which coordinates are chosen.
MIN_SAMPLE_ROWS, MAX_SAMPLE_ROWS, SAMPLE_VALUES = 8, 1024, 1 << 15

# An offset is removed from a column whose values are this many times larger than their range.
FAR = 512.0

# The same for centers: float32 keeps a 4096th of the distances between them.
FAR_CENTERS = 4096.0

# Above this float32 doesn't hold every whole number: a column that seems constant may vary.
WHOLE_NUMBERS = 2.0**24

# Rounding shows in a value if the closest CLOSEST fraction of the sample is within some steps of float32 around it:
# within COARSE_STEPS an offset may help, within LOST_STEPS differences are lost.
CLOSEST, COARSE_STEPS, LOST_STEPS = 1 / 32, 4.0, 1.0

# Fraction of the values in which rounding must show, and the largest fraction of these that may remain with an offset.
SHOWS, GAIN = 0.02, 0.9

# An offset is rounded to float32 if that moves it by at most this number of deviations.
SHORT = 16.0

# Columns whose range is this fraction of the largest don't affect distances.
NEGLIGIBLE = 2.0**-30

# Below this magnitude the squares of differences leave float32's range. The scale stays in float64's.
SMALL, MAX_EXPONENT = 2.0**-32, 900

# Number of steps of float32 that a range must have for float32 to keep the differences.
MIN_STEPS = 64

# Names in the arrays of a checkpoint.
_OFFSET, _SCALE = "offset", "scale"

BLOCK_ROWS = 4096


@dataclass(frozen=True, slots=True, eq=False)
class Coordinates:
    """The coordinates ``(x - offset) * scale``.

    Attributes
    ----------
    offset
        float64 (d,); None for 0 in all columns.
    scale
        A power of two.
    """

    offset: Float64 | None = None
    scale: float = 1.0

    @property
    def is_identity(self) -> bool:
        """Whether the coordinates of points are the points."""
        return self.offset is None and self.scale == 1.0

    @property
    def features(self) -> int | None:
        """Number of columns, d; None if points may have any."""
        return None if self.offset is None else len(self.offset)

    def equals(self, other: Coordinates) -> bool:
        """Return whether ``other`` gives points the same coordinates."""
        if self.offset is None or other.offset is None:
            return self.offset is other.offset and self.scale == other.scale
        return bool(np.array_equal(self.offset, other.offset)) and self.scale == other.scale

    def of(self, points: NDArray[Any]) -> Float64:
        """Return the coordinates of ``points`` (n, d), float64."""
        offset = 0.0 if self.offset is None else self.offset
        moved: Float64 = np.subtract(points, offset, dtype=np.float64)
        moved *= self.scale
        return moved

    def narrow(self, points: NDArray[Any]) -> Float32:
        """Return the coordinates of ``points`` (n, d), float32.

        Values beyond the range of float32 become infinite.
        """
        return as_float32(points if self.is_identity else self.of(points))

    def narrow_centers(self, centers: NDArray[Any]) -> Float32:
        """Return the coordinates of ``centers`` (k, d), float32, clipped to +-1e15."""
        return as_float32(np.clip(self.of(centers), -MAX_MAGNITUDE, MAX_MAGNITUDE))

    def widen(self, points: NDArray[Any]) -> Float64:
        """Return the points (n, d) with the coordinates ``points``, float64."""
        wide = points.astype(np.float64) / self.scale
        return wide if self.offset is None else wide + self.offset

    def then(self, other: Coordinates) -> Coordinates:
        """Return the coordinates that apply these first and then ``other``."""
        offset = self.offset
        if other.offset is not None:
            moved = other.offset / self.scale
            offset = moved if offset is None else offset + moved
        return Coordinates(offset, self.scale * other.scale)

    def squared(self, value: float) -> float:
        """Return a squared distance between coordinates in the units of the points."""
        return value / self.scale / self.scale

    def callbacks(self, callbacks: Callbacks) -> Callbacks:
        """Return callbacks that report losses in the units of the points."""
        return callbacks if self.scale == 1.0 else _InUnits(callbacks, self)

    def checkpoints(self, checkpoints: Checkpoints) -> Checkpoints:
        """Return the same checkpoints, with centers in these coordinates."""
        return _InCoordinates(checkpoints, self)


IDENTITY = Coordinates()


class Measured(NamedTuple):
    """Result of measuring a sample of rows.

    Attributes
    ----------
    coordinates
        The coordinates that the rows need; the identity in most cases.
    lost
        Numbers of the columns, from 0, whose differences float32 loses even in these coordinates.
    """

    coordinates: Coordinates
    lost: list[int]


def sample_rows(features: int) -> int:
    """Return the number of rows from which coordinates are chosen."""
    return max(MIN_SAMPLE_ROWS, min(MAX_SAMPLE_ROWS, SAMPLE_VALUES // features))


def measure(sample: Float64, before: Coordinates = IDENTITY, *, largest: float = 0.0, far: float = FAR) -> Measured:
    """Return the coordinates that rows like those of ``sample`` (m, d) need.

    Parameters
    ----------
    before
        Their present coordinates; they are kept if they are good enough.
    largest
        The largest magnitude of a coordinate of other rows.
    far
        The multiple of its range above which a column gets an offset.
    """
    if not len(sample):
        return Measured(before, [])
    ordered = np.sort(before.of(sample), axis=0)
    middle = ordered[(len(ordered) - 1) // 2]
    size = np.maximum(np.abs(ordered[0]), np.abs(ordered[-1]))
    extent = ordered[-1] - ordered[0]
    exponent = _exponent(float(size.max()))
    nearby = _nearby(ordered)
    rounded = _rounded(ordered, nearby, exponent, COARSE_STEPS)
    is_far = np.where(extent > 0, size > far * extent, size >= WHOLE_NUMBERS * before.scale)
    offset = None
    if (changed := np.flatnonzero((rounded > SHOWS) | is_far)).size:
        after = _rounded(ordered[:, changed] - middle[changed], nearby[:, changed], exponent, COARSE_STEPS)
        moved = changed[is_far[changed] | (after < GAIN * rounded[changed])]
        if len(moved):
            offset = np.zeros(len(middle))
            offset[moved] = _short(ordered[:, moved], middle[moved])
            ordered = ordered - offset
    top = max(float(np.abs(ordered[[0, -1]]).max()), largest)
    if not np.isfinite(top):
        return Measured(before, [])
    found = before.then(Coordinates(offset))
    if top and not _is_good(top):
        found = replace(found, scale=_scale(top / before.scale))
    lost = np.zeros(0, dtype=np.int64)
    if offset is not None or (rounded > SHOWS).any():
        is_lost = _rounded(ordered, nearby, _exponent(top), LOST_STEPS) > SHOWS
        lost = np.flatnonzero(is_lost & (extent > NEGLIGIBLE * extent.max()))
    return Measured(found, lost.tolist())


def coarse_columns(sample: Float64) -> dict[int, float]:
    """Return the columns, from 0, whose differences float32 input may have lost.

    The values are the steps of float32 at the columns' sizes.
    """
    if not len(sample):
        return {}
    low, high = sample.min(axis=0), sample.max(axis=0)
    size, extent = np.maximum(np.abs(low), np.abs(high)), high - low
    steps = np.spacing(as_float32(size)).astype(np.float64)
    is_coarse = np.where(extent > 0, extent < MIN_STEPS * steps, size >= WHOLE_NUMBERS)
    return {column: float(steps[column]) for column in np.flatnonzero(is_coarse).tolist()}


def of_centers(centers: NDArray[Any]) -> Coordinates:
    """Return the coordinates in which points can be compared with ``centers``."""
    step = max(1, -(-len(centers) // sample_rows(centers.shape[1])))
    return measure(centers[::step].astype(np.float64), far=FAR_CENTERS).coordinates


def narrowed(points: ArrayLike) -> tuple[Float32, Coordinates]:
    """Return ``points`` (n, d) as float32 in the coordinates they need, and these.

    float32 points that need none are returned unchanged.

    Raises
    ------
    kmeans.errors.DataError
        As :func:`kmeans.arrays.as_points`.
    """
    array = as_numbers(points)
    if array.dtype != np.float32:
        array = as_wide_points(array)
    step = max(1, -(-len(array) // sample_rows(max(1, array.shape[1]))))
    coordinates = measure(array[::step].astype(np.float64)).coordinates
    if coordinates.is_identity:
        return as_float32(array), coordinates
    found = np.empty(array.shape, dtype=np.float32)
    for first, block in in_blocks(array, BLOCK_ROWS):
        found[first : first + len(block)] = coordinates.narrow(block)
    if coordinates.scale > 1 and not is_in_range(found):  # a row outside of the sample is larger
        moved = replace(coordinates, scale=1.0)
        top = max(float(np.abs(moved.of(block)).max()) for _, block in in_blocks(array, BLOCK_ROWS))
        coordinates = replace(coordinates, scale=_scale(top))
        for first, block in in_blocks(array, BLOCK_ROWS):
            found[first : first + len(block)] = coordinates.narrow(block)
    return found, coordinates


def _is_good(top: float) -> bool:
    """Return whether float32 holds the squares of numbers of this magnitude."""
    return SMALL <= top <= 4 * MAX_MAGNITUDE


def _scale(top: float) -> float:
    return 1.0 if _is_good(top) else 2.0 ** -_exponent(top)


def _exponent(size: float) -> int:
    """Return e such that ``size`` times 2^-e is from 0.5 to 1, or less; 0 for 0."""
    return max(int(np.frexp(size)[1]), -MAX_EXPONENT)


def _short(ordered: Float64, middle: Float64) -> Float64:
    """Return ``middle`` (d,), rounded to float32 where that is close enough.

    Then rows far from the others, such as zeros for missing values, are exact in float32.
    """
    short = as_float32(middle).astype(np.float64)
    deviation = np.median(np.abs(ordered - middle), axis=0)
    chosen: Float64 = np.where(np.abs(short - middle) <= SHORT * deviation, short, middle)
    return chosen


def _nearby(ordered: Float64) -> Float64:
    """Return the range of the values closest to each of the sorted values (m, d)."""
    reach = max(1, round(CLOSEST * len(ordered) / 2))
    places = np.arange(len(ordered))
    nearby: Float64 = ordered[np.minimum(places + reach, len(ordered) - 1)] - ordered[np.maximum(places - reach, 0)]
    return nearby


def _rounded(values: Float64, nearby: Float64, exponent: int, steps: float) -> Float64:
    """Return the fraction of ``values`` (m, d) in which rounding shows, (d,)."""
    scaled = np.ldexp(values, -exponent)
    narrow = as_float32(scaled)
    step = np.ldexp(np.spacing(np.abs(narrow)).astype(np.float64), exponent)
    shows: Float64 = ((nearby > 0) & (nearby < steps * step) & (narrow != scaled)).mean(axis=0)
    return shows


class _InUnits(Callbacks):
    """Forwards progress, with losses in the units of the points."""

    def __init__(self, callbacks: Callbacks, coordinates: Coordinates) -> None:
        self._callbacks, self._squared = callbacks, coordinates.squared

    def seeded(self, *, centers: int, clusters: int, factor: int, auto: bool, rows: int) -> None:
        """Forward the first centers."""
        self._callbacks.seeded(centers=centers, clusters=clusters, factor=factor, auto=auto, rows=rows)

    def hierarchy_started(self, *, clusters: int) -> None:
        """Pass the start of the two levels on."""
        self._callbacks.hierarchy_started(clusters=clusters)

    def stream_started(self) -> None:
        """Forward the start of phase 1."""
        self._callbacks.stream_started()

    def epoch_done(self, *, epoch: int, epochs: int, rows: int, batches: int, seconds: float) -> None:
        """Forward an epoch."""
        self._callbacks.epoch_done(epoch=epoch, epochs=epochs, rows=rows, batches=batches, seconds=seconds)

    def shrink_started(self, *, centers: int, clusters: int) -> None:
        """Forward the start of phase 2."""
        self._callbacks.shrink_started(centers=centers, clusters=clusters)

    def refine_started(self, *, at_most: int) -> None:
        """Forward the start of phase 3."""
        self._callbacks.refine_started(at_most=at_most)

    def refined(self, *, with_all: int, with_nearby: int, clusters: int) -> None:
        """Forward the comparisons of phase 3."""
        self._callbacks.refined(with_all=with_all, with_nearby=with_nearby, clusters=clusters)

    def phase_done(self, *, phase: str, seconds: float) -> None:
        """Forward the end of a phase."""
        self._callbacks.phase_done(phase=phase, seconds=seconds)

    def batch_done(self, *, epoch: int, epochs: int, rows_seen: int, rows: int, mean_squared_distance: float) -> None:
        """Forward a mini-batch."""
        loss = self._squared(mean_squared_distance)
        self._callbacks.batch_done(
            epoch=epoch, epochs=epochs, rows_seen=rows_seen, rows=rows, mean_squared_distance=loss
        )

    def shrink_attempt(self, *, attempt: int, mean_squared_distance: float) -> None:
        """Forward a run of phase 2."""
        self._callbacks.shrink_attempt(attempt=attempt, mean_squared_distance=self._squared(mean_squared_distance))

    def shrink_done(self, *, mean_squared_distance: float) -> None:
        """Forward the end of phase 2."""
        self._callbacks.shrink_done(mean_squared_distance=self._squared(mean_squared_distance))

    def refine_pass(self, *, done: int, rows: int, mean_squared_distance: float, empty_clusters: int) -> None:
        """Forward a pass of phase 3."""
        loss = self._squared(mean_squared_distance)
        self._callbacks.refine_pass(done=done, rows=rows, mean_squared_distance=loss, empty_clusters=empty_clusters)


class _InCoordinates(Checkpoints):
    """Checkpoints with the coordinates of their centers.

    A resumed job on pipes may choose others: the first rows of its pipe may differ.
    """

    def __init__(self, checkpoints: Checkpoints, coordinates: Coordinates) -> None:
        self._checkpoints, self._coordinates = checkpoints, coordinates

    def found(self) -> State | None:
        """Return the state, with its centers in these coordinates."""
        state = self._checkpoints.found()
        if state is None:
            return None
        arrays = dict(state.arrays)
        offset, scale = arrays.pop(_OFFSET, None), arrays.pop(_SCALE, None)
        saved = IDENTITY if scale is None else Coordinates(offset, float(scale[0]))
        if saved.equals(self._coordinates):
            return replace(state, arrays=arrays)
        centers = arrays["centers"]
        arrays["centers"] = self._coordinates.of(saved.widen(centers)).astype(centers.dtype)
        ratio = (self._coordinates.scale / saved.scale) ** 2
        numbers = dict(state.numbers)
        for name in ("before", "shrink_loss"):
            if numbers.get(name) is not None:
                numbers[name] *= ratio
        # The per-host state belongs to the previous coordinates.
        return State(state.phase, numbers, arrays)

    def offer(self, state: Callable[[], State]) -> None:
        """Save the state, with the coordinates."""
        coordinates = self._coordinates
        if coordinates.is_identity:
            self._checkpoints.offer(state)
            return
        own: dict[str, NDArray[Any]] = {_SCALE: np.array([coordinates.scale])}
        if coordinates.offset is not None:
            own[_OFFSET] = coordinates.offset

        def labelled() -> State:
            made = state()
            return replace(made, arrays={**made.arrays, **own})

        self._checkpoints.offer(labelled)
