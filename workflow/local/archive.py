"""``model.tar.gz``: a folder as an archive, and back."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

from workflow.errors import WorkflowError

LARGEST_MODEL = 16 << 30


def pack(folders: Iterable[Path]) -> bytes:
    """Return a gzipped tar of all files of the folders; of files with the same name the first folder's."""
    files: dict[str, Path] = {}
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                files.setdefault(path.relative_to(folder).as_posix(), path)
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz", compresslevel=1) as archive:
        for name, path in files.items():
            archive.add(path, name, recursive=False)
    return content.getvalue()


def unpack(content: bytes, folder: Path, source: str) -> None:
    """Unpack a gzipped tar into a new folder.

    Raises
    ------
    WorkflowError
        If it is none, is larger than 16 GiB, or holds anything that would lie outside of the folder.
    """
    folder.mkdir(parents=True)
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
            if sum(member.size for member in archive.getmembers()) > LARGEST_MODEL:
                raise WorkflowError(f"{source} holds more than {LARGEST_MODEL >> 30} GiB.")
            archive.extractall(folder, filter="data")
    except (tarfile.TarError, EOFError, OSError) as error:
        raise WorkflowError(f"{source} is no model.tar.gz that can be unpacked: {error}.") from None
