"""The public API: what users call, from any array, with any mistake."""

from __future__ import annotations

import dataclasses
import doctest
import importlib
import inspect
import math
import pkgutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kmeans
from kmeans.blas import BLAS
from kmeans.settings import RANGES

PROJECT = Path(__file__).resolve().parents[3]
MODULES = sorted(module.name for module in pkgutil.walk_packages(kmeans.__path__, "kmeans."))

SEEDS = st.integers(0, 2**32 - 1)
ROWS = st.integers(3, 60)
COLUMNS = st.integers(1, 5)

LAYOUTS: dict[str, Callable[[Any], Any]] = {
    "C": np.ascontiguousarray,
    "F": np.asfortranarray,
    "lists": lambda points: points.tolist(),
    "strided": lambda points: np.repeat(points, 2, axis=0)[::2],
    "reversed": lambda points: points[::-1].copy()[::-1],
    "columns of a wider array": lambda points: np.hstack([points, points])[:, : points.shape[1]],
    "read-only": lambda points: read_only(points.copy()),
    "big-endian": lambda points: points.astype(points.dtype.newbyteorder(">")),
}


def read_only(points: Any) -> Any:
    points.setflags(write=False)
    return points


def whole_numbers(seed: int, rows: int, columns: int) -> Any:
    """Return points that all types of numbers hold, in clusters."""
    generator = np.random.default_rng(seed)
    return generator.integers(0, 3, (rows, 1)) * 40 + generator.integers(0, 9, (rows, columns))


def assert_same_fit(found: kmeans.FitResult, expected: kmeans.FitResult) -> None:
    assert np.array_equal(found.model.precise_centers, expected.model.precise_centers)
    assert np.array_equal(found.labels, expected.labels)
    assert np.array_equal(found.distances, expected.distances)
    assert found.inertia == expected.inertia


@settings(max_examples=20, deadline=None)
@given(SEEDS, ROWS, COLUMNS, st.sampled_from(sorted(LAYOUTS)), st.sampled_from(["euclidean", "cosine"]))
def test_fit_of_any_dtype_and_layout_is_the_same(seed: int, rows: int, columns: int, layout: str, metric: Any) -> None:
    points = whole_numbers(seed, rows, columns) + 1
    expected = kmeans.fit(points.astype(np.float32), 3, distance_metric=metric, threads=1)
    for dtype in ("u1", "i2", "i8", "u8", "f2", "f4", "f8", "longdouble"):
        found = kmeans.fit(LAYOUTS[layout](points.astype(dtype)), 3, distance_metric=metric, threads=1)
        assert_same_fit(found, expected)


@settings(max_examples=20, deadline=None)
@given(SEEDS, st.sampled_from(sorted(LAYOUTS)))
def test_fit_of_float64_far_from_zero_keeps_differences(seed: int, layout: str) -> None:
    points = 1_700_000_000 + 60.0 * whole_numbers(seed, 50, 2)
    found = kmeans.fit(LAYOUTS[layout](points), 3)
    assert_same_fit(found, kmeans.fit(points, 3))
    labels = np.argmin(np.linalg.norm(points[:, None] - found.model.precise_centers, axis=2), axis=1)
    assert np.linalg.norm(points - found.model.precise_centers[labels], axis=1) == pytest.approx(found.distances)


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.tuples(ROWS, COLUMNS), st.sampled_from(["euclidean", "cosine"]), st.booleans(), st.booleans())
def test_fit_result_agrees_with_its_model(
    seed: int, shape: tuple[int, int], metric: Any, wide: bool, weighted: bool
) -> None:
    generator, rows = np.random.default_rng(seed), shape[0]
    points: Any = generator.normal(loc=1e4 * wide, size=shape).astype(np.float64 if wide else np.float32)
    weights = generator.integers(1, 4, rows) if weighted else None
    result = kmeans.fit(points, 3, weights=weights, distance_metric=metric, seed=seed)
    labels, distances = result.model.predict(points)
    assert np.array_equal(result.labels, labels)
    assert np.array_equal(result.distances, distances)
    assert result.distances.dtype == distances.dtype
    assert result.cluster_sizes.tolist() == [int((labels == cluster).sum()) for cluster in range(3)]
    assert result.cluster_sizes.sum() == rows
    losses = distances.astype(np.float64) ** (1 if metric == "cosine" else 2)
    assert result.inertia == pytest.approx((losses * (1 if weights is None else weights)).sum())
    if not weighted:
        assert result.inertia == pytest.approx(result.model.score(points), rel=1e-4, abs=1e-6)


