"""Rows with weights: weight 2 counts like two equal rows, weight 0 like no row.

Most tests are of phases 1 and 2 (``refine_max_iter=0``); those of all phases say so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kmeans.arrays import Batch, Float32, Float64, Int64
from kmeans.callbacks import Callbacks
from kmeans.collectives import SingleHost
from kmeans.dataset import MemoryRows, RowAssignment, Rows, load
from kmeans.distance import NearestCenters
from kmeans.errors import DataError
from kmeans.fitting import Fitted, fit
from kmeans.metric import COSINE
from kmeans.model import KMeansModel
from kmeans.seeding import seed_centers
from kmeans.settings import Settings
from kmeans.sums import ClusterSums, assign_and_sum, assign_and_sum_blocks
from kmeans.threads import ThreadPool
from tests.unit.kmeans import oracle
from tests.unit.kmeans.test_checkpoint import Kept, Killed, same
from tests.unit.kmeans.test_collectives import assert_same_model, fit_together, fitted_by
from tests.unit.kmeans.thread_hosts import ThreadHosts, on_all_hosts

K = 6


def weighted_rows(seed: int, n: int = 3000) -> tuple[Float32, Float64]:
    """Return rows in blobs that overlap, and whole numbers from 0 to 4 as weights."""
    points, _ = oracle.blobs(seed, n=n, k=K, spread=4)
    return points, np.random.default_rng(seed).integers(0, 5, n).astype(np.float64)


def repeated(points: Float32, weights: Float64) -> Float32:
    """Return each row as often as its weight says."""
    rows: Float32 = np.repeat(points, weights.astype(int), axis=0)
    return rows


def start_of(points: Float32) -> KMeansModel:
    return KMeansModel(points[:K])


def run(
    points: Float32, weights: Float64 | None, start: KMeansModel | None = None, size: int = 500, **options: Any
) -> Fitted:
    settings = Settings(**{"k": K, "refine_max_iter": 0, **options})
    return fit(MemoryRows(points, size, weights=weights), settings, start=start)


def assert_true(fitted: Fitted, points: Float32, weights: Float64) -> None:
    """Check counts and weighted mean, by brute force."""
    labels, squared = oracle.nearest(points, fitted.model.centers)
    assert fitted.model.counts is not None
    assert fitted.model.counts.dtype == np.int64
    assert fitted.model.counts.tolist() == np.bincount(labels[weights > 0], minlength=K).tolist()
    assert fitted.mean_squared_distance == pytest.approx(np.average(squared, weights=weights), rel=1e-5)


# ---- the rows --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1, -1, 2], "row 2: expected a finite weight of at least 0, found -1."),
        ([1, 2, np.nan], "row 3: expected a finite weight of at least 0, found nan."),
        ([np.inf, 1, 1], "row 1: expected a finite weight of at least 0, found inf."),
        ([0, 0, 0], "expected a weight above 0, found only zeros."),
        ([1, 1], "expected a weight for each of the 3 rows, found an array of (2,)."),
        ([[1, 1, 1]], "expected a weight for each of the 3 rows, found an array of (1, 3)."),
        ([1e308, 1e308, 1], "expected weights with a finite sum, found larger ones."),
    ],
)
def test_weights_that_are_wrong_are_refused(weights: Any, message: str) -> None:
    with pytest.raises(DataError) as caught:
        MemoryRows(np.ones((3, 2), dtype=np.float32), weights=weights)
    assert str(caught.value) == message


def test_weights_of_divided_rows_are_refused_by_overall_number() -> None:
    with pytest.raises(DataError, match="row 8: expected a finite weight"):
        MemoryRows(np.ones((4, 2), dtype=np.float32), numbers=range(1, 12, 3), weights=[1, 1, -1, 1])


def test_zero_row_is_refused_with_its_number_before_removal() -> None:
    points = np.ones((5, 2), dtype=np.float32)
    points[[1, 4]] = 0
    rows = MemoryRows(points, weights=[0, 0, 1, 1, 1])
    with pytest.raises(DataError, match="row 5: expected a number other than 0"):
        rows.prepared(COSINE)
    assert len(MemoryRows(points, weights=[0, 0, 1, 1, 0]).prepared(COSINE)) == 2


@pytest.mark.parametrize("dtype", [np.int32, np.float32, np.float64])
def test_weights_are_kept_as_float64_next_to_their_rows(dtype: Any) -> None:
    points = np.arange(8, dtype=np.float32)[:, None]
    rows = MemoryRows(points, weights=np.array([3, 0, 1, 0, 0, 2, 1, 0], dtype=dtype))
    assert rows.points.ravel().tolist() == [0, 2, 5, 6]
    assert rows.weights is not None
    assert rows.weights.dtype == np.float64
    assert rows.weights.tolist() == [3, 1, 2, 1]
    assert (len(rows), rows.ordered) == (4, 4)
    assert MemoryRows(points).weights is None


@pytest.mark.parametrize("size", [3, 7, 100])
@pytest.mark.parametrize("numbers", [None, range(1, 60, 3)])
def test_batches_and_blocks_bring_the_weights_of_their_rows(size: int, numbers: range | None) -> None:
    points = np.arange(20, dtype=np.float32)[:, None]
    rows = MemoryRows(points, size, numbers=numbers, weights=points.ravel() + 1)
    for batches, plain in (
        (rows.weighted_batches(3), rows.batches(3)),
        (rows.weighted_batches(3, 11), rows.batches(3, 11)),
        (rows.weighted_blocks(), rows.blocks()),
    ):
        for (batch, weights), expected in zip(batches, plain, strict=True):
            assert batch.tolist() == expected.tolist()
            assert weights is not None
            assert weights.tolist() == [value + 1 for value in batch.ravel().tolist()]


@pytest.mark.parametrize("size", [1, 3])
def test_gathered_weights_are_those_of_the_gathered_rows(size: int) -> None:
    points = np.arange(30, dtype=np.float32)[:, None]
    numbers: Int64 = np.random.default_rng(0).permutation(30)[:17]

    def work(hosts: ThreadHosts) -> tuple[NDArray[Any], NDArray[Any] | None]:
        assignment = RowAssignment(hosts.rank, size).numbers(30)
        rows = MemoryRows(points[hosts.rank :: size], numbers=assignment, weights=points[hosts.rank :: size, 0] + 1)
        return rows.gather(numbers, hosts), rows.gather_weights(numbers, hosts)

    leader, *others = on_all_hosts(size, work)
    assert not isinstance(leader, BaseException)
    assert leader[0].ravel().tolist() == numbers.tolist()
    assert leader[1] is not None
    assert leader[1].tolist() == [number + 1 for number in numbers.tolist()]
    assert len(others) == size - 1
    assert MemoryRows(points).gather_weights(numbers, SingleHost()) is None


# ---- sums and seeds --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_weighted_sums_of_blocks_are_those_of_repeated_rows(offset: float) -> None:
    points, weights = weighted_rows(1, n=20_000)
    points = (points + offset).astype(np.float32)
    nearest = NearestCenters(points[:K])
    blocks = map(Batch, np.split(points, [1, 700, 4000]), np.split(weights, [1, 700, 4000]))
    found = assign_and_sum_blocks(blocks, nearest, ThreadPool(), is_weighted=True)
    expected = assign_and_sum(repeated(points, weights), nearest)
    np.testing.assert_allclose(found.sums, expected.sums, rtol=1e-5, atol=1e-2)
    np.testing.assert_array_equal(found.weights, expected.weights)
    assert found.inertia == pytest.approx(expected.inertia, rel=1e-5)
    assert found.rows.sum() == len(points)
    assert expected.rows is expected.weights


def test_weighted_sums_of_hosts_add_up_with_their_counts() -> None:
    def work(hosts: ThreadHosts) -> ClusterSums:
        rank = float(hosts.rank)
        own = ClusterSums(np.full((2, 3), rank), np.array([rank, 2.0]), rank, np.array([1.0, rank]))
        return own.over(hosts)

    for sums in on_all_hosts(3, work):
        assert isinstance(sums, ClusterSums)
        assert sums.sums.tolist() == [[3.0] * 3] * 2
        assert (sums.weights.tolist(), sums.inertia, sums.rows.tolist()) == ([3, 6], 3, [3, 3])


@pytest.mark.parametrize("method", ["random", "kmeans++"])
def test_first_centers_are_drawn_by_weight(method: Any) -> None:
    points = np.arange(1000, dtype=np.float32)[:, None]
    weights = np.where(points.ravel() % 100 == 0, 1e9, 1.0)
    drawn = seed_centers(points, 5, method, np.random.default_rng(0), weights)
    assert not (drawn % 100).any()


def test_points_of_next_to_no_weight_can_be_drawn() -> None:
    points = np.arange(10, dtype=np.float32)[:, None]
    weights = np.array([1e300, *[1e-300] * 9])
    assert sorted(seed_centers(points, 10, "random", np.random.default_rng(0), weights).ravel()) == list(range(10))


# ---- the fit ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{}, {"epochs": 4}, {"epochs": 2, "half_life_time_size": 5000}, {"distance_metric": "cosine"}]
)
@pytest.mark.parametrize("seed", range(3))
def test_weight_2_equals_a_repeated_row_from_the_same_start(seed: int, options: dict[str, Any]) -> None:
    """With a single mini-batch, because the order of repeated rows is another."""
    points, weights = weighted_rows(seed)
    found = run(points, weights, start_of(points), 100_000, **options)
    expected = run(repeated(points, weights), None, start_of(points), 100_000, **options)
    np.testing.assert_allclose(found.model.centers, expected.model.centers, rtol=1e-4, atol=1e-5)
    assert found.mean_squared_distance == pytest.approx(expected.mean_squared_distance, rel=1e-5)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("k", [K, 40])
def test_weight_2_equals_a_repeated_row_when_refined(k: int, metric: str, seed: int) -> None:
    points, weights = weighted_rows(seed, n=1500)
    start = KMeansModel(points[:k], distance_metric="cosine" if metric == "cosine" else "euclidean")
    options: dict[str, Any] = {"k": k, "refine_max_iter": None, "distance_metric": metric}
    found = run(points, weights, start, **options)
    expected = run(repeated(points, weights), None, start, **options)
    assert found.refinements > 1
    assert found.refinements == expected.refinements
    np.testing.assert_allclose(found.model.centers, expected.model.centers, rtol=1e-3, atol=1e-4)
    assert found.mean_squared_distance == pytest.approx(expected.mean_squared_distance, rel=1e-5)


def test_rounding_does_not_keep_a_refinement_going() -> None:
    """These directions lie close together, and their losses have few digits."""
    points, weights = weighted_rows(3, n=1500)
    start = KMeansModel(points[:40], distance_metric="cosine")
    options: dict[str, Any] = {"k": 40, "distance_metric": "cosine", "local_lloyd_tol": 1e-6}
    assert run(points, weights, start, refine_max_iter=100, **options).refinements < 50


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"init_method": "kmeans++"},
        {"half_life_time_size": 700},
        {"epochs": 2, "extra_center_factor": 1},
        {"distance_metric": "cosine"},
        {"refine_max_iter": None},
        {"refine_max_iter": None, "k": 60},
        {"refine_max_iter": None, "distance_metric": "cosine"},
        {"refine_max_iter": None, "refine_sample_size": 900},
    ],
)
def test_weight_0_equals_a_removed_row_to_the_bit(options: dict[str, Any]) -> None:
    points, weights = weighted_rows(5)
    points[7], weights[7] = 0, 0
    counted = weights > 0
    found, expected = run(points, weights, **options), run(points[counted], weights[counted], **options)
    same(found, expected)
    assert found.model.counts is not None
    assert expected.model.counts is not None
    assert found.model.counts.tolist() == expected.model.counts.tolist()
    ones = run(points, counted.astype(np.float64), **options)
    assert ones.model.counts is not None
    assert ones.model.counts.sum() == counted.sum()


@pytest.mark.parametrize("options", [{}, {"init_method": "kmeans++"}, {"epochs": 3}])
def test_figures_of_a_weighted_fit_are_true(options: dict[str, Any]) -> None:
    points, weights = weighted_rows(6)
    assert_true(run(points, weights * 0.3, **options), points, weights)


@pytest.mark.parametrize("searches", [True, False])
@pytest.mark.parametrize("k", [K, 60])
def test_refined_weighted_fit_is_as_good_as_one_of_repeated_rows(
    k: int, searches: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not searches:
        monkeypatch.setattr("kmeans.table_search.SEARCHES", ())
    points, weights = weighted_rows(4, n=10_000)
    options: dict[str, Any] = {"k": k, "refine_max_iter": None}
    found, expected = run(points, weights, **options), run(repeated(points, weights), None, **options)
    assert found.mean_squared_distance is not None
    assert expected.mean_squared_distance is not None
    labels, squared = oracle.nearest(points, found.model.centers)
    assert found.mean_squared_distance == pytest.approx(np.average(squared, weights=weights), rel=1e-5)
    assert found.model.counts is not None
    assert found.model.counts.tolist() == np.bincount(labels[weights > 0], minlength=k).tolist()
    assert found.mean_squared_distance < expected.mean_squared_distance * 1.02


@pytest.mark.parametrize("seed", range(3))
def test_weighted_fit_is_as_good_as_one_of_repeated_rows(seed: int) -> None:
    points, weights = weighted_rows(seed)
    found, expected = run(points, weights, epochs=3), run(repeated(points, weights), None, epochs=3)
    assert found.mean_squared_distance is not None
    assert expected.mean_squared_distance is not None
    assert found.mean_squared_distance < expected.mean_squared_distance * 1.05


@pytest.mark.parametrize("scale", [2.0**-40, 2.0**40])
def test_weights_times_a_power_of_2_find_the_same_bits(scale: float) -> None:
    points, weights = weighted_rows(7)
    same(run(points, weights * scale), run(points, weights))


def test_heavy_rows_draw_the_centers() -> None:
    points = np.concatenate([np.zeros(500), np.ones(500)]).astype(np.float32)[:, None]
    fitted = run(points, np.repeat([1.0, 3.0], 500), k=1)
    assert fitted.model.centers.item() == pytest.approx(0.75, rel=1e-4)
    assert fitted.mean_squared_distance == pytest.approx(0.75 * 0.25, rel=1e-4)


def test_observer_counts_rows_not_weights() -> None:
    class Seen(Callbacks):
        """Keeps the numbers of rows."""

        rows: int

        def epoch_done(self, *, rows: int, **_: Any) -> None:
            self.rows = rows

    points, weights = weighted_rows(8)
    seen = Seen()
    fit(MemoryRows(points, 500, weights=weights * 7), Settings(k=K, refine_max_iter=0), callbacks=seen)
    assert seen.rows == np.count_nonzero(weights)


def test_more_clusters_than_rows_with_a_weight_are_refused() -> None:
    with pytest.raises(DataError, match="k=3 clusters were asked for, but there are only 2 rows"):
        run(np.ones((4, 1), dtype=np.float32), np.array([1.0, 0, 0, 2]), k=3)


# ---- several hosts, threads, checkpoints -----------------------------------------------------------------------------


def dealt(points: Float32, weights: Float64, size: int) -> list[Rows]:
    """Return the shares of hosts that all read the same rows."""
    return [
        MemoryRows(
            points[rank::size], 500, 0, RowAssignment(rank, size).numbers(len(points)), weights=weights[rank::size]
        )
        for rank in range(size)
    ]


def divided(points: Float32, weights: Float64, size: int) -> list[Rows]:
    """Return the shares of hosts that know nothing of each other's rows."""
    return [MemoryRows(points[rank::size], 500, weights=weights[rank::size]) for rank in range(size)]


