"""Scores against what can be counted by hand, and answers that aren't the model's."""

import numpy as np
import pytest

from kmeans.metric import COSINE
from workflow.steps.validate import score

CENTERS = np.array([[0, 0], [10, 0]], dtype=np.float32)
POINTS = np.array([[0, 1], [0, 2], [10, 3], [10, 0]], dtype=np.float32)
LABELS = np.array([0.0, 0, 1, 1])
DISTANCES = np.array([1.0, 2, 3, 0])


def test_right_answers_agree_and_are_scored() -> None:
    scores = score(POINTS, np.array([3, 3, 3, 8]), CENTERS, labels=LABELS, distances=DISTANCES)
    assert scores.agree
    assert scores.rows == 4
    assert scores.purity == 0.75, "two of cluster 0 are 3s, one of cluster 1"
    assert scores.mean_squared_distance == scores.recomputed == (1 + 4 + 9 + 0) / 4
    # By hand: mutual information ln 2 + 0.75 ln 0.75 ... over the mean of both entropies.
    information = 0.5 * np.log(0.5 / (0.5 * 0.75)) + 0.25 * np.log(0.25 / (0.5 * 0.75)) + 0.25 * np.log(0.25 / 0.125)
    entropies = np.log(2), -0.75 * np.log(0.75) - 0.25 * np.log(0.25)
    assert scores.normalized_mutual_information == pytest.approx(information / np.mean(entropies))


def test_clusters_that_are_the_digits_are_perfect() -> None:
    scores = score(POINTS, np.array([8, 8, 3, 3]), CENTERS, labels=LABELS, distances=DISTANCES)
    assert scores.purity == 1
    assert scores.normalized_mutual_information == pytest.approx(1)


@pytest.mark.parametrize(
    ("labels", "distances", "wrong"),
    [
        ([1.0, 0, 1, 1], DISTANCES, (1, 0)),
        (LABELS, [1.0, 2, 3.01, 0], (0, 1)),
        ([2.0, 0, 1, 1], DISTANCES, (1, 0)),
        ([np.nan, 0, 1, 1], [np.nan, 2, 3, 0], (1, 1)),
        ([0.5, 0, 1, 1], DISTANCES, (1, 0)),
    ],
    ids=["another center", "another distance", "no such center", "no answer", "half a center"],
)
def test_answers_of_another_model_do_not_agree(
    labels: list[float], distances: list[float], wrong: tuple[int, int]
) -> None:
    digits = np.array([3, 3, 8, 8])
    scores = score(POINTS, digits, CENTERS, labels=np.array(labels), distances=np.array(distances))
    assert not scores.agree
    assert (scores.wrong_labels, scores.wrong_distances) == wrong


def test_either_of_two_centers_as_near_is_right() -> None:
    middle = np.array([[5, 0]], dtype=np.float32)
    for label in (0.0, 1.0):
        digits = np.array([3])
        assert score(middle, digits, CENTERS, labels=np.array([label]), distances=np.array([5.0])).agree


def test_score_cosine_model_uses_one_minus_cosine() -> None:
    centers = np.array([[1, 0], [0, 1]], dtype=np.float32)
    points = np.array([[3, 0], [3, 4], [0, 7]], dtype=np.float32)
    scores = score(
        points,
        np.array([1, 2, 2]),
        centers,
        labels=np.array([0.0, 1, 1]),
        distances=np.array([0, 0.2, 0]),
        metric=COSINE,
    )
    assert scores.agree
    assert scores.mean_squared_distance == pytest.approx(0.2 / 3)
