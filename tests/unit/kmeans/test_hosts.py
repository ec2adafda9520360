"""Several hosts, here threads that meet at a barrier, must find together what one host finds alone."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest

from kmeans.arrays import Float32
from kmeans.errors import DataError
from kmeans.estimator import Fitted, fit
from kmeans.rows import MemoryRows, Rows, StreamedRows, bytes_per_row, load
from kmeans.settings import Settings
from kmeans.workers import Workers
from tests.unit.kmeans import oracle
from tests.unit.kmeans.thread_hosts import ThreadHosts, on_all_hosts


def fit_together(
    shares: list[Rows], settings: Settings, stops: dict[int, Callable[[], bool]] | None = None
) -> list[Fitted | BaseException]:
    """Fit with a host for each of ``shares``; return what each found or how it failed."""

    def work(hosts: ThreadHosts) -> Fitted:
        with Workers(1, (stops or {}).get(hosts.rank)) as workers:
            return fit(shares[hosts.rank], settings, workers=workers, hosts=hosts)

    return on_all_hosts(len(shares), work)


def fitted_by(outcomes: list[Fitted | BaseException]) -> Fitted:
    """Return what all hosts found, which must be the same to the bit."""
    first = outcomes[0]
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
        assert isinstance(first, Fitted)
        assert outcome.model.centers.tobytes() == first.model.centers.tobytes()
        assert outcome.mean_squared_distance == first.mean_squared_distance
        assert outcome.shrink_loss == first.shrink_loss
        assert (outcome.model.counts is None) == (first.model.counts is None)
    assert isinstance(first, Fitted)
    return first


def divided(points: Float32, size: int) -> list[Rows]:
    return [MemoryRows(points[rank::size], 500) for rank in range(size)]


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("options", [{}, {"refine_max_iter": 0}, {"epochs": 3}, {"refine_sample_size": 3000}], ids=str)
def test_hosts_find_together_what_one_finds_alone(size: int, options: dict[str, int]) -> None:
    points, _ = oracle.blobs(0, n=8000, k=12, d=5, spread=30)
    settings = Settings(k=12, **options)  # type: ignore[arg-type]
    alone = fit(MemoryRows(points, 500), settings)
    together = fitted_by(fit_together(divided(points, size), settings))
    assert together.mean_squared_distance == pytest.approx(alone.mean_squared_distance, rel=1e-3)
    assert together.model.counts is not None
    labels, _ = oracle.nearest(points, together.model.centers)
    assert together.model.counts.tolist() == np.bincount(labels, minlength=12).tolist()
    assert together.streaming_centers == alone.streaming_centers


def test_many_clusters_are_found_together_too() -> None:
    points, _ = oracle.blobs(1, n=20_000, k=100, d=5, spread=30)
    alone = fit(MemoryRows(points), Settings(k=100))
    together = fitted_by(fit_together(divided(points, 3), Settings(k=100)))
    assert together.mean_squared_distance == pytest.approx(alone.mean_squared_distance, rel=1e-2)


@pytest.mark.parametrize("sizes", [[7000, 1000], [0, 8000], [8000, 0, 0], [5, 7990, 5], [7999, 1]])
def test_shares_may_be_of_any_size(sizes: list[int]) -> None:
    points, _ = oracle.blobs(2, n=8000, k=6, d=3, spread=30)
    ends = np.cumsum([0, *sizes])
    shares: list[Rows] = [MemoryRows(points[first:end], 500) for first, end in pairwise(ends)]
    alone = fit(MemoryRows(points, 500), Settings(k=6))
    together = fitted_by(fit_together(shares, Settings(k=6)))
    assert together.mean_squared_distance == pytest.approx(alone.mean_squared_distance, rel=1e-3)
    assert together.model.counts is not None
    assert together.model.counts.sum() == len(points)


def test_shares_that_memory_does_not_hold_are_fitted_together() -> None:
    points, _ = oracle.blobs(3, n=8000, k=6, d=3, spread=30)

    def share(rank: int) -> Rows:
        own = points[rank::2]
        rows = load(lambda: iter(np.array_split(own, 7)), 900 * bytes_per_row(3), 500)
        assert isinstance(rows, StreamedRows)
        return rows

    alone = fit(MemoryRows(points, 500), Settings(k=6))
    together = fitted_by(fit_together([share(0), share(1)], Settings(k=6)))
    assert together.mean_squared_distance == pytest.approx(alone.mean_squared_distance, rel=1e-3)


def test_rows_are_counted_over_all_hosts() -> None:
    points, _ = oracle.blobs(4, n=10, k=2, d=2)
    fitted_by(fit_together(divided(points, 3), Settings(k=10)))
    for outcome in fit_together(divided(points, 3), Settings(k=11)):
        assert isinstance(outcome, DataError)
        assert "there are only 10 rows" in str(outcome)


def test_clusters_that_fell_empty_are_reseeded_by_all() -> None:
    points = np.repeat(np.arange(40, dtype=np.float32)[:, None] * 10, 50, axis=0)
    together = fitted_by(fit_together(divided(points, 3), Settings(k=40, extra_center_factor=1)))
    assert together.mean_squared_distance == pytest.approx(0, abs=1e-3)


class StopAfter:
    """Wants a stop once it has been asked so many times."""

    def __init__(self, times: int) -> None:
        self.left = times

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0


@pytest.mark.parametrize("times", [0, 1, 2, 5, 10, 20, 40, 80])
def test_a_stop_at_any_moment_ends_with_centers_that_are_valid(times: int) -> None:
    points, _ = oracle.blobs(5, n=8000, k=6, d=3, spread=3)
    with Workers(1, StopAfter(times)) as workers:
        fitted = fit(MemoryRows(points, 500), Settings(k=6, local_lloyd_tol=0), workers=workers)
    assert fitted.interrupted
    assert fitted.model.centers.shape == (6, 3)
    assert np.isfinite(fitted.model.centers).all()
    assert fitted.mean_squared_distance is None
    assert fitted.model.counts is None
    # Better than one center for all, whenever it was.
    spread = float(((points - points.mean(axis=0)) ** 2).sum())
    assert oracle.inertia(points, fitted.model.centers) < spread


def test_a_stop_that_never_comes_changes_nothing() -> None:
    points, _ = oracle.blobs(5, n=8000, k=6, d=3, spread=3)
    with Workers(1, StopAfter(10**9)) as workers:
        fitted = fit(MemoryRows(points, 500), Settings(k=6), workers=workers)
    assert not fitted.interrupted
    assert fitted.model.centers.tobytes() == fit(MemoryRows(points, 500), Settings(k=6)).model.centers.tobytes()


@pytest.mark.parametrize("times", [0, 3, 9, 27])
def test_a_stop_of_one_host_is_one_of_all(times: int) -> None:
    points, _ = oracle.blobs(6, n=8000, k=6, d=3, spread=3)
    outcomes = fit_together(divided(points, 3), Settings(k=6, local_lloyd_tol=0), stops={1: StopAfter(times)})
    assert fitted_by(outcomes).interrupted


@pytest.mark.parametrize("times", [1, 30, 60])
def test_a_stop_in_a_pass_over_rows_that_memory_does_not_hold_keeps_the_last_centers(times: int) -> None:
    points, _ = oracle.blobs(7, n=8000, k=6, d=3, spread=3)
    rows = load(lambda: iter(np.array_split(points, 7)), 900 * bytes_per_row(3), 500)
    with Workers(2, StopAfter(times)) as workers:
        fitted = fit(rows, Settings(k=6, local_lloyd_tol=0), workers=workers)
    assert fitted.interrupted
    assert np.isfinite(fitted.model.centers).all()
