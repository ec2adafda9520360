"""Spherical k-means: rows of any length, centers of length 1, distances and losses 1 - cosine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from kmeans import artifact
from kmeans.arrays import Float32, Float64, Int64
from kmeans.assignments import Assignments
from kmeans.callbacks import Callbacks
from kmeans.dataset import MemoryRows, RowAssignment, Rows, StreamedRows, bytes_per_row, load, load_once
from kmeans.distance import NearestCenters
from kmeans.errors import DataError, ModelError
from kmeans.fitting import Fitted, fit
from kmeans.lloyd import lloyd
from kmeans.metric import COSINE, EUCLIDEAN
from kmeans.model import KMeansModel
from kmeans.settings import Settings
from kmeans.sums import assign_and_sum
from kmeans.threads import ThreadPool
from tests.unit.kmeans import oracle
from tests.unit.kmeans.test_checkpoint import Kept, Killed, same
from tests.unit.kmeans.test_collectives import assert_same_model, fit_together, fitted_by
from tests.unit.kmeans.thread_hosts import ThreadHosts, on_all_hosts

ZEROS = "expected a number other than 0 in the row, found only zeros"


def directions(seed: int, *, n: int = 3000, k: int = 6, d: int = 8, std: float = 0.25) -> Float32:
    """Return rows of lengths from 1e-6 to 1e6 around k directions."""
    generator = np.random.default_rng(seed)
    centers = unit(generator.normal(size=(k, d)))
    rows = centers[generator.permutation(np.arange(n) % k)] + generator.normal(scale=std, size=(n, d))
    scaled: Float32 = (rows * 10 ** generator.uniform(-6, 6, size=(n, 1))).astype(np.float32)
    return scaled


def unit(rows: NDArray[Any]) -> Float64:
    wide = rows.astype(np.float64)
    normalized: Float64 = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    return normalized


def cosine_distances(points: NDArray[Any], centers: NDArray[Any]) -> Float64:
    """Return 1 - cosine of each point and each center, (n, k), by the definition."""
    distances: Float64 = 1 - unit(points) @ unit(centers).T
    return distances


def spherical_lloyd(points: Float32, centers: Float64) -> tuple[Float64, Int64]:
    """Return where plain spherical k-means settles, and the labels."""
    rows, labels = unit(points), np.full(len(points), -1)
    while True:
        found: Int64 = (rows @ centers.T).argmax(axis=1)
        if np.array_equal(found, labels):
            return centers, labels
        labels = found
        centers = unit(np.stack([rows[labels == j].sum(axis=0) for j in range(len(centers))]))


def run(points: Float32, start: KMeansModel | None = None, **options: Any) -> Fitted:
    settings = Settings(**{"k": 6, "distance_metric": "cosine", **options})
    return fit(MemoryRows(points, 500), settings, start=start)


def assert_true(fitted: Fitted, points: Float32) -> None:
    """Check that centers have length 1, and that the figures are those of the rows."""
    model = fitted.model
    assert model.distance_metric == "cosine"
    np.testing.assert_allclose(np.linalg.norm(model.centers.astype(np.float64), axis=1), 1, rtol=2e-7)
    distances = cosine_distances(points, model.centers).min(axis=1)
    assert fitted.mean_squared_distance == pytest.approx(distances.mean(), rel=1e-5)
    assert model.counts is not None
    assert model.counts.sum() == len(points)


# ---- rows ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e-38, 1e-25, 1e-3, 1, 7, 1e15])
@pytest.mark.parametrize("d", [1, 2, 3, 64, 1001])
def test_prepared_rows_of_any_scale_have_length_1(scale: float, d: int) -> None:
    points = np.random.default_rng(d).uniform(-1, 1, size=(300, d)).astype(np.float32) * np.float32(scale)
    np.testing.assert_allclose(COSINE.prepare(points), unit(points), rtol=1e-6, atol=1e-9)


@oracle.PROPERTY
@given(st.integers(0, 2**32), st.integers(1, 40), st.integers(1, 40), st.floats(-20, 14))
def test_prepared_rows_stay_as_they_are_when_prepared_again(seed: int, n: int, d: int, exponent: float) -> None:
    generator = np.random.default_rng(seed)
    points = (generator.normal(size=(n, d)) * 10**exponent).astype(np.float32)
    prepared = COSINE.prepare(points)
    assert COSINE.prepare(prepared) is prepared
    for row in range(n):  # of each row by itself the same bits
        assert COSINE.prepare(points[row : row + 1]).tobytes() == prepared[row].tobytes()


@pytest.mark.parametrize("d", [3, 64, 9001])
def test_prepared_rows_do_not_depend_on_blocks_or_memory_layout(d: int) -> None:
    points = np.random.default_rng(1).normal(size=(500, d)).astype(np.float32)
    prepared = COSINE.prepare(points)
    labelled = np.column_stack([np.zeros(500, dtype=np.float32), points])
    COSINE.prepare_in_place(labelled[:, 1:])
    assert labelled[:, 1:].tobytes() == prepared.tobytes()
    assert not labelled[:, 0].any()
    parts = [COSINE.prepare(points[first : first + 7]) for first in range(0, 500, 7)]
    assert np.concatenate(parts).tobytes() == prepared.tobytes()


def test_prepare_does_not_write_to_the_rows_of_the_caller() -> None:
    points = directions(0)
    before = points.copy()
    assert not np.shares_memory(COSINE.prepare(points), points)
    run(points)
    assert np.array_equal(points, before)


def test_prepare_euclidean_returns_the_same_array() -> None:
    points = np.zeros((3, 2), dtype=np.float32)
    assert EUCLIDEAN.prepare(points) is points
    assert MemoryRows(points).prepared(EUCLIDEAN).points is points


def test_prepare_zero_row_is_refused_by_its_number() -> None:
    points = np.ones((5000, 300), dtype=np.float32)
    points[[4321, 4400]] = 0
    for refuse in (COSINE.prepare, COSINE.prepare_in_place):
        with pytest.raises(DataError, match=f"row 4322: {ZEROS}"):
            refuse(points.copy())


def test_normalize_centers_without_direction_keeps_previous() -> None:
    centers = np.array([[3.0, 4.0], [0.0, 0.0], [1e-9, 0.0]])
    previous = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    assert COSINE.normalize_centers(centers, previous).tolist() == [[0.6, 0.8], [0.0, 1.0], [0.6, 0.8]]
    assert EUCLIDEAN.normalize_centers(centers, previous) is centers


# ---- the fit ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_lloyd_converges_as_plain_spherical_k_means(seed: int) -> None:
    points = COSINE.prepare(directions(seed))
    expected, labels = spherical_lloyd(points, unit(points[:6]))
    found = lloyd(
        lambda nearest: assign_and_sum(points, nearest),
        points[:6],
        max_iter=200,
        tol=0,
        reseed=lambda nearest, count: points[:0],
        metric=COSINE,
    )
    np.testing.assert_array_equal(NearestCenters(found.centers).labels(points), labels)
    np.testing.assert_allclose(found.centers, expected, atol=1e-6)


def assert_settled(fitted: Fitted, points: Float32, start: Float64) -> float:
    """Check that plain spherical k-means from ``start`` settles about there; return its loss."""
    expected, labels = spherical_lloyd(points, start)
    assert_true(fitted, points)
    assert (fitted.model.predict(points)[0] == labels).mean() > 0.97
    loss = float(cosine_distances(points, expected).min(axis=1).mean())
    assert fitted.mean_squared_distance == pytest.approx(loss, rel=3e-3)
    return loss


@pytest.mark.parametrize("seed", range(6))
def test_fit_converges_about_as_plain_spherical_k_means(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refinement compares only some rows with all centers, so a few labels differ."""

    def relocate(_: Assignments, means: Float32, *_args: Any, **_options: Any) -> tuple[Float32, Int64]:
        return means, np.empty(0, dtype=np.int64)

    points = directions(seed)
    start = unit(points[:6])
    model = KMeansModel(start, distance_metric="cosine")
    better = run(points, model, local_lloyd_tol=0)
    loss = assert_settled(better, points, better.model.centers.astype(np.float64))
    assert loss <= 1.003 * cosine_distances(points, spherical_lloyd(points, start)[0]).min(axis=1).mean()
    monkeypatch.setattr("kmeans.refinement.relocate", relocate)
    assert_settled(run(points, model, local_lloyd_tol=0), points, start)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"refine_max_iter": 0},
        {"extra_center_factor": 1, "refine_max_iter": 0},
        {"half_life_time_size": 700},
        {"epochs": 2, "init_method": "kmeans++"},
        {"refine_sample_size": 800},
    ],
)
def test_fit_is_as_good_as_the_best_of_ten_plain_runs(options: dict[str, Any]) -> None:
    points = directions(7)
    generator = np.random.default_rng(7)
    starts = [unit(points[generator.choice(len(points), 6, replace=False)]) for _ in range(10)]
    best = min(cosine_distances(points, spherical_lloyd(points, start)[0]).min(axis=1).mean() for start in starts)
    fitted = run(points, **options)
    assert_true(fitted, points)
    assert fitted.mean_squared_distance is not None
    assert fitted.mean_squared_distance <= best * 1.05


