"""Points kept in their clusters while centers move: looking nearby must find what looking everywhere finds."""

import numpy as np
import pytest

from kmeans.distance import NearestCenters
from kmeans.partition import NEARBY, WORTHWHILE_FROM, Partition
from kmeans.sums import assign_and_sum
from kmeans.workers import Workers
from tests.unit.kmeans import oracle

CLUSTERS = 3 * NEARBY


def moved(centers: np.ndarray, by: float) -> np.ndarray:
    return (centers + np.random.default_rng(1).normal(scale=by, size=centers.shape)).astype(np.float32)


@pytest.fixture(params=[0.0, 1e6], ids=["around the origin", "far from it"])
def blobs(request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray]:
    points, centers = oracle.blobs(0, n=6000, k=CLUSTERS, d=4, spread=60)
    return (points + request.param).astype(np.float32), (centers + request.param).astype(np.float32)


def test_points_are_taken_in_once_each_with_their_nearest_center(blobs: tuple[np.ndarray, np.ndarray]) -> None:
    points, centers = blobs
    partition, nearest = Partition(points, CLUSTERS, Workers()), NearestCenters(centers)
    order = np.random.default_rng(0).permutation(len(points))
    for size in (100, 100, 3000, 6000):
        partition.take_in(order[:size], nearest)
        assert partition.members.tolist() == sorted(order[:size].tolist())
        expected = assign_and_sum(points[np.sort(order[:size])], nearest)
        assert partition.sums.weights.tolist() == expected.weights.tolist()
        assert partition.sums.sums == pytest.approx(expected.sums, rel=1e-6)
    assert partition.labels.tolist() == nearest.query(points)[0].tolist()


def test_points_not_taken_in_have_no_label() -> None:
    points, centers = oracle.blobs(1, k=5)
    partition = Partition(points, 5, Workers())
    partition.take_in(np.array([3, 1]), NearestCenters(centers))
    assert np.flatnonzero(partition.labels >= 0).tolist() == [1, 3]


@pytest.mark.parametrize("threads", [1, 3])
def test_looking_nearby_finds_what_looking_everywhere_finds(blobs: tuple[np.ndarray, np.ndarray], threads: int) -> None:
    points, centers = blobs
    with Workers(threads) as workers:
        partition = Partition(points, CLUSTERS, workers)
        partition.take_in(np.arange(len(points)), NearestCenters(centers))
        nearest = NearestCenters(moved(centers, by=3))
        partition.reassign_nearby(nearest)
        expected = assign_and_sum(points, nearest)
        assert (partition.labels == nearest.query(points)[0]).mean() > 0.995
        assert partition.sums.weights.sum() == len(points)
        assert np.abs(partition.sums.weights - expected.weights).sum() < 0.02 * len(points)
        found = ((points - nearest.centers[partition.labels]).astype(np.float64) ** 2).sum()
        assert partition.sums.inertia == pytest.approx(found, rel=1e-3)
        assert partition.reassign(nearest) < 0.005
        assert partition.sums.sums == pytest.approx(expected.sums, rel=1e-6)
        assert partition.sums.inertia == pytest.approx(expected.inertia, rel=1e-6)


def test_sums_follow_the_points_that_moved() -> None:
    points, centers = oracle.blobs(2, n=4000, k=CLUSTERS, d=3, spread=30)
    partition = Partition(points, CLUSTERS, Workers())
    partition.take_in(np.arange(len(points)), NearestCenters(centers))
    for by in (1, 2, 3):
        partition.reassign_nearby(NearestCenters(moved(centers, by)))
        for cluster in range(0, CLUSTERS, 7):
            own = points[partition.labels == cluster].astype(np.float64)
            assert partition.sums.weights[cluster] == len(own)
            assert partition.sums.sums[cluster] == pytest.approx(own.sum(axis=0), abs=1e-2)


@pytest.mark.parametrize("threads", [2, 5])
def test_workers_do_not_change_a_bit(threads: int) -> None:
    points, centers = oracle.blobs(3, n=30_000, k=CLUSTERS, d=3, spread=30)

    def run(workers: Workers) -> Partition:
        partition = Partition(points, CLUSTERS, workers)
        partition.take_in(np.arange(len(points)), NearestCenters(centers))
        partition.reassign_nearby(NearestCenters(moved(centers, by=2)))
        return partition

    alone = run(Workers())
    with Workers(threads) as workers:
        together = run(workers)
    assert together.labels.tobytes() == alone.labels.tobytes()
    assert together.sums.sums.tobytes() == alone.sums.sums.tobytes()
    assert together.sums.inertia == alone.sums.inertia


def test_clusters_may_be_empty() -> None:
    points, centers = oracle.blobs(4, n=500, k=CLUSTERS, d=3, spread=30)
    centers[::2] = 1e4
    partition = Partition(points, CLUSTERS, Workers())
    partition.take_in(np.arange(len(points)), NearestCenters(centers))
    partition.reassign_nearby(NearestCenters(moved(centers, by=1)))
    assert partition.sums.weights[::2].sum() == 0
    assert partition.sums.weights.sum() == len(points)


@pytest.mark.parametrize(("clusters", "exactly"), [(WORTHWHILE_FROM - 1, True), (WORTHWHILE_FROM, False)])
def test_few_clusters_are_followed_exactly(clusters: int, exactly: bool) -> None:
    points, centers = oracle.blobs(5, n=2000, k=clusters, d=3)
    partition = Partition(points, clusters, Workers())
    assert partition.follows_exactly == exactly
    partition.take_in(np.arange(len(points)), NearestCenters(centers))
    nearest = NearestCenters(moved(centers, by=20))
    partition.follow(nearest)
    assert (bool((partition.labels == nearest.query(points)[0]).all())) or not exactly