@settings(max_examples=20, deadline=None)
@given(SEEDS, st.booleans(), st.sampled_from(["euclidean", "cosine"]))
def test_saved_model_is_loaded_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, seed: int, far: bool, metric: Any
) -> None:
    points = np.random.default_rng(seed).normal(size=(30, 3)) + 1e9 * far
    model = kmeans.fit(points, 4, distance_metric=metric).model
    folder = tmp_path_factory.mktemp("models") / "new" / "model"
    model.save(folder)
    for path in (folder, str(folder), archived(folder)):
        loaded = kmeans.load(path)
        assert np.array_equal(loaded.precise_centers, model.precise_centers)
        assert (loaded.distance_metric, loaded.training) == (metric, model.training)
        for found, expected in zip(loaded.predict(points), model.predict(points), strict=True):
            assert np.array_equal(found, expected)


def archived(folder: Path) -> Path:
    with tarfile.open(folder.parent / "model.tar.gz", "w:gz") as archive:
        for path in folder.iterdir():
            archive.add(path, path.name)
    return folder.parent / "model.tar.gz"


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_weight_two_counts_like_a_repeated_row(seed: int) -> None:
    generator = np.random.default_rng(seed)
    # Clusters so far apart that any good fit finds them.
    points = 1000.0 * np.arange(60)[:, None] % 3000 + generator.normal(size=(60, 2))
    weights = generator.integers(1, 3, 60)
    weighted = kmeans.fit(points, 3, weights=weights)
    repeated = kmeans.fit(np.repeat(points, weights, axis=0), 3)
    centers = np.sort(weighted.model.centers, axis=0)
    assert centers == pytest.approx(np.sort(repeated.model.centers, axis=0), abs=1e-3)
    assert weighted.inertia == pytest.approx(repeated.inertia, rel=1e-4)
    assert weighted.cluster_sizes.sum() == 60


def test_fit_counts_rows_of_weight_zero_in_sizes() -> None:
    result = kmeans.fit([[0.0], [1.0], [10.0]], 1, weights=[1, 1, 0])
    assert result.model.centers.tolist() == [[0.5]]
    assert (result.inertia, result.cluster_sizes.tolist()) == (0.5, [3])


def test_fit_accepts_booleans() -> None:
    result = kmeans.fit(np.array([[True, False], [False, True]] * 5), 2)
    assert sorted(result.model.centers.tolist()) == [[0.0, 1.0], [1.0, 0.0]]


def test_fit_accepts_a_table_of_columns() -> None:
    class Table:
        """Such as a pandas DataFrame: not an array, but convertible to one."""

        def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
            return np.array([[0.0, 1.0], [2.0, 3.0]], dtype=dtype)

    assert kmeans.fit(Table(), 1).model.centers.tolist() == [[1.0, 2.0]]


@pytest.mark.parametrize("dtype", ["f4", "f8", "i8"])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_fit_leaves_points_and_weights_unchanged(dtype: str, metric: Any) -> None:
    points = (whole_numbers(3, 500, 4) + 1).astype(dtype)
    weights = np.arange(500.0)
    before = points.copy()
    kmeans.fit(points, 5, weights=weights, distance_metric=metric)
    assert np.array_equal(points, before)
    assert np.array_equal(weights, np.arange(500.0))


