from __future__ import annotations

import numpy as np
import pytest

from kmeans.arrays import Float32, Float64
from kmeans.distance import NearestCenters
from kmeans.sums import ClusterSums, assign_and_sum
from kmeans.workers import Workers
from tests.unit.kmeans import oracle


def brute_force(points: Float32, centers: Float32, weights: Float64 | None = None) -> ClusterSums:
    labels, squared = oracle.nearest(points, centers)
    weights = np.ones(len(points)) if weights is None else weights
    total = ClusterSums.zero(len(centers), points.shape[1])
    for label, distance, weight, point in zip(labels, squared, weights, points.astype(np.float64), strict=True):
        total.sums[label] += weight * point
        total.weights[label] += weight
        total.inertia += float(weight * distance)
    return total


def assert_close(found: ClusterSums, expected: ClusterSums, relative: float = 1e-5) -> None:
    scale = np.abs(expected.sums).max()
    np.testing.assert_allclose(found.sums, expected.sums, rtol=relative, atol=relative * scale)
    np.testing.assert_allclose(found.weights, expected.weights, rtol=1e-12)
    assert found.inertia == pytest.approx(expected.inertia, rel=1e-4)


@pytest.mark.parametrize(("n", "k", "d"), [(1, 1, 1), (3000, 1, 4), (5000, 6, 1), (5000, 9, 7), (200, 200, 3)])
def test_sums_weights_and_inertia_equal_brute_force(n: int, k: int, d: int) -> None:
    points, centers = oracle.blobs(k, n=n, k=k, d=d)
    assert_close(assign_and_sum(points, NearestCenters(centers)), brute_force(points, centers))


def test_weighted_sums_equal_brute_force() -> None:
    points, centers = oracle.blobs(1, n=3000)
    weights = np.random.default_rng(1).uniform(0, 3, 3000)
    weights[::7] = 0
    assert_close(assign_and_sum(points, NearestCenters(centers), weights), brute_force(points, centers, weights))


def test_a_weight_counts_as_so_many_equal_points() -> None:
    points, centers = oracle.blobs(2, n=1500)
    times = np.random.default_rng(2).integers(0, 5, 1500)
    weighted = assign_and_sum(points, NearestCenters(centers), times.astype(np.float64))
    repeated = assign_and_sum(np.repeat(points, times, axis=0), NearestCenters(centers))
    assert_close(weighted, repeated)
    assert np.array_equal(weighted.weights, repeated.weights)


@pytest.mark.parametrize("offset", [1e4, 1e6])
def test_sums_stay_exact_far_from_the_origin(offset: float) -> None:
    generator = np.random.default_rng(3)
    centers = np.array([[0, 0], [8, 0], [0, 8]], dtype=np.float32) + np.float32(offset)
    points = (centers[generator.integers(0, 3, 6000)] + generator.normal(size=(6000, 2))).astype(np.float32)
    found, expected = assign_and_sum(points, NearestCenters(centers)), brute_force(points, centers)
    assert np.array_equal(found.weights, expected.weights)
    otherwise = np.zeros((3, 2))
    np.testing.assert_allclose(found.means(otherwise) - offset, expected.means(otherwise) - offset, atol=1e-3)
    assert found.inertia == pytest.approx(expected.inertia, rel=1e-5)


@pytest.mark.parametrize("std", [0.1, 0.01, 0.001])
def test_inertia_of_tight_clusters_far_apart_equals_brute_force(std: float) -> None:
    points, centers = oracle.blobs(4, spread=100, std=std)
    expected = brute_force(points, centers)
    assert assign_and_sum(points, NearestCenters(centers)).inertia == pytest.approx(expected.inertia, rel=1e-2)


