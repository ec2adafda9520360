"""A channel to points, in File and FastFile mode.

All regular files of the channel's folder and its sub-folders are read, sorted by path; hidden and empty files are not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kmeans.arrays import Float32
from kmeans.errors import DataError, SettingError, shown
from train.contract import Channel
from train.files import FileData, declared_type, read_file

INPUT_MODES = ("File", "FastFile")

OnFile = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class ChannelData:
    """All rows of a channel, and where they came from.

    Attributes
    ----------
    points
        float32 (n, d).
    files, bytes
        Number and size of the files read.
    content_type
        Media type by which they were read.
    label_columns
        How many leading columns of each CSV row were passed over as labels.
    """

    points: Float32
    files: int
    bytes: int
    content_type: str
    label_columns: int


def read(channel: Channel, feature_dim: int | None, on_file: OnFile | None = None) -> ChannelData:
    """Read all rows of ``channel``, each of ``feature_dim`` columns (None: as many as the first file has).

    ``on_file`` is called before each file with the number of files read and of all files.

    Raises
    ------
    kmeans.errors.SettingError
        If the channel has no data, or a content type or input mode that is not known here.
    kmeans.errors.DataError
        If a file can't be read; the error names it, and the row and column that are wrong.
    """
    files = list_files(channel)
    read_files: list[FileData] = []
    for done, path in enumerate(files):
        if on_file is not None:
            on_file(done, len(files))
        data = read_file(path, channel.content_type, feature_dim)
        read_files.append(data)
        if data.columns != read_files[0].columns:
            expected = f"expected {read_files[0].columns} columns as in {files[0]}"
            raise DataError(f"{expected}, found {data.columns}", source=str(path))
    parts = [data.points for data in read_files]
    last = read_files[-1]
    return ChannelData(
        points=parts[0] if len(parts) == 1 else np.concatenate(parts),
        files=len(files),
        bytes=sum(data.bytes for data in read_files),
        content_type=last.content_type,
        label_columns=last.label_columns,
    )


def list_files(channel: Channel) -> list[Path]:
    """Return the files of ``channel`` that hold data, sorted by path.

    Raises
    ------
    kmeans.errors.SettingError
        If there are none, or the channel's input mode or content type is not known here.
    """
    try:
        declared_type(channel.content_type)
    except SettingError as error:
        raise SettingError(f"Channel {channel.name}: {error}") from None
    if channel.input_mode not in INPUT_MODES:
        raise SettingError(
            f"Channel {channel.name}: input mode {shown(channel.input_mode)} is not supported: "
            f"use {' or '.join(INPUT_MODES)}."
        )
    folder = channel.directory
    if not folder.is_dir():
        raise SettingError(f"Channel {channel.name} has no data: there is no folder {folder}.")
    visible = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    files = [path for path in visible if path.stat().st_size]
    if not files:
        if visible:
            what = f"all {len(visible)} of its files are empty"
        elif any(folder.rglob("*.manifest")):
            what = "there is only a manifest, not the files that it names"
        else:
            what = "it is empty"
        raise SettingError(
            f"Channel {channel.name} has no data: {folder} was searched, and {what}. "
            "Does the S3 prefix of the channel name the right objects?"
        )
    return files
