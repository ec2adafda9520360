"""The model: k centers, and what can be asked of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from kmeans.arrays import Float32, Int64, as_points, in_blocks
from kmeans.distance import NearestCenters, block_rows
from kmeans.metric import METRICS, MetricName


class KMeansModel:
    """k centers in d dimensions.

    Parameters
    ----------
    centers
        Shape (k, d), finite; kept as float32.
    counts
        Number of training points of each cluster, int64 (k,); None if unknown.
    training
        How the model came about (settings, metrics), as JSON values; written into ``kmeans.json``.
    file
        Name of the file that the centers were read from, without its folder; None if they come from no file.
    distance_metric
        ``euclidean``, or ``cosine``: centers and points are normalized to length 1, distances are 1 - cosine.

    Raises
    ------
    kmeans.errors.DataError
        If ``centers`` isn't a two-dimensional array of finite numbers; with ``cosine`` also if a center is zero.

    Examples
    --------
    >>> model = KMeansModel([[0.0, 0.0], [3.0, 4.0]])
    >>> labels, distances = model.predict([[0.0, 1.0], [3.0, 4.0]])
    >>> labels.tolist(), distances.tolist()
    ([0, 1], [1.0, 0.0])
    """

    def __init__(
        self,
        centers: ArrayLike,
        counts: Int64 | None = None,
        training: Mapping[str, Any] | None = None,
        *,
        file: str | None = None,
        distance_metric: MetricName = "euclidean",
    ) -> None:
        self._metric = METRICS[distance_metric]
        self._nearest = NearestCenters(self._metric.prepare(as_points(centers)))
        self.counts = counts
        self.training: Mapping[str, Any] = dict(training or {})
        self.file = file

    @property
    def centers(self) -> Float32:
        """Centers, float32 (k, d)."""
        return self._nearest.centers

    @property
    def clusters(self) -> int:
        """Number of clusters, k."""
        return self._nearest.clusters

    @property
    def features(self) -> int:
        """Number of features, d."""
        return self._nearest.features

    @property
    def distance_metric(self) -> MetricName:
        """Name of the distance metric."""
        return self._metric.name

    @property
    def prepares(self) -> bool:
        """Whether :meth:`prepare` may change or refuse rows that are numbers of the right width."""
        return self._metric.normalizes

    def prepare(self, points: ArrayLike) -> Float32:
        """Return ``points`` (n, d) as float32 and as the metric compares them: with ``cosine`` of length 1.

        Raises
        ------
        kmeans.errors.DataError
            If the points are of another width than the centers, or hold NaN or infinity; with ``cosine`` also if a row
            has only zeros.
        """
        return self._metric.prepare(as_points(points, self.features))

    def predict(self, points: ArrayLike) -> tuple[Int64, Float32]:
        """Return the nearest center of each of ``points`` (n, d) and the distance to it, both (n,).

        The distance is the Euclidean one, or 1 - cosine, from 0 to 2.

        Raises
        ------
        kmeans.errors.DataError
            As :meth:`prepare`.
        """
        labels, squared = self._nearest.exact_query(self.prepare(points))
        return labels, self._metric.reported_distances(np.sqrt(squared))

    def transform(self, points: ArrayLike) -> Float32:
        """Return the distances from each of ``points`` (n, d) to every center, float32 (n, k).

        Raises
        ------
        kmeans.errors.DataError
            As :meth:`prepare`.
        """
        wanted = self.prepare(points)
        distances = np.empty((len(wanted), self.clusters), dtype=np.float32)
        for first, block in in_blocks(wanted, block_rows(self.features, self.clusters)):
            for j, center in enumerate(self.centers):
                lengths = np.linalg.norm(block - center, axis=1)
                distances[first : first + len(block), j] = self._metric.reported_distances(lengths)
        return distances

    def score(self, points: ArrayLike) -> float:
        """Return the loss of ``points`` (n, d): the sum of the squared distances to the nearest centers.

        With ``cosine`` it is the sum of the distances 1 - cosine.

        Raises
        ------
        kmeans.errors.DataError
            As :meth:`prepare`.
        """
        _, squared = self._nearest.query(self.prepare(points))
        return self._metric.reported_loss(float(squared.sum(dtype=np.float64)))
