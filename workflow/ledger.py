"""What a workflow created: written before it is created, so that nothing is forgotten if a step is cut off."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from kmeans.atomic_file import write_files
from workflow.errors import WorkflowError

LONGEST_FILE = 16 << 20


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that was created, or was about to be.

    Attributes
    ----------
    kind
        ``data``, ``image``, ``training-job``, ``model``, ``endpoint`` and so on.
    name
        Its name, or for data its ``s3://`` prefix, for an image its URI.
    created
        UTC, ISO 8601.
    details
        What later steps want to know of it.
    """

    kind: str
    name: str
    created: str
    details: dict[str, str] = field(default_factory=dict)


class Ledger:
    """The list of what was created, in a JSON file that is written whole or not at all."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def entries(self) -> list[Entry]:
        """Return all entries, the oldest first.

        Raises
        ------
        WorkflowError
            If the file is there, but isn't what this class writes.
        """
        try:
            with self._file.open("rb") as file:
                content = file.read(LONGEST_FILE)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise WorkflowError(f"{self._file} can't be read: {error.strerror}.") from None
        try:
            return [Entry(**row) for row in json.loads(content)["created"]]
        except (ValueError, TypeError, KeyError) as error:
            raise WorkflowError(
                f"{self._file} is no record of what was created ({error}): mend it by hand, or move it away and delete "
                "what it names by other means."
            ) from None

    def record(self, kind: str, name: str, **details: str) -> None:
        """Add an entry, or replace the details of one that is there."""
        with self._changing() as entries:
            now = datetime.now(UTC).isoformat(timespec="seconds")
            old = next((entry for entry in entries if (entry.kind, entry.name) == (kind, name)), None)
            if old is not None:
                entries.remove(old)
            entries.append(Entry(kind, name, old.created if old else now, {**(old.details if old else {}), **details}))

    def forget(self, kind: str, name: str) -> None:
        """Remove an entry, because what it names is deleted."""
        with self._changing() as entries:
            entries[:] = [entry for entry in entries if (entry.kind, entry.name) != (kind, name)]

    def latest(self, kind: str) -> Entry | None:
        """Return the last entry of its kind."""
        return next((entry for entry in reversed(self.entries()) if entry.kind == kind), None)

    @contextmanager
    def _changing(self) -> Iterator[list[Entry]]:
        """Return the entries, to be changed while no other process does; they are written at the end."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._file.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            entries = self.entries()
            yield entries
            document = {"created": [asdict(entry) for entry in entries]}
            content = (json.dumps(document, indent=2) + "\n").encode()
            write_files(self._file.parent, {self._file.name: content})
