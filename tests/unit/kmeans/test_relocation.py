"""Relocations must move centers of little use to where the loss is largest, and only if that pays."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from kmeans.arrays import Float32, Float64, Int64
from kmeans.assignments import Assignments
from kmeans.collectives import Collectives, SingleHost
from kmeans.dataset import MemoryRows, RowAssignment
from kmeans.relocation import FRACTION, relocate
from kmeans.threads import Interrupted, ThreadPool
from tests.unit.kmeans import oracle
from tests.unit.kmeans.thread_hosts import ThreadHosts, on_all_hosts


def run(
    rows: MemoryRows,
    centers: Float32,
    *,
    seed: int = 0,
    pool: ThreadPool | None = None,
    hosts: Collectives | None = None,
) -> tuple[Float32, Int64]:
    """Relocate once after all rows have joined their nearest ``centers``."""
    pool, hosts = pool or ThreadPool(), hosts or SingleHost()
    assignments = Assignments(rows.points, centers, pool, hosts, weights=rows.weights)
    assignments.add_points(np.arange(len(rows)))
    means = assignments.sums.means(otherwise=centers.astype(np.float64)).astype(np.float32)
    return relocate(assignments, means, rows, np.random.default_rng(seed), pool=pool, hosts=hosts)


def one_center_short(k: int = 6, n: int = 3000, d: int = 3) -> tuple[Float32, Float32, Float32]:
    """Return rows of k blobs, centers of which two share a blob and one has two, and the true centers."""
    truth = np.zeros((k, d), dtype=np.float32)
    truth[1:, 0] = 40 + 300 * np.arange(k - 1)
    generator = np.random.default_rng(1)
    points = (truth[generator.permutation(np.arange(n) % k)] + generator.normal(size=(n, d))).astype(np.float32)
    centers = truth.copy()
    centers[0] = truth[:2].mean(axis=0)  # has two blobs
    centers[1] = truth[2] + np.float32(0.5)  # shares one
    return points, centers, truth


def largest_distance(centers: Float32, truth: Float32) -> float:
    """Return the distance of the worst center to its own true one."""
    table = oracle.squared_distances(centers, truth)
    return float(np.sqrt(table[linear_sum_assignment(table)].max()))


def assert_loss_falls(points: Float32, before: Float32, after: Float32, weights: Float64 | None = None) -> None:
    times = np.ones(len(points)) if weights is None else weights
    assert times @ oracle.nearest(points, after)[1] < times @ oracle.nearest(points, before)[1]


@pytest.mark.parametrize("d", [2, 3, 20])
def test_a_starved_center_is_moved_into_a_cluster_with_two_blobs(d: int) -> None:
    points, centers, truth = one_center_short(d=d)
    means, jumped = run(MemoryRows(points), centers)
    assert jumped[0] == 0, "the center of two blobs"
    assert jumped[1:].tolist() in ([1], [2]), "one of two centers that share a blob"
    # The other of the two has half the rows of their blob until the next move.
    assert largest_distance(means, truth) < 2
    kept = np.setdiff1d(np.arange(6), jumped)
    assert oracle.inertia(points, means) < 1.1 * oracle.inertia(points, truth)
    assert largest_distance(means[kept], centers[kept]) < 2


@pytest.mark.parametrize("far", [1e4, 1e6])
def test_an_empty_cluster_is_moved_into_a_cluster_with_two_blobs(far: float) -> None:
    points, centers, truth = one_center_short()
    centers[1] = far
    centers[4] = truth[4]
    means, jumped = run(MemoryRows(points), centers)
    assert jumped.tolist() == [0, 1]
    assert largest_distance(means, truth) < 1


def test_a_center_of_one_row_goes_where_it_gains_more() -> None:
    points, centers, truth = one_center_short()
    points[11] = truth[3] + 8
    centers[1] = points[11]
    means, jumped = run(MemoryRows(points), centers)
    assert jumped.tolist() == [0, 1]
    assert largest_distance(means, truth) < 1


def test_a_distant_row_in_a_large_cluster_gets_a_center() -> None:
    points, centers, truth = one_center_short(n=30_000)
    centers[0], centers[1] = truth[0], truth[1]
    centers[5] = truth[2] + np.float32(0.5)  # now the sixth blob shares the center of another
    points[points.shape[0] // 2] = 1e5
    means, jumped = run(MemoryRows(points), centers)
    assert len(jumped) == 2
    assert np.abs(means - 1e5).max(axis=1).min() < 1e-3 * 1e5


@pytest.mark.parametrize("k", [2, 6, 60])
def test_nothing_is_relocated_where_nothing_gains(k: int) -> None:
    points, truth = oracle.blobs(2, n=50 * k, k=k, d=4, spread=100)
    means, jumped = run(MemoryRows(points), truth)
    assert jumped.tolist() == []
    assert jumped.dtype == np.int64
    labels, _ = oracle.nearest(points, truth)
    expected = np.stack([points[labels == label].mean(axis=0, dtype=np.float64) for label in range(k)])
    np.testing.assert_allclose(means, expected, rtol=1e-5, atol=1e-4)


def test_nothing_is_relocated_of_equal_rows_or_few_centers() -> None:
    equal = np.ones((100, 2), dtype=np.float32)
    assert run(MemoryRows(equal), equal[:3])[1].tolist() == []
    points, _ = oracle.blobs(0)
    assert run(MemoryRows(points), points[:1])[1].tolist() == []
    assert run(MemoryRows(points[:5]), points[:5])[1].tolist() == []


def test_relocations_are_a_small_fraction_of_the_centers() -> None:
    points, truth = oracle.blobs(3, n=12_000, k=200, d=4, spread=100)
    start = np.repeat(truth[:100], 2, axis=0) + np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)
    means, jumped = run(MemoryRows(points), start)
    # Of each pair one center leaves and one is split.
    assert len(jumped) == 2 * FRACTION * 200
    assert (np.diff(jumped) > 0).all()
    assert_loss_falls(points, start, means)


def test_one_of_two_centers_in_a_blob_is_relocated() -> None:
    """Each is of little use, but only while the other is there."""
    grid = 300 * np.indices((18, 10)).reshape(2, 180).T.astype(np.float32)
    truth = np.concatenate([grid, grid[:10] + np.float32(40)])  # ten of the centers have two blobs
    generator = np.random.default_rng(0)
    points = (truth[np.arange(19_000) % 190] + generator.normal(size=(19_000, 2))).astype(np.float32)
    start = np.concatenate([grid, grid[-20:] + np.float32(0.3)])
    start[-40:-20] -= np.float32(0.3)
    means, jumped = run(MemoryRows(points), start)
    assert len(jumped) == 20
    assert np.sqrt(oracle.nearest(truth, means)[1].max()) < 5


def test_seed_repeats_and_threads_do_not_change_a_bit() -> None:
    points, truth = oracle.blobs(3, n=12_000, k=100, d=4, spread=100)
    start = np.repeat(truth[:50], 2, axis=0) + np.random.default_rng(0).normal(size=(100, 4)).astype(np.float32)
    means, jumped = run(MemoryRows(points), start)
    assert len(jumped)
    for threads in (1, 2, 5):
        with ThreadPool(threads) as pool:
            again = run(MemoryRows(points), start, pool=pool)
        assert again[0].tobytes() == means.tobytes()
        assert again[1].tolist() == jumped.tolist()


def test_relocation_does_not_change_the_partition_or_its_means() -> None:
    points, centers, _ = one_center_short()
    points.flags.writeable = False
    assignments = Assignments(points, centers, ThreadPool())
    assignments.add_points(np.arange(len(points)))
    means = assignments.sums.means(otherwise=centers.astype(np.float64)).astype(np.float32)
    means.flags.writeable = False
    before = {name: array.tobytes() for name, array in assignments.per_host_state().items()}
    rows = MemoryRows(points)
    _, jumped = relocate(assignments, means, rows, np.random.default_rng(0), pool=ThreadPool(), hosts=SingleHost())
    assert len(jumped) == 2
    assert {name: array.tobytes() for name, array in assignments.per_host_state().items()} == before


# ---- weights ---------------------------------------------------------------------------------------------------------


def test_weight_2_equals_a_repeated_row() -> None:
    points, centers, _ = one_center_short(n=600)
    weights = np.random.default_rng(0).integers(1, 4, 600)
    means, jumped = run(MemoryRows(points, weights=weights), centers)
    expected, expected_jumped = run(MemoryRows(np.repeat(points, weights, axis=0)), centers)
    assert jumped.tolist() == expected_jumped.tolist()
    assert len(jumped) == 2
    np.testing.assert_allclose(means, expected, rtol=1e-4, atol=1e-3)


def test_weights_decide_which_cluster_is_split() -> None:
    points, truth = oracle.blobs(4, n=4000, k=4, d=2, spread=1, std=0.1)
    truth = (10 * np.array([[0, 0], [1, 0], [100, 0], [101, 0]])).astype(np.float32)
    points = truth[np.arange(4000) % 4] + points - points.mean(axis=0)
    centers = np.stack([truth[:2].mean(axis=0), truth[2:].mean(axis=0), points[0] + np.float32(1e5)])
    for heavy in (0, 1):
        weights = np.where((np.arange(4000) % 4 < 2) == (heavy == 0), 10.0, 1.0)
        means, jumped = run(MemoryRows(points, weights=weights), centers)
        assert jumped.tolist() == [heavy, 2]
        assert_loss_falls(points, centers, means, weights)


# ---- several hosts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("weighted", [False, True])
def test_hosts_relocate_divided_rows_as_one_host(size: int, weighted: bool) -> None:
    points, truth = oracle.blobs(5, n=9000, k=60, d=4, spread=100)
    start = np.repeat(truth[:30], 2, axis=0) + np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    weights = np.random.default_rng(1).uniform(0.5, 3, 9000) if weighted else None

    def share(rank: int, hosts: int) -> MemoryRows:
        own = None if weights is None else weights[rank::hosts]
        return MemoryRows(points[rank::hosts], numbers=RowAssignment(rank, hosts).numbers(9000), weights=own)

    means, jumped = run(share(0, 1), start)
    assert len(jumped) == 2 * FRACTION * 60
    for outcome in on_all_hosts(size, lambda hosts: run(share(hosts.rank, size), start, hosts=hosts)):
        assert not isinstance(outcome, BaseException)
        assert outcome[1].tolist() == jumped.tolist()
        np.testing.assert_allclose(outcome[0], means, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("sizes", [[1500, 1500], [3000, 0], [0, 10, 2990]])
def test_hosts_relocate_sharded_rows_together(sizes: list[int]) -> None:
    points, centers, truth = one_center_short()
    shares = [MemoryRows(part) for part in np.split(points, np.cumsum(sizes)[:-1])]

    def work(hosts: ThreadHosts) -> tuple[Float32, Int64]:
        return run(shares[hosts.rank], centers, hosts=hosts)

    outcomes = on_all_hosts(len(sizes), work)
    first = outcomes[0]
    assert not isinstance(first, BaseException)
    assert largest_distance(first[0], truth) < 2
    for outcome in outcomes:
        assert not isinstance(outcome, BaseException)
        assert outcome[0].tobytes() == first[0].tobytes()
        assert outcome[1].tolist() == first[1].tolist()
        assert len(outcome[1]) == 2


def test_a_stop_of_one_host_interrupts_the_relocation_on_all() -> None:
    points, centers, _ = one_center_short()

    def work(hosts: ThreadHosts) -> None:
        rows, has_begun = MemoryRows(points[hosts.rank :: 3]), False
        pool = ThreadPool(1, lambda: has_begun and hosts.rank == 1)
        assignments = Assignments(rows.points, centers, pool, hosts)
        assignments.add_points(np.arange(len(rows)))
        has_begun = True
        with pytest.raises(Interrupted):
            relocate(assignments, centers, rows, np.random.default_rng(0), pool=pool, hosts=hosts)

    assert on_all_hosts(3, work) == [None] * 3
