"""Coordinates: what data need them, and that nothing but precision changes with them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from kmeans import artifact
from kmeans.callbacks import Callbacks
from kmeans.coordinates import IDENTITY, Coordinates, coarse_columns, measure, narrowed
from kmeans.dataset import MemoryRows
from kmeans.errors import DataError, ModelError
from kmeans.fitting import Fitted, fit
from kmeans.model import KMeansModel
from kmeans.settings import Settings

Rows = NDArray[Any]
GENERATOR = np.random.default_rng(11)
BLOBS = np.concatenate([GENERATOR.normal(place, 1.0, (60, 3)) for place in (-20, 0, 20)])
THREE = Settings(k=3)


def fitted(rows: Rows, wanted: Settings = THREE, **options: Any) -> Fitted:
    return fit(MemoryRows.of(rows), wanted, **options)


def loss(rows: Rows, centers: Rows) -> float:
    return float(np.square(rows[:, None, :] - centers).sum(axis=2).min(axis=1).mean())


def parts(labels: NDArray[Any]) -> set[frozenset[int]]:
    return {frozenset(np.flatnonzero(labels == label).tolist()) for label in set(labels.tolist())}


@pytest.mark.parametrize(
    "rows",
    [
        GENERATOR.normal(size=(500, 4)),
        GENERATOR.normal(300, 10, (500, 4)),
        GENERATOR.normal(size=(500, 4)) * 1e14,
        GENERATOR.normal(size=(500, 4)) * 1e-8,
        GENERATOR.integers(1900, 2030, (500, 4)).astype(float),
        GENERATOR.integers(0, 2, (500, 4)).astype(float),
        GENERATOR.integers(0, 10**9, (500, 4)).astype(float),
        GENERATOR.lognormal(0, 5, (500, 4)),
        GENERATOR.uniform(1.6e9, 1.7e9, (500, 1)).round(),
        np.where(GENERATOR.random((5000, 3)) < 0.001, 0.0, 1.0),
        np.ones((10, 2)),
        np.zeros((10, 2)),
        np.full((500, 1), 0.1),
        GENERATOR.random((1, 5)),
        np.empty((0, 0)),
    ],
)
def test_ordinary_rows_measured_need_no_coordinates(rows: Rows) -> None:
    measured = measure(np.asarray(rows, dtype=np.float64))
    assert measured.coordinates.is_identity
    assert measured.lost == []


@pytest.mark.parametrize("offset", [1.7e9, -1.7e9, 1e6, 1e12, -9e14])
def test_a_far_column_measured_is_the_only_one_moved(offset: float) -> None:
    rows = GENERATOR.normal(size=(500, 3))
    rows[:, 1] += offset
    measured = measure(rows)
    assert measured.coordinates.scale == 1
    assert measured.coordinates.offset is not None
    assert np.flatnonzero(measured.coordinates.offset).tolist() == [1]
    assert measured.lost == []


def test_timestamps_with_zeros_for_missing_are_moved() -> None:
    rows: Rows = 1.7e9 + GENERATOR.integers(0, 3600, (500, 1))
    rows[::50] = 0
    offset = measure(rows).coordinates.offset
    assert offset is not None
    assert offset[0] == pytest.approx(1.7e9, abs=3600)


def test_groups_a_year_apart_keep_their_seconds() -> None:
    rows = np.concatenate([GENERATOR.normal(1.67e9, 10, 300), GENERATOR.normal(1.7e9, 10, 300)])[:, None]
    found = fitted(rows, Settings(k=2))
    assert found.mean_squared_distance == pytest.approx(loss(rows, found.model.precise_centers), rel=0.01)
    assert found.mean_squared_distance == pytest.approx(100, rel=0.2)


@pytest.mark.parametrize("exponent", [-25, -40, -100, -140, 13])
def test_a_scale_measured_is_a_power_of_two(exponent: int) -> None:
    rows = BLOBS * 10.0**exponent
    scale = measure(rows).coordinates.scale
    assert np.frexp(scale)[0] == 0.5
    assert (scale != 1) == (exponent < -9)
    found = fitted(rows)
    # Of squares below 1e-290 float64 has no digits either.
    assert found.mean_squared_distance == pytest.approx(loss(rows, found.model.precise_centers), rel=1e-5, abs=1e-290)


def test_a_tiny_spread_on_a_tiny_offset_is_kept() -> None:
    rows = 1e-20 + 1e-27 * BLOBS
    found = fitted(rows)
    assert found.mean_squared_distance == pytest.approx(loss(BLOBS, fitted(BLOBS).model.centers) * 1e-54, rel=1e-3)


def test_two_quantities_in_one_column_are_reported_lost() -> None:
    rows = np.concatenate([GENERATOR.normal(place, 1e-4, 300) for place in (-1e6, 1e6)])[:, None]
    assert measure(np.concatenate([rows, GENERATOR.normal(size=(600, 1))])).lost == [0]
    assert measure(rows).lost == [0]
    assert measure(np.concatenate([rows[:300], GENERATOR.normal(size=(300, 1))])).lost == []


def test_coarse_float32_columns_are_found_with_their_steps() -> None:
    rows = GENERATOR.normal(size=(500, 4)).astype(np.float32)
    rows[:, 1] = 1.7e9
    rows[:, 2] += np.float32(1e7)
    rows[:, 3] = 5
    assert coarse_columns(rows.astype(np.float64)) == {1: 128.0, 2: 1.0}
    assert coarse_columns(np.empty((0, 0))) == {}


@settings(max_examples=25, deadline=None)
@given(
    columns=st.lists(st.integers(0, 2), min_size=1, max_size=3, unique=True),
    offset=st.floats(1e6, 1e12) | st.floats(-1e12, -1e6),
    exponent=st.integers(-300, -40) | st.integers(-10, 30) | st.just(0),
)
def test_offset_and_scale_change_neither_labels_nor_loss(columns: list[int], offset: float, exponent: int) -> None:
    rows = BLOBS.copy()
    rows[:, columns] += offset
    expected = loss(rows - rows.mean(axis=0), fitted(rows - rows.mean(axis=0)).model.centers.astype(float))
    exponent = min(exponent, 49 - int(np.frexp(np.abs(rows).max())[1]))
    rows, factor = np.ldexp(rows, exponent), 2.0**exponent
    found = fitted(rows)
    assert found.mean_squared_distance is not None
    labels, distances = found.model.predict(rows)
    assert parts(labels) == parts(np.repeat([0, 1, 2], 60))
    assert np.square(distances.astype(float)).mean() == pytest.approx(found.mean_squared_distance, rel=1e-4)
    assert found.mean_squared_distance / factor / factor == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("rows", [BLOBS + 1.7e9, BLOBS * 1e-25, BLOBS * 1e-100 + 3e-97, -BLOBS - 1e12])
def test_a_model_saved_and_loaded_predicts_the_same_bits(tmp_path: Path, rows: Rows) -> None:
    model = fitted(rows).model
    artifact.save(model, tmp_path)
    loaded = artifact.load(tmp_path)
    assert loaded.coordinates.equals(model.coordinates)
    for before, after in zip(model.predict(rows), loaded.predict(rows), strict=True):
        np.testing.assert_array_equal(before, after)
    np.testing.assert_array_equal(model.precise_centers, loaded.precise_centers)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["centers.npy", "kmeans.json", "model_algo-1"]
    artifact.describe(loaded, tmp_path)
    assert artifact.load(tmp_path).coordinates.equals(model.coordinates)


def test_an_ordinary_model_saved_later_leaves_no_centers(tmp_path: Path) -> None:
    artifact.save(fitted(BLOBS * 1e-25).model, tmp_path)
    artifact.save(fitted(BLOBS).model, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kmeans.json", "model_algo-1"]


def test_a_file_of_another_owner_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "centers.npy").write_bytes(b"mine")
    artifact.save(fitted(BLOBS).model, tmp_path)
    assert (tmp_path / "centers.npy").read_bytes() == b"mine"
    assert artifact.load(tmp_path).coordinates.is_identity


@pytest.mark.parametrize("damage", ["bytes", "missing", "scale", "offset", "entry"])
def test_damaged_coordinates_loaded_are_a_model_error(tmp_path: Path, damage: str) -> None:
    artifact.save(fitted(BLOBS + 1.7e9).model, tmp_path)
    centers, card = tmp_path / "centers.npy", tmp_path / "kmeans.json"
    if damage == "bytes":
        centers.write_bytes(centers.read_bytes()[:-1] + b"\1")
    elif damage == "missing":
        centers.unlink()
    elif damage == "scale":
        card.write_text(card.read_text().replace('"scale": 1.0', '"scale": 3.0'))
    elif damage == "offset":
        card.write_text(card.read_text().replace('"offset": [', '"offset": [1.0,'))
    else:
        card.write_text(card.read_text().replace('"coordinates": {', '"coordinates": 5, "other": {'))
    with pytest.raises(ModelError, match=r"corrupt|can't be read"):
        artifact.load(tmp_path)


@pytest.mark.parametrize("form", ["npy", "npz"])
def test_float64_centers_of_a_user_are_distinguished(tmp_path: Path, form: str) -> None:
    centers = np.array([[1.7e9, 1.0], [1.7e9 + 60, 1.0]])
    if form == "npy":
        np.save(tmp_path / "centers.npy", centers)
    else:
        np.savez(tmp_path / "centers.npz", centers=centers)
    for model in (artifact.load(tmp_path), KMeansModel(centers)):
        labels, distances = model.predict([[1.7e9 + 58, 1.0], [1.7e9 + 1, 1.0]])
        assert labels.tolist() == [1, 0]
        assert distances.tolist() == [2.0, 1.0]


@pytest.mark.parametrize("centers", [[[2019.5], [2020.1]], [[0.0, 3.0], [1e6, 3.0]], [[5, 5]], [[1e15], [-1e15]]])
def test_ordinary_float64_centers_keep_their_coordinates(centers: list[list[float]]) -> None:
    assert KMeansModel(centers).coordinates.is_identity
    assert KMeansModel(centers).predict(centers)[1].dtype == np.float32


def test_points_out_of_range_predicted_have_true_distances() -> None:
    model = fitted(BLOBS * 1e-100).model
    points = np.array([[1.0, 2.0, 2.0], [-1e15, 0, 0], [2e-99, 2e-99, 2e-99]])
    labels, distances = model.predict(points)
    expected = np.linalg.norm(points[:, None, :] - model.precise_centers, axis=2)
    np.testing.assert_allclose(distances, expected.min(axis=1), rtol=1e-6)
    np.testing.assert_allclose(model.transform(points), expected, rtol=1e-12)
    assert labels[2] == expected[2].argmin()
    assert model.score(points) == pytest.approx(float(np.square(expected.min(axis=1)).sum()))


def test_wrong_points_predicted_in_coordinates_are_data_errors() -> None:
    model = fitted(BLOBS + 1.7e9).model
    for wrong in ([[1.0, 2.0]], [[np.nan, 1, 2]], [[1e16, 0, 0]]):
        with pytest.raises(DataError):
            model.predict(wrong)
    with pytest.raises(DataError):
        MemoryRows.of([[np.inf, 1.0]])


def test_rows_in_memory_are_measured_by_the_fit() -> None:
    tiny = (BLOBS * 1e-25).astype(np.float32)
    found = fit(MemoryRows(tiny), THREE)
    assert found.mean_squared_distance == pytest.approx(loss(tiny.astype(float), found.model.precise_centers), rel=1e-5)
    rows = MemoryRows(BLOBS.astype(np.float32))
    assert rows.measured() is rows


def test_a_start_in_other_coordinates_is_converted() -> None:
    rows = BLOBS + 1.7e9
    start = KMeansModel(np.array([[-20.0] * 3, [0.0] * 3, [20.0] * 3]) + 1.7e9, coordinates=IDENTITY)
    precise = fitted(rows).model
    for model in (start, precise):
        found = fitted(rows, start=model)
        assert found.mean_squared_distance == pytest.approx(loss(rows, found.model.precise_centers), rel=1e-5)
    ordinary = fitted(BLOBS, start=fitted(rows).model)
    assert ordinary.model.coordinates.is_identity


def test_losses_observed_are_in_the_units_of_the_rows() -> None:
    class Losses(Callbacks):
        seen: list[float] = []  # noqa: RUF012

        def shrink_done(self, *, mean_squared_distance: float) -> None:
            self.seen.append(mean_squared_distance)

        def refine_pass(self, *, done: int, rows: int, mean_squared_distance: float, empty_clusters: int) -> None:
            self.seen.append(mean_squared_distance)

        def batch_done(
            self, *, epoch: int, epochs: int, rows_seen: int, rows: int, mean_squared_distance: float
        ) -> None:
            self.seen.append(mean_squared_distance)

        def shrink_attempt(self, *, attempt: int, mean_squared_distance: float) -> None:
            self.seen.append(mean_squared_distance)

    fitted(BLOBS * 2.0**-80, callbacks=Losses())
    tiny, Losses.seen = Losses.seen, []
    fitted(BLOBS, callbacks=Losses())
    np.testing.assert_allclose(np.array(tiny) * 2.0**160, Losses.seen, rtol=1e-4)


def test_coordinates_in_turn_are_those_of_both() -> None:
    first, second = Coordinates(np.array([5.0, 0.0]), 4.0), Coordinates(np.array([8.0, 2.0]), 0.5)
    points = np.array([[1.0, 2.0], [3.0, -7.0]])
    both = first.then(second)
    np.testing.assert_array_equal(both.of(points), second.of(first.of(points)))
    np.testing.assert_array_equal(both.widen(both.of(points)), points)
    assert IDENTITY.then(second).equals(second)
    assert first.then(IDENTITY).equals(first)
    assert not first.equals(second)


def test_narrowed_rows_of_which_the_largest_is_unsampled_fit() -> None:
    rows = np.full((50_000, 1), 1e-60)
    rows[1] = 1.0
    found, coordinates = narrowed(rows)
    assert np.isfinite(found).all()
    assert coordinates.widen(found)[1, 0] == 1.0
