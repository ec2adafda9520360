"""Points kept in their clusters while centers move: looking at some must find what looking at all finds."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from kmeans.arrays import Float32, Int64
from kmeans.assignments import Assignments
from kmeans.distance import two_nearest
from kmeans.nearby import NEARBY
from kmeans.threads import ThreadPool
from tests.unit.kmeans import oracle

MANY = 3 * NEARBY

# One, fewer than are nearby, just as many, a few more, and many more.
any_number_of_clusters = pytest.mark.parametrize("k", [1, 2, NEARBY, NEARBY + 1, 40, MANY])

around_the_origin_or_far = pytest.mark.parametrize("offset", [0.0, 1e6], ids=["around the origin", "far from it"])

# What the calls for one cluster are said to cost decides how many centers points are compared with.
either_way_of_looking = pytest.mark.parametrize("cost", [0, 10**15], ids=["around", "everywhere"])


class Spy:
    """Replaces ``two_nearest``, and records the points and the number of centers of each call."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.points: list[Float32] = []
        self.clusters: list[int] = []
        monkeypatch.setattr("kmeans.assignments.two_nearest", self)

    def __call__(self, points: Float32, factor: Float32, norms: Float32) -> tuple[Int64, Float32, Float32]:
        if len(points):
            self.points.append(points.copy())
            self.clusters.append(factor.shape[1])
        return two_nearest(points, factor, norms)

    @property
    def rows(self) -> int:
        return sum(map(len, self.points))

    def forget(self) -> None:
        self.points, self.clusters = [], []