def test_fit_of_unit_rows_has_the_labels_of_euclidean_k_means() -> None:
    points = COSINE.prepare(directions(3, std=0.1))
    cosine = run(points).model
    euclidean = fit(MemoryRows(points, 500), Settings(k=6)).model
    by_cosine, by_length = cosine.predict(points)[0], euclidean.predict(points)[0]
    assert len(set(zip(by_cosine.tolist(), by_length.tolist(), strict=True))) == 6


def test_fit_does_not_copy_rows_of_length_1() -> None:
    points = COSINE.prepare(directions(3))
    assert MemoryRows(points).prepared(COSINE).points is points


def test_fit_of_rows_scaled_one_by_one_finds_the_same_clusters() -> None:
    points = COSINE.prepare(directions(2))
    scales = 2.0 ** np.random.default_rng(0).integers(-40, 40, size=(len(points), 1))
    scaled = (points * scales).astype(np.float32)
    one, other = run(points), run(scaled)
    np.testing.assert_array_equal(one.model.predict(points)[0], other.model.predict(scaled)[0])
    np.testing.assert_allclose(one.model.centers, other.model.centers, atol=1e-6)


def test_fit_of_one_cluster_is_the_normalized_mean() -> None:
    points = directions(5, k=1)
    fitted = run(points, k=1)
    np.testing.assert_allclose(fitted.model.centers, unit(unit(points).sum(axis=0)[None]), atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"refine_max_iter": 0}])
