from __future__ import annotations

import numpy as np
import pytest

from kmeans.callbacks import Callbacks
from kmeans.settings import Settings
from kmeans.shrink import Shrunk, shrink
from kmeans.threads import ThreadPool
from tests.unit.kmeans import oracle


class Recorder(Callbacks):
    def __init__(self) -> None:
        self.started: list[tuple[int, int]] = []
        self.attempts: list[float] = []
        self.done: list[float] = []

    def shrink_started(self, *, centers: int, clusters: int) -> None:
        self.started.append((centers, clusters))

    def shrink_attempt(self, *, attempt: int, mean_squared_distance: float) -> None:
        assert attempt == len(self.attempts)
        self.attempts.append(mean_squared_distance)

    def shrink_done(self, *, mean_squared_distance: float) -> None:
        self.done.append(mean_squared_distance)


def run(seed: int, settings: Settings, callbacks: Callbacks | None = None, pool: ThreadPool | None = None) -> Shrunk:
    points, _ = oracle.blobs(seed, n=100, k=5, spread=100)
    weights = np.random.default_rng(seed).uniform(0.5, 9, 100)
    return shrink(
        points.astype(np.float64),
        weights,
        settings,
        generator=np.random.default_rng(seed),
        callbacks=callbacks,
        pool=pool,
    )


def test_many_centers_become_those_of_the_blobs_they_lie_in() -> None:
    points, centers = oracle.blobs(1, n=100, k=5, spread=100)
    found = run(1, Settings(k=5))
    labels, _ = oracle.nearest(points, centers)
    weights = np.random.default_rng(1).uniform(0.5, 9, 100)
    expected = [np.average(points[labels == j], axis=0, weights=weights[labels == j]) for j in range(5)]
    np.testing.assert_allclose(oracle.sorted_rows(found.centers), oracle.sorted_rows(np.array(expected)), rtol=1e-4)


def test_shrink_loss_is_the_weighted_mean_squared_distance() -> None:
    points, _ = oracle.blobs(2, n=100, k=5, spread=100)
    weights = np.random.default_rng(2).uniform(0.5, 9, 100)
    found = run(2, Settings(k=5))
    expected = np.average(oracle.nearest(points, found.centers)[1], weights=weights)
    assert found.mean_squared_distance == pytest.approx(expected, rel=5e-3)


def test_the_best_of_all_trials_is_kept() -> None:
    callbacks = Recorder()
    found = run(3, Settings(k=8, local_lloyd_num_trials=6, local_lloyd_init_method="random"), callbacks)
    assert len(callbacks.attempts) == 6
    assert len(set(callbacks.attempts)) > 1
    assert callbacks.started == [(100, 8)]
    assert callbacks.done == [found.mean_squared_distance] == [min(callbacks.attempts)]


def test_iterations_are_capped() -> None:
    capped, free = Recorder(), Recorder()
    run(4, Settings(k=8, local_lloyd_max_iter=1, local_lloyd_num_trials=5, local_lloyd_init_method="random"), capped)
    run(4, Settings(k=8, local_lloyd_num_trials=5, local_lloyd_init_method="random"), free)
    assert sum(free.attempts) < sum(capped.attempts)


def test_as_many_centers_as_clusters_are_kept_untouched() -> None:
    callbacks = Recorder()
    centers = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 7.0]])
    found = shrink(centers, np.ones(3), Settings(k=3), generator=np.random.default_rng(0), callbacks=callbacks)
    assert np.array_equal(found.centers, centers)
    assert found.mean_squared_distance is None
    assert (callbacks.attempts, callbacks.done) == ([], [])


def test_centers_without_points_take_no_part() -> None:
    points = np.array([[0.0], [1.0], [10.0], [11.0], [1e6], [-1e6]])
    weights = np.array([1.0, 1.0, 1.0, 1.0, 0.0, 0.0])
    found = shrink(points, weights, Settings(k=2), generator=np.random.default_rng(0))
    assert sorted(found.centers.ravel().tolist()) == [0.5, 10.5]


def test_centers_without_points_fill_the_places_that_remain() -> None:
    points, weights = np.array([[0.0], [7.0], [8.0], [9.0]]), np.array([0.0, 0.0, 3.0, 0.0])
    found = shrink(points, weights, Settings(k=3), generator=np.random.default_rng(0))
    assert found.centers.shape == (3, 1)
    assert 8 in found.centers
    assert found.mean_squared_distance is None


def test_generator_gives_the_same_centers_for_any_thread_count() -> None:
    first = run(5, Settings(k=4))
    with ThreadPool(3) as pool:
        again = run(5, Settings(k=4), pool=pool)
    assert first.centers.tobytes() == again.centers.tobytes()
    assert first.mean_squared_distance == again.mean_squared_distance


def test_heavy_centers_draw_the_few_to_them() -> None:
    points, weights = np.array([[0.0], [1.0], [50.0]]), np.array([1.0, 3.0, 1.0])
    found = shrink(points, weights, Settings(k=2), generator=np.random.default_rng(0))
    assert sorted(found.centers.ravel().tolist()) == [0.75, 50]


def test_a_cluster_that_falls_empty_is_reseeded() -> None:
    # Random draws among many duplicates take some point twice, which leaves a cluster empty.
    points, weights = np.repeat([[0.0], [1.0], [50.0], [90.0]], 20, axis=0), np.ones(80)
    settings = Settings(k=4, local_lloyd_init_method="random", local_lloyd_num_trials=1)
    for seed in range(10):
        found = shrink(points, weights, settings, generator=np.random.default_rng(seed))
        assert sorted(found.centers.ravel().tolist()) == [0, 1, 50, 90]


class StopAt:
    """Requests a stop at a given call."""

    def __init__(self, number: int) -> None:
        self.asked, self._number = 0, number

    def __call__(self) -> bool:
        self.asked += 1
        return self.asked >= self._number


def stopped_at(number: int, callbacks: Callbacks | None = None, **options: int) -> Shrunk:
    with ThreadPool(1, StopAt(number)) as pool:
        return run(6, Settings(k=8, **options), callbacks, pool)  # type: ignore[arg-type]


@pytest.mark.parametrize("number", [*range(1, 30), 50, 70, 100])
def test_a_stop_at_any_moment_leaves_the_best_of_the_runs_so_far(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr("kmeans.shrink.PATIENCE_SECONDS", 0.0)
    callbacks = Recorder()
    found = stopped_at(number, callbacks, local_lloyd_num_trials=1_000_000_000)
    assert found.centers.shape == (8, 4)
    assert len(np.unique(found.centers, axis=0)) == 8
    assert found.mean_squared_distance == min(callbacks.attempts, default=None)
    assert len(found.others) == max(0, len(callbacks.attempts) - 1)


def test_a_stop_before_the_first_run_leaves_the_heaviest_centers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kmeans.shrink.PATIENCE_SECONDS", 0.0)
    points, weights = np.arange(6.0)[:, None], np.array([1.0, 9.0, 2.0, 8.0, 0.0, 3.0])
    with ThreadPool(1, lambda: True) as pool:
        found = shrink(points, weights, Settings(k=3), generator=np.random.default_rng(0), pool=pool)
    assert found.centers.ravel().tolist() == [1, 3, 5]


def test_a_shrink_that_takes_no_time_is_not_cut_short_by_a_stop() -> None:
    expected = run(6, Settings(k=8))
    assert stopped_at(1).centers.tobytes() == expected.centers.tobytes()
