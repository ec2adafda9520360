from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning

from kmeans.arrays import Float32
from kmeans.callbacks import Callbacks
from kmeans.dataset import MemoryRows, StreamedRows, bytes_per_row, load
from kmeans.errors import DataError
from kmeans.fitting import Fitted, FittedCenters, fit, fit_centers
from kmeans.model import KMeansModel
from kmeans.refinement import Refined
from kmeans.settings import Settings
from kmeans.shrink import Shrunk, shrink
from kmeans.threads import ThreadPool
from tests.unit.kmeans import oracle


@dataclass
class Recorder(Callbacks):
    """Records the callbacks by the method's name."""

    heard: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("_") or name == "heard" or not hasattr(Callbacks, name):
            return super().__getattribute__(name)

        def hear(**news: Any) -> None:
            getattr(Callbacks(), name)(**news)  # the names of the arguments are those of the base
            self.heard.setdefault(name, []).append(news)

        return hear

    def of(self, name: str, key: str) -> list[Any]:
        return [news[key] for news in self.heard.get(name, [])]


def run(
    points: Float32,
    *,
    mini_batch_size: int = 500,
    threads: int = 1,
    callbacks: Callbacks | None = None,
    **settings: Any,
) -> Fitted:
    chosen = Settings(**settings)
    with ThreadPool(threads) as pool:
        rows = MemoryRows(points, mini_batch_size, chosen.seed)
        return fit(rows, chosen, pool=pool, callbacks=callbacks)


class Source:
    """Yields rows in blocks that use the same memory, and counts how often it is read."""

    def __init__(self, points: Float32, block: int = 700) -> None:
        self.points = points
        self.block = block
        self.passes = 0

    def __call__(self) -> Iterator[Float32]:
        self.passes += 1
        buffer = np.empty((self.block, self.points.shape[1]), dtype=np.float32)
        for first in range(0, len(self.points), self.block):
            part = self.points[first : first + self.block]
            buffer[: len(part)] = part
            yield buffer[: len(part)]
            buffer[:] = np.nan


def streamed(source: Source, *, held: int, mini_batch_size: int = 500, seed: int = 0) -> StreamedRows:
    """Return the rows of ``source`` with memory for a number of them; no pass of a fit has read them yet."""
    rows = load(source, held * bytes_per_row(source.points.shape[1]), mini_batch_size, seed)
    assert isinstance(rows, StreamedRows)
    assert len(rows.in_memory) == held
    source.passes = 0
    return rows


def distance_of(fitted: Fitted) -> float:
    assert fitted.mean_squared_distance is not None
    return fitted.mean_squared_distance


def assert_true_figures(fitted: Fitted, points: Float32) -> None:
    """Check what the fit says of its centers against brute force on these centers."""
    labels, squared = oracle.nearest(points, fitted.model.centers)
    counts = fitted.model.counts
    assert counts is not None
    assert counts.dtype == np.int64
    assert counts.sum() == len(points)
    assert np.array_equal(counts, np.bincount(labels, minlength=fitted.model.clusters))
    assert fitted.mean_squared_distance == pytest.approx(squared.mean(), rel=1e-4, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("k", "d"), [(5, 4), (12, 2), (20, 30)])
def test_inertia_on_blobs_is_that_of_ten_starts_of_scikit_learn(seed: int, k: int, d: int) -> None:
    points, _ = oracle.blobs(seed, k=k, d=d)
    fitted = run(points, k=k, seed=seed)
    expected = KMeans(k, n_init=10, random_state=seed).fit(points)
    assert oracle.inertia(points, fitted.model.centers) <= 1.01 * expected.inertia_
    assert_true_figures(fitted, points)


@pytest.mark.parametrize("settings", [{}, {"refine_max_iter": 0}, {"extra_center_factor": 1}, {"epochs": 3}])
def test_the_figures_are_true_of_the_centers_returned(settings: dict[str, Any]) -> None:
    points, _ = oracle.blobs(1, k=7)
    assert_true_figures(run(points, k=7, **settings), points)


@pytest.mark.parametrize("std", [0.1, 0.001])
def test_loss_of_tight_clusters_far_apart_is_exact(std: float) -> None:
    points, _ = oracle.blobs(2, spread=100, std=std)
    fitted = run(points, k=5)
    expected = oracle.inertia(points, fitted.model.centers) / len(points)
    assert fitted.mean_squared_distance == pytest.approx(expected, rel=1e-2)


