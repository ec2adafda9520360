"""Distance metrics: the preparation of rows and centers, and reported distances.

Cosine is spherical k-means (I. S. Dhillon and D. S. Modha, "Concept decompositions for large sparse text data using
clustering", 2001). For rows and centers of length 1 the cosine distance 1 - cos is half the squared Euclidean distance,
so all phases use squared Euclidean distances, and only reported values are converted.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from kmeans.arrays import Float32, Float64, in_blocks
from kmeans.errors import DataError

MetricName = Literal["euclidean", "cosine"]

# Size of the rows that are converted to float64 at once; bounds the memory of a copy.
BLOCK_BYTES = 1 << 20

# A row that was normalized and rounded to float32 has a squared length within 2^-23 of 1. It must not be divided again:
# both the reader and `fit` normalize blocks of several hosts, and their bits must be the same.
UNIT_TOLERANCE = 2.0**-22

# The mean of opposite rows consists of rounding errors, is shorter than this, and has no direction.
MIN_MEAN_LENGTH = 2.0**-20

# The largest cosine distance, of opposite directions; rounding may exceed it.
MAX_COSINE_DISTANCE = 2.0


class Metric:
    """Euclidean distance: rows are unchanged, losses are squared distances."""

    name: MetricName = "euclidean"
    normalizes = False

    def prepare(self, points: Float32) -> Float32:
        """Return ``points`` (n, d) as all phases need them.

        It is the same array if nothing changes.

        Raises
        ------
        kmeans.errors.DataError
            If a row has no direction and the metric needs one; the error has the number of the first such row, from 1.
        """
        return points

    def prepare_in_place(self, points: Float32) -> None:
        """Prepare ``points`` (n, d) as :meth:`prepare`, in place."""

    def normalize_centers(self, centers: Float64, previous: Float64) -> Float64:
        """Return ``centers`` (k, d) normalized after a move.

        A center without direction is replaced by its ``previous`` one.
        """
        del previous
        return centers

    def reported_distances(self, lengths: Float32) -> Float32:
        """Return the distances to report for Euclidean ``lengths``."""
        return lengths

    def losses(self, distances: Float64) -> Float64:
        """Return the loss of each of the reported ``distances``."""
        return distances * distances

    def reported_loss(self, squared: float) -> float:
        """Return the loss to report for a sum or mean of squared Euclidean distances."""
        return squared

    def typical_distance(self, mean_loss: float) -> float:
        """Return the distance of a typical row for the reported mean loss."""
        return math.sqrt(mean_loss)


class Cosine(Metric):
    """Cosine distance: rows and centers have length 1, losses are 1 - cos."""

    name: MetricName = "cosine"
    normalizes = True

    def prepare(self, points: Float32) -> Float32:
        """Return ``points`` with each row divided by its length, computed in float64."""
        for first, block in in_blocks(points, _block_rows(points)):
            if (_divisors(block.astype(np.float64), first) != 1).any():
                prepared = points.copy()
                self.prepare_in_place(prepared)
                return prepared
        return points

    def prepare_in_place(self, points: Float32) -> None:
        """Divide each row of ``points`` by its length, computed in float64."""
        for first, block in in_blocks(points, _block_rows(points)):
            wide = block.astype(np.float64)
            divisors = _divisors(wide, first)
            if (divisors != 1).any():
                block[...] = wide / divisors[:, None]

    def normalize_centers(self, centers: Float64, previous: Float64) -> Float64:
        """Return ``centers`` with each row divided by its length."""
        lengths = np.sqrt(np.einsum("ij,ij->i", centers, centers))
        has_direction = lengths > MIN_MEAN_LENGTH
        normalized = previous.copy()
        normalized[has_direction] = centers[has_direction] / lengths[has_direction, None]
        return normalized

    def reported_distances(self, lengths: Float32) -> Float32:
        """Return half the squares of ``lengths``, at most 2."""
        distances: Float32 = np.minimum(lengths * lengths / 2, np.float32(MAX_COSINE_DISTANCE))
        return distances

    def losses(self, distances: Float64) -> Float64:
        """Return ``distances``."""
        return distances

    def reported_loss(self, squared: float) -> float:
        """Return half of ``squared``."""
        return squared / 2

    def typical_distance(self, mean_loss: float) -> float:
        """Return ``mean_loss``, a mean of distances."""
        return mean_loss


EUCLIDEAN, COSINE = Metric(), Cosine()
METRICS: dict[str, Metric] = {metric.name: metric for metric in (EUCLIDEAN, COSINE)}


def _divisors(wide: Float64, first: int) -> Float64:
    """Return the length of each row of ``wide`` (n, d), (n,).

    It is 1 for lengths that differ from 1 by rounding only.
    Each row's length depends only on that row, so any division into blocks gives the same bits.

    Raises
    ------
    kmeans.errors.DataError
        If a row has only zeros; ``first`` is the index of the first row.
    """
    squared: Float64 = np.einsum("ij,ij->i", wide, wide)
    if not squared.all():
        raise DataError(
            "expected a number other than 0 in the row, found only zeros",
            row=first + int(np.argmin(squared)) + 1,
            hint="The cosine distance compares directions, and such a row has none: drop it.",
        )
    return np.where(np.abs(squared - 1) <= UNIT_TOLERANCE, 1.0, np.sqrt(squared))


def _block_rows(points: Float32) -> int:
    rows: int = BLOCK_BYTES // (8 * points.shape[1])
    return max(1, rows)