def test_fit_gives_same_model_for_any_number_of_threads() -> None:
    points = np.random.default_rng(0).normal(size=(20_000, 6))
    assert_same_fit(kmeans.fit(points, 7, threads=1), kmeans.fit(points, 7, threads=3))


def test_fit_passes_settings_on() -> None:
    points = np.random.default_rng(0).normal(size=(500, 2))
    k: Any = np.int64(4)
    seed: Any = np.uint8(7)
    options: dict[str, Any] = {"init_method": "k-means++", "refine_max_iter": 0, "mini_batch_size": 100}
    model = kmeans.fit(points, k, seed=seed, **options).model
    recorded = model.training["hyperparameters"]
    assert (recorded["k"], recorded["seed"], recorded["init_method"]) == (4, 7, "kmeans++")
    assert (recorded["refine_max_iter"], recorded["mini_batch_size"]) == (0, 100)
    assert recorded["extra_center_factor"] == "auto"
    assert model.training["rows"] == 500


def test_fit_result_is_frozen() -> None:
    result = kmeans.fit([[0.0], [1.0]], 1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.inertia = 0.0  # type: ignore[misc]


POINTS = np.arange(12.0).reshape(6, 2)
NAN, INFINITE = POINTS.copy(), POINTS.copy()
NAN[2, 1], INFINITE[5, 0] = math.nan, math.inf

MISTAKES: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "NaN": (lambda: kmeans.fit(NAN, 2), kmeans.DataError, "row 3, column 2: expected a finite number, found NaN."),
    "NaN in float32": (lambda: kmeans.fit(NAN.astype("f4"), 2), kmeans.DataError, "row 3, column 2: expected a finite"),
    "infinity": (lambda: kmeans.fit(INFINITE, 2), kmeans.DataError, "row 6, column 1: expected a finite number"),
    "huge": (lambda: kmeans.fit([[1e16]], 1), kmeans.DataError, "row 1, column 1: expected a number within"),
    "no rows": (lambda: kmeans.fit(POINTS[:0], 2), kmeans.DataError, "only 0 rows"),
    "no columns": (lambda: kmeans.fit(POINTS[:, :0], 2), kmeans.DataError, "expected points of shape (n, d)"),
    "one axis": (lambda: kmeans.fit(POINTS[0], 2), kmeans.DataError, "found an array of shape (2,)"),
    "three axes": (lambda: kmeans.fit(POINTS[None], 2), kmeans.DataError, "found an array of shape (1, 6, 2)"),
    "a number": (lambda: kmeans.fit(3.0, 2), kmeans.DataError, "found an array of shape ()"),
    "texts": (lambda: kmeans.fit([["1", "2"]], 1), kmeans.DataError, "expected numbers, found an array of type <U1"),
    "objects": (lambda: kmeans.fit(POINTS.astype(object), 2), kmeans.DataError, "found an array of type object"),
    "None": (lambda: kmeans.fit(None, 2), kmeans.DataError, "found an array of type object"),  # type: ignore[arg-type]
    "complex": (lambda: kmeans.fit(POINTS * 1j, 2), kmeans.DataError, "found an array of type complex128"),
    "dates": (lambda: kmeans.fit(POINTS.astype("M8[s]"), 2), kmeans.DataError, "found an array of type datetime64[s]"),
    "ragged": (lambda: kmeans.fit([[1.0, 2.0], [3.0]], 1), kmeans.DataError, "found rows of different lengths"),
    "masked": (lambda: kmeans.fit(np.ma.masked_less(POINTS, 3), 2), kmeans.DataError, "found masked values"),
    "zeros": (lambda: kmeans.fit([[0.0]], 1, distance_metric="cosine"), kmeans.DataError, "row 1: expected a number"),
    "large k": (lambda: kmeans.fit(POINTS, 7), kmeans.DataError, "k=7 clusters were asked for, but there are only 6"),
    "k of 0": (lambda: kmeans.fit(POINTS, 0), kmeans.SettingError, "k: expected an integer of at least 1, found 0."),
    "fraction": (lambda: kmeans.fit(POINTS, 2.5), kmeans.SettingError, "found 2.5."),  # type: ignore[arg-type]
    "whole float": (lambda: kmeans.fit(POINTS, 2.0), kmeans.SettingError, "found 2.0."),  # type: ignore[arg-type]
    "text k": (lambda: kmeans.fit(POINTS, "2"), kmeans.SettingError, "found '2'."),  # type: ignore[arg-type]
    "true": (lambda: kmeans.fit(POINTS, True), kmeans.SettingError, "k: expected an integer of at least 1, found True"),
    "huge k": (lambda: kmeans.fit(POINTS, 1 << 70), kmeans.SettingError, "k: expected an integer of at least 1"),
    "array k": (lambda: kmeans.fit(POINTS, POINTS), kmeans.SettingError, "k: expected"),  # type: ignore[arg-type]
    "metric": (
        lambda: kmeans.fit(POINTS, 2, distance_metric="manhattan"),  # type: ignore[arg-type]
        kmeans.SettingError,
        "distance_metric: expected euclidean or cosine, found 'manhattan'.",
    ),
    "seed": (lambda: kmeans.fit(POINTS, 2, seed=-1), kmeans.SettingError, "seed: expected an integer of at least 0"),
    "tolerance": (lambda: kmeans.fit(POINTS, 2, local_lloyd_tol=2), kmeans.SettingError, "a number from 0 to 1"),
    "threads": (lambda: kmeans.fit(POINTS, 2, threads=0), kmeans.SettingError, "threads: expected an integer"),
    "batch": (lambda: kmeans.fit(POINTS, 2, mini_batch_size=0), kmeans.SettingError, "mini_batch_size: expected"),
    "negative weight": (
        lambda: kmeans.fit(POINTS, 2, weights=[1, 1, -1, 1, 1, 1]),
        kmeans.DataError,
        "row 3: expected a finite weight of at least 0, found -1.",
    ),
    "few weights": (lambda: kmeans.fit(POINTS, 2, weights=[1]), kmeans.DataError, "a weight for each of the 6 rows"),
    "text weights": (lambda: kmeans.fit(POINTS, 2, weights=["1"] * 6), kmeans.DataError, "weights: expected numbers"),
    "zero weights": (lambda: kmeans.fit(POINTS, 2, weights=[0] * 6), kmeans.DataError, "expected a weight above 0"),
    "settings": (
        lambda: kmeans.Settings(k=0, init_method="bogus"),  # type: ignore[arg-type]
        kmeans.SettingError,
        "k: expected an integer of at least 1, found 0. "
        "init_method: expected random or kmeans++ or hierarchical, found 'bogus'.",
    ),
    "width": (lambda: kmeans.KMeansModel(POINTS).predict([[1.0]]), kmeans.DataError, "expected 2 columns, found 1."),
    "score": (lambda: kmeans.KMeansModel(POINTS).score([1.0]), kmeans.DataError, "expected points of shape"),
    "transform": (lambda: kmeans.KMeansModel(POINTS).transform([["a", "b"]]), kmeans.DataError, "expected numbers"),
    "centers": (lambda: kmeans.KMeansModel([["a"]]), kmeans.DataError, "expected numbers"),
    "counts": (lambda: kmeans.KMeansModel(POINTS, np.array([1])), kmeans.DataError, "a count for each of the 6"),
    "no model": (lambda: kmeans.load("nowhere"), kmeans.ModelError, "There is no model at nowhere"),
    "no archive": (lambda: kmeans.load(__file__), kmeans.ModelError, "can't be unpacked"),
    "no path": (lambda: kmeans.load(3), kmeans.SettingError, "path: expected"),  # type: ignore[arg-type]
    "NUL": (lambda: kmeans.load("a\0b"), kmeans.SettingError, "path: expected the name of a file or folder"),
    "save": (lambda: kmeans.KMeansModel(POINTS).save(__file__), kmeans.ResourceError, "can't write model_algo-1"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_is_refused_in_a_sentence(name: str) -> None:
    call, kind, sentence = MISTAKES[name]
    with pytest.raises(kmeans.KMeansError) as caught:
        call()
    assert type(caught.value) is kind
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("n_clusters", "k"),
        ("random_state", "seed"),
        ("n_init", "local_lloyd_num_trials"),
        ("max_iter", "refine_max_iter"),
        ("tol", "local_lloyd_tol"),
        ("init", "init_method"),
        ("sample_weight", "weights"),
        ("init_metod", "init_method"),
    ],
)
def test_unknown_setting_names_what_was_meant(name: str, meant: str) -> None:
    options: dict[str, Any] = {name: 3}
    with pytest.raises(kmeans.UnknownSettingError, match=f"'{name}' is not a setting: did you mean {meant}[?] Valid"):
        kmeans.fit(POINTS, 2, **options)