@pytest.mark.parametrize("method", ["random", "kmeans++"])
def test_seed_repeats_to_the_bit_and_another_seed_differs(method: str) -> None:
    points, _ = oracle.blobs(3, k=9, spread=2)
    first, again, other = (run(points, k=9, seed=seed, init_method=method) for seed in (4, 4, 5))
    assert first.model.centers.tobytes() == again.model.centers.tobytes()
    assert first.mean_squared_distance == again.mean_squared_distance
    assert first.model.centers.tobytes() != other.model.centers.tobytes()


def test_threads_do_not_change_a_bit() -> None:
    points, _ = oracle.blobs(4, n=9000, k=6, spread=2)
    alone, together = (run(points, k=6, threads=threads, mini_batch_size=5000) for threads in (1, 3))
    assert alone.model.centers.tobytes() == together.model.centers.tobytes()
    assert alone.mean_squared_distance == together.mean_squared_distance
    assert alone.shrink_loss == together.shrink_loss


@pytest.mark.parametrize("offset", [0.0, 1e5])
def test_one_cluster_is_the_mean(offset: float) -> None:
    points, _ = oracle.blobs(5)
    points += np.float32(offset)
    fitted = run(points, k=1)
    np.testing.assert_allclose(fitted.model.centers[0], points.mean(axis=0, dtype=np.float64), rtol=1e-5, atol=1e-5)
    expected = np.square(points - points.mean(axis=0, dtype=np.float64)).sum(axis=1).mean()
    assert fitted.mean_squared_distance == pytest.approx(expected, rel=1e-4)


def test_as_many_clusters_as_distinct_points_leave_no_distance() -> None:
    points = np.random.default_rng(6).normal(size=(40, 3)).astype(np.float32)
    fitted = run(points, k=40)
    assert fitted.mean_squared_distance == pytest.approx(0, abs=1e-6)
    assert np.array_equal(oracle.sorted_rows(fitted.model.centers), oracle.sorted_rows(points))
    assert fitted.model.counts is not None
    assert fitted.model.counts.tolist() == [1] * 40


def test_k_equal_to_n_with_duplicates_has_no_loss() -> None:
    points = np.repeat(np.array([[1, 5], [2, 6], [9, 9]], dtype=np.float32), [4, 2, 1], axis=0)
    fitted = run(points, k=7)
    assert fitted.model.centers.shape == (7, 2)
    assert oracle.inertia(points, fitted.model.centers) == 0
    assert fitted.mean_squared_distance == pytest.approx(0, abs=1e-5)
    assert fitted.model.counts is not None
    assert fitted.model.counts.sum() == 7


@pytest.mark.parametrize("value", [0.0, 0.1, 3.3, -1e6])
@pytest.mark.parametrize("k", [1, 3])
def test_points_that_are_all_equal_are_their_own_center(value: float, k: int) -> None:
    points = np.full((3000, 3), value, dtype=np.float32)
    fitted = run(points, k=k)
    labels, squared = oracle.nearest(points, fitted.model.centers)
    assert squared.max() <= 1e-10 * max(1.0, value**2)
    assert fitted.mean_squared_distance == pytest.approx(0, abs=1e-5)
    assert np.isfinite(fitted.model.centers).all()
    assert len(np.unique(labels)) == 1


def test_duplicates_of_a_few_points_are_found_each() -> None:
    distinct = np.array([[0, 0], [0, 1], [5, 5], [9, 0]], dtype=np.float32)
    points = np.random.default_rng(0).permutation(np.repeat(distinct, [900, 5, 300, 50], axis=0))
    fitted = run(points, k=4)
    np.testing.assert_allclose(oracle.sorted_rows(fitted.model.centers), distinct, atol=1e-5)


def test_one_column_is_clustered() -> None:
    points = np.concatenate([np.arange(10), np.arange(100, 110), np.arange(500, 510)]).astype(np.float32)[:, None]
    assert sorted(run(points, k=3).model.centers.ravel().tolist()) == [4.5, 104.5, 504.5]


def test_constant_columns_change_nothing_but_their_own_center() -> None:
    points, _ = oracle.blobs(7, spread=100)
    wide = np.insert(points, 2, np.float32(42), axis=1)
    fitted = run(wide, k=5)
    np.testing.assert_allclose(fitted.model.centers[:, 2], 42, rtol=1e-5)
    expected = oracle.inertia(points, run(points, k=5).model.centers)
    assert oracle.inertia(wide, fitted.model.centers) == pytest.approx(expected, rel=1e-4)


def test_more_clusters_than_rows_are_refused_with_both_numbers() -> None:
    with pytest.raises(DataError, match=r"k=11 .* only 10 rows") as raised:
        run(np.ones((10, 2), dtype=np.float32), k=11)
    assert raised.value.hint


