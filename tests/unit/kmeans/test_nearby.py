"""Lists of nearby centers must hold those that are nearest, and many centers no table of all pairs."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from kmeans.arrays import Float32, Float64, Int64
from kmeans.distance import NearestCenters
from kmeans.nearby import CLOSEST, GROUPED_CLUSTERS, NEARBY, NearbyCenters, nearby_centers
from kmeans.threads import ThreadPool
from tests.unit.kmeans import oracle

KINDS = ("normal", "uniform", "blobs", "skewed")


def centers_of(kind: str, k: int, d: int) -> Float32:
    generator = np.random.default_rng(0)
    centers: Float32 | Float64
    match kind:
        case "normal":
            centers = generator.normal(size=(k, d))
        case "uniform":
            centers = generator.uniform(size=(k, d))
        case "blobs":
            centers = oracle.blobs(0, n=k, k=40, d=d, spread=30)[0]
        case _:
            centers = generator.lognormal(0, 2, size=(k, d))
    found: Float32 = centers.astype(np.float32)
    return found


def true_order(centers: Float32, some: Int64) -> Int64:
    """Return the numbers of all centers by distance to each of ``some``, itself first."""
    table = oracle.squared_distances(centers[some], centers)
    table[np.arange(len(some)), some] = -1
    order: Int64 = table.argsort(axis=1, kind="stable")
    return order


def assert_well_formed(found: NearbyCenters, k: int) -> None:
    """Check shapes, that lists ascend and have the center itself, and that the closest are among those listed."""
    assert found.numbers.shape == (k, min(NEARBY, k))
    assert found.closest.shape == (k, min(CLOSEST, k))
    assert (np.diff(found.numbers, axis=1) > 0).all()
    assert (found.numbers == np.arange(k)[:, None]).any(axis=1).all()
    assert (found.closest == np.arange(k)[:, None]).any(axis=1).all()
    assert found.numbers.min() >= 0
    assert found.numbers.max() < k
    for numbers, closest in zip(found.numbers[:: max(1, k // 200)], found.closest[:: max(1, k // 200)], strict=True):
        assert len(set(closest.tolist())) == len(closest)
        assert set(closest.tolist()) <= set(numbers.tolist())


def mean_found(lists: Int64, true: Int64) -> float:
    """Return the mean fraction of the ``true`` numbers (n, m) that the ``lists`` (n, l) have."""
    return float((lists[:, None, :] == true[:, :, None]).any(axis=2).mean())


@pytest.mark.parametrize("k", [1, 2, CLOSEST, NEARBY, NEARBY + 1, 200, GROUPED_CLUSTERS])
@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_lists_of_few_centers_are_the_true_ones(k: int, offset: float) -> None:
    centers = centers_of("normal", k, 4) + np.float32(offset)
    found = nearby_centers(NearestCenters(centers), ThreadPool())
    assert_well_formed(found, k)
    some = np.arange(0, k, max(1, k // 100))
    order = true_order(centers, some)
    for row, ranked in zip(some, order, strict=True):
        assert len(set(found.numbers[row]) - set(ranked[:NEARBY])) <= (0 if offset == 0 else 1)
        assert len(set(found.closest[row]) - set(ranked[:CLOSEST])) <= (0 if offset == 0 else 1)


# In many columns, where nothing is clustered, all distances are about equal and more of the true ones are missed.
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [1500, 4000])
@pytest.mark.parametrize(("d", "least"), [(2, 0.99), (8, 0.95), (16, 0.88)])
def test_lists_of_many_centers_have_nearly_all_true_ones(d: int, least: float, k: int, kind: str) -> None:
    centers = centers_of(kind, k, d)
    found = nearby_centers(NearestCenters(centers), ThreadPool())
    assert_well_formed(found, k)
    some = np.arange(0, k, 10)
    order = true_order(centers, some)
    assert mean_found(found.numbers[some], order[:, :2]) > least
    assert mean_found(found.numbers[some], order[:, :NEARBY]) > 1 - 3 * (1 - least)
    assert mean_found(found.closest[some], order[:, :CLOSEST]) > 1 - 2 * (1 - least)


def test_lists_of_equal_centers_have_the_center_itself() -> None:
    for k in (100, 2000):
        centers = np.ones((k, 3), dtype=np.float32)
        assert_well_formed(nearby_centers(NearestCenters(centers), ThreadPool()), k)


@pytest.mark.parametrize("k", [GROUPED_CLUSTERS, 3000])
def test_threads_do_not_change_the_lists(k: int) -> None:
    nearest = NearestCenters(centers_of("normal", k, 5))
    alone = nearby_centers(nearest, ThreadPool())
    with ThreadPool(3) as pool:
        together = nearby_centers(nearest, pool)
    assert together.numbers.tobytes() == alone.numbers.tobytes()
    assert together.closest.tobytes() == alone.closest.tobytes()


def test_lists_of_20_000_centers_need_no_table_of_all_pairs() -> None:
    k = 20_000
    nearest = NearestCenters(centers_of("normal", k, 4))
    tracemalloc.start()
    try:
        found = nearby_centers(nearest, ThreadPool())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * k * k / 20
    assert peak < found.numbers.nbytes + found.closest.nbytes + 40e6
    assert_well_formed(found, k)
