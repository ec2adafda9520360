"""A channel's files to points, in File and FastFile mode.

All regular files of the channel's folder and its sub-folders are read, sorted by path; hidden and empty files are not.
"""

from __future__ import annotations

import codecs
import gzip
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kmeans.arrays import Float32
from kmeans.errors import DataError, SettingError, shown
from kmeans.formats import csv, jsonlines, npy, recordio
from kmeans.formats.media_type import MediaType
from train.contract import Channel

RECORDIO_TYPE, CSV_TYPE = "application/x-recordio-protobuf", "text/csv"
JSON_LINES_TYPE, NPY_TYPE = "application/jsonlines", "application/x-npy"
GZIP_MAGIC = b"\x1f\x8b"
LABEL_SIZE = "label_size"

# What reads a file; the number of features, if it is known, is what sparse vectors must have.
DECODERS: dict[str, Callable[[bytes, int | None], Float32]] = {
    RECORDIO_TYPE: recordio.decode,
    CSV_TYPE: lambda content, _: csv.decode(content),
    JSON_LINES_TYPE: lambda content, features: jsonlines.decode(content, features).points,
    NPY_TYPE: lambda content, _: npy.decode(content),
}
ALIASES = {
    "csv": CSV_TYPE,
    "application/csv": CSV_TYPE,
    "x-recordio-protobuf": RECORDIO_TYPE,
    "application/jsonl": JSON_LINES_TYPE,
    "application/x-jsonlines": JSON_LINES_TYPE,
    "application/x-ndjson": JSON_LINES_TYPE,
}
TEXT_TYPES = (CSV_TYPE, JSON_LINES_TYPE)
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
    if channel.input_mode not in INPUT_MODES:
        raise SettingError(
            f"Channel {channel.name}: input mode {shown(channel.input_mode)} is not supported: "
            f"use {' or '.join(INPUT_MODES)}."
        )
    declared = _declared_type(channel)
    files = list_files(channel)
    parts: list[Float32] = []
    size = labels = 0
    for done, path in enumerate(files):
        if on_file is not None:
            on_file(done, len(files))
        content = path.read_bytes()
        size += len(content)
        try:
            if content.startswith(GZIP_MAGIC):
                content = _inflated(content)
            kind = declared or _sniffed_type(content)
            if kind in TEXT_TYPES:
                content = _as_utf8(content, channel.content_type)
            table = DECODERS[kind](content, feature_dim)
            labels = _label_columns(table.shape[1], kind, channel.content_type, feature_dim)
            if parts and table.shape[1] - labels != parts[0].shape[1]:
                raise DataError(
                    f"expected {parts[0].shape[1]} columns as in {files[0]}, found {table.shape[1] - labels}"
                )
        except DataError as error:
            raise error.within(str(path)) from None
        parts.append(np.ascontiguousarray(table[:, labels:]))
    points = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return ChannelData(points, len(files), size, kind, labels)


def list_files(channel: Channel) -> list[Path]:
    """Return the files of ``channel`` that hold data, sorted by path.

    Raises
    ------
    kmeans.errors.SettingError
        If there are none.
    """
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


def _declared_type(channel: Channel) -> str | None:
    name = channel.content_type.name
    if not name:
        return None
    kind = ALIASES.get(name, name)
    if kind not in DECODERS:
        raise SettingError(
            f"Channel {channel.name}: No iterator has been registered for ContentType {shown(name)}: "
            f"use {' or '.join(DECODERS)}."
        )
    return kind


def _sniffed_type(content: bytes) -> str:
    """Tell the type of a file whose channel doesn't: by the magic numbers of RecordIO and NPY, or by being text."""
    if recordio.looks_like(content):
        return RECORDIO_TYPE
    if content.startswith(npy.MAGIC):
        return NPY_TYPE
    if b"\0" not in content[:4096]:
        return JSON_LINES_TYPE if content.lstrip()[:1] in (b"{", b"[") else CSV_TYPE
    raise DataError(
        "the file is neither RecordIO-protobuf, NPY nor text",
        hint=f"Set the channel's content type to {' or '.join(DECODERS)}, and check what was uploaded.",
    )


def _inflated(content: bytes) -> bytes:
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"expected gzip, but {error}", hint="Was the file cut off?") from None


def _as_utf8(content: bytes, content_type: MediaType) -> bytes:
    """Return a text in UTF-8; its encoding is what the content type says (``encoding`` or ``charset``), else UTF-8."""
    encoding = content_type.parameters.get("encoding") or content_type.parameters.get("charset") or "utf-8"
    try:
        if codecs.lookup(encoding).name in ("utf-8", "ascii"):
            return content  # the decoder says what is wrong, if anything is, by row and column
        return content.decode(encoding).encode()
    except LookupError:
        raise SettingError(f"Content type: encoding {shown(encoding)} is not known.") from None
    except UnicodeDecodeError as error:
        raise DataError(f"expected text in {encoding}, but {error.reason}", offset=error.start) from None


def _label_columns(columns: int, kind: str, content_type: MediaType, feature_dim: int | None) -> int:
    """Return how many leading columns are labels; raise a DataError if the rest aren't ``feature_dim`` columns.

    ``label_size`` of the content type decides. Where it is missing, SageMaker's habit is one label in front, but rows
    that have just ``feature_dim`` columns show that there is none.
    """
    declared = content_type.parameters.get(LABEL_SIZE) if kind == CSV_TYPE else "0"
    if declared is not None and not declared.isdigit():
        raise SettingError(f"Content type: expected a number for {LABEL_SIZE}, found {shown(declared)}.")
    if feature_dim is None:
        labels = int(declared or 0)
        if columns <= labels:
            raise DataError(f"expected more than {labels} columns (label_size={labels}), found {columns}")
        return labels
    possible = (0, 1) if declared is None else (int(declared),)
    if columns - feature_dim not in possible:
        expected = f"{feature_dim} columns (feature_dim)"
        if declared and int(declared):
            expected = f"{feature_dim + int(declared)} columns (feature_dim + label_size)"
        raise DataError(f"expected {expected}, found {columns}", hint="Set feature_dim to the width of the data.")
    return columns - feature_dim