def test_more_clusters_than_a_batch_are_seeded_from_several() -> None:
    points, _ = oracle.blobs(8, n=1200, k=300, d=3, spread=50, std=3)
    fitted = run(points, k=300, mini_batch_size=100)
    assert fitted.model.centers.shape == (300, 3)
    assert len(np.unique(fitted.model.centers, axis=0)) == 300
    expected = KMeans(300, n_init=1, random_state=0).fit(points).inertia_
    assert oracle.inertia(points, fitted.model.centers) < 1.05 * expected


def test_extra_centers_are_as_many_as_the_rows_allow() -> None:
    points, _ = oracle.blobs(9, n=100)
    callbacks = Recorder()
    fitted = run(points, k=30, callbacks=callbacks)
    assert fitted.streaming_centers == 90
    assert callbacks.heard["seeded"] == [{"centers": 90, "clusters": 30, "factor": 3, "auto": True, "rows": 100}]


@pytest.mark.parametrize("factor", [2, 7])
def test_given_factor_of_extra_centers_is_used(factor: int) -> None:
    points, _ = oracle.blobs(10)
    callbacks = Recorder()
    fitted = run(points, k=5, extra_center_factor=factor, callbacks=callbacks)
    assert fitted.streaming_centers == 5 * factor
    assert callbacks.heard["seeded"] == [
        {"centers": 5 * factor, "clusters": 5, "factor": factor, "auto": False, "rows": 500}
    ]
    assert callbacks.heard["shrink_started"] == [{"centers": 5 * factor, "clusters": 5}]


def test_no_extra_centers_leave_nothing_to_shrink() -> None:
    points, _ = oracle.blobs(11)
    callbacks = Recorder()
    fitted = run(points, k=5, extra_center_factor=1, callbacks=callbacks)
    assert fitted.shrink_loss is None
    assert fitted.streaming_centers == 5
    assert "shrink_attempt" not in callbacks.heard


