"""One file of a channel to batches of rows: its format, its compression, its encoding, its labels."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kmeans.arrays import Float32
from kmeans.errors import DataError, SettingError, shown
from kmeans.formats.batches import Prepare, equal_batches
from kmeans.formats.buffer import HEAD_BYTES, Buffer, Stream
from kmeans.formats.format import Format
from kmeans.formats.media_type import MediaType
from kmeans.formats.registry import FORMATS
from kmeans.narrowing import Narrowing
from train.byte_streams import GZIP_MAGIC, PACKED_BYTES, UnpackedStream, Utf8Stream

LABEL_SIZE = "label_size"

# Is called with words about how far a reader is.
OnProgress = Callable[[str], None]

# Opens the file at a path.
Opener = Callable[[Path], AbstractContextManager[Stream]]


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """What the readers of a channel do with its rows.

    Attributes
    ----------
    feature_dim
        Columns of each row; None for any number, but the same in all.
    on_progress
        Is called again and again in each pass; an error that it raises ends the pass.
    prepare
        Changes rows without their labels in place; its errors get the file and the row.
    narrowing
        Gives the rows coordinates; None leaves them as they are.
    """

    feature_dim: int | None = None
    on_progress: OnProgress = lambda _: None
    prepare: Prepare | None = None
    narrowing: Narrowing | None = None


def _open_file(path: Path) -> AbstractContextManager[Stream]:
    return path.open("rb", buffering=0)


class FileReader:
    """One file, read once from its beginning to its end; its size isn't needed.

    Parameters
    ----------
    path
        A file.
    content_type
        The channel's; if it is empty, the format is detected from the first bytes. gzip is always detected.
    options
        What happens to the rows.
    opener
        Opens ``path`` when the first batch is asked for. The file is closed when no further batch is wanted.

    Attributes
    ----------
    path
        As given.
    rows
        Rows of the batches so far.
    columns
        Number of columns in the file, labels included; 0 before the first batch.
    label_columns
        Number of columns at the front that are skipped as labels.
    content_type
        Media type of the file's format; empty before the first batch.
    """

    def __init__(
        self,
        path: Path,
        content_type: MediaType,
        options: ReadOptions,
        opener: Opener = _open_file,
    ) -> None:
        self.path = path
        self.rows = self.columns = self.label_columns = 0
        self.content_type = ""
        self._declared = content_type
        self._options = options
        self._open = opener
        self._stored: Buffer | None = None

    @property
    def bytes(self) -> int:
        """Bytes read so far, as they are stored."""
        return 0 if self._stored is None else self._stored.bytes_seen

    def batches(self) -> Generator[Float32, None, None]:
        """Yield the rows as batches (b, d), each valid until the next one is asked for; none if the file is empty.

        Raises
        ------
        kmeans.errors.SettingError
            If the content type is not known.
        kmeans.errors.DataError
            If the file isn't of its format; the error names the file, and the row and column that are wrong.
        """
        declared = declared_format(self._declared)
        try:
            with self._open(self.path) as file:
                self._stored = Buffer(file)
                if self._stored.peek(1):
                    yield from self._read(self._stored, declared)
        except DataError as error:
            raise error.within(str(self.path)) from None

    def _read(self, buffer: Buffer, declared: Format | None) -> Iterator[Float32]:
        if buffer.peek(len(GZIP_MAGIC)) == GZIP_MAGIC:
            buffer.reserve(PACKED_BYTES)
            buffer = Buffer(UnpackedStream(buffer))
        form = declared or _detected_format(buffer.peek(HEAD_BYTES))
        encoding = _other_encoding(self._declared) if form.is_text else None
        if encoding:
            buffer = Buffer(Utf8Stream(buffer, encoding))

        def count_labels(columns: int) -> int:
            self.label_columns = _label_columns(columns, form, self._declared, self._options.feature_dim)
            self.columns, self.content_type = columns, form.media_type
            return self.label_columns

        narrowing = self._options.narrowing
        if narrowing is not None and narrowing.is_idle:
            narrowing = None
        parsed = form.read_rows(buffer, self._options.feature_dim, wide=narrowing is not None)
        for batch in equal_batches(parsed, self._options.prepare, narrowing, count_labels):
            self.rows += len(batch)
            yield np.ascontiguousarray(batch[:, self.label_columns :])


def check_columns(file: FileReader, first: FileReader, where: str) -> None:
    """Raise a DataError if ``file`` has other columns than ``first``; ``where`` says which file that is."""
    if file.columns != first.columns:
        raise DataError(f"expected {first.columns} columns {where}, found {file.columns}", source=str(file.path))


def declared_format(content_type: MediaType) -> Format | None:
    """Return the format that a channel declares, None if it declares none; raise a SettingError if it isn't known."""
    name = content_type.name
    if not name:
        return None
    form = FORMATS.find(name)
    if form is None or not form.is_of_training:
        raise SettingError(f"No iterator has been registered for ContentType {shown(name)}: use {_known_types()}.")
    return form


def _detected_format(head: bytes) -> Format:
    """Return the format of a file whose channel declares none, by its first bytes."""
    form = FORMATS.detect(head)
    if form is None:
        binary = ", ".join(form.name for form in FORMATS.of_training() if form.magic)
        raise DataError(
            f"the file is neither {binary} nor text",
            hint=f"Set the channel's content type to {_known_types()}, and check what was uploaded.",
        )
    return form


def _known_types() -> str:
    return " or ".join(form.media_type for form in FORMATS.of_training())


def _other_encoding(content_type: MediaType) -> str | None:
    """Return the encoding of a text (``encoding`` or ``charset`` of the content type), None if it is UTF-8."""
    encoding = content_type.parameters.get("encoding") or content_type.parameters.get("charset") or "utf-8"
    try:
        if codecs.lookup(encoding).name in ("utf-8", "ascii"):
            return None  # the format's reader reports invalid bytes by row and column
        "0".encode(encoding)  # Python also has encodings that aren't encodings of text
    except (LookupError, ValueError):
        raise SettingError(f"Content type: encoding {shown(encoding)} is not known.") from None
    return encoding


def _label_columns(columns: int, form: Format, content_type: MediaType, feature_dim: int | None) -> int:
    """Return the number of columns at the front that are labels.

    ``label_size`` of the content type decides. Without it, SageMaker's convention is one label at the front, but rows
    of exactly ``feature_dim`` columns have none.

    Raises
    ------
    kmeans.errors.SettingError
        If ``label_size`` isn't a number.
    kmeans.errors.DataError
        If the other columns aren't ``feature_dim`` columns, or there are none.
    """
    declared = content_type.parameters.get(LABEL_SIZE) if form.has_label_columns else "0"
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