@pytest.mark.parametrize("options", [{}, {"init_method": "kmeans++"}, {"epochs": 2, "half_life_time_size": 5000}])
@pytest.mark.parametrize("size", [2, 3])
def test_hosts_fit_divided_rows_with_weights_as_one_host(size: int, options: dict[str, Any]) -> None:
    points, weights = weighted_rows(9)
    weights += 0.5
    settings = Settings(**{"k": K, "refine_max_iter": 0, **options})
    together = fitted_by(fit_together(dealt(points, weights, size), settings))
    assert_same_model(together, fit(MemoryRows(points, 500, weights=weights), settings))
    assert_true(together, points, weights)


@pytest.mark.parametrize("searches", [True, False])
@pytest.mark.parametrize("k", [K, 40])
def test_hosts_refine_divided_weighted_rows_as_one_host(
    k: int, searches: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not searches:
        monkeypatch.setattr("kmeans.table_search.SEARCHES", ())
    points, weights = weighted_rows(9, n=8000)
    weights += 0.5
    settings = Settings(k=k)
    alone = fit(MemoryRows(points, 500, weights=weights), settings)
    for size in (2, 3):
        assert_same_model(fitted_by(fit_together(dealt(points, weights, size), settings)), alone)


@pytest.mark.parametrize("shares", [divided, dealt])
def test_several_hosts_leave_out_rows_of_weight_0(
    shares: Callable[[Float32, Float64, int], list[Rows]],
) -> None:
    points, weights = weighted_rows(10)
    weights[::3] = 1  # the first host leaves out none
    settings = Settings(k=K, refine_max_iter=0, epochs=3)
    together = fitted_by(fit_together(shares(points, weights, 3), settings))
    assert_true(together, points, weights)
    expected = fit(MemoryRows(points, 500, weights=weights), settings).mean_squared_distance
    assert together.mean_squared_distance == pytest.approx(expected, rel=0.05)


def test_rows_of_a_host_without_weights_count_once() -> None:
    points, weights = weighted_rows(11)
    weights[::2] = 1
    settings = Settings(k=K, refine_max_iter=0)
    mixed: list[Rows] = [MemoryRows(points[::2], 500), MemoryRows(points[1::2], 500, weights=weights[1::2])]
    found = fitted_by(fit_together(mixed, settings))
    same(found, fitted_by(fit_together(divided(points, weights, 2), settings)))
    assert_true(found, points, weights)


def test_a_stop_of_one_host_ends_a_weighted_fit_on_all() -> None:
    points, weights = weighted_rows(11)
    outcomes = fit_together(divided(points, weights, 2), Settings(k=K, refine_max_iter=0), {1: lambda: True})
    assert fitted_by(outcomes).interrupted


@pytest.mark.parametrize("options", [{"refine_max_iter": 0}, {}, {"k": 60}], ids=str)
def test_threads_do_not_change_a_bit_of_a_weighted_fit(options: dict[str, Any]) -> None:
    points, weights = weighted_rows(12, n=20_000)
    settings = Settings(**{"k": K, **options})
    with ThreadPool(3) as pool:
        several = fit(MemoryRows(points, 5000, weights=weights), settings, pool=pool)
    same(several, fit(MemoryRows(points, 5000, weights=weights), settings))


@pytest.mark.parametrize("refine_max_iter", [0, None])
def test_weighted_fit_restarts_anywhere_with_the_same_bits(refine_max_iter: int | None) -> None:
    points, weights = weighted_rows(13)
    settings = Settings(k=K, refine_max_iter=refine_max_iter, epochs=1 if refine_max_iter == 0 else 2)
    whole = Kept()
    expected = fit(MemoryRows(points, 500, weights=weights), settings, checkpoints=whole)
    for killed_after in range(1, len(whole.phases)):
        before = Kept(states=killed_after)
        with pytest.raises(Killed):
            fit(MemoryRows(points, 500, weights=weights), settings, checkpoints=before)
        same(fit(MemoryRows(points, 500, weights=weights), settings, checkpoints=Kept(before.state)), expected)


def test_streamed_rows_have_no_weights() -> None:
    rows = load(lambda: iter([np.ones((4, 1), dtype=np.float32)]), 300)
    assert [batch.weights for batch in rows.weighted_batches(0)] == [None]
    assert [batch.weights for batch in rows.weighted_blocks()] == [None]