def test_no_refinement_leaves_the_shrunken_centers(monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes: list[Shrunk] = []
    original = shrink

    def recorded(*arguments: Any, **options: Any) -> Shrunk:
        outcomes.append(original(*arguments, **options))
        return outcomes[-1]

    monkeypatch.setattr("kmeans.fitting.shrink", recorded)
    points, _ = oracle.blobs(12, spread=2)
    callbacks = Recorder()
    fitted = run(points, k=5, refine_max_iter=0, callbacks=callbacks)
    assert np.array_equal(fitted.model.centers, outcomes[0].centers)
    assert fitted.shrink_loss == outcomes[0].mean_squared_distance
    assert fitted.refinements == 0
    assert_true_figures(fitted, points)


def test_refinement_passes_are_capped() -> None:
    points, _ = oracle.blobs(13, k=8, spread=1)
    callbacks = Recorder()
    fitted = run(points, k=8, refine_max_iter=2, local_lloyd_tol=0.0, callbacks=callbacks)
    assert fitted.refinements == 2
    assert callbacks.of("refine_started", "at_most") == [2]
    assert callbacks.of("refine_pass", "done") == [1, 2]


@pytest.mark.parametrize("seed", range(3))
def test_refinement_never_raises_the_loss_and_mostly_lowers_it(seed: int) -> None:
    points, _ = oracle.blobs(seed, k=8, spread=1)
    callbacks = Recorder()
    fitted = run(points, k=8, seed=seed, local_lloyd_tol=0.0, callbacks=callbacks)
    distances = np.array(callbacks.of("refine_pass", "mean_squared_distance"))
    assert (np.diff(distances) <= 1e-4 * distances[1:]).all()
    assert distances[-1] == pytest.approx(fitted.mean_squared_distance, rel=1e-2)
    assert distances[-1] < run(points, k=8, seed=seed, refine_max_iter=0).mean_squared_distance


def test_every_epoch_sees_every_row() -> None:
    points, _ = oracle.blobs(14, n=1234)
    callbacks = Recorder()
    run(points, k=3, epochs=3, callbacks=callbacks)
    assert callbacks.of("epoch_done", "epoch") == [0, 1, 2]
    assert callbacks.of("epoch_done", "rows") == [1234] * 3
    assert callbacks.of("epoch_done", "batches") == [3] * 3
    assert callbacks.of("batch_done", "rows_seen") == [500, 1000, 1234] * 3
    assert callbacks.of("batch_done", "epochs") == [3] * 9


def test_where_refinement_follows_only_some_rows_are_streamed() -> None:
    points, _ = oracle.blobs(14, n=30_000, d=2)
    for settings, streamed in ({}, 10_000), ({"refine_max_iter": 0}, 30_000), ({"half_life_time_size": 100}, 30_000):
        callbacks = Recorder()
        run(points, k=3, callbacks=callbacks, **settings)
        assert callbacks.of("epoch_done", "rows") == [streamed]


def test_a_half_life_leaves_refinement_out() -> None:
    points, _ = oracle.blobs(14)
    assert run(points, k=3, half_life_time_size=100).refinements == 0
    assert run(points, k=3, half_life_time_size=100, refine_max_iter=5).refinements > 0


def test_every_epoch_streams_in_a_separate_order() -> None:
    asked: list[int] = []

    class Recording(MemoryRows):
        def batches(self, epoch: int, at_most: int | None = None) -> Iterator[Float32]:
            asked.append(epoch)
            return super().batches(epoch, at_most)

    points, _ = oracle.blobs(14)
    fit(Recording(points), Settings(k=3, epochs=3))
    assert asked[-3:] == [0, 1, 2]


def test_the_phases_end_in_their_order() -> None:
    points, _ = oracle.blobs(15)
    callbacks = Recorder()
    run(points, k=3, callbacks=callbacks)
    assert callbacks.of("phase_done", "phase") == ["seed", "stream", "shrink", "refine", "count"]
    assert min(callbacks.of("phase_done", "seconds")) >= 0


def test_more_epochs_bring_the_streamed_centers_closer() -> None:
    points, _ = oracle.blobs(16, n=3000, k=10, spread=1)
    once, often = (
        np.mean(
            [
                run(
                    points,
                    k=10,
                    epochs=epochs,
                    refine_max_iter=0,
                    extra_center_factor=1,
                    mini_batch_size=100,
                    seed=seed,
                ).mean_squared_distance
                for seed in range(5)
            ]
        )
        for epochs in (1, 10)
    )
    assert often < once


def test_a_half_life_follows_data_that_move() -> None:
    drift = np.concatenate([np.zeros(2000), np.full(2000, 10)]).astype(np.float32)[:, None]

    class InOrder(MemoryRows):
        def batches(self, epoch: int, at_most: int | None = None) -> Iterator[Float32]:
            yield from np.split(self.points, 40)

    options: dict[str, Any] = {"k": 1, "extra_center_factor": 1, "refine_max_iter": 0}
    remembering, forgetting = (
        fit(InOrder(drift), Settings(**options, half_life_time_size=half_life)).model.centers.item()
        for half_life in (0, 100)
    )
    assert remembering == pytest.approx(5, rel=1e-5)
    assert forgetting > 9.9


def test_sorted_rows_are_fitted_as_well_as_shuffled_ones() -> None:
    points, centers = oracle.blobs(17, k=10)
    labels, _ = oracle.nearest(points, centers)
    in_order = points[labels.argsort(kind="stable")]
    expected = oracle.inertia(points, run(points, k=10).model.centers)
    found = oracle.inertia(points, run(in_order, k=10, mini_batch_size=100).model.centers)
    assert found == pytest.approx(expected, rel=0.01)


def test_the_caller_s_array_is_not_changed() -> None:
    points, _ = oracle.blobs(18)
    points += 1000
    before = points.copy()
    points.flags.writeable = False
    run(points, k=5)
    assert np.array_equal(points, before)


def test_clusters_that_fell_empty_are_reseeded(monkeypatch: pytest.MonkeyPatch) -> None:
    points, centers = oracle.blobs(19, k=4, spread=100)
    lost = np.vstack([centers[:2], np.full((2, 4), 1e5)]).astype(np.float32)
    monkeypatch.setattr("kmeans.fitting.shrink", lambda *_, **__: Shrunk(lost, [], None))
    callbacks = Recorder()
    fitted = run(points, k=4, callbacks=callbacks)
    assert callbacks.of("refine_pass", "empty_clusters")[-1] == 0
    assert oracle.inertia(points, fitted.model.centers) == pytest.approx(oracle.inertia(points, centers), rel=0.01)


def test_points_far_from_the_origin_are_fitted_as_well_as_others() -> None:
    generator = np.random.default_rng(20)
    # Multiples of 1/16 are exact in float32 up to 2^20.
    points = (np.rint(oracle.blobs(20, spread=10)[0] * 16) / 16).astype(np.float32)
    far = (points + 1e6 * generator.choice([-1, 1], 4)).astype(np.float32)
    found = oracle.inertia(far, run(far, k=5).model.centers)
    assert found == pytest.approx(oracle.inertia(points, run(points, k=5).model.centers), rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize(("k", "n", "held"), [(3, 9000, 2000), (20, 9000, 4000), (60, 12_000, 6000)])
def test_rows_beyond_memory_are_fitted_nearly_as_well(k: int, n: int, held: int) -> None:
    points, _ = oracle.blobs(0, n=n, k=k, spread=6)
    found, expected = [], []
    for seed in range(5):
        fitted = fit(streamed(Source(points), held=held, seed=seed), Settings(k=k, seed=seed))
        assert_true_figures(fitted, points)
        assert fitted.refinements > 0
        found.append(distance_of(fitted))
        expected.append(distance_of(run(points, k=k, seed=seed)))
    assert np.mean(found) < 1.02 * np.mean(expected)


@pytest.mark.parametrize("offset", [0.0, 1000.0])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"epochs": 2},
        {"refine_max_iter": 0},
        {"refine_max_iter": 1},
        {"half_life_time_size": 2000},
        {"refine_sample_size": 1000},
        {"extra_center_factor": 1},
        {"init_method": "kmeans++"},
    ],
)
def test_the_figures_are_true_of_rows_that_memory_does_not_hold(settings: dict[str, Any], offset: float) -> None:
    points, _ = oracle.blobs(21, n=5000, k=7, spread=6)
    points += np.float32(offset)
    assert_true_figures(fit(streamed(Source(points), held=2000), Settings(k=7, **settings)), points)


