"""Warnings about clusters of few rows, and about fewer distinct rows than clusters."""

from __future__ import annotations

import numpy as np

from kmeans.dataset import MemoryRows
from kmeans.diagnostics import cluster_warnings
from kmeans.fitting import fit
from kmeans.model import KMeansModel
from kmeans.settings import Settings


def model(counts: list[int], centers: list[float] | None = None) -> KMeansModel:
    places = centers or list(range(len(counts)))
    return KMeansModel(np.array(places, dtype=np.float32)[:, None], np.array(counts))


def test_warnings_of_large_clusters_are_none() -> None:
    assert cluster_warnings(model([3, 500, 40]), 1.0) == []


def test_warnings_of_uncounted_clusters_are_none() -> None:
    assert cluster_warnings(KMeansModel([[0.0], [0.0]]), None) == []


def test_warning_of_few_rows_tells_both_numbers() -> None:
    (warning,) = cluster_warnings(model([1, 500, 2, 40]), 1.0)
    assert warning.startswith("2 of the 4 clusters have fewer than 3 rows, the median has 21")


def test_warning_of_few_rows_allows_one_percent() -> None:
    assert cluster_warnings(model([2, *[9] * 99]), 1.0) == []
    assert len(cluster_warnings(model([2, 2, *[9] * 98]), 1.0)) == 1


def test_warning_of_duplicates_names_the_distinct_clusters() -> None:
    rows = np.repeat(np.arange(9, dtype=np.float32), 20)[:, None] * 7
    fitted = fit(MemoryRows(rows), Settings(k=10))
    (warning,) = cluster_warnings(fitted.model, fitted.mean_squared_distance)
    assert warning == (
        "Only 9 of the 10 clusters are distinct and have rows: the data have no more distinct rows. Lower k to 9."
    )


def test_warning_of_equal_centers_gives_no_cause_unless_certain() -> None:
    (warning,) = cluster_warnings(model([5, 5, 5], [0.0, 0.0, 1.0]), 0.5)
    assert warning == "Only 2 of the 3 clusters are distinct and have rows. Lower k to 2."