@pytest.fixture
def never_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forbid that all members are compared with all centers: what is found was found by looking at some."""

    def reassign(_: Assignments) -> None:
        pytest.fail("all members were compared with all centers")

    monkeypatch.setattr(Assignments, "reassign", reassign)


def overlapping(k: int, *, offset: float = 0.0, n: int = 6000, seed: int = 0) -> tuple[Float32, Float32]:
    """Return points in clusters that overlap, and the centers these lie around."""
    points, centers = oracle.blobs(seed, n=n, k=k, d=4, spread=6)
    return (points + offset).astype(np.float32), (centers + offset).astype(np.float32)


def moved(centers: Float32, by: float, seed: int = 1) -> Float32:
    return (centers + np.random.default_rng(seed).normal(scale=by, size=centers.shape)).astype(np.float32)


def partition_of_all(points: Float32, centers: Float32, pool: ThreadPool | None = None) -> Assignments:
    assignments = Assignments(points, centers, pool or ThreadPool())
    assignments.add_points(np.arange(len(points)))
    return assignments


def share_misplaced(assignments: Assignments, points: Float32) -> float:
    """Return the share of the members that are closer to another center than their own, by more than rounding."""
    table = oracle.squared_distances(points[assignments.members], assignments.centers)
    own = table[np.arange(len(table)), assignments.labels]
    return float((own > 1.001 * table.min(axis=1) + 1e-9).mean())


def assert_sums_are_of_the_labels(assignments: Assignments, points: Float32, relative: float = 1e-4) -> None:
    """Check the sums against the members added up by their labels, nearest or not."""
    members = points[assignments.members].astype(np.float64)
    middle = members.mean(axis=0)
    k = len(assignments.centers)
    expected = np.zeros((k, points.shape[1]))
    np.add.at(expected, assignments.labels, members - middle)
    weights = np.bincount(assignments.labels, minlength=k)
    assert assignments.sums.weights.tolist() == weights.tolist()
    found = assignments.sums.sums - weights[:, None] * middle
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(members - middle).sum(axis=0).max())
    inertia = np.square(members - assignments.centers.astype(np.float64)[assignments.labels]).sum()
    assert assignments.sums.inertia == pytest.approx(inertia, rel=relative)


@any_number_of_clusters
@around_the_origin_or_far
def test_points_are_added_once_to_their_nearest_center(k: int, offset: float) -> None:
    points, centers = overlapping(k, offset=offset)
    assignments = Assignments(points, centers, ThreadPool())
    order = np.random.default_rng(0).permutation(len(points))
    for begin, size in pairwise((0, 100, 101, 3000, 6000)):
        assignments.add_points(order[begin:size])
        assert assignments.members.tolist() == sorted(order[:size].tolist())
        assert assignments.labels.dtype == np.int32
        assert share_misplaced(assignments, points) == 0
        assert_sums_are_of_the_labels(assignments, points)


def test_no_points_are_in_no_cluster() -> None:
    points, centers = overlapping(5)
    assignments = Assignments(points, centers, ThreadPool())
    assignments.add_points(np.empty(0, dtype=np.int64))
    assert (len(assignments.members), len(assignments.labels)) == (0, 0)
    assert assignments.sums.weights.tolist() == [0] * 5
    assert assignments.sums.inertia == 0


def test_points_are_given_by_their_place_among_the_members() -> None:
    points, centers = overlapping(5)
    assignments = Assignments(points, centers, ThreadPool())
    assignments.add_points(np.array([30, 10, 20]))
    given = assignments.points_of(np.array([2, 0]))
    assert given.tolist() == points[[30, 10]].tolist()
    given[:] = 0
    assert points[30].any()


@pytest.mark.usefixtures("never_all")
@any_number_of_clusters
@around_the_origin_or_far
def test_points_added_after_a_move_join_the_current_centers(k: int, offset: float) -> None:
    points, centers = overlapping(k, offset=offset)
    order = np.random.default_rng(0).permutation(len(points))
    assignments = Assignments(points, centers, ThreadPool())
    assignments.add_points(order[:1000])
    assignments.follow(moved(centers, by=2))
    assignments.add_points(order[1000:])
    late = np.isin(assignments.members, order[1000:])
    nearest, _ = oracle.nearest(points, assignments.centers)
    assert (assignments.labels == nearest)[late].mean() > 0.999
    assert_sums_are_of_the_labels(assignments, points)
    assignments.follow(moved(centers, by=2, seed=2))
    assert share_misplaced(assignments, points) <= 0.005
    assert_sums_are_of_the_labels(assignments, points)


@pytest.mark.usefixtures("never_all")
@any_number_of_clusters
@around_the_origin_or_far
def test_labels_are_nearly_all_exact_after_many_moves(k: int, offset: float) -> None:
    points, centers = overlapping(k, offset=offset)
    assignments = partition_of_all(points, centers)
    for step in range(12):
        centers = moved(centers, by=0.5 / (1 + step), seed=step)
        assignments.follow(centers)
        assert assignments.centers.tolist() == centers.tolist()
        assert share_misplaced(assignments, points) <= 0.005
        assert_sums_are_of_the_labels(assignments, points)


@pytest.mark.usefixtures("never_all")
@either_way_of_looking
@pytest.mark.parametrize("by", [0.2, 1.0])
@pytest.mark.parametrize("k", [NEARBY, NEARBY + 1, 40, MANY])
def test_both_ways_of_comparing_find_the_labels_of_all_centers(
    cost: int, by: float, k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kmeans.assignments.CLUSTER_COST", cost)
    monkeypatch.setattr("kmeans.assignments.MOVEMENT_FRACTION", 1.0)
    points, centers = overlapping(k)
    assignments, spy = partition_of_all(points, centers), Spy(monkeypatch)
    for step in range(3):
        assignments.follow(moved(centers, by, seed=step))
        assert share_misplaced(assignments, points) <= 0.005
        assert_sums_are_of_the_labels(assignments, points)
    assert set(spy.clusters) == {k if cost else NEARBY}


@pytest.mark.usefixtures("never_all")
@pytest.mark.parametrize("k", [2, 9, NEARBY])
@pytest.mark.parametrize("by", [0.05, 0.5, 2.0])
def test_bounds_with_the_whole_movement_miss_no_point(k: int, by: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kmeans.assignments.MOVEMENT_FRACTION", 1.0)
    points, centers = overlapping(k)
    order = np.random.default_rng(0).permutation(len(points))
    assignments = Assignments(points, centers, ThreadPool())
    for step in range(15):
        assignments.add_points(order[400 * step : 400 * (step + 1)])
        centers = moved(centers, by, seed=step)
        assignments.follow(centers)
        assert share_misplaced(assignments, points) == 0


@pytest.mark.usefixtures("never_all")
def test_points_whose_center_stays_the_nearest_stay_with_it() -> None:
    grid = (6 * np.indices((3, 3)) - 6).reshape(2, 9).T.astype(np.float32)
    own = np.arange(4500) % 9
    points = grid[own] + np.random.default_rng(0).uniform(-1, 1, (4500, 2)).astype(np.float32)
    assignments = partition_of_all(points, grid)
    for step in range(30):
        shift = np.random.default_rng(step).uniform(-0.7, 0.7, grid.shape).astype(np.float32)
        assignments.follow(grid + shift)
        assert assignments.labels.tolist() == own.tolist()
        assert_sums_are_of_the_labels(assignments, points)


@pytest.mark.usefixtures("never_all")
@pytest.mark.parametrize("k", [NEARBY, MANY])
def test_after_a_tiny_move_few_points_are_compared_with_centers(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    points, centers = overlapping(k)
    assignments, spy = partition_of_all(points, centers), Spy(monkeypatch)
    assignments.follow(moved(centers, by=0.005))
    assert 0 < spy.rows < 0.05 * len(points)


@pytest.mark.usefixtures("never_all")
def test_tiny_moves_add_up_until_points_are_compared_again(monkeypatch: pytest.MonkeyPatch) -> None:
    points, centers = overlapping(NEARBY)
    assignments, spy = partition_of_all(points, centers), Spy(monkeypatch)
    step = np.float32(0.01) * np.sign(moved(0 * centers, by=1))
    for times in range(1, 101):
        assignments.follow(centers + times * step)
    assert spy.rows > 0.2 * len(points)
    assert share_misplaced(assignments, points) <= 0.01


@pytest.mark.usefixtures("never_all")
@pytest.mark.parametrize("k", [1, NEARBY, MANY])
def test_where_no_center_moves_no_point_is_compared(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    points, centers = overlapping(k)
    assignments, spy = partition_of_all(points, centers), Spy(monkeypatch)
    labels = assignments.labels.tolist()
    assignments.follow(centers.copy())
    assert spy.rows == 0
    assert assignments.labels.tolist() == labels
    assert_sums_are_of_the_labels(assignments, points)


@pytest.mark.usefixtures("never_all")
def test_with_one_cluster_there_is_nothing_to_compare(monkeypatch: pytest.MonkeyPatch) -> None:
    points, centers = overlapping(1)
    assignments, spy = partition_of_all(points, centers), Spy(monkeypatch)
    for step in range(3):
        assignments.follow(moved(centers, by=5, seed=step))
        assert not assignments.labels.any()
        assert_sums_are_of_the_labels(assignments, points)
    assert spy.rows == 0


@pytest.mark.usefixtures("never_all")
def test_points_far_from_all_centers_that_moved_are_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    points, centers = oracle.blobs(0, n=6000, k=80, d=4, spread=3)
    labels, _ = oracle.nearest(points, centers)
    side = np.where(np.arange(80) % 2, np.float32(12), np.float32(-12))
    points[:, 0] += side[labels]
    centers[:, 0] += side
    assignments, spy = partition_of_all(points, centers), Spy(monkeypatch)
    left = side < 0
    assignments.follow(np.where(left[:, None], moved(centers, by=1), centers))
    assert spy.rows > 500
    assert max(seen[:, 0].max() for seen in spy.points) < 6
    assert share_misplaced(assignments, points) <= 0.005


@pytest.mark.usefixtures("never_all")
@pytest.mark.parametrize("k", [5, NEARBY, 40, MANY])
def test_center_relocated_into_a_cluster_gets_points_of_it(k: int) -> None:
    points, centers = overlapping(k)
    first = centers.copy()
    first[0] = 100
    assignments = partition_of_all(points, first)
    assert assignments.sums.weights[0] == 0
    assignments.follow(centers)
    assert share_misplaced(assignments, points) <= 0.005
    assert assignments.sums.weights[0] > 0
    assert_sums_are_of_the_labels(assignments, points)


@pytest.mark.parametrize("k", [5, 40, MANY])
@pytest.mark.parametrize("std", [0.1, 0.01])
def test_tight_clusters_far_apart_are_followed_exactly(k: int, std: float) -> None:
    points, centers = oracle.blobs(0, n=4000, k=k, d=4, spread=100, std=std)
    assignments = partition_of_all(points, centers)
    for step in range(3):
        assignments.follow(moved(centers, by=3 * std, seed=step))
        assert share_misplaced(assignments, points) == 0
        assert_sums_are_of_the_labels(assignments, points, relative=1e-2)


@around_the_origin_or_far
def test_points_that_are_the_centers_have_no_inertia(offset: float) -> None:
    _, centers = overlapping(MANY, offset=offset)
    assignments = partition_of_all(centers, moved(centers, by=0.1))
    assignments.follow(centers)
    assert assignments.labels.tolist() == list(range(MANY))
    assert assignments.sums.inertia == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("k", [6, MANY])
def test_clusters_may_be_empty(k: int) -> None:
    points, centers = overlapping(k, n=2000)
    centers[::2] = 1e4
    assignments = partition_of_all(points, centers)
    assignments.follow(moved(centers, by=1))
    assert not assignments.sums.weights[::2].any()
    assert share_misplaced(assignments, points) <= 0.005
    assert_sums_are_of_the_labels(assignments, points)


@pytest.mark.parametrize("k", [6, MANY])
@around_the_origin_or_far
def test_clusters_may_lose_all_their_points_and_find_others(k: int, offset: float) -> None:
    points, centers = overlapping(k, offset=offset, n=2000)
    assignments = partition_of_all(points, centers)
    away = centers.copy()
    away[::2] += 1000
    for elsewhere in (away, centers, away, moved(centers, by=1)):
        assignments.follow(elsewhere)
        assignments.reassign()  # a cluster that comes from afar isn't nearby before it is there
        assert bool(assignments.sums.weights[::2].any()) == (elsewhere is not away)
        assert_sums_are_of_the_labels(assignments, points)


@pytest.mark.parametrize("k", [1, 7, MANY])
@around_the_origin_or_far
def test_members_reassigned_are_all_with_their_nearest_center(k: int, offset: float) -> None:
    points, centers = overlapping(k, offset=offset)
    assignments = Assignments(points, centers, ThreadPool())
    assignments.add_points(np.arange(1, 6000, 2))
    assignments.follow(moved(centers, by=3))
    assignments.labels[::5] = 0
    assignments.reassign()
    assert assignments.members.tolist() == list(range(1, 6000, 2))
    assert share_misplaced(assignments, points) == 0
    assert_sums_are_of_the_labels(assignments, points)


@around_the_origin_or_far
@pytest.mark.parametrize("weighted", [False, True])
def test_excess_of_members_is_what_exact_labels_save(weighted: bool, offset: float) -> None:
    points, centers = overlapping(MANY, offset=offset)
    weights = np.random.default_rng(0).uniform(0.1, 3, 6000) if weighted else None
    assignments = Assignments(points, centers, ThreadPool(), weights=weights)
    assignments.add_points(np.arange(0, 6000, 3))
    members = points[::3]
    times = np.ones(2000) if weights is None else weights[::3]

    def expected(asked: Int64) -> float:
        table = oracle.squared_distances(members[asked], assignments.centers)
        own = float(times[asked] @ table[np.arange(len(asked)), assignments.labels[asked]])
        return 1 - float(times[asked] @ table.min(axis=1)) / own

    assert assignments.excess(np.arange(2000)) == 0
    assignments.labels[100:150] = (assignments.labels[100:150] + 1) % MANY
    labels = assignments.labels.tolist()
    for first, end in ((0, 2000), (140, 160), (100, 150)):
        asked = np.arange(first, end)
        assert expected(asked) > 0.02
        assert assignments.excess(asked) == pytest.approx(expected(asked), rel=1e-3)
    assert assignments.excess(np.arange(150, 2000)) == 0
    assert assignments.labels.tolist() == labels
    assignments.reassign()
    assert assignments.excess(np.arange(2000)) == 0


@around_the_origin_or_far
@pytest.mark.parametrize("std", [1e-1, 1e-2, 1e-3])
def test_excess_of_tight_clusters_ignores_rounding(std: float, offset: float) -> None:
    points, centers = oracle.blobs(0, n=100, k=40, d=8, spread=3, std=std)
    assignments = partition_of_all((points + offset).astype(np.float32), (centers + offset).astype(np.float32))
    assert assignments.excess(np.arange(100)) == 0


def test_excess_of_no_inertia_is_zero() -> None:
    _, centers = overlapping(5)
    assignments = partition_of_all(centers, centers)
    assert assignments.excess(np.arange(5)) == 0
    assert assignments.excess(np.arange(0)) == 0


@pytest.mark.parametrize("cost", [0, None, 10**15], ids=["around", "as is", "everywhere"])
@pytest.mark.parametrize("k", [7, MANY])
@around_the_origin_or_far
def test_thread_count_does_not_change_a_bit(
    cost: int | None, k: int, offset: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    if cost is not None:
        monkeypatch.setattr("kmeans.assignments.CLUSTER_COST", cost)
    points, centers = overlapping(k, offset=offset, n=15_000)

    def run(pool: ThreadPool) -> list[Any]:
        assignments = Assignments(points, centers, pool)
        assignments.add_points(np.arange(0, 15_000, 2))
        assignments.follow(moved(centers, by=1))
        assignments.add_points(np.arange(1, 15_000, 2))
        assignments.follow(moved(centers, by=2))
        assignments.follow(moved(centers, by=2.01))
        sums = assignments.sums
        return [assignments.labels.tobytes(), sums.sums.tobytes(), sums.weights.tobytes(), sums.inertia]

    alone = run(ThreadPool())
    for threads in (2, 5):
        with ThreadPool(threads) as pool:
            assert run(pool) == alone


def test_the_order_in_which_rows_are_named_does_not_change_a_bit() -> None:
    points, centers = overlapping(MANY)
    shuffled = Assignments(points, centers, ThreadPool())
    shuffled.add_points(np.random.default_rng(0).permutation(6000))
    in_order = partition_of_all(points, centers)
    assert shuffled.labels.tobytes() == in_order.labels.tobytes()
    assert shuffled.sums.sums.tobytes() == in_order.sums.sums.tobytes()


@around_the_origin_or_far
def test_the_caller_s_arrays_are_not_changed(offset: float) -> None:
    points, centers = overlapping(MANY, offset=offset)
    rows = np.random.default_rng(0).permutation(6000)
    after = moved(centers, by=1)
    for array in (points, centers, rows, after):
        array.flags.writeable = False
    assignments = Assignments(points, centers, ThreadPool())
    assignments.add_points(rows)
    assignments.follow(after)
    assignments.follow(centers, np.array([0, 5]), everywhere=True)
    assignments.reassign()
    assert assignments.excess(np.arange(6000)) == 0
    assert share_misplaced(assignments, points) == 0


@pytest.mark.usefixtures("never_all")
@either_way_of_looking
def test_points_are_compared_seldom_in_a_tiny_move(cost: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kmeans.assignments.CLUSTER_COST", cost)
    points, centers = overlapping(MANY)
    assignments, spy = partition_of_all(points, 2 * centers), Spy(monkeypatch)
    assignments.follow(centers)
    assert 0.9 * len(points) < spy.rows <= len(points)
    assert len(np.unique(np.concatenate(spy.points), axis=0)) == spy.rows
    spy.forget()
    assignments.follow(moved(centers, by=0.005))
    assert spy.rows < 0.1 * len(points)