def test_sorted_rows_beyond_memory_are_fitted_as_well() -> None:
    points, centers = oracle.blobs(22, n=9000, k=10, spread=6)
    in_order = points[oracle.nearest(points, centers)[0].argsort(kind="stable")]
    fitted = fit(streamed(Source(in_order), held=3000), Settings(k=10))
    assert distance_of(fitted) < 1.02 * distance_of(run(points, k=10))


@pytest.mark.parametrize(
    ("settings", "passes"),
    [
        ({"refine_max_iter": 0}, 1 + 1),
        ({"refine_max_iter": 0, "epochs": 3}, 3 + 1),
        ({"half_life_time_size": 1000}, 1 + 1),
        ({"refine_sample_size": 500}, 1),
        ({"refine_sample_size": 500, "epochs": 2}, 2 + 1),
        ({"refine_max_iter": 2, "local_lloyd_tol": 0.0}, 2 + 1),
        ({"refine_max_iter": 2, "local_lloyd_tol": 0.0, "epochs": 2}, 2 + 2 + 1),
    ],
)
def test_a_source_is_read_as_often_as_the_phases_need(settings: dict[str, Any], passes: int) -> None:
    points, _ = oracle.blobs(23, n=5000, k=6, spread=1)
    source = Source(points)
    callbacks = Recorder()
    fit(streamed(source, held=2000), Settings(k=6, **settings), callbacks=callbacks)
    assert source.passes == passes
    refined = "refine_sample_size" in settings or not callbacks.of("refine_pass", "done")
    assert ("count" in callbacks.of("phase_done", "phase")) == refined


def test_with_refinement_mini_batches_are_rows_in_memory() -> None:
    points, _ = oracle.blobs(24, n=5000, k=3, d=2)
    cases: list[tuple[dict[str, Any], int]] = [
        ({}, 2000),
        ({"refine_max_iter": 0}, 5000),
        ({"half_life_time_size": 100}, 5000),
    ]
    for settings, streamed_rows in cases:
        callbacks = Recorder()
        fit(streamed(Source(points), held=2000), Settings(k=3, **settings), callbacks=callbacks)
        assert callbacks.of("epoch_done", "rows") == [streamed_rows]
        assert set(callbacks.of("batch_done", "rows")) == {streamed_rows}


def test_refinement_beyond_memory_is_capped_and_counted() -> None:
    points, _ = oracle.blobs(25, n=5000, k=8, spread=1)
    callbacks = Recorder()
    options: dict[str, Any] = {"refine_max_iter": 2, "local_lloyd_tol": 0.0}
    fitted = fit(streamed(Source(points), held=2000), Settings(k=8, **options), callbacks=callbacks)
    assert fitted.refinements == 2
    assert callbacks.of("refine_pass", "rows") == [2000] * 2 + [5000] * 3
    free = Recorder()
    fitted_freely = fit(streamed(Source(points), held=500), Settings(k=8), callbacks=free)
    assert free.of("refine_pass", "rows").count(5000) == fitted_freely.refinements + 1
    assert free.of("refine_pass", "rows").count(500) != fitted_freely.refinements
    assert callbacks.of("refine_pass", "mean_squared_distance")[-1] == fitted.mean_squared_distance


def test_rows_outside_of_memory_have_their_say_in_the_refinement() -> None:
    points, _ = oracle.blobs(26, n=5000, k=2, d=1, spread=6)
    rows = streamed(Source(points), held=1000)
    fitted = fit(rows, Settings(k=2, local_lloyd_tol=0.0))
    labels, _ = oracle.nearest(points, fitted.model.centers)
    means = [points[labels == j].mean(axis=0, dtype=np.float64) for j in range(2)]
    np.testing.assert_allclose(fitted.model.centers, means, rtol=1e-4)


