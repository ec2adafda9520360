"""One file of a channel to blocks of rows: its type, its compression, its encoding, its labels."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kmeans.arrays import Float32
from kmeans.errors import DataError, SettingError, shown
from kmeans.formats import csv, jsonlines, npy, recordio
from kmeans.formats.buffer import Stream
from kmeans.formats.media_type import CSV, JSON_LINES, NPY, RECORDIO, MediaType
from kmeans.formats.pieces import Narrower, Prepare
from kmeans.narrowing import Narrowing
from train.byte_streams import GZIP_MAGIC, ForwardStream, UnpackedStream, Utf8Stream

LABEL_SIZE = "label_size"

# What reads a file; the number of features, if it is known, is what sparse vectors must have.
READERS: dict[str, Callable[[Stream, int | None, Prepare | None, Narrower | None], Iterator[Float32]]] = {
    RECORDIO: recordio.read_blocks,
    CSV: lambda stream, _, prepare, narrower: csv.read_blocks(stream, prepare, narrower),
    JSON_LINES: jsonlines.read_blocks,
    NPY: lambda stream, _, prepare, narrower: npy.read_blocks(stream, prepare, narrower),
}
TEXT_TYPES = (CSV, JSON_LINES)

# Bytes by which a type is told.
HEAD_BYTES = 4096

# Hears, in words, where a reader is.
OnProgress = Callable[[str], None]

# Opens what a path names.
Opener = Callable[[Path], AbstractContextManager[Stream]]


def _open_file(path: Path) -> AbstractContextManager[Stream]:
    return path.open("rb", buffering=0)


class FileReader:
    """One file, read once from its beginning to its end: neither its size is asked for nor is anything read twice.

    Parameters
    ----------
    path
        A file.
    content_type
        What the channel declares; if that is nothing, the type is told from the bytes. gzip is too.
    feature_dim
        Columns of each row; None for any number, but the same in all.
    opener
        Opens ``path`` when the first block is asked for; it is closed when the last one was given, or none is wanted.
    prepare
        Changes rows without their labels in place, before they are yielded; its errors get the file and the row.
    narrowing
        Gives the rows coordinates; None leaves them as they are.

    Attributes
    ----------
    path
        As given.
    rows
        Rows of the blocks so far.
    columns
        Number of columns in the file, labels included; 0 until the first block.
    label_columns
        How many leading columns of each CSV row are passed over as labels.
    content_type
        Media type by which it is read; empty until the first block.
    """

    def __init__(
        self,
        path: Path,
        content_type: MediaType,
        feature_dim: int | None,
        opener: Opener = _open_file,
        prepare: Prepare | None = None,
        *,
        narrowing: Narrowing | None = None,
    ) -> None:
        self.path = path
        self.rows = self.columns = self.label_columns = 0
        self.content_type = ""
        self._declared = content_type
        self._feature_dim = feature_dim
        self._open = opener
        self._prepare = prepare
        self._narrowing = narrowing
        self._stored: ForwardStream | None = None

    @property
    def bytes(self) -> int:
        """Bytes read so far, as they are stored."""
        return self._stored.taken if self._stored else 0

    def blocks(self) -> Generator[Float32, None, None]:
        """Yield the rows as blocks (b, d), each valid until the next one is asked for; none if the file is empty.

        Raises
        ------
        kmeans.errors.SettingError
            If the content type is not known here.
        kmeans.errors.DataError
            If the file isn't what its type promises; the error names it, and the row and column that are wrong.
        """
        declared = declared_type(self._declared)
        try:
            with self._open(self.path) as file:
                self._stored = ForwardStream(file)
                if self._stored.peek(1):
                    yield from self._read(self._stored, declared)
        except DataError as error:
            raise error.within(str(self.path)) from None

    def _read(self, stream: ForwardStream, declared: str | None) -> Iterator[Float32]:
        if stream.peek(len(GZIP_MAGIC)) == GZIP_MAGIC:
            stream = ForwardStream(UnpackedStream(stream))
        kind = declared or _sniffed_type(stream.peek(HEAD_BYTES))
        text_encoding = _other_encoding(self._declared) if kind in TEXT_TYPES else None
        content = Utf8Stream(stream, text_encoding) if text_encoding else stream

        def note(columns: int) -> None:
            if not self.columns:
                self.label_columns = _label_columns(columns, kind, self._declared, self._feature_dim)
                self.columns, self.content_type = columns, kind

        def prepare(rows: Float32) -> None:
            note(rows.shape[1])
            if self._prepare is not None:
                self._prepare(rows[:, self.label_columns :])

        narrower = None
        if self._narrowing is not None and not self._narrowing.is_idle:
            narrower = _BehindLabels(self._narrowing, lambda columns: self._count_labels(columns, kind))
        for block in READERS[kind](content, self._feature_dim, prepare if self._prepare else None, narrower):
            note(block.shape[1])
            self.rows += len(block)
            yield np.ascontiguousarray(block[:, self.label_columns :])

    def _count_labels(self, columns: int, kind: str) -> int:
        """Return the number of labels in front; 0 where an error follows."""
        try:
            return _label_columns(columns, kind, self._declared, self._feature_dim)
        except (DataError, SettingError):
            return 0


class _BehindLabels:
    """Gives the rows of a file coordinates, except for their labels."""

    def __init__(self, narrowing: Narrowing, labels: Callable[[int], int]) -> None:
        self._narrowing = narrowing
        self._count_labels = labels
        self._labels: int | None = None

    @property
    def is_settled(self) -> bool:
        """Whether the coordinates are chosen."""
        return self._narrowing.is_settled

    def see(self, rows: NDArray[Any]) -> None:
        """Take note of the rows (n, columns)."""
        if self._labels is None:
            self._labels = self._count_labels(rows.shape[1])
        self._narrowing.see(rows[:, self._labels :])

    def settle(self) -> bool:
        """Choose the coordinates."""
        return self._narrowing.settle()

    def write(self, rows: NDArray[Any], points: Float32) -> None:
        """Write the rows' coordinates into ``points``, and leave the labels."""
        labels = self._labels or 0
        try:
            self._narrowing.write(rows[:, labels:], points[:, labels:])
        except DataError as error:
            error.column = (error.column or 1) + labels
            raise


