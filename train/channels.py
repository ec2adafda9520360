"""A channel to blocks of rows; here in File and FastFile mode, and in ``train.pipe`` in Pipe mode.

All regular files of the channel's folder and its sub-folders are read, sorted by path; hidden ones are not, and empty
ones count as no data. Each pass opens each file once and reads it forward: in FastFile mode that is a request to S3.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path

from kmeans.arrays import Float32
from kmeans.errors import DataError, NoDataError, SettingError, shown
from kmeans.formats.pieces import Prepare
from kmeans.narrowing import Narrowing
from train.config import PIPE_MODE, Channel
from train.files import FileReader, OnProgress, declared_type
from train.pipe import PipeReader
from train.reader import Reader

INPUT_MODES = ("File", "FastFile", PIPE_MODE)


def reader(
    channel: Channel,
    feature_dim: int | None,
    on_progress: OnProgress | None = None,
    prepare: Prepare | None = None,
    narrowing: Narrowing | None = None,
) -> Reader:
    """Return what reads ``channel``; its parameters are those of :class:`train.reader.Reader`.

    Raises
    ------
    kmeans.errors.SettingError
        If the channel's input mode or content type is not known here, or it should have files and has none.
    """
    if channel.is_pipe:
        check_channel(channel)
        return PipeReader(channel, feature_dim, on_progress, prepare, narrowing)
    return ChannelReader(channel, feature_dim, on_progress, prepare, narrowing)


class ChannelReader(Reader):
    """The rows of a channel's files, to be read again and again; parameters and attributes as of a ``Reader``.

    The files are listed here and now, and then no more.

    Raises
    ------
    kmeans.errors.SettingError
        If the channel has no files, or a content type or input mode that is not known here.
    """

    def __init__(
        self,
        channel: Channel,
        feature_dim: int | None,
        on_progress: OnProgress | None = None,
        prepare: Prepare | None = None,
        narrowing: Narrowing | None = None,
    ) -> None:
        super().__init__(channel, feature_dim, on_progress, prepare, narrowing)
        self._paths = list_files(channel)
        self._sizes: dict[Path, tuple[int, int]] = {}  # rows and columns of each file that was read to its end

    def blocks(self) -> Generator[Float32, None, None]:
        """Yield all rows as blocks (b, d) float32, file by file; each is valid until the next one is asked for.

        Raises
        ------
        kmeans.errors.SettingError
            If all files are empty, or the content type has parameters that don't fit.
        kmeans.errors.DataError
            If a file can't be read, has other columns than those before it, or is not what it was in the first pass;
            the error names it, and the row and column that are wrong.
        """
        rows = files = size = 0
        for index, path in enumerate(self._paths):
            where = f"{index} of {len(self._paths)} files"
            self._tell(where)
            file = FileReader(
                path,
                self._channel.content_type,
                self._feature_dim,
                prepare=self._prepare,
                narrowing=self._narrowing,
            )
            known = self._sizes.get(path)
            with closing(file.blocks()) as blocks:
                for block in blocks:
                    self._tell(where)
                    if known and (file.rows > known[0] or file.columns != known[1]):
                        raise _changed(file, known)
                    self._note(file, block)
                    yield block
            if known and (file.rows, file.columns) != known:
                raise _changed(file, known)
            self._sizes[path] = file.rows, file.columns
            rows, files, size = rows + file.rows, files + (file.columns > 0), size + file.bytes
        if not files:
            raise all_files_are_empty(self._channel, len(self._paths))
        self.rows, self.files, self.bytes = rows, files, size


def check_channel(channel: Channel) -> None:
    """Raise a SettingError if the input mode or content type of ``channel`` is not known here."""
    try:
        declared_type(channel.content_type)
    except SettingError as error:
        raise SettingError(f"Channel {channel.name}: {error}") from None
    if channel.input_mode not in INPUT_MODES:
        raise SettingError(
            f"Channel {channel.name}: input mode {shown(channel.input_mode)} is not supported: "
            f"use {' or '.join(INPUT_MODES)}."
        )


def list_files(channel: Channel) -> list[Path]:
    """Return the files of ``channel``, sorted by path; whether they hold data comes out when they are read.

    Raises
    ------
    kmeans.errors.SettingError
        If there are none, or the channel's input mode or content type is not known here.
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
    """Return the error of a ``channel`` none of whose ``files`` held data."""
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