def test_empty_clusters_are_reseeded_beyond_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    points, centers = oracle.blobs(19, k=4, spread=100)
    lost = np.vstack([centers[:2], np.full((2, 4), 1e5)]).astype(np.float32)
    monkeypatch.setattr("kmeans.fitting.refine", lambda *_, **__: Refined(lost, 1))
    callbacks = Recorder()
    fitted = fit(streamed(Source(points), held=500), Settings(k=4), callbacks=callbacks)
    assert callbacks.of("refine_pass", "empty_clusters")[-1] == 0
    assert oracle.inertia(points, fitted.model.centers) == pytest.approx(oracle.inertia(points, centers), rel=0.01)


def test_seed_repeats_to_the_bit_beyond_memory() -> None:
    points, _ = oracle.blobs(27, n=5000, k=9, spread=2)
    first, again, other = (
        fit(streamed(Source(points), held=2000, seed=seed), Settings(k=9, epochs=2, seed=seed)) for seed in (4, 4, 5)
    )
    assert first.model.centers.tobytes() == again.model.centers.tobytes()
    assert first.mean_squared_distance == again.mean_squared_distance
    assert first.model.centers.tobytes() != other.model.centers.tobytes()


def test_threads_do_not_change_a_bit_beyond_memory() -> None:
    points, _ = oracle.blobs(28, n=12_000, k=50, spread=3)

    def centers(pool: ThreadPool) -> bytes:
        rows = streamed(Source(points, block=5000), held=7000, mini_batch_size=5000)
        return fit(rows, Settings(k=50), pool=pool).model.centers.tobytes()

    with ThreadPool(3) as pool:
        assert centers(pool) == centers(ThreadPool())


def test_source_that_changed_after_the_first_pass_is_refused() -> None:
    points, _ = oracle.blobs(29, n=5000)
    source = Source(points)
    rows = streamed(source, held=2000)
    source.points = points[:-1]
    with pytest.raises(DataError, match=r"expected the 5000 rows .* found 4999"):
        fit(rows, Settings(k=5))


@pytest.mark.parametrize("k", [7, 50])
def test_only_sampled_rows_affect_centers_and_all_are_counted(k: int) -> None:
    points, _ = oracle.blobs(30, n=9000, k=k, spread=6)
    options: dict[str, Any] = {"k": k, "refine_sample_size": 2000}
    callbacks = Recorder()
    fitted = run(points, callbacks=callbacks, **options)
    assert set(callbacks.of("refine_pass", "rows")) == {2000}
    assert_true_figures(fitted, points)
    others = points.copy()
    others[MemoryRows(points).order(epoch=0)[2000:]] += 100
    again = run(others, **options)
    assert again.model.centers.tobytes() == fitted.model.centers.tobytes()
    assert_true_figures(again, others)
    assert distance_of(again) > distance_of(fitted)


def test_refinement_of_a_sample_is_nearly_that_of_all_rows() -> None:
    points, _ = oracle.blobs(31, n=12_000, k=10, spread=6)
    expected = run(points, k=10).mean_squared_distance
    assert run(points, k=10, refine_sample_size=6000).mean_squared_distance == pytest.approx(expected, rel=0.01)


def test_a_sample_of_more_rows_than_there_are_is_all_rows() -> None:
    points, _ = oracle.blobs(32, k=10, spread=3)
    all_rows, more = (run(points, k=10, refine_sample_size=size) for size in (None, 10**9))
    assert all_rows.model.centers.tobytes() == more.model.centers.tobytes()


def centers_of(rows: MemoryRows | StreamedRows, callbacks: Callbacks | None = None, **settings: Any) -> FittedCenters:
    return fit_centers(rows, Settings(**settings), pool=ThreadPool(), callbacks=callbacks or Callbacks())


@pytest.mark.parametrize("settings", [{}, {"refine_max_iter": 0}, {"refine_sample_size": 1000}])
def test_centers_are_fitted_without_the_pass_that_counts(settings: dict[str, Any]) -> None:
    points, _ = oracle.blobs(33, n=5000, k=6, spread=3)
    callbacks = Recorder()
    centers = centers_of(MemoryRows(points, 500), callbacks, k=6, **settings)
    fitted = run(points, k=6, **settings)
    assert centers.sums is None
    assert "count" not in callbacks.of("phase_done", "phase")
    assert centers.centers.tobytes() == fitted.model.centers.tobytes()
    assert (centers.shrink_loss, centers.streaming_centers, centers.refinements) == (
        fitted.shrink_loss,
        fitted.streaming_centers,
        fitted.refinements,
    )


