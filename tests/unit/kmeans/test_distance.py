from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits

from kmeans.distance import NearestCenters, block_rows, squared_norms, two_nearest
from tests.unit.kmeans import oracle

SHAPES = [(1, 1, 1), (500, 1, 3), (500, 7, 1), (1000, 10, 5), (300, 64, 784), (9000, 3, 2), (200, 200, 2)]


@pytest.mark.parametrize(("n", "k", "d"), SHAPES)
def test_query_finds_the_nearest_center_and_its_squared_distance(n: int, k: int, d: int) -> None:
    points, centers = oracle.blobs(n, n=n, k=k, d=d, spread=50)
    labels, squared = NearestCenters(centers).query(points)
    expected_labels, expected_squared = oracle.nearest(points, centers)
    table = oracle.squared_distances(points, centers)
    # Where two centers are equally near to float32, either will do.
    clear = np.sort(table, axis=1)[:, 1] > 1.001 * expected_squared if k > 1 else np.ones(n, dtype=bool)
    assert clear.mean() > 0.9
    assert np.array_equal(labels[clear], expected_labels[clear])
    np.testing.assert_allclose(squared, expected_squared, rtol=1e-3)
    np.testing.assert_allclose(squared[clear], expected_squared[clear], rtol=1e-5)


def test_query_gives_int64_labels_and_float32_distances() -> None:
    labels, squared = NearestCenters(np.zeros((2, 3))).query(np.zeros((4, 3), dtype=np.float32))
    assert labels.dtype == np.int64
    assert squared.dtype == np.float32
    assert (labels.shape, squared.shape) == ((4,), (4,))


@pytest.mark.parametrize("offset", [1e4, 1e6, -1e6])
@pytest.mark.parametrize("d", [1, 3, 20])
def test_points_far_from_the_origin_find_their_center(offset: float, d: int) -> None:
    generator = np.random.default_rng(d)
    centers = (offset + generator.permutation(8 * d).reshape(8, d)).astype(np.float32)
    points = centers[generator.integers(0, 8, 1000)] + generator.uniform(-0.4, 0.4, (1000, d)).astype(np.float32)
    labels, squared = NearestCenters(centers).query(points)
    expected_labels, expected_squared = oracle.nearest(points, centers)
    assert np.array_equal(labels, expected_labels)
    np.testing.assert_allclose(squared, expected_squared, rtol=1e-5, atol=1e-9)


def test_one_column_far_from_the_origin_does_not_hide_the_others() -> None:
    points, centers = oracle.blobs(1, d=3, spread=3, std=0.2)
    year = np.float32(1e6)
    points, centers = np.c_[points, np.full(len(points), year)], np.c_[centers, np.full(len(centers), year)]
    assert np.array_equal(NearestCenters(centers).query(points)[0], oracle.nearest(points, centers)[0])


def test_constant_columns_do_not_change_the_nearest_center() -> None:
    points, centers = oracle.blobs(2, d=3)
    wide_points = np.insert(points, 1, np.float32(7), axis=1)
    wide_centers = np.insert(centers, 1, np.float32(7), axis=1)
    assert np.array_equal(NearestCenters(wide_centers).query(wide_points)[0], NearestCenters(centers).query(points)[0])


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_rank_of_equal_centers_returns_the_first(offset: float) -> None:
    centers = np.array([[9, 9], [1, 2], [1, 2], [9, 9]], dtype=np.float32) + np.float32(offset)
    labels, _ = NearestCenters(centers).query(centers)
    assert labels.tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize("offset", [0.0, 0.1, 1e3, 1e6])
def test_distance_of_a_point_that_is_a_center_is_zero(offset: float) -> None:
    centers = (np.random.default_rng(3).normal(scale=1000, size=(20, 7)) + offset).astype(np.float32)
    labels, squared = NearestCenters(centers).query(centers)
    assert labels.tolist() == list(range(20))
    assert squared.tolist() == [0.0] * 20


