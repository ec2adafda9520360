from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from kmeans.arrays import Float32
from kmeans.seeding import Method, draw_far_points, seed_centers
from tests.unit.kmeans import oracle

METHODS: tuple[Method, ...] = get_args(Method)
both_methods = pytest.mark.parametrize("method", METHODS)


def column(*values: float) -> Float32:
    return np.array(values, dtype=np.float32)[:, None]


def mean_inertia(points: Float32, k: int, method: Method, seeds: int = 30) -> float:
    return float(
        np.mean(
            [
                oracle.inertia(points, seed_centers(points, k, method, np.random.default_rng(seed)))
                for seed in range(seeds)
            ]
        )
    )


@both_methods
@pytest.mark.parametrize("k", [1, 2, 17, 300])
def test_centers_are_distinct_rows_of_the_points(method: Method, k: int) -> None:
    points, _ = oracle.blobs(k, n=300, d=3)
    centers = seed_centers(points, k, method, np.random.default_rng(k))
    assert centers.dtype == np.float32
    assert centers.shape == (k, 3)
    rows = {row.tobytes() for row in points}
    chosen = {row.tobytes() for row in centers}
    assert len(chosen) == k
    assert chosen <= rows


@both_methods
def test_the_same_generator_draws_the_same_centers(method: Method) -> None:
    points, _ = oracle.blobs(1)
    first, again, other = (seed_centers(points, 9, method, np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_kmeans_plus_plus_draws_no_duplicate_while_distinct_points_remain(offset: float) -> None:
    distinct = np.random.default_rng(2).normal(size=(12, 3)).astype(np.float32) + np.float32(offset)
    points = np.repeat(distinct, 50, axis=0)
    for seed in range(20):
        centers = seed_centers(points, 12, "kmeans++", np.random.default_rng(seed))
        assert len(np.unique(centers, axis=0)) == 12


def test_kmeans_plus_plus_tells_close_points_from_duplicates_where_the_data_are_wide() -> None:
    points = column(0, 0, 0, 0.001, 1000)
    for seed in range(10):
        centers = seed_centers(points, 3, "kmeans++", np.random.default_rng(seed))
        assert len(np.unique(centers)) == 3, f"seed {seed} drew {centers.ravel().tolist()}"


@both_methods
def test_fewer_distinct_points_than_centers_still_give_all_centers(method: Method) -> None:
    points = np.repeat(column(1, 2, 3), 4, axis=0)
    centers = seed_centers(points, 8, method, np.random.default_rng(0))
    assert centers.shape == (8, 1)
    if method == "kmeans++":
        assert set(centers.ravel().tolist()) == {1, 2, 3}


@both_methods
def test_all_points_equal_give_equal_centers(method: Method) -> None:
    points = np.full((10, 4), 3.3, dtype=np.float32)
    centers = seed_centers(points, 4, method, np.random.default_rng(0))
    assert np.array_equal(centers, points[:4])


@both_methods
@pytest.mark.parametrize("k", [1, 3, 5])
def test_a_point_of_weight_zero_is_never_drawn(method: Method, k: int) -> None:
    points = np.arange(15, dtype=np.float32)[:, None] ** 2
    weights = np.zeros(15)
    weights[[1, 4, 5, 9, 13]] = [1, 0.001, 5, 1000, 2]
    for seed in range(100):
        centers = seed_centers(points, k, method, np.random.default_rng(seed), weights)
        assert set(centers.ravel().tolist()) <= {1, 16, 25, 81, 169}


def test_a_point_of_weight_zero_does_not_fill_up_for_duplicates() -> None:
    points, weights = column(1, 1, 1, 9, 9), np.array([1.0, 2.0, 1.0, 0.0, 0.0])
    centers = seed_centers(points, 3, "kmeans++", np.random.default_rng(0), weights)
    assert centers.ravel().tolist() == [1, 1, 1]


@both_methods
def test_heavy_points_are_drawn_more_often(method: Method) -> None:
    points, weights = column(1, 2, 3, 4), np.array([1.0, 1.0, 1.0, 97.0])
    drawn = [seed_centers(points, 1, method, np.random.default_rng(s), weights).item() for s in range(200)]
    assert drawn.count(4) > 170


@both_methods
@pytest.mark.parametrize(
    ("k", "message"), [(6, "6 centers from 5"), (0, "0 centers from 5"), (-1, "-1 centers from 5")]
)
def test_a_number_of_centers_that_cannot_be_drawn_is_refused(method: Method, k: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        seed_centers(column(1, 2, 3, 4, 5), k, method, np.random.default_rng(0))


@both_methods
def test_more_centers_than_points_of_some_weight_are_refused(method: Method) -> None:
    with pytest.raises(ValueError, match="3 centers from 2"):
        seed_centers(column(1, 2, 3), 3, method, np.random.default_rng(0), np.array([1.0, 0.0, 1.0]))


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_kmeans_plus_plus_beats_random_on_separated_blobs(offset: float) -> None:
    points, _ = oracle.blobs(3, n=600, k=12, d=3)
    points += np.float32(offset)
    assert mean_inertia(points, 12, "kmeans++") < 0.2 * mean_inertia(points, 12, "random")


def test_the_best_of_several_candidates_beats_one_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    points, _ = oracle.blobs(4, n=600, k=12, d=3)
    greedy = mean_inertia(points, 12, "kmeans++")
    monkeypatch.setattr("kmeans.seeding.GREEDY_MULTIPLICATIONS", 0)
    assert greedy < 0.9 * mean_inertia(points, 12, "kmeans++")


def test_many_centers_are_drawn_by_distance_too() -> None:
    points, _ = oracle.blobs(5, n=1200, k=400, d=3, spread=200, std=0.01)
    assert mean_inertia(points, 400, "kmeans++", seeds=2) < 0.1 * mean_inertia(points, 400, "random", seeds=2)


def test_far_points_are_drawn_where_the_distance_is() -> None:
    points, distances = column(0, 1, 50, 51, 90), np.array([0.0, 0.0, 2500.0, 2601.0, 0.0])
    for seed in range(20):
        drawn = draw_far_points(points, distances, 1, np.random.default_rng(seed))
        assert drawn.ravel().tolist() in ([50], [51])


def test_far_points_end_where_no_point_differs_from_a_center() -> None:
    points = column(0, 0, 5, 5, 5)
    drawn = draw_far_points(points, np.array([0.0, 0.0, 25.0, 25.0, 25.0]), 3, np.random.default_rng(0))
    assert drawn.ravel().tolist() == [5]
    none = draw_far_points(points, np.zeros(5), 3, np.random.default_rng(0))
    assert none.shape == (0, 1)


def test_drawing_far_points_leaves_the_distances_as_they_are() -> None:
    distances = np.array([1.0, 4.0, 9.0])
    draw_far_points(column(1, 2, 3), distances, 2, np.random.default_rng(0))
    assert distances.tolist() == [1, 4, 9]
