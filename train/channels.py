"""A channel to batches of rows, in File and FastFile mode; :mod:`train.pipe` does it in Pipe mode.

All regular files of the channel's folder and its sub-folders are read, sorted by path; hidden ones are not, and empty
ones count as no data. Each pass opens each file once and reads it forward: in FastFile mode that is a request to S3.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path

from kmeans.arrays import Float32
from kmeans.errors import DataError, NoDataError, SettingError, shown
from train.config import PIPE_MODE, Channel
from train.files import FileReader, ReadOptions, check_columns, declared_format

INPUT_MODES = ("File", "FastFile", PIPE_MODE)


class Reader(ABC):
    """The rows of a channel, pass after pass.

    Parameters
    ----------
    channel
        The channel that is read.
    options
        What happens to the rows.

    Attributes
    ----------
    features
        Number of columns of a batch, d; 0 before the first batch.
    rows, bytes
        Number of rows, and of their bytes as stored, in the last complete pass; 0 before.
    files
        Number of files with data in that pass, or of pipes that were read to their ends in all passes.
    content_type
        Media type of the last file or pipe.
    label_columns
        Number of columns at the front that are skipped as labels.

    Raises
    ------
    kmeans.errors.SettingError
        If the channel's input mode or content type is not known.
    """

    def __init__(self, channel: Channel, options: ReadOptions) -> None:
        check_channel(channel)
        self.features = self.rows = self.files = self.bytes = self.label_columns = 0
        self.content_type = ""
        self._channel = channel
        self._options = options
        self._first: FileReader | None = None  # whose columns all others must have

    @abstractmethod
    def batches(self) -> Generator[Float32, None, None]:
        """Yield the rows of one pass as batches (b, d) float32, each valid until the next one is asked for."""

    def _note(self, file: FileReader, batch: Float32) -> None:
        """Remember what a ``batch`` of ``file`` is like; raise a DataError if it has other columns than the first."""
        self._first = self._first or file
        check_columns(file, self._first, f"as in {self._first.path}")
        self.features, self.label_columns = batch.shape[1], file.label_columns
        self.content_type = file.content_type


class ChannelReader(Reader):
    """The rows of a channel's files, the same in each pass; parameters and attributes are those of ``Reader``.

    The files are listed once, here.

    Raises
    ------
    kmeans.errors.SettingError
        If the channel has no files, or a content type or input mode that is not known.
    """

    def __init__(self, channel: Channel, options: ReadOptions) -> None:
        super().__init__(channel, options)
        self._paths = list_files(channel)
        self._sizes: dict[Path, tuple[int, int]] = {}  # rows and columns of each file that was read to its end

    def batches(self) -> Generator[Float32, None, None]:
        """Yield all rows as batches (b, d) float32, file by file; each is valid until the next one is asked for.

        Raises
        ------
        kmeans.errors.SettingError
            If all files are empty, or the content type has parameters that don't fit.
        kmeans.errors.DataError
            If a file can't be read, has other columns than those before it, or has changed since the first pass;
            the error names it, and the row and column that are wrong.
        """
        rows = files = size = 0
        for index, path in enumerate(self._paths):
            where = f"{index} of {len(self._paths)} files"
            self._options.on_progress(where)
            file = FileReader(path, self._channel.content_type, self._options)
            known = self._sizes.get(path)
            with closing(file.batches()) as batches:
                for batch in batches:
                    self._options.on_progress(where)
                    if known and (file.rows > known[0] or file.columns != known[1]):
                        raise _changed(file, known)
                    self._note(file, batch)
                    yield batch
            if known and (file.rows, file.columns) != known:
                raise _changed(file, known)
            self._sizes[path] = file.rows, file.columns
            rows, files, size = rows + file.rows, files + (file.columns > 0), size + file.bytes
        if not files:
            raise all_files_are_empty(self._channel, len(self._paths))
        self.rows, self.files, self.bytes = rows, files, size


def check_channel(channel: Channel) -> None:
    """Raise a SettingError if the input mode or content type of ``channel`` is not known."""
    try:
        declared_format(channel.content_type)
    except SettingError as error:
        raise SettingError(f"Channel {channel.name}: {error}") from None
    if channel.input_mode not in INPUT_MODES:
        raise SettingError(
            f"Channel {channel.name}: input mode {shown(channel.input_mode)} is not supported: "
            f"use {' or '.join(INPUT_MODES)}."
        )


def list_files(channel: Channel) -> list[Path]:
    """Return the files of ``channel``, sorted by path; some may turn out to be empty.

    Raises
    ------
    kmeans.errors.SettingError
        If there are none, or the channel's input mode or content type is not known.
    """
    check_channel(channel)
    folder = channel.directory
    if not folder.is_dir():
        raise NoDataError(f"Channel {channel.name} has no data: there is no folder {folder}.")
    files = sorted(_visible_files(folder))
    if not files:
        manifest = any(folder.rglob("*.manifest"))
        what = "there is only a manifest, not the files that it names" if manifest else "it is empty"
        raise _no_data(channel, what)
    return files


def all_files_are_empty(channel: Channel, files: int) -> NoDataError:
    """Return the error for a ``channel`` of which all ``files`` are empty."""
    return _no_data(channel, f"all {files} of its files are empty")


def _no_data(channel: Channel, what: str) -> NoDataError:
    return NoDataError(
        f"Channel {channel.name} has no data: {channel.directory} was searched, and {what}. "
        "Does the S3 prefix of the channel name the right objects?"
    )


def _visible_files(folder: Path) -> Iterator[Path]:
    """Yield the files of ``folder`` and its sub-folders; the kind of each entry comes with its name, without a stat."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _visible_files(Path(entry.path))
            elif entry.is_file():
                yield Path(entry.path)


def _changed(file: FileReader, known: tuple[int, int]) -> DataError:
    rows, columns = known
    if file.rows and file.columns != columns:
        found = f"expected {columns} columns, found {file.columns}"
    else:
        found = f"expected {rows} rows, found {'more' if file.rows > rows else file.rows}"
    hint = "Nothing may write to the data while a job reads them."
    return DataError(f"the file has changed since it was first read: {found}", source=str(file.path), hint=hint)