@pytest.mark.parametrize("offset", [0.0, 1e5])
def test_score_plus_squared_norm_is_the_squared_distance(offset: float) -> None:
    points, centers = oracle.blobs(4)
    points, centers = points + np.float32(offset), centers + np.float32(offset)
    nearest = NearestCenters(centers)
    labels, scores = nearest.rank(points)
    expected_labels, expected = oracle.nearest(points, centers)
    assert np.array_equal(labels, expected_labels)
    np.testing.assert_allclose(scores + squared_norms(nearest.from_origin(points)), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("block_bytes", [1, 100_000, 1 << 30])
@pytest.mark.parametrize("least", [1, 7, 64])
def test_the_block_size_does_not_change_the_answer(
    block_bytes: int, least: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    points, centers = oracle.blobs(5, n=5001)
    labels, squared = NearestCenters(centers).query(points)
    monkeypatch.setattr("kmeans.distance.BLOCK_BYTES", block_bytes)
    monkeypatch.setattr("kmeans.distance.MIN_BLOCK_ROWS", least)
    other_labels, other_squared = NearestCenters(centers).query(points)
    assert np.array_equal(labels, other_labels)
    np.testing.assert_allclose(squared, other_squared, rtol=1e-6)


CLOSE_TOGETHER = {
    "near-equal centers and a distant one": ([[100, 100], [100.01, 100], [0, 0]], [[100, 100], [100.01, 100], [1, 1]]),
    "integers far from the origin": ([[10_000], [10_002], [0]], [[10_001.5], [10_000.5], [9999], [3]]),
    "in float32 next to each other": ([[1], [1 + 2**-23], [-5]], [[1 + 2**-23], [1], [-5]]),
    "several of them, the nearest last": ([[0, 3], [500, 0], [500.02, 0], [500.03, 0]], [[500.04, 0], [500.021, 0]]),
}


@pytest.mark.parametrize("case", CLOSE_TOGETHER)
def test_centers_closer_than_float32_ranks_are_distinguished(case: str) -> None:
    centers, points = (np.array(values, dtype=np.float32) for values in CLOSE_TOGETHER[case])
    labels, squared = NearestCenters(centers).exact_query(points)
    expected_labels, expected = oracle.nearest(points, centers)
    assert labels.tolist() == expected_labels.tolist()
    np.testing.assert_allclose(squared, expected, rtol=1e-5)


@pytest.mark.parametrize("block_bytes", [1, 100_000, 1 << 30])
@pytest.mark.parametrize("d", [1, 2, 50, 784])
def test_no_center_is_nearer_than_the_returned_one(d: int, block_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the centers lie within the rounding of the scores, the others where these scores are large."""
    monkeypatch.setattr("kmeans.distance.BLOCK_BYTES", block_bytes)
    generator = np.random.default_rng(d)
    centers = generator.uniform(0, 1, (30, d)) + np.repeat([0, 1000], 15)[:, None]
    centers[17] = centers[16]
    points = centers[generator.integers(0, 30, 500)] + generator.normal(scale=0.01, size=(500, d))
    centers, points = centers.astype(np.float32), points.astype(np.float32)
    nearest = NearestCenters(centers)
    labels, squared = nearest.exact_query(points)
    expected_labels, expected = oracle.nearest(points, centers)
    assert labels.tolist() == expected_labels.tolist()
    np.testing.assert_allclose(squared, expected, rtol=1e-5)
    assert np.array_equal(squared, nearest.squared_distances(points, labels))


def test_a_point_alone_is_answered_as_among_others_to_the_bit() -> None:
    """Rows of whole numbers in another unit: many have two nearest centers, except for rounding."""
    points = load_digits().data.astype(np.float32) / np.float32(15.7)
    nearest = NearestCenters(points[:100])
    labels, squared = nearest.exact_query(points)
    for number in range(0, len(points), 3):
        label, distance = nearest.exact_query(points[number : number + 1])
        assert (label[0], distance[0]) == (labels[number], squared[number])
        assert (label.dtype, distance.dtype) == (labels.dtype, squared.dtype)


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_exact_query_of_equal_centers_returns_the_first(offset: float) -> None:
    generator = np.random.default_rng(4)
    different = generator.normal(size=(3, 40)) + offset
    centers = different[generator.permutation(np.arange(60) % 3)].astype(np.float32)
    points = (generator.normal(size=(200, 40)) + offset).astype(np.float32)
    labels, _ = NearestCenters(centers).exact_query(points)
    assert set(labels.tolist()) <= {np.flatnonzero((centers == center).all(axis=1))[0] for center in centers}


def test_no_points_give_no_labels() -> None:
    nearest = NearestCenters(np.ones((3, 2)))
    for query in (nearest.query, nearest.exact_query):
        labels, squared = query(np.empty((0, 2), dtype=np.float32))
        assert labels.shape == squared.shape == (0,)


def test_float64_centers_are_converted_to_float32() -> None:
    assert NearestCenters(np.array([[0.1]])).centers.tolist() == [[float(np.float32(0.1))]]


@pytest.mark.parametrize(("features", "clusters"), [(1, 1), (10, 100), (100_000, 100_000)])
def test_a_block_has_between_its_least_and_most_rows(features: int, clusters: int) -> None:
    assert 64 <= block_rows(features, clusters) <= 4096


def test_wider_rows_make_smaller_blocks() -> None:
    assert block_rows(784, 10) > block_rows(784, 1000) > block_rows(784, 10_000)


def test_squared_norms_are_those_of_each_row() -> None:
    assert squared_norms(np.array([[3, 4], [0, 0], [1, -1]], dtype=np.float32)).tolist() == [25, 0, 2]


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_centers_like_others_keep_their_origin_and_find_the_same(offset: float) -> None:
    points, centers = oracle.blobs(6, k=20, spread=5)
    points, centers = (points + offset).astype(np.float32), (centers + offset).astype(np.float32)
    first, moved = NearestCenters(centers), (centers + 3).astype(np.float32)
    later = NearestCenters(moved, like=first)
    assert (later.origin is None) == (offset == 0)
    assert later.origin is first.origin
    assert np.array_equal(later.from_origin(points), first.from_origin(points))
    labels, squared = later.query(points)
    expected_labels, expected = NearestCenters(moved).query(points)
    assert np.array_equal(labels, expected_labels)
    assert np.array_equal(squared, expected)


@pytest.mark.parametrize("offset", [0.0, 1e6])
@pytest.mark.parametrize("k", [2, 7, 60])
def test_the_two_nearest_are_those_of_the_definition(offset: float, k: int) -> None:
    points, centers = oracle.blobs(7, n=500, k=k, spread=5)
    points, centers = (points + offset).astype(np.float32), (centers + offset).astype(np.float32)
    nearest = NearestCenters(centers)
    moved = nearest.from_origin(points)
    labels, best, second = two_nearest(moved, nearest.factor, nearest.norms)
    table = oracle.squared_distances(points, centers)
    assert np.array_equal(labels, table.argmin(axis=1))
    in_order = np.sort(table, axis=1)
    np.testing.assert_allclose(best + squared_norms(moved), in_order[:, 0], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(second + squared_norms(moved), in_order[:, 1], rtol=1e-3, atol=1e-3)


def test_without_a_second_center_it_is_infinitely_far() -> None:
    nearest = NearestCenters(np.array([[3.0, 4.0]]))
    moved = nearest.from_origin(np.zeros((2, 2), dtype=np.float32))
    labels, best, second = two_nearest(moved, nearest.factor, nearest.norms)
    assert (labels.tolist(), second.tolist()) == ([0, 0], [np.inf, np.inf])
    assert (best + squared_norms(moved)).tolist() == [25, 25]


def test_two_nearest_of_equal_centers_returns_the_first() -> None:
    nearest = NearestCenters(np.array([[9.0], [1.0], [1.0]]))
    labels, best, second = two_nearest(np.ones((1, 1), dtype=np.float32), nearest.factor, nearest.norms)
    assert labels.tolist() == [1]
    assert best.tolist() == second.tolist()


def test_no_points_have_no_nearest_centers() -> None:
    nearest = NearestCenters(np.ones((3, 2)))
    for found in two_nearest(np.empty((0, 2), dtype=np.float32), nearest.factor, nearest.norms):
        assert found.shape == (0,)


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_a_subset_of_centers_is_ranked_as_among_all(offset: float) -> None:
    points, centers = oracle.blobs(8, n=500, k=30, spread=5)
    points, centers = (points + offset).astype(np.float32), (centers + offset).astype(np.float32)
    nearest, some = NearestCenters(centers), np.array([2, 3, 11, 29])
    factor, norms = nearest.subset(some)
    assert (factor.shape, norms.shape) == ((4, 4), (4,))
    labels, *_ = two_nearest(nearest.from_origin(points), factor, norms)
    assert np.array_equal(labels, oracle.nearest(points, centers[some])[0])


@pytest.mark.parametrize("offset", [0.0, 5000.0])
@pytest.mark.parametrize("n", [0, 1, 500])
def test_labels_alone_are_those_of_the_ranking(n: int, offset: float) -> None:
    generator = np.random.default_rng(n)
    nearest = NearestCenters((generator.normal(size=(7, 5)) + offset).astype(np.float32))
    nearest.block_rows = 64
    points = (generator.normal(size=(n, 5)) + offset).astype(np.float32)
    labels = nearest.labels(points)
    assert labels.dtype == np.int64
    assert labels.tolist() == nearest.rank(points)[0].tolist()


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_squared_distances_are_those_of_the_differences(offset: float) -> None:
    points, centers = oracle.blobs(9, n=9000, k=30, spread=5)
    points, centers = (points + offset).astype(np.float32), (centers + offset).astype(np.float32)
    labels = np.random.default_rng(9).integers(0, 30, 9000)
    found = NearestCenters(centers).squared_distances(points, labels)
    expected = oracle.squared_distances(points, centers)[np.arange(9000), labels]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
