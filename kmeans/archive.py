"""A model as one file: the ``model.tar.gz`` that a training job leaves."""

from __future__ import annotations

import tarfile
import tempfile
import zlib
from pathlib import Path

from kmeans import artifact
from kmeans.errors import ModelError, reason, shown
from kmeans.model import KMeansModel

# An archive of a model is small: k x d float32 and a page of JSON.
MAX_ARCHIVE_BYTES = 4 << 30
MAX_MEMBERS = 100


def load(archive: Path) -> KMeansModel:
    """Read the model in ``archive``, a tar file with or without compression.

    Raises
    ------
    kmeans.errors.ModelError
        If it can't be unpacked, is too large, has files that would be written elsewhere, or holds no model.
    """
    with tempfile.TemporaryDirectory() as unpacked:
        _unpack(archive, Path(unpacked))
        try:
            return artifact.load(Path(unpacked))
        except ModelError as error:
            # The folder doesn't exist any more when the message is read.
            raise ModelError(str(error).replace(unpacked, str(archive))) from None


def _unpack(archive: Path, folder: Path) -> None:
    """Unpack the regular files of ``archive``; no file may be written elsewhere, and all have limits."""
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