def test_fit_of_opposite_rows_keeps_a_direction(options: dict[str, Any]) -> None:
    points = np.tile(np.array([[3, 4, 0], [-3, -4, 0]], dtype=np.float32), (600, 1))
    fitted = run(points, k=1, **options)
    assert_true(fitted, points)
    assert fitted.mean_squared_distance == pytest.approx(1)


def test_fit_relocated_center_without_direction_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def relocate(_: Assignments, means: Float32, *_args: Any, **_options: Any) -> tuple[Float32, Int64]:
        moved = means.copy()
        moved[1] = 0
        return moved, np.array([1])

    monkeypatch.setattr("kmeans.refinement.relocate", relocate)
    points = directions(0)
    assert_true(run(points, KMeansModel(unit(points[:6]), distance_metric="cosine")), points)


def test_fit_of_tight_clusters_reports_a_true_loss() -> None:
    points = directions(1, std=1e-4)
    assert_true(run(points), points)


def test_losses_of_all_phases_are_means_of_1_minus_cosine() -> None:
    class Losses(Callbacks):
        """Keeps the losses that the fit reports, by phase."""

        seen: dict[str, float]

        def __init__(self) -> None:
            self.seen = {}

        def batch_done(self, *, mean_squared_distance: float, **_: Any) -> None:
            self.seen["stream"] = mean_squared_distance

        def shrink_attempt(self, *, mean_squared_distance: float, **_: Any) -> None:
            self.seen["attempt"] = mean_squared_distance

        def shrink_done(self, *, mean_squared_distance: float) -> None:
            self.seen["shrink"] = mean_squared_distance

        def refine_pass(self, *, mean_squared_distance: float, **_: Any) -> None:
            self.seen["refine"] = mean_squared_distance

    points = COSINE.prepare(directions(4))
    cosine, euclidean = Losses(), Losses()
    # Without a move in between both find the same: the first mini-batch, and the sums before centers move.
    fitted = fit(
        MemoryRows(points, 3000),
        Settings(k=6, distance_metric="cosine", local_lloyd_max_iter=1, local_lloyd_num_trials=1),
        callbacks=cosine,
    )
    fit(
        MemoryRows(points, 3000),
        Settings(k=6, local_lloyd_max_iter=1, local_lloyd_num_trials=1),
        callbacks=euclidean,
    )
    assert cosine.seen["stream"] == pytest.approx(euclidean.seen["stream"] / 2, rel=1e-6)
    assert fitted.shrink_loss == cosine.seen["shrink"] == cosine.seen["attempt"]
    assert 0 < cosine.seen["shrink"] < euclidean.seen["shrink"]
    assert cosine.seen["refine"] == pytest.approx(fitted.mean_squared_distance, rel=1e-3)


