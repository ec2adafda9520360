"""Splits of clusters must gain what they say, and find the two clusters that share a center."""

from __future__ import annotations

import numpy as np
import pytest

from kmeans.arrays import Float32, Float64, Int64
from kmeans.splitting import Splits, split_clusters
from tests.unit.kmeans import oracle


def split(points: Float32 | Float64, groups: Int64 | None = None, weights: Float64 | None = None) -> Splits:
    groups = np.zeros(len(points), dtype=np.int64) if groups is None else groups
    weights = np.ones(len(points)) if weights is None else weights
    return split_clusters(points, weights, groups, int(groups[-1]) + 1, np.random.default_rng(0))


def saved(points: Float32, splits: Splits, weights: Float64 | None = None) -> float:
    """Return by how much the inertia falls if the first cluster gets both means, each row the nearer one."""
    times = np.ones(len(points)) if weights is None else weights
    wide = points.astype(np.float64)
    before = times @ np.square(wide - times @ wide / times.sum()).sum(axis=1)
    means = np.stack([splits.first[0], splits.second[0]])
    return float(before - times @ oracle.squared_distances(points, means).min(axis=1))


@pytest.mark.parametrize("d", [1, 2, 32])
@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_split_of_two_blobs_finds_their_means(d: int, offset: float) -> None:
    points, _ = oracle.blobs(d, n=600, k=2, d=d, spread=30)
    points += np.float32(offset)
    splits = split(points)
    labels, _ = oracle.nearest(points, np.stack([splits.first[0], splits.second[0]]))
    means = np.stack([points[labels == label].mean(axis=0, dtype=np.float64) for label in (0, 1)])
    assert np.bincount(labels).tolist() == [300, 300]
    np.testing.assert_allclose([splits.first[0], splits.second[0]], means, atol=1e-2)
    assert splits.gains[0] == pytest.approx(saved(points, splits), rel=1e-3)


def test_split_of_a_few_distant_rows_cuts_them_off() -> None:
    points = np.random.default_rng(0).normal(size=(2000, 3)).astype(np.float32)
    points[[7, 500, 1400]] += 1000
    splits = split(points)
    sizes = np.bincount(oracle.nearest(points, np.stack([splits.first[0], splits.second[0]]))[0])
    assert sorted(sizes.tolist()) == [3, 1997]


def test_split_of_a_compact_cluster_of_many_columns_halves_it() -> None:
    points = np.random.default_rng(0).normal(size=(500, 64)).astype(np.float32)
    splits = split(points)
    sizes = np.bincount(oracle.nearest(points, np.stack([splits.first[0], splits.second[0]]))[0])
    assert min(sizes) > 100


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("weighted", [False, True])
def test_gain_of_a_split_is_at_most_what_it_saves(seed: int, weighted: bool) -> None:
    generator = np.random.default_rng(seed)
    points = generator.lognormal(size=(300, 3)).astype(np.float32)
    weights = generator.uniform(0.1, 5, 300) if weighted else None
    splits = split(points, weights=weights)
    assert 0 < splits.gains[0] <= saved(points, splits, weights) * (1 + 1e-5)


def test_splits_of_several_clusters_are_those_of_each() -> None:
    points, centers = oracle.blobs(1, n=400, k=4, d=2, spread=100)
    labels, _ = oracle.nearest(points, centers)
    groups = np.array([0, 0, 3, 3])[labels]
    order = groups.argsort(kind="stable")
    splits = split(points[order], groups[order])
    assert splits.gains.shape == (4,)
    for group, pair in ((0, [0, 1]), (3, [2, 3])):
        found = oracle.sorted_rows(np.stack([splits.first[group], splits.second[group]]))
        expected = oracle.sorted_rows(np.stack([points[labels == label].mean(axis=0) for label in pair]))
        np.testing.assert_allclose(found, expected, atol=1e-2)
    assert splits.gains[[1, 2]].tolist() == [0, 0], "clusters without rows"


@pytest.mark.parametrize("value", [0.0, 3.0, 0.1, 1e6])
@pytest.mark.parametrize("n", [1, 7])
def test_split_of_equal_rows_gains_nothing(value: float, n: int) -> None:
    points = np.full((n, 2), value, dtype=np.float32)
    splits = split(points)
    assert splits.gains[0] == pytest.approx(0, abs=1e-9 * max(value, 1) ** 2)
    np.testing.assert_allclose([splits.first[0], splits.second[0]], [points[0]] * 2, rtol=1e-6)


def test_split_of_weight_2_equals_that_of_repeated_rows() -> None:
    generator = np.random.default_rng(3)
    points = generator.lognormal(size=(200, 3)).astype(np.float32)
    weights = generator.integers(1, 4, 200).astype(np.float64)
    found, expected = split(points, weights=weights), split(np.repeat(points, weights.astype(int), axis=0))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4)


def test_split_does_not_change_its_arrays() -> None:
    points, _ = oracle.blobs(2, n=100, k=2)
    weights, groups = np.ones(100), np.repeat([0, 1], 50)
    for array in (points, weights, groups):
        array.flags.writeable = False
    assert (split(points, groups, weights).gains > 0).all()
