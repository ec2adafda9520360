"""The functions for Python users: ``kmeans.fit`` and ``kmeans.load``. Names that the package exports come from here."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from kmeans import archive, artifact, fitting
from kmeans.arrays import Float32, Float64, Int64, as_numbers
from kmeans.blas import BLAS
from kmeans.dataset import MemoryRows
from kmeans.errors import ModelError
from kmeans.metric import METRICS, MetricName
from kmeans.model import KMeansModel, as_path
from kmeans.ranges import AUTO, Integer
from kmeans.settings import MINI_BATCH_SIZE, RANGES, Settings, check_names, check_values
from kmeans.system import usable_cpus
from kmeans.threads import ThreadPool

# What `fit` is passed in addition to the fields of Settings.
ARGUMENTS = ("points", "weights", "mini_batch_size", "threads")
ARGUMENT_RANGES = {"mini_batch_size": MINI_BATCH_SIZE, "threads": Integer(1, auto=True)}

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, eq=False)
class FitResult:
    """A fitted model, and the cluster of each row.

    Attributes
    ----------
    model
        The centers, and what can be computed from them.
    labels
        Number of the nearest center of each row, int64 (n,), as ``model.predict`` returns it.
    distances
        Distance of each row to that center, (n,), as ``model.predict`` returns it.
    inertia
        Sum over all rows of the squared distances, in the square of the unit of the points; with weights each row's
        is multiplied by its weight. With the cosine metric it is the sum of the distances 1 - cosine.
    cluster_sizes
        Number of rows of each cluster, whatever their weights, int64 (k,).
    """

    model: KMeansModel
    labels: Int64
    distances: Float32 | Float64
    inertia: float
    cluster_sizes: Int64


def _refuses_unknown_names(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Return ``function`` with a check of the names of its arguments, before Python finds that ``k`` is missing."""

    @wraps(function)
    def checked(*args: Arguments.args, **named: Arguments.kwargs) -> Result:
        check_names(named, {*ARGUMENTS, *RANGES})
        return function(*args, **named)

    return checked


@_refuses_unknown_names
def fit(
    points: ArrayLike,
    k: int,
    *,
    weights: ArrayLike | None = None,
    distance_metric: MetricName = "euclidean",
    seed: int = 0,
    mini_batch_size: int = 5000,
    threads: int | None = None,
    **settings: Any,
) -> FitResult:
    """Fit ``k`` centers to ``points`` and assign each point to the nearest.

    The same points, settings and versions of the libraries give the same model, whatever the type, the memory order
    and the number of threads. Columns far from 0 (timestamps) keep their differences if they are float64 or integers.

    Parameters
    ----------
    points
        Shape (n, d): an array of any type of numbers and any memory order, nested lists, or a table such as a pandas
        DataFrame whose columns are numbers. Never changed. n must be at least ``k``, values finite and within +-1e15.
    k
        Number of clusters, at least 1.
    weights
        How often each row counts, (n,), finite and at least 0. Default: each row counts once.
    distance_metric
        ``euclidean``, or ``cosine`` for spherical k-means: points and centers are normalized to length 1.
    seed
        Fixes every random draw.
    mini_batch_size
        Rows per mini-batch of the first phase.
    threads
        Number of threads that compute; default: the number of CPUs that this process may use. While the fit runs,
        OpenBLAS has one thread in the whole process; afterwards as many as before.
    settings
        Any other field of :class:`Settings`, such as ``init_method``, ``refine_max_iter`` or ``refine_sample_size``.

    Raises
    ------
    kmeans.DataError
        If ``points`` or ``weights`` can't be used; the error names row and column, from 1.
    kmeans.SettingError
        If a setting has the wrong type or is out of range.
    kmeans.UnknownSettingError
        If there is no setting of a name; the error names the valid ones. It is also a TypeError.

    Examples
    --------
    >>> import kmeans
    >>> result = kmeans.fit([[1.0, 2.0], [1.0, 4.0], [9.0, 2.0], [9.0, 4.0]], k=2)
    >>> sorted(result.model.centers.tolist())
    [[1.0, 3.0], [9.0, 3.0]]
    >>> result.inertia, result.cluster_sizes.tolist(), result.distances.tolist()
    (4.0, [2, 2], [1.0, 1.0, 1.0, 1.0])
    >>> bool(result.labels[0] == result.labels[1] != result.labels[2])
    True

    Weights, and the cosine metric:

    >>> kmeans.fit([[0.0], [3.0]], k=1, weights=[2, 1]).model.centers.tolist()
    [[1.0]]
    >>> kmeans.fit([[3.0, 0.0], [0.0, 0.5]], k=2, distance_metric="cosine").inertia
    0.0

    The error for a name of scikit-learn has the name here:

    >>> kmeans.fit([[0.0], [3.0]], n_clusters=2)
    Traceback (most recent call last):
    kmeans.errors.UnknownSettingError: 'n_clusters' is not a setting: did you mean k? Valid are distance_metric, ...
    """
    wanted = Settings(k=k, distance_metric=distance_metric, seed=seed, **settings)
    own = check_values({"mini_batch_size": mini_batch_size, "threads": threads}, ARGUMENT_RANGES)
    array, metric = as_numbers(points), METRICS[wanted.distance_metric]
    rows = MemoryRows.of(array, own["mini_batch_size"], wanted.seed, weights=weights, metric=metric)
    with BLAS.one(), ThreadPool(own["threads"] or usable_cpus()) as pool:
        fitted = fitting.fit(rows, wanted, pool=pool)
    model = fitted.model
    model.training = _training(fitted, wanted, mini_batch_size=own["mini_batch_size"], rows=len(array))
    labels, distances = model.predict(array)
    losses = metric.losses(distances.astype(np.float64))
    return FitResult(
        model=model,
        labels=labels,
        distances=distances,
        inertia=float(losses.sum() if weights is None else losses @ np.asarray(weights, dtype=np.float64)),
        cluster_sizes=np.bincount(labels, minlength=wanted.k),
    )


def _training(fitted: fitting.Fitted, wanted: Settings, *, mini_batch_size: int, rows: int) -> Mapping[str, Any]:
    """Return what ``kmeans.json`` records about the fit, in the form of a training job."""
    values = {**asdict(wanted), "mini_batch_size": mini_batch_size}
    return {
        "hyperparameters": {name: AUTO if value is None else value for name, value in values.items()},
        "rows": rows,
        "metrics": {
            "train:msd": fitted.shrink_loss,
            "train:mean_squared_distance": fitted.mean_squared_distance,
            "streaming_centers": fitted.streaming_centers,
            "refinements": fitted.refinements,
        },
    }


def load(path: str | os.PathLike[str]) -> KMeansModel:
    """Return the model at ``path``.

    Parameters
    ----------
    path
        A directory that :meth:`KMeansModel.save`, a training job or the built-in image of SageMaker has written, or
        their ``model.tar.gz``. A directory may also hold the centers alone, as one ``.npy``, ``.npz`` or MXNet file.

    Raises
    ------
    kmeans.ModelError
        If there is no model, or it can't be read or is corrupt.
    kmeans.SettingError
        If ``path`` isn't a path.

    Examples
    --------
    >>> import tempfile
    >>> import kmeans
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     kmeans.fit([[0.0], [10.0]], k=1).model.save(folder)
    ...     kmeans.load(folder).centers.tolist()
    [[5.0]]
    """
    found = as_path(path)
    if found.is_dir():
        return artifact.load(found)
    if found.exists():
        return archive.load(found)
    raise ModelError(f"There is no model at {found}: expected a directory or a model.tar.gz, and there is neither.")
