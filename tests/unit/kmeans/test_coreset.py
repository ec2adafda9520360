"""A coreset must stand for all rows: by its weights, and by every distant row in it."""

from __future__ import annotations

from typing import Final

import numpy as np
import pytest

from kmeans.arrays import Float32, Float64
from kmeans.collectives import Collectives, SingleHost
from kmeans.coreset import draw_coreset
from kmeans.dataset import MemoryRows, RowAssignment
from kmeans.threads import ThreadPool
from tests.unit.kmeans import oracle
from tests.unit.kmeans.thread_hosts import on_all_hosts

# In the tuple that `draw_coreset` returns.
POINTS: Final = 0
WEIGHTS: Final = 1


def draw(
    rows: MemoryRows, centers: Float32, size: int, *, seed: int = 0, threads: int = 1, hosts: Collectives | None = None
) -> tuple[Float32, Float64]:
    with ThreadPool(threads) as pool:
        return draw_coreset(rows, centers, size, np.random.default_rng(seed), pool=pool, hosts=hosts or SingleHost())


def rough_centers(points: Float32, k: int = 8) -> Float32:
    return points[np.random.default_rng(9).choice(len(points), k, replace=False)]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("size", [1000, 4000])
@pytest.mark.parametrize("weighted", [False, True])
def test_weights_of_a_coreset_add_up_to_about_all_rows(seed: int, size: int, weighted: bool) -> None:
    points, _ = oracle.blobs(seed, n=20_000, k=8, d=3, spread=5)
    weights = np.random.default_rng(seed).uniform(0, 3, 20_000) if weighted else None
    drawn = draw(MemoryRows(points, weights=weights), rough_centers(points), size, seed=seed)
    assert drawn[WEIGHTS].shape == (len(drawn[POINTS]),)
    assert drawn[WEIGHTS].dtype == np.float64
    assert (drawn[WEIGHTS] > 0).all()
    assert len(drawn[POINTS]) == pytest.approx(size, rel=0.1)
    assert drawn[WEIGHTS].sum() == pytest.approx(20_000 if weights is None else weights.sum(), rel=0.06)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("scale", [0.1, 1.0])
def test_loss_on_a_coreset_is_about_that_of_all_rows(scale: float, weighted: bool) -> None:
    points = np.random.default_rng(0).lognormal(0, 2, size=(20_000, 2)).astype(np.float32)
    weights = np.random.default_rng(1).uniform(0.5, 2, 20_000) if weighted else np.ones(20_000)
    drawn = draw(MemoryRows(points, weights=weights if weighted else None), rough_centers(points), 4000)
    others = points[np.random.default_rng(2).choice(20_000, 8, replace=False)] * np.float32(scale)
    expected = weights @ oracle.nearest(points, others)[1]
    assert drawn[WEIGHTS] @ oracle.nearest(drawn[POINTS], others)[1] == pytest.approx(expected, rel=0.06)


@pytest.mark.parametrize("seed", range(5))
def test_distant_rows_are_always_drawn_and_counted_once(seed: int) -> None:
    points, centers = oracle.blobs(1, n=100_000, k=8, d=3, spread=5)
    far = np.random.default_rng(seed).choice(100_000, 5, replace=False)
    points[far] += 1000
    drawn = draw(MemoryRows(points), centers, 2000, seed=seed)
    is_far = drawn[POINTS].max(axis=1) > 500
    assert is_far.sum() == 5
    np.testing.assert_allclose(drawn[WEIGHTS][is_far], 1)


@pytest.mark.parametrize("size", [500, 501, 10**6])
@pytest.mark.parametrize("weighted", [False, True])
def test_all_rows_are_their_own_coreset_where_size_allows(size: int, weighted: bool) -> None:
    points, centers = oracle.blobs(2, n=500, k=3, d=2)
    weights = np.random.default_rng(0).uniform(0.1, 4, 500)
    drawn = draw(MemoryRows(points, weights=weights if weighted else None), centers, size)
    order = MemoryRows(points).order(epoch=0)
    assert drawn[POINTS].tolist() == points[order].tolist()
    np.testing.assert_allclose(drawn[WEIGHTS], weights[order] if weighted else np.ones(500))