# ---- rows outside of memory ------------------------------------------------------------------------------------------


def blocks_of(points: Float32) -> Callable[[], Iterator[Float32]]:
    return lambda: iter(np.array_split(points, 7))


def streamed(points: Float32, held: int = 1000) -> StreamedRows:
    rows = load(blocks_of(points), held * bytes_per_row(points.shape[1]), 500)
    assert isinstance(rows, StreamedRows)
    return rows


@pytest.mark.parametrize("options", [{}, {"refine_max_iter": 0}])
def test_streamed_rows_are_normalized_in_each_pass(options: dict[str, Any]) -> None:
    points = directions(8)
    settings = Settings(k=6, distance_metric="cosine", **options)
    fitted = fit(streamed(points), settings)
    assert_true(fitted, points)
    again = fit(streamed(COSINE.prepare(points)), settings)
    assert again.model.centers.tobytes() == fitted.model.centers.tobytes()


def test_piped_rows_are_normalized_in_each_pass() -> None:
    points = directions(8)
    settings = Settings(k=6, epochs=2, refine_max_iter=0, distance_metric="cosine")
    fitted = fit(load_once(blocks_of(points), 1 << 30, 500), settings)
    again = fit(load_once(blocks_of(COSINE.prepare(points)), 1 << 30, 500), settings)
    assert_true(fitted, points)
    assert again.model.centers.tobytes() == fitted.model.centers.tobytes()


@pytest.mark.parametrize("row", [0, 1999, 2999])
@pytest.mark.parametrize("kind", ["in memory", "streamed", "piped"])
def test_zero_row_is_refused_by_its_number_wherever_it_is(kind: str, row: int) -> None:
    points = directions(0)
    points[row] = 0
    rows: dict[str, Callable[[], Rows]] = {
        "in memory": lambda: MemoryRows(points),
        "streamed": lambda: streamed(points),
        "piped": lambda: load_once(blocks_of(points), 1 << 30),
    }
    with pytest.raises(DataError, match=f"row {row + 1}: {ZEROS}"):
        fit(rows[kind](), Settings(k=6, distance_metric="cosine"))


def test_zero_row_in_a_pipe_sample_is_refused_without_number() -> None:
    points = np.zeros((3000, 8), dtype=np.float32)
    rows = load_once(blocks_of(points), 1000 * bytes_per_row(8))
    assert len(rows.in_memory) < rows.seen
    with pytest.raises(DataError, match=f"^{ZEROS}"):
        fit(rows, Settings(k=6, distance_metric="cosine"))


# ---- several hosts, threads, checkpoints -----------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"refine_max_iter": 0}, {"half_life_time_size": 700}])
@pytest.mark.parametrize("size", [2, 3])
def test_several_hosts_fit_replicated_rows_as_one_does(size: int, options: dict[str, Any]) -> None:
    points = directions(9)
    settings = Settings(k=6, distance_metric="cosine", **options)
    shares: list[Rows] = [load(blocks_of(points), 1 << 30, 500, 0, RowAssignment(rank, size)) for rank in range(size)]
    together = fitted_by(fit_together(shares, settings))
    assert_same_model(together, fit(MemoryRows(points, 500), settings))
    assert_true(together, points)


def test_hosts_find_the_same_bits_for_normalized_rows() -> None:
    points = directions(9)
    settings = Settings(k=6, distance_metric="cosine")

    def shares(rows: Float32) -> list[Rows]:
        return [MemoryRows(rows[rank::3], 500) for rank in range(3)]

    raw = fitted_by(fit_together(shares(points), settings))
    normalized = fitted_by(fit_together(shares(COSINE.prepare(points)), settings))
    assert raw.model.centers.tobytes() == normalized.model.centers.tobytes()


