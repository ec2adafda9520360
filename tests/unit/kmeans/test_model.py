from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.cluster import KMeans

from kmeans.errors import DataError
from kmeans.model import KMeansModel
from tests.unit.kmeans import oracle

QUESTIONS: list[Callable[[KMeansModel, Any], object]] = [
    KMeansModel.predict,
    KMeansModel.transform,
    KMeansModel.score,
]
every_question = pytest.mark.parametrize("ask", QUESTIONS, ids=["predict", "transform", "score"])


@pytest.mark.parametrize(("n", "k", "d"), [(1, 1, 1), (3000, 5, 4), (5000, 40, 2), (100, 3, 784)])
def test_predict_transform_and_score_equal_brute_force(n: int, k: int, d: int) -> None:
    points, centers = oracle.blobs(n, n=n, k=k, d=d, spread=50)
    model = KMeansModel(centers)
    table = oracle.squared_distances(points, centers)
    labels, distances = model.predict(points)
    np.testing.assert_allclose(table[np.arange(n), labels], table.min(axis=1), rtol=1e-4)
    np.testing.assert_allclose(distances, np.sqrt(table.min(axis=1)), rtol=1e-4)
    np.testing.assert_allclose(model.transform(points), np.sqrt(table), rtol=1e-5)
    assert model.score(points) == pytest.approx(table.min(axis=1).sum(), rel=1e-5)


def test_predict_gives_the_labels_of_scikit_learn() -> None:
    points, _ = oracle.blobs(1, k=8, spread=50)
    expected = KMeans(8, n_init=1, random_state=0).fit(points.astype(np.float64))
    model = KMeansModel(expected.cluster_centers_)
    assert np.array_equal(model.predict(points)[0], expected.labels_)
    np.testing.assert_allclose(model.transform(points), expected.transform(points.astype(np.float64)), rtol=1e-4)
    assert model.score(points) == pytest.approx(-expected.score(points.astype(np.float64)), rel=1e-5)


def test_answers_are_int64_labels_and_float32_distances() -> None:
    model = KMeansModel([[0.0, 0.0], [3.0, 4.0]])
    labels, distances = model.predict(np.zeros((5, 2)))
    assert labels.dtype == np.int64
    assert distances.dtype == np.float32
    assert model.transform(np.zeros((5, 2))).dtype == np.float32
    assert isinstance(model.score(np.zeros((5, 2))), float)


@pytest.mark.parametrize(
    "points",
    [
        [[3, 3], [1, 0]],
        ((3.0, 3.0), (1.0, 0.0)),
        np.array([[3, 3], [1, 0]]),
        np.array([[3, 3], [1, 0]], dtype=np.float16),
        np.array([[3, 3], [1, 0]], dtype=">f8"),
        np.array([[3, 1], [3, 0]], dtype=np.float64).T,
        np.array([[3, 0, 3], [1, 0, 0]], dtype=np.float32)[:, ::2],
    ],
    ids=["list", "tuple", "int64", "float16", "big-endian", "Fortran order", "strided"],
)
def test_any_array_like_of_numbers_is_accepted(points: Any) -> None:
    labels, distances = KMeansModel([[0.0, 0.0], [3.0, 4.0]]).predict(points)
    assert labels.tolist() == [1, 0]
    assert distances.tolist() == [1, 1]


@every_question
@pytest.mark.parametrize("width", [1, 3])
def test_points_of_another_width_are_refused_with_both_widths(
    ask: Callable[[KMeansModel, Any], object], width: int
) -> None:
    with pytest.raises(DataError, match=f"expected 2 columns, found {width}"):
        ask(KMeansModel([[0.0, 0.0]]), np.zeros((4, width)))


@every_question
@pytest.mark.parametrize(
    ("value", "found"), [(np.nan, "NaN"), (np.inf, "infinite"), (-np.inf, "infinite"), (1e39, "infinite")]
)
@pytest.mark.parametrize("row", [0, 1, 9999])
def test_a_number_that_is_none_is_refused_with_its_place(
    ask: Callable[[KMeansModel, Any], object], value: float, found: str, row: int
) -> None:
    points = np.zeros((10_000, 3))
    points[row, 1] = value
    with pytest.raises(DataError, match=f"row {row + 1}, column 2: .*{found}") as raised:
        ask(KMeansModel([[0.0, 0.0, 0.0]]), points)
    assert (raised.value.row, raised.value.column) == (row + 1, 2)


@every_question
@pytest.mark.parametrize("points", [[1.0, 2.0], 3.0, [[[1.0, 2.0]]], np.empty((3, 0)), []])
def test_what_is_not_two_dimensional_is_refused(ask: Callable[[KMeansModel, Any], object], points: Any) -> None:
    with pytest.raises(DataError, match=r"shape \(n, d\)"):
        ask(KMeansModel([[0.0, 0.0]]), points)


def test_no_points_get_no_answers() -> None:
    model = KMeansModel([[0.0, 0.0], [1.0, 1.0]])
    labels, distances = model.predict(np.empty((0, 2)))
    assert labels.shape == distances.shape == (0,)
    assert model.transform(np.empty((0, 2))).shape == (0, 2)
    assert model.score(np.empty((0, 2))) == 0


def test_a_center_is_at_no_distance_from_itself() -> None:
    _, centers = oracle.blobs(2, k=30, spread=1000)
    model = KMeansModel(centers)
    labels, distances = model.predict(centers)
    assert labels.tolist() == list(range(30))
    assert not distances.any()
    assert not model.transform(centers).diagonal().any()
    assert model.score(centers) == 0


def test_prediction_of_a_point_does_not_depend_on_others() -> None:
    points, centers = oracle.blobs(3)
    model = KMeansModel(centers)
    labels, distances = model.predict(points)
    for row in (0, 7, 1999):
        one_label, one_distance = model.predict(points[row : row + 1])
        assert one_label[0] == labels[row]
        assert one_distance[0] == distances[row]


@pytest.mark.parametrize("centers", [[[np.nan, 1.0]], [[np.inf]], [1.0, 2.0], np.empty((2, 0))])
def test_centers_without_finite_numbers_or_shape_are_refused(centers: Any) -> None:
    with pytest.raises(DataError):
        KMeansModel(centers)


def test_a_model_knows_its_shape_and_keeps_float32_centers() -> None:
    model = KMeansModel(np.array([[1, 2, 3], [4, 5, 6]]))
    assert (model.clusters, model.features) == (2, 3)
    assert model.centers.dtype == np.float32
    assert model.centers.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert (model.counts, model.training) == (None, {})


def test_a_model_keeps_its_counts_and_its_story() -> None:
    model = KMeansModel([[1.0], [2.0]], np.array([3, 4]), {"k": 2})
    assert model.counts is not None
    assert (model.counts.tolist(), model.training) == ([3, 4], {"k": 2})


def test_huge_points_with_finite_squares_are_predicted() -> None:
    model = KMeansModel([[0.0, 0.0], [1e15, 0.0]])
    labels, distances = model.predict([[-1e15, 0.0], [9e14, 0.0]])
    assert labels.tolist() == [0, 1]
    np.testing.assert_allclose(distances, [1e15, 1e14], rtol=1e-5)
    with pytest.raises(DataError, match="row 1, column 2"):
        model.predict([[0.0, 1e16]])