def test_rows_at_the_centers_are_drawn_alike() -> None:
    """Without a loss each row has the same chance."""
    points = np.repeat(np.arange(4, dtype=np.float32)[:, None], 2500, axis=0)
    drawn = draw(MemoryRows(points), points[::2500], 1000)
    assert len(drawn[POINTS]) == pytest.approx(1000, rel=0.15)
    np.testing.assert_allclose(drawn[WEIGHTS], 10)
    assert np.unique(drawn[POINTS]).tolist() == [0, 1, 2, 3]


def test_threads_do_not_change_a_coreset_and_a_seed_repeats_it() -> None:
    points, _ = oracle.blobs(3, n=20_000, k=8, d=3, spread=5)
    centers = rough_centers(points)
    alone = draw(MemoryRows(points), centers, 2000)
    for threads in (1, 3):
        again = draw(MemoryRows(points), centers, 2000, threads=threads)
        assert again[POINTS].tobytes() == alone[POINTS].tobytes()
        assert again[WEIGHTS].tobytes() == alone[WEIGHTS].tobytes()
    assert draw(MemoryRows(points), centers, 2000, seed=1)[POINTS].tobytes() != alone[POINTS].tobytes()


# ---- several hosts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("weighted", [False, True])
def test_hosts_draw_from_divided_rows_what_one_host_draws(size: int, weighted: bool) -> None:
    points, _ = oracle.blobs(4, n=12_000, k=8, d=3, spread=5)
    weights = np.random.default_rng(0).uniform(0.5, 3, 12_000) if weighted else None
    centers = rough_centers(points)

    def share(rank: int, hosts: int) -> MemoryRows:
        own = None if weights is None else weights[rank::hosts]
        return MemoryRows(points[rank::hosts], numbers=RowAssignment(rank, hosts).numbers(12_000), weights=own)

    alone = draw(share(0, 1), centers, 2000)
    leader, *others = on_all_hosts(size, lambda hosts: draw(share(hosts.rank, size), centers, 2000, hosts=hosts))
    assert not isinstance(leader, BaseException)
    assert leader[POINTS].tobytes() == alone[POINTS].tobytes()
    np.testing.assert_allclose(leader[WEIGHTS], alone[WEIGHTS], rtol=1e-9)
    for other in others:
        assert not isinstance(other, BaseException)
        assert (len(other[POINTS]), len(other[WEIGHTS])) == (0, 0)


@pytest.mark.parametrize("sizes", [[6000, 6000], [12_000, 0], [10, 0, 11_990]])
def test_hosts_draw_from_sharded_rows_together(sizes: list[int]) -> None:
    points, centers = oracle.blobs(5, n=12_000, k=8, d=3, spread=5)
    points[[5, 7000, 11_000]] += 1000
    shares = [MemoryRows(part) for part in np.split(points, np.cumsum(sizes)[:-1])]
    leader = on_all_hosts(len(sizes), lambda hosts: draw(shares[hosts.rank], centers, 2000, hosts=hosts))[0]
    assert not isinstance(leader, BaseException)
    assert len(leader[POINTS]) == pytest.approx(2000, rel=0.15)
    assert leader[WEIGHTS].sum() == pytest.approx(12_000, rel=0.06)
    assert (leader[POINTS].max(axis=1) > 500).sum() == 3


def test_weights_of_many_draws_are_unbiased() -> None:
    points = np.random.default_rng(0).lognormal(0, 1, size=(2000, 2)).astype(np.float32)
    rows, centers = MemoryRows(points), rough_centers(points)
    expected = points.astype(np.float64).sum(axis=0)
    totals: list[Float64] = []
    for seed in range(60):
        drawn = draw(rows, centers, 300, seed=seed)
        totals.append(drawn[WEIGHTS] @ drawn[POINTS])
    error = np.std(totals, axis=0) / np.sqrt(60)
    assert (np.abs(np.mean(totals, axis=0) - expected) < 4 * error).all()
