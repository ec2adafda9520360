"""The model: k centers, and what can be asked of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from kmeans.arrays import Float32, Int64, as_points, in_blocks
from kmeans.distance import NearestCenters, block_rows


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

    Raises
    ------
    kmeans.errors.DataError
        If ``centers`` isn't a two-dimensional array of finite numbers.

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
    ) -> None:
        self._nearest = NearestCenters(as_points(centers))
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

    def predict(self, points: ArrayLike) -> tuple[Int64, Float32]:
        """Return the nearest center of each of ``points`` (n, d) and the Euclidean distance to it, both (n,).

        Raises
        ------
        kmeans.errors.DataError
            If the points are of another width than the centers, or hold NaN or infinity.
        """
        labels, squared = self._nearest.exact_query(as_points(points, self.features))
        return labels, np.sqrt(squared)

    def transform(self, points: ArrayLike) -> Float32:
        """Return the Euclidean distances from each of ``points`` (n, d) to every center, float32 (n, k).

        Raises
        ------
        kmeans.errors.DataError
            As :meth:`predict`.
        """
        wanted = as_points(points, self.features)
        distances = np.empty((len(wanted), self.clusters), dtype=np.float32)
        for first, block in in_blocks(wanted, block_rows(self.features, self.clusters)):
            for j, center in enumerate(self.centers):
                distances[first : first + len(block), j] = np.linalg.norm(block - center, axis=1)
        return distances

    def score(self, points: ArrayLike) -> float:
        """Return the inertia of ``points`` (n, d): the sum of the squared distances to the nearest centers.

        Raises
        ------
        kmeans.errors.DataError
            As :meth:`predict`.
        """
        _, squared = self._nearest.query(as_points(points, self.features))
        return float(squared.sum(dtype=np.float64))