def check_columns(file: FileReader, first: FileReader, where: str) -> None:
    """Raise a DataError if ``file`` has other columns than ``first``, of which ``where`` says which file that is."""
    if file.columns != first.columns:
        raise DataError(f"expected {first.columns} columns {where}, found {file.columns}", source=str(file.path))


def declared_type(content_type: MediaType) -> str | None:
    """Return the type that a channel declares, None if it declares none; raise a SettingError if it is not known."""
    name = content_type.name
    if name and name not in READERS:
        raise SettingError(
            f"No iterator has been registered for ContentType {shown(name)}: use {' or '.join(READERS)}."
        )
    return name or None


def _sniffed_type(head: bytes) -> str:
    """Tell the type of a file whose channel doesn't: by the magic numbers of RecordIO and NPY, or by being text."""
    if recordio.looks_like(head):
        return RECORDIO
    if head.startswith(npy.MAGIC):
        return NPY
    if b"\0" not in head:
        return JSON_LINES if head.lstrip()[:1] in (b"{", b"[") else CSV
    raise DataError(
        "the file is neither RecordIO-protobuf, NPY nor text",
        hint=f"Set the channel's content type to {' or '.join(READERS)}, and check what was uploaded.",
    )


def _other_encoding(content_type: MediaType) -> str | None:
    """Return the encoding of a text (``encoding`` or ``charset`` of the content type), None if it is UTF-8."""
    encoding = content_type.parameters.get("encoding") or content_type.parameters.get("charset") or "utf-8"
    try:
        if codecs.lookup(encoding).name in ("utf-8", "ascii"):
            return None  # the reader says what is wrong, if anything is, by row and column
        "0".encode(encoding)  # Python also has encodings that are none of text
    except (LookupError, ValueError):
        raise SettingError(f"Content type: encoding {shown(encoding)} is not known.") from None
    return encoding


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
