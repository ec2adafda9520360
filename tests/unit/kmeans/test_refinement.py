"""Lloyd's iterations on a growing sample must end where Lloyd's iterations on all rows end, or as well."""

import numpy as np
import pytest
from sklearn.cluster import KMeans

from kmeans.lloyd import LloydResult
from kmeans.refinement import MIN_ROWS, refine
from kmeans.sums import ClusterSums
from kmeans.workers import Workers
from tests.unit.kmeans import oracle


def run(
    points: np.ndarray, *starts: np.ndarray, max_iter: int = 100, tol: float = 1e-4, threads: int = 1
) -> LloydResult:
    generator = np.random.default_rng(0)
    with Workers(threads) as workers:
        return refine(points, starts, max_iter=max_iter, tol=tol, generator=generator, workers=workers)


def random_start(points: np.ndarray, k: int, seed: int = 0) -> np.ndarray:
    return points[np.random.default_rng(seed).choice(len(points), k, replace=False)]


@pytest.mark.parametrize(("k", "n"), [(8, 3000), (8, 4 * MIN_ROWS), (100, 4 * MIN_ROWS)])
def test_the_result_is_as_good_as_that_of_scikit_learn_from_the_same_start(k: int, n: int) -> None:
    points, _ = oracle.blobs(0, n=n, k=k, d=5, spread=2)
    start = random_start(points, k)
    expected = KMeans(k, init=start, n_init=1, tol=0).fit(points).inertia_
    result = run(points, start)
    assert result.sums.inertia < 1.02 * expected


@pytest.mark.parametrize("k", [8, 100])
def test_the_sums_belong_to_the_centers_returned(k: int) -> None:
    points, _ = oracle.blobs(1, n=2 * MIN_ROWS, k=k, d=3, spread=5)
    result = run(points, random_start(points, k))
    assert result.sums.inertia == pytest.approx(oracle.inertia(points, result.centers), rel=1e-5)
    assert result.sums.weights.sum() == len(points)


def test_of_several_starts_the_best_is_pursued() -> None:
    points, centers = oracle.blobs(2, n=2 * MIN_ROWS, k=6, d=3, spread=100)
    bad = np.repeat(centers[:1], 6, axis=0) + np.arange(6, dtype=np.float32)[:, None] / 100
    best = oracle.inertia(points, centers)
    assert run(points, bad, centers, bad).sums.inertia == pytest.approx(best, rel=0.01)


@pytest.mark.parametrize("max_iter", [1, 3])
def test_moves_on_all_rows_are_capped_and_counted(max_iter: int) -> None:
    points, _ = oracle.blobs(3, n=2 * MIN_ROWS, k=8, d=3, spread=1)
    heard: list[int] = []

    def hear(done: int, sums: ClusterSums) -> None:
        heard.append(done)
        assert sums.weights.sum() == len(points)

    result = refine(
        points,
        [random_start(points, 8)],
        max_iter=max_iter,
        tol=0,
        generator=np.random.default_rng(0),
        workers=Workers(),
        on_pass=hear,
    )
    assert result.moves == max_iter
    assert heard == list(range(1, max_iter + 1))


@pytest.mark.parametrize("k", [6, 60])
def test_empty_clusters_are_reseeded(k: int) -> None:
    points, centers = oracle.blobs(4, n=2 * MIN_ROWS, k=k, d=3, spread=100)
    start = centers.copy()
    start[1::2] = 1e6
    result = run(points, start)
    assert (result.sums.weights > 0).all()
    assert result.sums.inertia < 20 * oracle.inertia(points, centers)


@pytest.mark.parametrize("k", [8, 100])
def test_workers_do_not_change_a_bit(k: int) -> None:
    points, _ = oracle.blobs(5, n=3 * MIN_ROWS, k=k, d=3, spread=5)
    start = random_start(points, k)
    assert run(points, start).centers.tobytes() == run(points, start, threads=3).centers.tobytes()


def test_points_that_are_all_equal_need_no_moving() -> None:
    points = np.full((20, 2), 3, dtype=np.float32)
    result = run(points, points[:2])
    assert result.sums.inertia == 0
    assert result.centers.tolist() == [[3, 3], [3, 3]]
