"""Data sets that are drawn from distributions with fixed seeds, float32 (n, d)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.quality import Labels
from kmeans.arrays import Float32

Data = tuple[Float32, Labels | None]

# Rows that are made at once where a temporary array of all rows would be large.
BATCH_ROWS = 100_000


def gaussian(rows: int = 1_000_000, columns: int = 32, clusters: int = 100) -> Data:
    """Return overlapping round clusters, the largest of 250 times as many rows."""
    generator = np.random.default_rng(1)
    centers = generator.normal(scale=0.6, size=(clusters, columns)).astype(np.float32)
    widths = generator.uniform(0.5, 1.5, size=clusters).astype(np.float32)
    shares = np.arange(1, clusters + 1) ** -1.2
    labels = generator.choice(clusters, size=rows, p=shares / shares.sum())
    points = generator.standard_normal((rows, columns), dtype=np.float32)
    points *= widths[labels, None]
    points += centers[labels]
    return points, None


def correlated(rows: int = 500_000, columns: int = 128, rank: int = 64) -> Data:
    """Return what a layer of a network gives: ReLU of a map of Gaussians."""
    generator = np.random.default_rng(2)
    spectrum = (np.arange(1, rank + 1) ** -0.5).astype(np.float32)
    mixing = generator.normal(size=(rank, columns)).astype(np.float32)
    shift = generator.normal(scale=0.5, size=columns).astype(np.float32)
    points = (generator.standard_normal((rows, rank), dtype=np.float32) * spectrum) @ mixing
    points += shift
    rectified: Float32 = np.maximum(points, 0, out=points)
    return rectified, None


def mixture(rows: int, columns: int, clusters: int, *, scale: float, exponent: float = 0.0, seed: int) -> Data:
    """Return rows of round clusters of standard deviation 1, and their labels.

    Parameters
    ----------
    rows, columns, clusters
        Shape of the data.
    scale
        Standard deviation of the true centers in each column; the smaller, the more the clusters overlap.
    exponent
        Cluster i of 1, 2, ... is drawn with a probability in proportion to ``i ** -exponent``.
    seed
        Fixes every draw.
    """
    generator = np.random.default_rng(seed)
    centers = generator.normal(scale=scale, size=(clusters, columns)).astype(np.float32)
    weights = np.arange(1.0, clusters + 1) ** -exponent
    labels = generator.choice(clusters, size=rows, p=weights / weights.sum())
    points = generator.standard_normal((rows, columns), dtype=np.float32)
    for first in range(0, rows, BATCH_ROWS):
        points[first : first + BATCH_ROWS] += centers[labels[first : first + BATCH_ROWS]]
    return points, labels


def lognormal(sigma: float, rows: int = 5_000, columns: int = 2) -> Data:
    """Return independent columns whose logarithms are normal(0, ``sigma``)."""
    return np.random.default_rng(3).lognormal(0, sigma, (rows, columns)).astype(np.float32), None


def pareto(shape: float = 1.2, rows: int = 20_000, columns: int = 3) -> Data:
    """Return independent columns with a Pareto tail: the variance is infinite."""
    return (1 + np.random.default_rng(4).pareto(shape, (rows, columns))).astype(np.float32), None


def zipf(exponent: float = 1.8, rows: int = 5_000, columns: int = 4, largest: int = 1_000_000) -> Data:
    """Return counts drawn from Zipf's law, cut at ``largest``."""
    counts = np.random.default_rng(5).zipf(exponent, (rows, columns))
    return np.minimum(counts, largest).astype(np.float32), None


def far_outliers(rows: int = 100_000, outliers: int = 5) -> Data:
    """Return standard normal rows and a few far from them, in random order."""
    generator = np.random.default_rng(6)
    points = generator.standard_normal((rows + outliers, 4))
    points[rows:] += (200, -200, 200, -200)
    return generator.permutation(points).astype(np.float32), None


def few_rows(rows: int = 100, columns: int = 5) -> Data:
    """Return standard normal rows, for numbers of clusters near the number of rows."""
    return np.random.default_rng(7).standard_normal((rows, columns), dtype=np.float32), None


def tiny_blobs(blobs: int = 60, columns: int = 3) -> Data:
    """Return tight blobs of one to three rows, and the blob of each row."""
    generator = np.random.default_rng(8)
    centers = generator.uniform(0, 10, size=(blobs, columns))
    labels = generator.permutation(np.repeat(np.arange(blobs), generator.integers(1, 4, size=blobs)))
    return generator.normal(centers[labels], 0.01).astype(np.float32), labels


GENERATED: dict[str, Callable[[], Data]] = {
    "gaussian": gaussian,
    "embedding": correlated,
    "lognormal-2": lambda: lognormal(2),
    "lognormal-3": lambda: lognormal(3),
    "pareto": pareto,
    "zipf": zipf,
    "far-outliers": far_outliers,
    "few-rows": few_rows,
    "tiny-blobs": tiny_blobs,
    "overlapping-4000": lambda: mixture(1_000_000, 128, 4_000, scale=0.25, exponent=0.5, seed=9),
    "overlapping-8000": lambda: mixture(100_000, 128, 8_000, scale=0.25, exponent=0.5, seed=10),
    "blobs-300": lambda: mixture(500_000, 50, 300, scale=2.0, seed=11),
    "blobs-200": lambda: mixture(50_000, 384, 200, scale=1.0, seed=12),
}
