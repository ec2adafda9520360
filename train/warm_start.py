"""The channel ``model``: an earlier model, from whose centers a job starts."""

from __future__ import annotations

from pathlib import Path

from kmeans import archive, artifact
from kmeans.errors import DataError, SettingError
from kmeans.metric import MetricName
from kmeans.model import KMeansModel
from train.config import Channel

ARCHIVE_SUFFIXES = (".tar.gz", ".tgz", ".tar")


def read_model(channel: Channel, k: int, distance_metric: MetricName = "euclidean") -> KMeansModel:
    """Return the model in ``channel``: the ``model.tar.gz`` of a training job, or its files, or an ``.npy`` file.

    A model with another ``distance_metric`` is converted: for ``cosine`` its centers get length 1.

    Raises
    ------
    kmeans.errors.ModelError
        If there is no model, or it is corrupt.
    kmeans.errors.SettingError
        If it has another number of clusters than ``k``, or a center of only zeros, which ``cosine`` can't use.
    """
    folder = channel.directory
    archives = sorted(path for path in _files(folder) if path.name.endswith(ARCHIVE_SUFFIXES))
    if len(archives) > 1:
        names = ", ".join(path.name for path in archives)
        raise SettingError(f"Channel {channel.name}: expected one model, found the archives {names}.")
    model = archive.load(archives[0]) if archives else artifact.load(folder)
    if model.clusters != k:
        raise SettingError(
            f"Channel {channel.name}: the model has {model.clusters} clusters, but k={k}: set k to {model.clusters}, "
            "or leave the channel out."
        )
    if model.distance_metric == distance_metric:
        return model
    try:
        return KMeansModel(
            model.centers, model.counts, model.training, file=model.file, distance_metric=distance_metric
        )
    except DataError as error:
        raise SettingError(
            f"Channel {channel.name}: center {error.row} of the model has only zeros, and no direction: a job with "
            f"distance_metric={distance_metric} can't start from it."
        ) from None


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_file()] if folder.is_dir() else []
