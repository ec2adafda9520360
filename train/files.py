"""One file of a channel to points: its type, its compression, its encoding, its labels."""

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
from kmeans.formats.media_type import CSV, JSON_LINES, NPY, RECORDIO, MediaType

GZIP_MAGIC = b"\x1f\x8b"
LABEL_SIZE = "label_size"

# What reads a file; the number of features, if it is known, is what sparse vectors must have.
DECODERS: dict[str, Callable[[bytes, int | None], Float32]] = {
    RECORDIO: recordio.decode,
    CSV: lambda content, _: csv.decode(content),
    JSON_LINES: lambda content, features: jsonlines.decode(content, features).points,
    NPY: lambda content, _: npy.decode(content),
}
TEXT_TYPES = (CSV, JSON_LINES)


@dataclass(frozen=True, slots=True)
class FileData:
    """The rows of a file.

    Attributes
    ----------
    points
        float32 (n, d).
    bytes
        Size of the file.
    content_type
        Media type by which it was read.
    label_columns
        How many leading columns of each CSV row were passed over as labels.
    """

    points: Float32
    bytes: int
    content_type: str
    label_columns: int

    @property
    def columns(self) -> int:
        """Number of columns in the file, labels included."""
        return int(self.points.shape[1]) + self.label_columns


def read_file(path: Path, content_type: MediaType, feature_dim: int | None) -> FileData:
    """Read the rows of ``path``, each of ``feature_dim`` columns (None: any number, but all the same).

    ``content_type`` is what the channel declares; if that is nothing, the type is told from the bytes. gzip is too.

    Raises
    ------
    kmeans.errors.SettingError
        If the content type is not known here.
    kmeans.errors.DataError
        If the file isn't what its type promises; the error names it, and the row and column that are wrong.
    """
    declared = declared_type(content_type)
    content = path.read_bytes()
    size = len(content)
    try:
        if content.startswith(GZIP_MAGIC):
            content = _inflated(content)
        kind = declared or _sniffed_type(content)
        if kind in TEXT_TYPES:
            content = _as_utf8(content, content_type)
        table = DECODERS[kind](content, feature_dim)
        labels = _label_columns(table.shape[1], kind, content_type, feature_dim)
    except DataError as error:
        raise error.within(str(path)) from None
    return FileData(np.ascontiguousarray(table[:, labels:]), size, kind, labels)


def declared_type(content_type: MediaType) -> str | None:
    """Return the type that a channel declares, None if it declares none; raise a SettingError if it is not known."""
    name = content_type.name
    if name and name not in DECODERS:
        raise SettingError(
            f"No iterator has been registered for ContentType {shown(name)}: use {' or '.join(DECODERS)}."
        )
    return name or None


def _sniffed_type(content: bytes) -> str:
    """Tell the type of a file whose channel doesn't: by the magic numbers of RecordIO and NPY, or by being text."""
    if recordio.looks_like(content):
        return RECORDIO
    if content.startswith(npy.MAGIC):
        return NPY
    if b"\0" not in content[:4096]:
        return JSON_LINES if content.lstrip()[:1] in (b"{", b"[") else CSV
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
    declared = content_type.parameters.get(LABEL_SIZE) if kind == CSV else "0"
    if declared is not None and not (declared.isascii() and declared.isdigit()):
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