def test_zero_row_of_one_host_fails_the_fit_on_all() -> None:
    points = directions(9)
    points[7] = 0  # the second host's fourth row, whose number among all is 8

    def work(hosts: ThreadHosts) -> Fitted:
        rows = load(blocks_of(points), 1 << 30, 500, 0, RowAssignment(hosts.rank, 2))
        return fit(rows, Settings(k=6, distance_metric="cosine"), hosts=hosts)

    outcomes = on_all_hosts(2, work)
    assert [type(outcome) for outcome in outcomes] == [DataError, DataError]
    assert str(outcomes[1]).startswith(f"row 8: {ZEROS}")
    assert str(outcomes[0]) == "another host has rows without a cosine distance."


def test_threads_do_not_change_a_bit_of_a_cosine_fit() -> None:
    points, settings = directions(9), Settings(k=6, distance_metric="cosine")
    with ThreadPool(3) as pool:
        several = fit(MemoryRows(points, 500), settings, pool=pool)
    assert several.model.centers.tobytes() == fit(MemoryRows(points, 500), settings).model.centers.tobytes()


@pytest.mark.parametrize("rows", [lambda points: MemoryRows(points, 500), streamed])
def test_restart_from_any_checkpoint_finds_the_same_bits(rows: Callable[[Float32], Rows]) -> None:
    points, settings = directions(10), Settings(k=6, distance_metric="cosine", local_lloyd_tol=1e-6)
    whole = Kept()
    expected = fit(rows(points), settings, checkpoints=whole)
    for killed_after in range(1, len(whole.phases)):
        before = Kept(states=killed_after)
        with pytest.raises(Killed):
            fit(rows(points), settings, checkpoints=before)
        same(fit(rows(points), settings, checkpoints=Kept(before.state)), expected)


# ---- starting from a model -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"refine_max_iter": 0}])
def test_fit_starts_from_centers_of_a_euclidean_model(options: dict[str, Any]) -> None:
    points = directions(11)
    start = KMeansModel(points[:6], np.full(6, 10))
    converted = KMeansModel(COSINE.prepare(points[:6]), np.full(6, 10), distance_metric="cosine")
    fitted = run(points, start, **options)
    assert_true(fitted, points)
    assert fitted.model.centers.tobytes() == run(points, converted, **options).model.centers.tobytes()


def test_fit_refuses_to_start_from_a_zero_center() -> None:
    start = KMeansModel([[1.0, 0.0], [0.0, 0.0]])
    with pytest.raises(DataError, match="center 2 of the model to start from has only zeros"):
        run(np.ones((10, 2), dtype=np.float32), start, k=2)


# ---- the model -------------------------------------------------------------------------------------------------------


