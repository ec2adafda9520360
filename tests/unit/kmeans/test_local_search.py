"""The local search must find on skewed tables what many starts of scikit-learn find, and stop in time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from sklearn.cluster import KMeans

from kmeans.arrays import Float32, Float64
from kmeans.local_search import MAX_STARTS, LocalSearch, passes_within
from tests.unit.kmeans import oracle


def search(
    points: Float32,
    k: int,
    *,
    weights: Float64 | None = None,
    seconds: float = 0.1,
    seed: int = 0,
    starts: list[Float32] | None = None,
    max_starts: int = MAX_STARTS,
    check_stop: Callable[[], None] = lambda: None,
) -> Float32:
    job = LocalSearch(
        points,
        np.ones(len(points)) if weights is None else weights,
        k,
        np.random.default_rng(seed),
        seconds=seconds,
        check_stop=check_stop,
    )
    return job.best([points[:k]] if starts is None else starts, max_starts=max_starts)


def skewed(kind: str, seed: int, n: int = 5000) -> Float32:
    generator = np.random.default_rng(seed)
    match kind:
        case "lognormal":
            points = generator.lognormal(0, 3, size=(n, 2))
        case "pareto":
            points = generator.pareto(1.0, size=(n, 2))
        case _:
            points = generator.standard_cauchy(size=(n, 2))
    found: Float32 = points.astype(np.float32)
    return found


def scikit_learn(points: Float32, k: int, runs: int = 10) -> float:
    """Return the inertia of the best of several runs."""
    return min(float(KMeans(k, n_init=1, random_state=run).fit(points).inertia_) for run in range(runs))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", ["lognormal", "pareto", "cauchy"])
def test_search_of_a_skewed_table_is_as_good_as_scikit_learn(kind: str, seed: int) -> None:
    points = skewed(kind, seed)
    centers = search(points, 8)
    assert centers.shape == (8, 2)
    assert centers.dtype == np.float32
    assert oracle.inertia(points, centers) <= 1.03 * scikit_learn(points, 8)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "k"), [(10, 6), (20, 11), (100, 51), (100, 99), (300, 200)])
@pytest.mark.parametrize("kind", ["lognormal", "pareto"])
def test_search_of_fewer_rows_than_two_per_cluster_is_good(kind: str, n: int, k: int) -> None:
    points = skewed(kind, 1, n)
    assert oracle.inertia(points, search(points, k)) <= 1.03 * scikit_learn(points, k)


@pytest.mark.parametrize("k", [1, 3, 10])
def test_search_for_as_many_clusters_as_rows_leaves_no_loss(k: int) -> None:
    points = np.random.default_rng(0).normal(size=(k, 2)).astype(np.float32)
    assert oracle.inertia(points, search(points, k)) == pytest.approx(0, abs=1e-9)


def test_search_for_one_cluster_is_the_mean() -> None:
    points, _ = oracle.blobs(0)
    np.testing.assert_allclose(search(points, 1)[0], points.mean(axis=0, dtype=np.float64), rtol=1e-4, atol=1e-4)


def test_search_of_equal_rows_is_that_row() -> None:
    points = np.full((50, 3), 7, dtype=np.float32)
    assert search(points, 4).tolist() == [[7, 7, 7]] * 4


@pytest.mark.parametrize("offset", [1e3, 1e5])
def test_search_far_from_the_origin_is_as_good(offset: float) -> None:
    points, _ = oracle.blobs(1, n=3000, k=8, d=3, spread=5)
    here, there = search(points, 8), search((points + np.float32(offset)).astype(np.float32), 8)
    there = there - np.float32(offset)
    assert oracle.inertia(points, there) == pytest.approx(oracle.inertia(points, here), rel=0.02)


@pytest.mark.parametrize("max_starts", [1, MAX_STARTS])
def test_search_is_never_worse_than_its_start(max_starts: int) -> None:
    for seed in range(5):
        points = skewed("lognormal", seed, 1000)
        start = points[np.random.default_rng(seed).choice(1000, 8, replace=False)]
        for seconds in (0.0, 0.001, 0.1):
            centers = search(points, 8, starts=[start], seconds=seconds, max_starts=max_starts)
            assert oracle.inertia(points, centers) <= oracle.inertia(points, start) * (1 + 1e-6)


def test_of_several_starts_the_best_is_pursued() -> None:
    points, centers = oracle.blobs(2, n=2000, k=8, d=3, spread=100)
    bad: Float32 = np.repeat(centers[:1], 8, axis=0)
    for starts in ([bad, centers], [centers, bad]):
        found = search(points, 8, starts=starts, seconds=0.0, max_starts=2)
        assert oracle.inertia(points, found) < 1.01 * oracle.inertia(points, centers)


def test_a_search_with_more_time_is_better() -> None:
    few, many = 0.0, 0.0
    for seed in range(5):
        points = skewed("lognormal", seed, 2000)
        few += np.log(oracle.inertia(points, search(points, 12, seconds=0.002)))
        many += np.log(oracle.inertia(points, search(points, 12, seconds=0.1)))
    assert many < few


def test_a_seed_repeats_a_search_to_the_bit() -> None:
    points = skewed("pareto", 0, 2000)
    assert search(points, 8).tobytes() == search(points, 8).tobytes()


@pytest.mark.parametrize("seed", range(3))
def test_weight_2_equals_a_repeated_row(seed: int) -> None:
    """From one start and without draws of others, which depend on the order of the rows."""
    points = skewed("lognormal", seed, 400)
    weights = np.random.default_rng(seed).integers(1, 4, 400)
    repeated = np.repeat(points, weights, axis=0)
    start = [points[:5]]
    found = search(points, 5, weights=weights.astype(np.float64), starts=start, max_starts=1, seconds=0.0)
    expected = search(repeated, 5, starts=start, max_starts=1, seconds=0.0)
    np.testing.assert_allclose(oracle.sorted_rows(found), oracle.sorted_rows(expected), rtol=1e-4)
    best = scikit_learn(repeated, 5)
    assert oracle.inertia(repeated, search(points, 5, weights=weights.astype(np.float64))) <= 1.03 * best


def test_passes_end_when_the_time_is_used_up() -> None:
    """The time is counted, not measured: passes are what it is worth, and those that each start needs at least."""
    points = skewed("lognormal", 0, 2000)
    for seconds in (0.01, 0.1):
        passes = 0

        def count() -> None:
            nonlocal passes
            passes += 1

        search(points, 8, seconds=seconds, check_stop=count)
        allowed = passes_within(seconds, 2000, 2, 8)
        assert 0.3 * allowed < passes < 1.5 * allowed + 200


def test_a_stop_ends_the_search() -> None:
    class Stopped(Exception):  # noqa: N818 - nothing is wrong
        pass

    left = 7

    def check_stop() -> None:
        nonlocal left
        left -= 1
        if not left:
            raise Stopped

    with pytest.raises(Stopped):
        search(skewed("lognormal", 0, 500), 8, check_stop=check_stop)


def test_the_caller_s_arrays_are_not_changed() -> None:
    points, start = skewed("lognormal", 0, 500), skewed("lognormal", 1, 8)
    weights = np.ones(500)
    for array in (points, start, weights):
        array.flags.writeable = False
    assert np.isfinite(search(points, 8, weights=weights, starts=[start])).all()
