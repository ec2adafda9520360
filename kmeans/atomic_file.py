"""Files that are either complete or absent."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from kmeans.errors import ResourceError

_REASONS = {
    errno.ENOSPC: "no space is left on the device",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission was denied",
    errno.EPERM: "permission was denied",
}


def write_files(directory: Path, contents: Mapping[str, bytes | memoryview], *, outdated: Collection[str] = ()) -> None:
    """Write ``contents`` (name: bytes) into ``directory``, in order, by renames.

    All are written under temporary names and synced to disk before the first is renamed. Files named ``outdated`` are
    removed just before that: a description of the old files must not remain with the new ones.

    Raises
    ------
    ResourceError
        If the system refuses; no temporary file is left. A full disk is detected before the first rename, and then
        files of the same names are unchanged.
    """
    temporary = {name: _temporary(directory, name) for name in contents}
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            _write(temporary[name], content)
        for name in outdated:
            (directory / name).unlink(missing_ok=True)
        for name, path in temporary.items():
            path.replace(directory / name)
        _sync(directory)
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, error.strerror or str(error))
        raise ResourceError(f"can't write {', '.join(contents)} to {directory}: {reason}.") from error
    finally:  # also for other exceptions: a signal's handler may raise anywhere
        for path in temporary.values():
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


def remove_remains(directory: Path, names: Iterable[str]) -> None:
    """Remove temporary files of ``names`` that a killed process has left."""
    for name in names:
        with contextlib.suppress(OSError):
            _temporary(directory, name).unlink(missing_ok=True)


def _temporary(directory: Path, name: str) -> Path:
    return directory / f".{name}.tmp"


def _write(path: Path, content: bytes | memoryview) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(directory: Path) -> None:
    """Make the renames durable; some network file systems can't, which is ignored."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
