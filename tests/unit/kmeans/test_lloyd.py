from __future__ import annotations

import numpy as np
import pytest
from sklearn.cluster import KMeans

from kmeans.arrays import Float32, Float64
from kmeans.distance import NearestCenters
from kmeans.lloyd import LloydResult, lloyd
from kmeans.seeding import draw_far_points, seed_centers
from kmeans.sums import ClusterSums, assign_and_sum
from tests.unit.kmeans import oracle


def run(
    points: Float32,
    first: Float32,
    *,
    max_iter: int = 300,
    tol: float = 0.0,
    weights: Float64 | None = None,
    passes: list[float] | None = None,
) -> LloydResult:
    def reseed(nearest: NearestCenters, count: int) -> Float32:
        return draw_far_points(points, nearest.query(points)[1], count, np.random.default_rng(0))

    def on_pass(done: int, sums: ClusterSums) -> None:
        if passes is not None:
            assert done == len(passes)
            passes.append(sums.inertia)

    return lloyd(
        lambda nearest: assign_and_sum(points, nearest, weights),
        first,
        max_iter=max_iter,
        tol=tol,
        reseed=reseed,
        on_pass=on_pass,
    )


def overlapping(seed: int, k: int = 6) -> tuple[Float32, Float32]:
    """Return points whose clusters overlap, so that Lloyd takes many passes, and first centers."""
    points, _ = oracle.blobs(seed, n=1500, k=k, spread=2)
    return points, points[:k].copy()


@pytest.mark.parametrize("seed", range(5))
def test_result_equals_scikit_learn_from_the_same_centers(seed: int) -> None:
    points, first = overlapping(seed)
    found = run(points, first, max_iter=1000)
    wide = points.astype(np.float64)
    expected = KMeans(len(first), init=first.astype(np.float64), n_init=1, tol=0, max_iter=1000).fit(wide)
    assert oracle.inertia(points, found.centers) == pytest.approx(expected.inertia_, rel=1e-6)
    np.testing.assert_allclose(found.centers, expected.cluster_centers_, atol=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_weighted_points_give_the_result_of_scikit_learn(seed: int) -> None:
    points, first = overlapping(seed)
    weights = np.random.default_rng(seed).integers(0, 4, len(points)).astype(np.float64)
    found = run(points, first, weights=weights, max_iter=1000)
    model = KMeans(len(first), init=first.astype(np.float64), n_init=1, tol=0, max_iter=1000)
    expected = model.fit(points.astype(np.float64), sample_weight=weights)
    np.testing.assert_allclose(found.centers, expected.cluster_centers_, atol=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_inertia_never_rises_from_pass_to_pass(seed: int) -> None:
    points, first = overlapping(seed)
    passes: list[float] = []
    result = run(points, first, passes=passes)
    assert len(passes) > 5
    assert (np.diff(passes) <= 1e-6 * np.array(passes[1:])).all()
    assert passes[-1] == result.sums.inertia


def test_the_sums_belong_to_the_centers_returned() -> None:
    points, first = overlapping(1)
    for max_iter in (0, 1, 3, 300):
        result = run(points, first, max_iter=max_iter)
        labels, squared = oracle.nearest(points, result.centers)
        assert result.sums.inertia == pytest.approx(squared.sum(), rel=1e-5)
        assert result.sums.weights.sum() == len(points)
        assert np.abs(result.sums.weights - np.bincount(labels, minlength=len(first))).max() <= 1


@pytest.mark.parametrize("max_iter", [0, 1, 4])
def test_max_iter_limits_the_moves(max_iter: int) -> None:
    points, first = overlapping(2)
    passes: list[float] = []
    result = run(points, first, max_iter=max_iter, passes=passes)
    assert result.moves == max_iter
    assert len(passes) == max_iter + 1


def test_no_iterations_only_score_the_centers() -> None:
    points, first = overlapping(3)
    assert np.array_equal(run(points, first, max_iter=0).centers, first)


def test_a_larger_tolerance_ends_earlier() -> None:
    points, first = overlapping(4)
    assert run(points, first, tol=0.05).moves < run(points, first, tol=1e-4).moves < run(points, first).moves


def test_it_ends_where_each_center_is_the_mean_of_its_points() -> None:
    points, first = overlapping(5)
    result = run(points, first)
    labels, _ = oracle.nearest(points, result.centers)
    means = [points[labels == j].mean(axis=0, dtype=np.float64) for j in range(len(first))]
    np.testing.assert_allclose(result.centers, means, atol=1e-4)


def test_an_empty_cluster_gets_a_far_point() -> None:
    points = np.array([[0], [1], [10], [11], [100], [101]], dtype=np.float32)
    result = run(points, np.array([[5], [5000], [100]], dtype=np.float32))
    assert sorted(result.centers.ravel().tolist()) == [0.5, 10.5, 100.5]
    assert result.sums.weights.tolist() == [2, 2, 2]


def test_several_empty_clusters_get_far_points_at_once() -> None:
    points, centers = oracle.blobs(6, k=4, spread=100)
    first = np.vstack([points[:1], np.full((3, 4), 1e5)]).astype(np.float32)
    result = run(points, first)
    assert (result.sums.weights > 0).all()
    assert result.sums.inertia < 1.5 * oracle.inertia(points, centers)


def test_duplicate_centers_are_pulled_apart() -> None:
    points, centers = oracle.blobs(7, k=3, spread=100)
    result = run(points, np.repeat(centers[:1], 3, axis=0))
    assert (result.sums.weights > 0).all()
    assert result.sums.inertia == pytest.approx(oracle.inertia(points, centers), rel=0.05)


def test_clusters_stay_empty_with_too_few_distinct_points() -> None:
    points = np.repeat(np.array([[1], [2]], dtype=np.float32), 5, axis=0)
    result = run(points, np.array([[1], [1], [2], [7]], dtype=np.float32))
    assert result.sums.inertia == 0
    assert {1, 2} <= set(result.centers.ravel().tolist())
    assert np.isfinite(result.centers).all()


def test_empty_clusters_stay_when_no_move_is_left() -> None:
    points = np.array([[0], [1]], dtype=np.float32)
    result = run(points, np.array([[0.5], [50]], dtype=np.float32), max_iter=0)
    assert result.centers.ravel().tolist() == [0.5, 50]
    assert result.sums.weights.tolist() == [2, 0]


def test_the_first_centers_are_not_changed() -> None:
    points, first = overlapping(8)
    before = first.copy()
    run(points, first)
    assert np.array_equal(first, before)


@pytest.mark.parametrize("offset", [1e4, 1e6])
def test_points_far_from_the_origin_are_clustered_the_same(offset: float) -> None:
    generator = np.random.default_rng(9)
    # Multiples of 1/16 are exact in float32 up to 2^20, so that both data sets differ only by the offset.
    points = (np.rint(generator.normal(scale=2, size=(900, 2)) * 16) / 16).astype(np.float32)
    first = seed_centers(points, 5, "kmeans++", generator)
    near = run(points, first)
    far = run(points + np.float32(offset), first + np.float32(offset))
    assert oracle.inertia(points, far.centers - np.float32(offset)) == pytest.approx(
        oracle.inertia(points, near.centers), rel=0.05
    )