def test_inertia_of_the_centers_themselves_is_zero() -> None:
    _, centers = oracle.blobs(5, k=50, spread=100)
    assert assign_and_sum(centers, NearestCenters(centers)).inertia == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("k", [1, 10, 700])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_number_of_workers_does_not_change_a_bit(k: int, weighted: bool) -> None:
    points, centers = oracle.blobs(k, n=12_345, k=k, d=5, spread=3)
    weights = np.random.default_rng(k).uniform(0, 2, len(points)) if weighted else None
    alone = assign_and_sum(points, NearestCenters(centers), weights)
    for threads in (2, 3, 5):
        with Workers(threads) as workers:
            together = assign_and_sum(points, NearestCenters(centers), weights, workers)
        assert together.sums.tobytes() == alone.sums.tobytes()
        assert together.weights.tobytes() == alone.weights.tobytes()
        assert together.inertia == alone.inertia


@pytest.mark.parametrize("task_rows", [1, 100, 10**6])
@pytest.mark.parametrize("block_bytes", [1, 1 << 30])
def test_task_and_block_sizes_do_not_change_the_centers(
    task_rows: int, block_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    points, centers = oracle.blobs(6, n=5001)
    before = assign_and_sum(points, NearestCenters(centers))
    monkeypatch.setattr("kmeans.sums.MIN_TASK_ROWS", task_rows)
    monkeypatch.setattr("kmeans.distance.BLOCK_BYTES", block_bytes)
    after = assign_and_sum(points, NearestCenters(centers))
    assert np.array_equal(before.weights, after.weights)
    otherwise = np.zeros(centers.shape)
    np.testing.assert_allclose(after.means(otherwise), before.means(otherwise), rtol=1e-5, atol=1e-5)
    assert after.inertia == pytest.approx(before.inertia, rel=1e-5)


def test_a_mean_is_taken_of_filled_clusters_and_the_other_center_kept_for_empty_ones() -> None:
    sums = ClusterSums(np.array([[6.0, 9.0], [0.0, 0.0]]), np.array([3.0, 0.0]), 12.0)
    otherwise = np.array([[1.0, 1.0], [5.0, 6.0]])
    assert sums.means(otherwise).tolist() == [[2, 3], [5, 6]]
    assert otherwise.tolist() == [[1, 1], [5, 6]]


def test_the_mean_squared_distance_is_the_inertia_per_point() -> None:
    assert ClusterSums(np.zeros((2, 1)), np.array([3.0, 1.0]), 10.0).mean_squared_distance == 2.5
    assert ClusterSums.zero(2, 1).mean_squared_distance == 0


def test_sums_of_two_parts_add_up_to_those_of_the_whole() -> None:
    points, centers = oracle.blobs(7)
    total = assign_and_sum(points[:700], NearestCenters(centers))
    total.add(assign_and_sum(points[700:], NearestCenters(centers)))
    assert_close(total, assign_and_sum(points, NearestCenters(centers)))


def test_no_points_have_no_sums() -> None:
    found = assign_and_sum(np.empty((0, 3), dtype=np.float32), NearestCenters(np.ones((2, 3))))
    assert (found.sums.tolist(), found.weights.tolist(), found.inertia) == ([[0] * 3] * 2, [0, 0], 0)


def test_constant_columns_have_constant_means() -> None:
    points, centers = oracle.blobs(8, n=8192)
    points[:, 2] = centers[:, 2] = 0.1
    means = assign_and_sum(points, NearestCenters(centers)).means(np.zeros(centers.shape))
    np.testing.assert_allclose(means[:, 2], 0.1, rtol=2e-5)


@pytest.mark.parametrize("offset", [0.0, 1e5])
def test_the_caller_s_arrays_are_not_changed(offset: float) -> None:
    points, centers = oracle.blobs(9)
    points, centers = points + np.float32(offset), centers + np.float32(offset)
    weights = np.ones(len(points))
    copies = points.copy(), centers.copy(), weights.copy()
    assign_and_sum(points, NearestCenters(centers), weights)
    assert np.array_equal(points, copies[0])
    assert np.array_equal(centers, copies[1])
    assert np.array_equal(weights, copies[2])
