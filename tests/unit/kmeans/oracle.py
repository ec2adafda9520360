"""What the tests compare with: brute force in float64, and data whose clusters are known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from kmeans.arrays import Float32, Float64, Int64
from kmeans.errors import DataError

R = TypeVar("R")

GOLDEN = Path(__file__).parents[2] / "data" / "golden"

# Property tests: the same examples in every run, and no clock.
PROPERTY = settings(deadline=None, derandomize=True, max_examples=300)


def squared_distances(points: NDArray[Any], centers: NDArray[Any]) -> Float64:
    """Return the squared distance of each point to each center, (n, k), by the definition."""
    wide = centers.astype(np.float64)
    table = np.empty((len(points), len(centers)))
    for j, center in enumerate(wide):
        table[:, j] = np.square(points.astype(np.float64) - center).sum(axis=1)
    return table


def nearest(points: NDArray[Any], centers: NDArray[Any]) -> tuple[Int64, Float64]:
    """Return the nearest center of each point, the first of equals, and the squared distance to it."""
    table = squared_distances(points, centers)
    labels: Int64 = table.argmin(axis=1)
    return labels, table[np.arange(len(points)), labels]


def inertia(points: NDArray[Any], centers: NDArray[Any]) -> float:
    """Return the sum of the squared distances to the nearest centers."""
    return float(nearest(points, centers)[1].sum())


def blobs(
    seed: int, *, n: int = 2000, k: int = 5, d: int = 4, spread: float = 20.0, std: float = 1.0
) -> tuple[Float32, Float32]:
    """Return (points (n, d), the k centers they lie around); each center has a point, order is random."""
    generator = np.random.default_rng(seed)
    centers = generator.normal(scale=spread, size=(k, d)).astype(np.float32)
    labels = generator.permutation(np.arange(n) % k)
    points = centers[labels] + generator.normal(scale=std, size=(n, d))
    return points.astype(np.float32), centers


def sorted_rows(rows: NDArray[Any]) -> NDArray[Any]:
    """Return ``rows`` in lexical order: centers come in no particular one."""
    return rows[np.lexsort(rows.T[::-1])]


def attempt(decode: Callable[[bytes], R], data: bytes) -> R | None:
    """Return what ``decode`` gives, or None if it refuses ``data`` in a sentence; anything else is a defect."""
    try:
        return decode(data)
    except DataError as error:
        refusal = error
    assert "\n" not in str(refusal)
    assert len(str(refusal)) < 1000
    return None


def assert_points(points: NDArray[Any]) -> None:
    """Check that ``points`` are what all others may rely on."""
    assert points.dtype == np.float32
    assert points.ndim == 2
    assert points.shape[1]
    assert np.isfinite(points).all()


def assert_points_or_data_error(decode: Callable[[bytes], Float32], data: bytes) -> None:
    """Check that ``decode`` gives points or refuses ``data`` in a sentence."""
    points = attempt(decode, data)
    if points is not None:
        assert_points(points)


@st.composite
def damaged(draw: st.DrawFn, seeds: Sequence[bytes]) -> bytes:
    """Draw one of ``seeds`` with a few bytes changed, removed or put in: bytes that a decoder takes seriously."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 4))):
        position = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(["change", "cut", "insert", "remove"])):
            case "change" if position < len(data):
                data[position] = draw(st.integers(0, 255))
            case "cut":
                del data[position:]
            case "insert":
                data[position:position] = draw(st.binary(min_size=1, max_size=4))
            case "remove":
                del data[position : position + draw(st.integers(1, 8))]
    return bytes(data)