def test_exact_passes_return_the_sums_of_all_rows() -> None:
    points, _ = oracle.blobs(34, n=5000, k=6, spread=3)
    fitted = centers_of(streamed(Source(points), held=2000), k=6)
    assert fitted.sums is not None
    labels, squared = oracle.nearest(points, fitted.centers)
    assert fitted.sums.weights.tolist() == np.bincount(labels, minlength=6).tolist()
    assert fitted.sums.inertia == pytest.approx(squared.sum(), rel=1e-4)
    assert centers_of(streamed(Source(points), held=2000), k=6, refine_max_iter=0).sums is None
    assert centers_of(streamed(Source(points), held=2000), k=6, refine_sample_size=2000).sums is None


def test_more_clusters_than_rows_are_refused_beyond_memory() -> None:
    points = np.ones((10, 2), dtype=np.float32)
    with pytest.raises(DataError, match=r"k=11 .* only 10 rows"):
        fit(streamed(Source(points), held=5), Settings(k=11))


def test_memory_for_fewer_rows_than_clusters_is_refused() -> None:
    points, _ = oracle.blobs(0, n=50, k=3, d=4)
    rows = load(lambda: iter([points]), 4 * bytes_per_row(4))
    with pytest.raises(DataError, match="k=5 clusters were asked for, but memory holds only 4 of the 50 rows"):
        fit(rows, Settings(k=5))


def test_sample_larger_than_memory_skips_passes_over_all_rows() -> None:
    points, _ = oracle.blobs(0, n=5000, k=5, d=4)
    rows, callbacks = load(lambda: iter([points]), 1000 * bytes_per_row(4)), Recorder()
    fit(rows, Settings(k=5, refine_sample_size=1001), callbacks=callbacks)
    assert set(callbacks.of("refine_pass", "rows")) == {1000}


def test_fit_continues_from_a_model() -> None:
    points, _ = oracle.blobs(0, n=4000, k=6, d=4, spread=3)
    before = run(points, k=6, refine_max_iter=1, local_lloyd_tol=0.1)
    callbacks = Recorder()
    after = fit(MemoryRows(points), Settings(k=6), start=before.model, callbacks=callbacks)
    assert callbacks.of("epoch_done", "rows") == []
    assert callbacks.of("shrink_started", "centers") == []
    assert distance_of(after) <= distance_of(before)
    again = fit(MemoryRows(points), Settings(k=6), start=after.model)
    assert distance_of(again) == pytest.approx(distance_of(after), rel=1e-4)


def test_warm_start_without_refinement_weighs_the_old_rows() -> None:
    start = KMeansModel([[0.0], [100.0]], np.array([300, 100]))
    points = np.repeat(np.array([[4], [110]], dtype=np.float32), 100, axis=0)
    fitted = fit(MemoryRows(points), Settings(k=2, refine_max_iter=0), start=start)
    assert fitted.model.centers.ravel().tolist() == pytest.approx([1.0, 105.0])


@pytest.mark.parametrize("centers", [np.zeros((3, 4)), np.zeros((2, 5))])
def test_a_model_of_another_shape_is_refused(centers: Float32) -> None:
    with pytest.raises(DataError, match=r"expected a model of 2 clusters and 4 columns to start from"):
        fit(MemoryRows(np.zeros((10, 4), dtype=np.float32)), Settings(k=2), start=KMeansModel(centers))


