from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from kmeans.arrays import Float32
from kmeans.seeding import Method, PointDistances, draw_far_points, seed_centers
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
def test_kmeans_plus_plus_draws_distinct_points_first(offset: float) -> None:
    distinct = np.random.default_rng(2).normal(size=(12, 3)).astype(np.float32) + np.float32(offset)
    points = np.repeat(distinct, 50, axis=0)
    for seed in range(20):
        centers = seed_centers(points, 12, "kmeans++", np.random.default_rng(seed))
        assert len(np.unique(centers, axis=0)) == 12


def test_kmeans_plus_plus_separates_close_points_of_wide_data() -> None:
    points = column(0, 0, 0, 0.001, 1000)
    for seed in range(10):
        centers = seed_centers(points, 3, "kmeans++", np.random.default_rng(seed))
        assert len(np.unique(centers)) == 3, f"seed {seed} drew {centers.ravel().tolist()}"


@both_methods
def test_fewer_distinct_points_than_k_give_k_centers(method: Method) -> None:
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


def distances_of(points: Float32, *, in_table: bool) -> PointDistances:
    """Return the distances of ``points``: all at once, or when asked for."""
    distances = PointDistances(points, draws=len(points) if in_table else 1)
    # One more point costs n numbers of a table, or n x d multiplications.
    assert distances.multiplications == (len(points) if in_table else points.size)
    return distances


with_and_without_a_table = pytest.mark.parametrize("in_table", [True, False], ids=["table", "no table"])


@with_and_without_a_table
@pytest.mark.parametrize("offset", [0.0, 1000.0])
@pytest.mark.parametrize("d", [2, 30])
def test_distances_are_those_of_the_definition(in_table: bool, offset: float, d: int) -> None:
    points, _ = oracle.blobs(6, n=300, d=d, spread=50)
    points += np.float32(offset)
    rows = [7, 0, 299, 7]
    found = distances_of(points, in_table=in_table).of(rows)
    expected = oracle.squared_distances(points, points[rows]).T
    assert found.shape == (4, 300)
    np.testing.assert_allclose(found, expected, rtol=2e-3)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * expected.max())


@with_and_without_a_table
@pytest.mark.parametrize("offset", [0.0, 1000.0, -1e6])
def test_duplicates_have_no_distance_and_close_points_have_one(in_table: bool, offset: float) -> None:
    distinct = np.random.default_rng(7).normal(size=(40, 3)).astype(np.float32) + np.float32(offset)
    points = np.repeat(distinct, 30, axis=0)
    points[-1, 0] = np.nextafter(points[-1, 0], np.float32(np.inf))
    found = distances_of(points, in_table=in_table).of(list(range(0, 1200, 30)))
    assert found[np.arange(1199) // 30, np.arange(1199)].tolist() == [0.0] * 1199
    assert found[39, 1199] > 0
    assert (found >= 0).all()


@with_and_without_a_table
def test_more_close_points_than_a_block_are_all_distinguished(in_table: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kmeans.seeding.CLOSE_BLOCK_ROWS", 10)
    points = np.random.default_rng(8).normal(scale=0.001, size=(105, 2)).astype(np.float32)
    points[-5:] += 1000
    found = distances_of(points, in_table=in_table).of([0, 104])
    np.testing.assert_allclose(found, oracle.squared_distances(points, points[[0, 104]]).T, rtol=0.02, atol=1e-7)


def test_of_many_points_no_table_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    points, _ = oracle.blobs(9, n=50, d=4)
    assert PointDistances(points, draws=10**6).multiplications == 50
    monkeypatch.setattr("kmeans.seeding.TABLE_POINTS", 49)
    assert PointDistances(points, draws=10**6).multiplications == 200


def test_points_are_not_changed_by_their_distances() -> None:
    points, _ = oracle.blobs(10, n=50)
    points += 100
    points.flags.writeable = False
    PointDistances(points, draws=50).of([1, 2])


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_distances_known_already_draw_the_same_centers(offset: float) -> None:
    points, _ = oracle.blobs(11, n=100, d=3)
    points += np.float32(offset)
    known = PointDistances(points, draws=90)
    for seed in range(5):
        drawn, again = (
            seed_centers(points, 30, "kmeans++", np.random.default_rng(seed), distances=distances)
            for distances in (None, known)
        )
        assert np.array_equal(drawn, again)


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_a_table_does_not_make_the_centers_worse(offset: float, monkeypatch: pytest.MonkeyPatch) -> None:
    points, _ = oracle.blobs(12, n=200, k=40, d=3, spread=50)
    points += np.float32(offset)
    with_table = mean_inertia(points, 60, "kmeans++", seeds=5)
    monkeypatch.setattr("kmeans.seeding.TABLE_POINTS", 0)
    assert with_table == pytest.approx(mean_inertia(points, 60, "kmeans++", seeds=5), rel=0.05)
