"""The quality of centers, computed by code that no method shares."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.data_sets import Labels
from kmeans.arrays import Float32

Float64 = NDArray[np.float64]
Metric = Literal["euclidean", "cosine"]

BATCH_VALUES = 4 << 20

# Up to this number of rows times centers, labels are computed in float64, which tables with heavy tails need.
EXACT_PRODUCTS = 1 << 22

# A cluster with fewer rows counts as tiny.
FEW_ROWS = 3


@dataclass(frozen=True, slots=True)
class Quality:
    """Quality of the centers of one fit.

    ``loss`` is the mean over all rows of the squared distance to the nearest center, or of 1 - cosine. ``smallest`` and
    ``largest`` are rows of a cluster (0 for a center without rows), ``under_three`` is the number of clusters with
    fewer than 3 rows. ``adjusted_rand_index`` is the agreement with known labels: 1 if the clusters are the same, about
    0 for random ones; None without labels.
    """

    loss: float
    smallest: int
    largest: int
    under_three: int
    adjusted_rand_index: float | None = None


def quality(points: Float32, centers: Float32, metric: Metric = "euclidean", known: Labels | None = None) -> Quality:
    """Return the quality of ``centers`` (k, d) for all rows of ``points`` (n, d).

    Float32 only decides which center is nearest (where it is wrong, two are equally near to seven digits). The distance
    to that center and the sum are computed in float64.
    """
    nearest = _nearest_by_cosine if metric == "cosine" else _nearest
    labels = np.empty(len(points), np.int64)
    total, first = 0.0, 0
    for batch_labels, losses in nearest(points, centers):
        labels[first : first + len(batch_labels)] = batch_labels
        first += len(batch_labels)
        total += losses
    sizes = np.bincount(labels, minlength=len(centers))
    return Quality(
        loss=total / len(points),
        smallest=int(sizes.min()),
        largest=int(sizes.max()),
        under_three=int((sizes < FEW_ROWS).sum()),
        adjusted_rand_index=None if known is None else adjusted_rand_index(known, labels),
    )


def _batches(points: Float32, centers: Float32) -> Iterator[Float32]:
    rows = max(1, BATCH_VALUES // max(centers.shape))
    for first in range(0, len(points), rows):
        yield points[first : first + rows]


def _nearest(points: Float32, centers: Float32) -> Iterator[tuple[Labels, float]]:
    """Yield the labels of each batch of rows, and the sum of their squared distances."""
    exact = centers.astype(np.float64)
    decisive = exact if len(points) * len(centers) <= EXACT_PRODUCTS else centers
    norms = np.einsum("ij,ij->i", decisive, decisive)
    for batch in _batches(points, centers):
        labels = (norms - 2 * (batch @ decisive.T)).argmin(axis=1)
        differences = batch - exact[labels]
        yield labels, float(np.einsum("ij,ij->", differences, differences))


def _nearest_by_cosine(points: Float32, centers: Float32) -> Iterator[tuple[Labels, float]]:
    """Yield the labels of each batch of rows, and the sum of 1 - cosine.

    A row or center of zeros has cosine 0.
    """
    exact = _unit(centers)
    decisive = exact.astype(np.float32)
    for batch in _batches(points, centers):
        labels = (batch @ decisive.T).argmax(axis=1)
        cosines = np.einsum("ij,ij->i", _unit(batch), exact[labels])
        yield labels, float((1 - cosines).sum())


def _unit(vectors: Float32) -> Float64:
    exact = vectors.astype(np.float64)
    lengths = np.sqrt(np.einsum("ij,ij->i", exact, exact))
    lengths[lengths == 0] = 1
    exact /= lengths[:, None]
    return exact


def adjusted_rand_index(first: Labels, second: Labels) -> float:
    """Return the adjusted Rand index (Hubert and Arabie, 1985) of two labelings."""
    both = np.unique(first * (second.max() + 1) + second, return_counts=True)[1]
    together, in_first, in_second = (_pairs(counts) for counts in (both, np.bincount(first), np.bincount(second)))
    expected = in_first * in_second / _pairs(np.array([len(first)]))
    largest = (in_first + in_second) / 2
    return 1.0 if largest == expected else (together - expected) / (largest - expected)


def _pairs(counts: NDArray[np.int64]) -> float:
    exact = counts.astype(np.float64)
    return float((exact * (exact - 1) / 2).sum())