@pytest.mark.parametrize(("k", "looks_nearby"), [(3, False), (60, True)])
def test_number_of_comparisons_is_reported(k: int, looks_nearby: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With few clusters nearby ones are all of them; with more, a row is placed once and then looked at around."""
    monkeypatch.setattr("kmeans.assignments.CLUSTER_COST", 0)
    points, _ = oracle.blobs(1, n=20_000, k=60, d=40, spread=0.3)
    callbacks = Recorder()
    run(points, k=k, callbacks=callbacks)
    (told,) = callbacks.heard["refined"]
    assert told["clusters"] == k
    assert (told["with_nearby"] > 0) == looks_nearby
    assert told["with_all"] >= len(points)


# ---- what every fit must reach, on small data ------------------------------------------------------------------------


def random_rows(points: Float32, k: int, seed: int) -> Float32:
    return points[np.random.default_rng(seed).choice(len(points), k, replace=False)]


def plain_lloyd(points: Float32, start: Float32, moves: int) -> KMeans:
    """Return Lloyd's iterations of scikit-learn with a maximum number."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return KMeans(len(start), init=start, n_init=1, max_iter=moves, tol=0).fit(points)


@pytest.mark.parametrize(("d", "k"), [(4, 8), (2, 100), (40, 20)])
@pytest.mark.parametrize("searches", [True, False])
def test_five_distant_rows_of_100_000_are_found(
    searches: bool, d: int, k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not searches:
        monkeypatch.setattr("kmeans.table_search.SEARCHES", ())
    points, _ = oracle.blobs(1, n=100_000, k=k, d=d, spread=10)
    far = np.random.default_rng(0).choice(100_000, 5, replace=False)
    place = np.full(d, 1000, dtype=np.float32)
    points[far] = place + np.random.default_rng(1).normal(size=(5, d)).astype(np.float32)
    fitted = run(points, mini_batch_size=5000, k=k + 1)
    mean = points[far].mean(axis=0)
    nearest = np.abs(fitted.model.centers - mean).max(axis=1).argmin()
    np.testing.assert_allclose(fitted.model.centers[nearest], mean, rtol=1e-4)
    assert fitted.model.counts is not None
    assert fitted.model.counts[nearest] == 5


def shapes(n: int, seed: int) -> list[Float32]:
    generator = np.random.default_rng(seed)
    found = [generator.uniform(size=(n, 2)), generator.normal(size=(n, 2)), generator.normal(size=(n, 8))]
    return [points.astype(np.float32) for points in found]


def loss_of_one_more(n: int, k: int, seed: int = 0) -> float:
    """Return the loss of k + 1 clusters as a fraction of that of k, the geometric mean of some data."""
    ratios = [distance_of(run(points, k=k + 1)) / distance_of(run(points, k=k)) for points in shapes(n, seed)]
    return float(np.exp(np.log(ratios).mean()))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n", "k", "tolerance"),
    [
        (800, 40, 0.002),
        (1500, 200, 0.002),
        # Local minima differ by some tenths of a percent.
        (2200, 512, 0.01),
        # From k = 1001 on the mini-batch phase has no extra centers.
        (2100, 1000, 0.01),
        (2600, 1024, 0.01),
    ],
)
def test_loss_does_not_rise_where_a_rule_changes(n: int, k: int, tolerance: float) -> None:
    assert loss_of_one_more(n, k) <= 1 + tolerance


@pytest.mark.slow
@pytest.mark.parametrize("n", [10, 20, 51, 100, 300, 600])
def test_loss_does_not_rise_from_half_as_many_clusters_as_rows(n: int) -> None:
    assert loss_of_one_more(n, n // 2) <= 1.002


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 2])
def test_many_clusters_of_one_column_are_found(seed: int) -> None:
    """Centers that are close to each other must not all be relocated."""
    points = np.random.default_rng(seed).uniform(size=(2600, 1)).astype(np.float32)
    fitted = run(points, mini_batch_size=5000, k=1024, seed=seed)
    assert oracle.inertia(points, fitted.model.centers) < KMeans(1024, n_init=1, random_state=0).fit(points).inertia_


def test_tiny_clusters_are_at_most_those_of_plain_lloyd() -> None:
    points, _ = oracle.blobs(1, n=20_000, k=500, d=32, spread=2)
    counts = run(points, mini_batch_size=5000, k=1000).model.counts
    plain = plain_lloyd(points, random_rows(points, 1000, 0), 5)
    assert counts is not None
    assert (counts < 3).sum() <= (np.bincount(plain.labels_, minlength=1000) < 3).sum()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "n", "d", "k"),
    [
        ("uniform", 5000, 2, 10),
        ("normal", 10_000, 8, 50),
        ("normal", 3000, 16, 300),
        ("lognormal", 5000, 3, 12),
        ("blobs", 10_000, 20, 100),
        ("blobs", 3000, 64, 5),
        ("normal", 2000, 4, 1200),
    ],
)
def test_loss_is_never_above_that_of_plain_lloyd(kind: str, n: int, d: int, k: int) -> None:
    """Plain Lloyd starts at random rows and makes as many moves."""
    generator = np.random.default_rng(0)
    match kind:
        case "uniform":
            points = generator.uniform(size=(n, d)).astype(np.float32)
        case "normal":
            points = generator.normal(size=(n, d)).astype(np.float32)
        case "lognormal":
            points = generator.lognormal(0, 2, size=(n, d)).astype(np.float32)
        case _:
            points, _ = oracle.blobs(0, n=n, k=k, d=d, spread=3)
    fitted = run(points, k=k, mini_batch_size=5000)
    for seed in range(3):
        plain = plain_lloyd(points, random_rows(points, k, seed), max(1, fitted.refinements))
        assert oracle.inertia(points, fitted.model.centers) <= plain.inertia_ * (1 + 1e-6)