@oracle.PROPERTY
@given(st.integers(0, 2**32), st.integers(1, 30), st.integers(1, 20), st.integers(1, 20))
def test_predict_transform_and_score_equal_the_definition(seed: int, n: int, k: int, d: int) -> None:
    generator = np.random.default_rng(seed)
    centers = generator.normal(size=(k, d))
    points = (generator.normal(size=(n, d)) * 10 ** generator.uniform(-20, 10, size=(n, 1))).astype(np.float32)
    model = KMeansModel(centers, distance_metric="cosine")
    table = cosine_distances(points, model.centers)
    labels, distances = model.predict(points)
    np.testing.assert_allclose(table[np.arange(n), labels], table.min(axis=1), atol=1e-7)
    np.testing.assert_allclose(distances, table.min(axis=1), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(model.transform(points), table, rtol=1e-5, atol=1e-7)
    assert model.score(points) == pytest.approx(table.min(axis=1).sum(), rel=1e-5, abs=1e-6)
    assert distances.dtype == np.float32
    assert 0 <= distances.min() <= distances.max() <= 2


@pytest.mark.parametrize("scale", [1e-25, 7, 1e12])
def test_predict_does_not_depend_on_the_length_of_a_row(scale: float) -> None:
    points = np.random.default_rng(0).normal(size=(200, 9)).astype(np.float32)
    model = KMeansModel(np.random.default_rng(1).normal(size=(12, 9)), distance_metric="cosine")
    labels, distances = model.predict(points)
    scaled_labels, scaled_distances = model.predict(points * np.float32(scale))
    np.testing.assert_array_equal(scaled_labels, labels)
    np.testing.assert_allclose(scaled_distances, distances, rtol=1e-5)


def test_predict_is_accurate_near_0_and_at_most_2() -> None:
    model = KMeansModel([[1.0, 0.0]], distance_metric="cosine")
    angles = np.array([0, 1e-6, 1e-4, 0.1, np.pi / 2, np.pi])
    points = np.column_stack([np.cos(angles), np.sin(angles)]) * 3
    expected = 2 * np.sin(angles / 2) ** 2
    np.testing.assert_allclose(model.predict(points)[1], expected, rtol=1e-5, atol=1e-14)
    assert model.predict([[-3.0, 1e-3]])[1] <= 2


def test_predict_of_a_single_row_equals_that_of_many() -> None:
    points = directions(1)
    model = KMeansModel(points[:40], distance_metric="cosine")
    labels, distances = model.predict(points[:500])
    for row in range(500):
        label, distance = model.predict(points[row : row + 1])
        assert (label[0], distance[0]) == (labels[row], distances[row])


def test_predict_finds_each_center_at_no_distance() -> None:
    model = KMeansModel(directions(1)[:40], distance_metric="cosine")
    labels, distances = model.predict(model.centers)
    assert labels.tolist() == list(range(40))
    assert not distances.any()


@pytest.mark.parametrize("ask", [KMeansModel.predict, KMeansModel.transform, KMeansModel.score])
def test_zero_row_has_no_answer(ask: Callable[[KMeansModel, Any], object]) -> None:
    with pytest.raises(DataError, match=f"row 2: {ZEROS}"):
        ask(KMeansModel([[1.0, 0.0]], distance_metric="cosine"), [[1.0, 2.0], [0.0, -0.0]])


def test_model_normalizes_its_centers_and_refuses_a_zero_one() -> None:
    model = KMeansModel([[3.0, 4.0]], distance_metric="cosine")
    np.testing.assert_array_equal(model.centers, np.array([[0.6, 0.8]], dtype=np.float32))
    with pytest.raises(DataError, match=f"row 2: {ZEROS}"):
        KMeansModel([[3.0, 4.0], [0.0, 0.0]], distance_metric="cosine")


def test_euclidean_answers_are_those_of_before() -> None:
    points = np.random.default_rng(0).normal(size=(300, 5)).astype(np.float32)
    model = KMeansModel(points[:7])
    nearest = NearestCenters(points[:7])
    labels, squared = nearest.exact_query(points)
    found = model.predict(points)
    assert found[0].tobytes() == labels.tobytes()
    assert found[1].tobytes() == np.sqrt(squared).tobytes()
    assert model.score(points) == float(nearest.query(points)[1].sum(dtype=np.float64))


# ---- the model on disk -----------------------------------------------------------------------------------------------


def test_cosine_model_comes_back_from_disk(tmp_path: Path) -> None:
    model = KMeansModel(directions(1)[:4], distance_metric="cosine")
    artifact.save(model, tmp_path)
    loaded = artifact.load(tmp_path)
    assert loaded.distance_metric == "cosine"
    assert loaded.centers.tobytes() == model.centers.tobytes()
    assert '"distance_metric": "cosine"' in (tmp_path / "kmeans.json").read_text()


def test_euclidean_model_does_not_record_its_metric(tmp_path: Path) -> None:
    artifact.save(KMeansModel([[1.0, 2.0]]), tmp_path)
    assert "distance_metric" not in (tmp_path / "kmeans.json").read_text()
    assert artifact.load(tmp_path).distance_metric == "euclidean"


@pytest.mark.parametrize("metric", ['"manhattan"', "null", "7", "[]"])
def test_unknown_metric_is_a_model_error(tmp_path: Path, metric: str) -> None:
    artifact.save(KMeansModel([[1.0, 2.0]], distance_metric="cosine"), tmp_path)
    card = tmp_path / "kmeans.json"
    card.write_text(card.read_text().replace('"cosine"', metric))
    with pytest.raises(ModelError, match=r"has distance_metric '.*', expected euclidean or cosine"):
        artifact.load(tmp_path)


def test_cosine_card_with_a_zero_center_is_a_model_error(tmp_path: Path) -> None:
    artifact.save(KMeansModel([[1.0, 2.0], [0.0, 0.0]]), tmp_path)
    card = tmp_path / "kmeans.json"
    card.write_text(card.read_text().replace('"features"', '"distance_metric": "cosine", "features"'))
    with pytest.raises(ModelError, match=f"row 2: {ZEROS}"):
        artifact.load(tmp_path)
