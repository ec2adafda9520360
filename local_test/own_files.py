"""Files that this program may overwrite: those it wrote, until something else changes them.

A hidden file in the folder lists them with their SHA-256.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

RECORD = ".local_test.json"


class ForeignFileError(Exception):
    """A file that would be overwritten was written, or changed, by something else."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path} would be overwritten, but was not written by local_test, or was changed since: move it away, or "
            "choose another folder with --dir."
        )


class OwnFiles:
    """The files below the folder ``base`` that this program wrote.

    Raises
    ------
    ForeignFileError
        If the list of these files is not one.
    """

    def __init__(self, base: Path) -> None:
        self._base = base
        # Relative paths and digests; None while another process, which this program started, may write the file.
        self._digests: dict[str, str | None] = {}
        try:
            self._digests = dict(json.loads((base / RECORD).read_bytes()))
        except FileNotFoundError:
            pass
        except (OSError, ValueError, TypeError):
            raise ForeignFileError(base / RECORD) from None

    def check(self, path: Path, content: bytes | None = None) -> None:
        """Raise a ForeignFileError if ``path`` exists, is not one of these files and holds other than ``content``."""
        if not path.exists() and not path.is_symlink():
            return
        name, digest = self._name(path), _digest(path)
        is_ours = name in self._digests and self._digests[name] in (None, digest)
        if path.is_symlink() or digest is None or not (is_ours or (content is not None and digest == _sha256(content))):
            raise ForeignFileError(path)

    def write(self, contents: Mapping[Path, bytes]) -> None:
        """Write all ``contents``; nothing if one of the files is not ours, which raises a ForeignFileError."""
        for path, content in contents.items():
            self.check(path, content)
        self._digests |= {self._name(path): None for path in contents}
        self._save()
        for path, content in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        self.record(contents)

    def expect(self, paths: Collection[Path]) -> None:
        """Let another process write ``paths``: they are ours even if this program is killed meanwhile.

        Raises a ForeignFileError if one of them is not ours now.
        """
        for path in paths:
            self.check(path)
        self._digests |= {self._name(path): None for path in paths}
        self._save()

    def record(self, paths: Iterable[Path]) -> None:
        """Take note of what the files ``paths`` hold now."""
        for path in paths:
            if path.exists():
                self._digests[self._name(path)] = _digest(path)
            else:
                self._digests.pop(self._name(path), None)
        self._save()

    def _save(self) -> None:
        self._base.mkdir(parents=True, exist_ok=True)
        (self._base / RECORD).write_text(json.dumps(self._digests, indent=2) + "\n")

    def _name(self, path: Path) -> str:
        return path.relative_to(self._base).as_posix()


def _digest(path: Path) -> str | None:
    """Return the SHA-256 of a file in hexadecimal digits; None if it can't be read, or is not a file."""
    try:
        return _sha256(path.read_bytes())
    except OSError:
        return None


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