def test_unknown_setting_is_a_type_error_with_valid_names() -> None:
    with pytest.raises(TypeError) as caught:
        kmeans.fit(POINTS, 2, colour="red")
    assert isinstance(caught.value, kmeans.SettingError)
    assert str(caught.value).startswith("'colour' is not a setting: valid are ")
    assert all(name in str(caught.value) for name in [*RANGES, "weights", "threads"])
    with pytest.raises(kmeans.UnknownSettingError, match="'n_init' is not a setting: did you mean local_lloyd_num"):
        kmeans.Settings(k=3, n_init=2)  # type: ignore[call-arg]


def test_clusters_by_another_name_alone_are_explained() -> None:
    with pytest.raises(kmeans.UnknownSettingError, match=r"'n_clusters' is not a setting: did you mean k[?]"):
        kmeans.fit(POINTS, n_clusters=2)  # type: ignore[call-arg]


def test_archive_without_a_model_is_named_in_the_error(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.txt").write_text("no model")
    path = archived(tmp_path / "folder")
    with pytest.raises(kmeans.ModelError, match=f"There is no model in {path}: expected a file model_algo-1"):
        kmeans.load(path)


def test_model_shows_its_shape_and_metric() -> None:
    assert repr(kmeans.KMeansModel(POINTS)) == "<KMeansModel: 6 clusters, 2 features, euclidean>"


def test_save_replaces_a_model(tmp_path: Path) -> None:
    kmeans.KMeansModel(np.array([[1e9], [1e9 + 1]])).save(tmp_path)
    kmeans.KMeansModel([[1.0, 2.0]]).save(tmp_path)
    assert kmeans.load(tmp_path).centers.tolist() == [[1.0, 2.0]]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kmeans.json", "model_algo-1"]


def test_fit_leaves_blas_threads_as_they_were() -> None:
    before = BLAS.threads()
    kmeans.fit(POINTS, 2)
    assert BLAS.threads() == before


def test_every_public_name_exists_and_is_documented() -> None:
    for name in kmeans.__all__:
        assert inspect.getdoc(getattr(kmeans, name)), name
    assert set(kmeans.__all__) <= set(dir(kmeans))
    assert [*inspect.signature(kmeans.fit).parameters][:5] == ["points", "k", "weights", "distance_metric", "seed"]
    with pytest.raises(AttributeError, match="module 'kmeans' has no attribute 'predict'"):
        _ = kmeans.predict  # type: ignore[attr-defined]


def test_import_of_errors_alone_does_not_load_numpy() -> None:
    code = "import sys, kmeans.errors; print(sorted({'numpy', 'kmeans.api'} & {*sys.modules}))"
    said = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["kmeans", *MODULES])
def test_examples_in_docstrings_run(name: str) -> None:
    failed, _ = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert failed == 0
