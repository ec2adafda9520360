"""Phase 1: mini-batches onto K centers, each with a learning rate of its own.

A batch moves center j from c_j to (1 - p_j) c_j + p_j m_j, where m_j is the mean of the n_j rows nearest to it and
p_j = n_j / (N_j + n_j) with N_j the rows it had before. This is D. Sculley, "Web-scale k-means clustering" (WWW 2010),
a whole batch at a time, as the SageMaker developer guide describes its k-means.

With a half life h, N_j is halved for every h rows that went by, so that old rows lose their say.
"""

from __future__ import annotations

import numpy as np

from kmeans.arrays import Float32, Float64
from kmeans.distance import NearestCenters
from kmeans.sums import ClusterSums, assign_and_sum
from kmeans.workers import Workers


class StreamingCenters:
    """K centers that follow a stream of mini-batches.

    Parameters
    ----------
    centers
        First centers, (K, d).
    half_life
        Number of later rows after which a row counts half; 0 for never.

    Attributes
    ----------
    centers
        float64 (K, d).
    weights
        Rows that each center has absorbed, with forgetting, float64 (K,).
    """

    def __init__(self, centers: Float32, half_life: int = 0, workers: Workers | None = None) -> None:
        self.centers: Float64 = centers.astype(np.float64)
        self.weights: Float64 = np.zeros(len(centers))
        self._half_life = half_life
        self._workers = workers

    def update(self, batch: Float32) -> float:
        """Move the centers by ``batch`` (b, d); return its mean squared distance to the centers as they were."""
        batch_sums = self.sums_of(batch)
        self.move(batch_sums)
        return batch_sums.mean_squared_distance

    def sums_of(self, batch: Float32) -> ClusterSums:
        """Return the sums of ``batch`` (b, d) by nearest center."""
        return assign_and_sum(batch, NearestCenters(self.centers), workers=self._workers)

    def move(self, batch_sums: ClusterSums) -> None:
        """Move the centers by a batch that has these sums."""
        if self._half_life:
            self.weights *= 0.5 ** (batch_sums.weights.sum() / self._half_life)
        self.weights += batch_sums.weights
        hit = batch_sums.weights > 0
        rates = batch_sums.weights[hit] / self.weights[hit]
        means = batch_sums.sums[hit] / batch_sums.weights[hit, None]
        self.centers[hit] += rates[:, None] * (means - self.centers[hit])
