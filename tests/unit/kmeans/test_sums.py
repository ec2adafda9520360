from __future__ import annotations

import numpy as np
import pytest

from kmeans.arrays import Batch, Float32, Float64
from kmeans.distance import NearestCenters, squared_norms
from kmeans.sums import (
    MAX_TASK_ROWS,
    MIN_TASK_ROWS,
    ClusterSums,
    assign_and_sum,
    assign_and_sum_blocks,
    correct_rounding,
    sum_by_label,
    task_rows,
)
from kmeans.threads import ThreadPool
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


def test_weight_counts_as_that_number_of_equal_points() -> None:
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
def test_thread_count_does_not_change_a_bit(k: int, weighted: bool) -> None:
    points, centers = oracle.blobs(k, n=12_345, k=k, d=5, spread=3)
    weights = np.random.default_rng(k).uniform(0, 2, len(points)) if weighted else None
    alone = assign_and_sum(points, NearestCenters(centers), weights)
    for threads in (2, 3, 5):
        with ThreadPool(threads) as pool:
            together = assign_and_sum(points, NearestCenters(centers), weights, pool)
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


def test_means_of_empty_clusters_are_the_given_centers() -> None:
    sums = ClusterSums(np.array([[6.0, 9.0], [0.0, 0.0]]), np.array([3.0, 0.0]), 12.0)
    otherwise = np.array([[1.0, 1.0], [5.0, 6.0]])
    assert sums.means(otherwise).tolist() == [[2, 3], [5, 6]]
    assert otherwise.tolist() == [[1, 1], [5, 6]]


def test_the_mean_squared_distance_is_the_inertia_per_point() -> None:
    assert ClusterSums(np.zeros((2, 1)), np.array([3.0, 1.0]), 10.0).mean_squared_distance == 2.5
    assert ClusterSums.zero(2, 1).mean_squared_distance == 0


def test_sums_of_two_parts_equal_those_of_the_whole() -> None:
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


@pytest.mark.parametrize("weighted", [False, True])
def test_sum_by_label_with_missing_labels_is_exact(weighted: bool) -> None:
    points, _ = oracle.blobs(10, n=1000)
    labels = np.random.default_rng(10).choice([1, 2, 5], 1000)
    weights = np.random.default_rng(11).uniform(0, 3, 1000) if weighted else None
    found = sum_by_label(points, labels, 7, weights)
    assert found.present.tolist() == [1, 2, 5]
    times = np.ones(1000) if weights is None else weights
    for label, total in zip(found.present, found.sums, strict=True):
        own = labels == label
        np.testing.assert_allclose(total, times[own] @ points[own].astype(np.float64), rtol=1e-4, atol=0.1)
    np.testing.assert_allclose(found.weights, np.bincount(labels, times, 7)[found.present])
    assert found.counts.tolist() == np.bincount(labels, minlength=7)[found.present].tolist()


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_labelled_sums_are_added_and_subtracted(offset: float) -> None:
    points, _ = oracle.blobs(12, n=900)
    origin = None if offset == 0 else np.full(4, offset, dtype=np.float32)
    labels = np.random.default_rng(12).choice([0, 3], 900)
    part = sum_by_label(points, labels, 5)
    sums = ClusterSums(np.ones((5, 4)), np.full(5, 2.0), 7.0)
    sums.add_labelled(part, origin)
    counts = np.bincount(labels, minlength=5)
    assert sums.weights.tolist() == (2 + counts).tolist()
    for label in range(5):
        expected = 1 + (points[labels == label].astype(np.float64) + offset).sum(axis=0)
        np.testing.assert_allclose(sums.sums[label], expected, rtol=1e-6, atol=0.1)
    sums.add_labelled(part, origin, sign=-1)
    assert sums.weights.tolist() == [2.0] * 5
    np.testing.assert_allclose(sums.sums, 1, atol=1e-6)
    assert sums.inertia == 7


@pytest.mark.parametrize(("spread", "std"), [(5, 1.0), (100, 0.01), (1e4, 0.01)])
def test_squared_distances_are_exact_where_terms_cancel(spread: float, std: float) -> None:
    points, centers = oracle.blobs(13, spread=spread, std=std)
    nearest = NearestCenters(centers)
    labels, scores = nearest.rank(points)
    norms = squared_norms(nearest.from_origin(points))
    found = correct_rounding(nearest, points, labels, scores, norms).squared
    assert (found >= 0).all()
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, oracle.nearest(points, centers)[1], rtol=0.02, atol=1e-4 * std)


def test_tight_clusters_far_from_zero_are_assigned_exactly() -> None:
    places = np.array([-1000.02, -1000, 1000, 1000.02])
    rows = np.repeat(places, 50)[:, None] + np.random.default_rng(0).normal(0, 0.001, (200, 1))
    points, centers = rows.astype(np.float32), places[:, None].astype(np.float32)
    labels, squared = oracle.nearest(points, centers)
    sums = assign_and_sum(points, NearestCenters(centers))
    assert sums.weights.tolist() == [50.0] * 4
    assert sums.inertia == pytest.approx(float(squared.sum()), rel=1e-5)
    expected = np.stack([points[labels == label].astype(np.float64).sum(axis=0) for label in range(4)])
    np.testing.assert_allclose(sums.sums, expected, rtol=1e-14)


def test_a_task_takes_fewer_rows_the_wider_they_are() -> None:
    sizes = [task_rows(features) for features in (1, 100, 500, 784, 2000, 10**6)]
    assert sizes == sorted(sizes, reverse=True)
    assert (sizes[0], sizes[-1]) == (MAX_TASK_ROWS, MIN_TASK_ROWS)
    assert len(set(sizes)) > 2


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_sums_of_blocks_are_those_of_all_their_points(offset: float) -> None:
    points, centers = oracle.blobs(14, n=5000, k=6, spread=5)
    points, centers = (points + offset).astype(np.float32), (centers + offset).astype(np.float32)
    blocks = map(Batch, np.split(points, [1, 1, 700, 4000]))
    found = assign_and_sum_blocks(blocks, NearestCenters(centers), ThreadPool())
    expected = brute_force(points, centers)
    assert_close(found, expected)
    assert found.weights.tolist() == expected.weights.tolist()


def test_no_blocks_have_no_sums() -> None:
    found = assign_and_sum_blocks([], NearestCenters(np.ones((2, 3))), ThreadPool())
    assert (found.sums.tolist(), found.weights.tolist(), found.inertia) == ([[0] * 3] * 2, [0, 0], 0)


def test_thread_count_does_not_change_the_sums_of_blocks() -> None:
    points, centers = oracle.blobs(15, n=12_345, k=10, spread=3)
    blocks = list(map(Batch, np.array_split(points, 13)))
    alone = assign_and_sum_blocks(blocks, NearestCenters(centers), ThreadPool())
    for threads in (2, 5):
        with ThreadPool(threads) as pool:
            together = assign_and_sum_blocks(blocks, NearestCenters(centers), pool)
        assert together.sums.tobytes() == alone.sums.tobytes()
        assert together.weights.tobytes() == alone.weights.tobytes()
        assert together.inertia == alone.inertia


@pytest.mark.parametrize("d", [2, 16])
def test_constant_columns_of_large_blocks_have_constant_means(d: int) -> None:
    points, centers = oracle.blobs(16, n=(4 << 20) // (4 * d), k=2, d=d)
    points[:, -1] = centers[:, -1] = 0.1
    means = assign_and_sum_blocks([Batch(points)], NearestCenters(centers), ThreadPool()).means(np.zeros(centers.shape))
    np.testing.assert_allclose(means[:, -1], 0.1, rtol=1e-4)
