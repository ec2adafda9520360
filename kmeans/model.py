"""The model: k centers, and what can be asked of them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from kmeans.arrays import (
    MAX_MAGNITUDE,
    MAX_SHOWN,
    Float32,
    Float64,
    Int64,
    as_float32,
    as_numbers,
    as_points,
    as_wide_points,
    in_blocks,
    is_in_range,
)
from kmeans.coordinates import IDENTITY, Coordinates, of_centers
from kmeans.distance import NearestCenters, block_rows
from kmeans.errors import DataError, SettingError, shortened
from kmeans.metric import METRICS, MetricName
from kmeans.settings import RANGES, check_values

# Rows beyond the range of the model's coordinates that are compared at once.
FAR_ROWS = 1024


class KMeansModel:
    """k centers in d dimensions.

    Parameters
    ----------
    centers
        Shape (k, d), finite; kept as float32, and as float64 where ``coordinates`` are given.
    counts
        Number of training points of each cluster, int64 (k,); None if unknown.
    training
        How the model came about (settings, metrics), as JSON values; written into ``kmeans.json``.
    file
        Name of the file that the centers were read from, without its folder; None if they come from no file.
    distance_metric
        ``euclidean``, or ``cosine``: centers and points are normalized to length 1, distances are 1 - cosine.
    coordinates
        Those in which points are compared with the centers (:mod:`kmeans.coordinates`). Unless they are the identity,
        points are taken as float64, and distances are float64. Default: those that centers of float64 or integers
        need, and the identity for centers of float32.

    Raises
    ------
    kmeans.DataError
        If ``centers`` isn't a two-dimensional array of finite numbers, or ``counts`` has another length; with
        ``cosine`` also if a center is zero.
    kmeans.SettingError
        If there is no such ``distance_metric``.

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
        coordinates: Coordinates | None = None,
    ) -> None:
        named = check_values({"distance_metric": distance_metric}, RANGES)
        self._metric = METRICS[named["distance_metric"]]
        if coordinates is None:
            coordinates = IDENTITY if self._metric.normalizes else _coordinates(centers)
        self.coordinates = coordinates
        self._wide: Float64 | None = None
        if coordinates.is_identity:
            self._nearest = NearestCenters(self._metric.prepare(as_points(centers)))
        elif self._metric.normalizes:
            raise ValueError("a model that normalizes points has no coordinates but theirs")
        else:
            self._wide = as_wide_points(centers)
            self._nearest = NearestCenters(coordinates.narrow_centers(self._wide))
        if counts is not None and np.shape(counts) != (self.clusters,):
            raise DataError(
                f"expected a count for each of the {self.clusters} clusters, found an array of {np.shape(counts)}"
            )
        self.counts = None if counts is None else np.asarray(counts, dtype=np.int64)
        self.training: Mapping[str, Any] = dict(training or {})
        self.file = file

    def __repr__(self) -> str:
        return f"<KMeansModel: {self.clusters} clusters, {self.features} features, {self.distance_metric}>"

    @property
    def centers(self) -> Float32:
        """Centers, float32 (k, d)."""
        return self._nearest.centers if self._wide is None else as_float32(self._wide)

    @property
    def precise_centers(self) -> Float32 | Float64:
        """Centers (k, d), float64 unless the coordinates are the identity."""
        return self._nearest.centers if self._wide is None else self._wide

    @property
    def narrowed_centers(self) -> Float32:
        """Coordinates of the centers, float32 (k, d)."""
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
        found = as_points(points, self.features)
        return self._metric.prepare(found) if self.prepares else found

    def predict(self, points: ArrayLike) -> tuple[Int64, Float32 | Float64]:
        """Return the nearest center of each of ``points`` (n, d) and the distance to it, both (n,).

        Labels are int64, from 0 to k - 1; of several centers at the same distance the first is taken. The distance is
        the Euclidean one, or 1 - cosine, from 0 to 2; it is float32, and float64 unless the model's coordinates are
        the identity.

        Raises
        ------
        kmeans.DataError
            As :meth:`prepare`.

        Examples
        --------
        >>> labels, distances = KMeansModel([[0.0], [10.0]]).predict([[1.0], [12.0]])
        >>> labels.tolist(), distances.tolist()
        ([0, 1], [1.0, 2.0])
        """
        if self._wide is not None:
            return self._predict_wide(as_wide_points(points, self.features), self._wide)
        labels, squared = self._nearest.exact_query(self.prepare(points))
        distances: Float32 = np.sqrt(squared)
        return labels, self._metric.reported_distances(distances) if self.prepares else distances

    def _predict_wide(self, points: Float64, centers: Float64) -> tuple[Int64, Float64]:
        moved = self.coordinates.narrow(points)
        # Points as far away as that are compared in float64; 0 stands for them until then.
        far = np.empty(0, dtype=np.int64) if is_in_range(moved) else _out_of_range(moved)
        moved[far] = 0
        labels, squared = self._nearest.exact_query(moved)
        distances = np.sqrt(squared.astype(np.float64)) / self.coordinates.scale
        for first in range(0, len(far), FAR_ROWS):
            rows = far[first : first + FAR_ROWS]
            to_all = _distances(points[rows], centers)
            labels[rows] = to_all.argmin(axis=1)
            distances[rows] = to_all.min(axis=1)
        return labels, distances

    def transform(self, points: ArrayLike) -> Float32 | Float64:
        """Return the distances from each of ``points`` (n, d) to every center, float32 (n, k).

        They are float64 unless the model's coordinates are the identity.

        Raises
        ------
        kmeans.DataError
            As :meth:`prepare`.

        Examples
        --------
        >>> KMeansModel([[0.0], [10.0]]).transform([[1.0], [12.0]]).tolist()
        [[1.0, 9.0], [12.0, 2.0]]
        """
        if self._wide is not None:
            return _distances(as_wide_points(points, self.features), self._wide)
        wanted = self.prepare(points)
        distances = np.empty((len(wanted), self.clusters), dtype=np.float32)
        for first, block in in_blocks(wanted, block_rows(self.features, self.clusters)):
            for j, center in enumerate(self.centers):
                lengths = np.linalg.norm(block - center, axis=1)
                distances[first : first + len(block), j] = self._metric.reported_distances(lengths)
        return distances

    def score(self, points: ArrayLike) -> float:
        """Return the loss of ``points`` (n, d): the sum of the squared distances to the nearest centers.

        With ``cosine`` it is the sum of the distances 1 - cosine. Less is better.

        Raises
        ------
        kmeans.DataError
            As :meth:`prepare`.

        Examples
        --------
        >>> KMeansModel([[0.0], [10.0]]).score([[1.0], [12.0]])
        5.0
        """
        if self._wide is not None:
            _, distances = self.predict(points)
            return float(np.square(distances).sum())
        return self.score_narrowed(self.prepare(points))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model into the directory ``path``, which is created if needed; :func:`kmeans.load` reads it.

        The directory has the files of a training job's model: ``model_algo-1``, ``kmeans.json`` and, for coordinates
        other than the identity, ``centers.npy``. A model that is there already is replaced; each file is complete at
        any moment.

        Raises
        ------
        kmeans.ResourceError
            If the directory can't be written.
        kmeans.SettingError
            If ``path`` isn't a path.

        Examples
        --------
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     KMeansModel([[0.0], [10.0]]).save(f"{folder}/model")
        ...     sorted(file.name for file in Path(folder, "model").iterdir())
        ['kmeans.json', 'model_algo-1']
        """
        from kmeans.artifact import save  # noqa: PLC0415 - it imports this module

        save(self, as_path(path))

    def score_narrowed(self, points: Float32) -> float:
        """Return the inertia of prepared ``points`` (n, d) in the coordinates."""
        _, squared = self._nearest.query(points)
        return self.coordinates.squared(self._metric.reported_loss(float(squared.sum(dtype=np.float64))))


def as_path(path: str | os.PathLike[str]) -> Path:
    """Return ``path`` as a Path; raise a SettingError if it can't be one."""
    try:
        text = os.fspath(path)
    except TypeError:
        text = ""
    if not isinstance(text, str) or not text or "\0" in text:
        raise SettingError(f"path: expected the name of a file or folder, found {shortened(repr(path), MAX_SHOWN)}.")
    return Path(text)


def _coordinates(centers: ArrayLike) -> Coordinates:
    array = as_numbers(centers)
    return IDENTITY if array.dtype == np.float32 else of_centers(as_wide_points(array))


def _distances(points: Float64, centers: Float64) -> Float64:
    distances = np.empty((len(points), len(centers)))
    for j, center in enumerate(centers):
        distances[:, j] = np.linalg.norm(points - center, axis=1)
    return distances


def _out_of_range(points: Float32) -> Int64:
    rows: Int64 = np.flatnonzero(~(np.abs(points) <= MAX_MAGNITUDE).all(axis=1))
    return rows
