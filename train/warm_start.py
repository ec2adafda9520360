"""The channel ``model``: an earlier model, from whose centers a job starts."""

from __future__ import annotations

import tarfile
import tempfile
import zlib
from pathlib import Path

from kmeans import artifact
from kmeans.errors import DataError, ModelError, SettingError, reason, shown
from kmeans.metric import MetricName
from kmeans.model import KMeansModel
from train.config import Channel

ARCHIVE_SUFFIXES = (".tar.gz", ".tgz", ".tar")

# An archive of a model is small: k x d float32 and a page of JSON.
MAX_ARCHIVE_BYTES = 4 << 30
MAX_MEMBERS = 100


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
    if archives:
        with tempfile.TemporaryDirectory() as unpacked:
            _unpack(archives[0], Path(unpacked))
            model = artifact.load(Path(unpacked))
    else:
        model = artifact.load(folder)
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


def _unpack(archive: Path, folder: Path) -> None:
    """Unpack the regular files of ``archive``; nothing of it may lie outside of ``folder``, or be of any size."""
    try:
        with tarfile.open(archive) as tar:
            left = MAX_ARCHIVE_BYTES
            for number, member in enumerate(tar):
                left -= member.size
                if left < 0 or number >= MAX_MEMBERS:
                    raise ModelError(
                        f"The model {archive} is too large: expected at most {MAX_MEMBERS} files and "
                        f"{MAX_ARCHIVE_BYTES >> 30} GB, unpacked."
                    )
                if member.isfile():
                    tar.extract(member, folder, filter="data")
    except tarfile.FilterError as error:
        name = shown(error.tarinfo.name)
        raise ModelError(f"The model {archive} can't be unpacked: its file {name} would lie elsewhere.") from None
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise ModelError(f"The model {archive} can't be unpacked: {reason(error)}.") from None
