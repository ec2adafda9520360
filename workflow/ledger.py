"""The list of things a workflow created, recorded before creation so that an interrupted step loses none."""

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
    """A thing that was created, or was about to be.

    Attributes
    ----------
    kind
        ``data``, ``image``, ``training-job``, ``model``, ``endpoint`` and so on.
    name
        Its name; of data the ``s3://`` prefix, of an image the URI.
    created
        Time in UTC, ISO 8601.
    details
        Facts that later steps need.
    region, account
        Location; empty on this machine, or if unknown.
    """

    kind: str
    name: str
    created: str
    details: dict[str, str] = field(default_factory=dict)
    region: str = ""
    account: str = ""


# A thing's place in the list, and its previous entry, if there was one.
Before = tuple[int, Entry | None]


class Ledger:
    """The list of things that were created, in a JSON file that is written atomically.

    Parameters
    ----------
    file
        Path of the JSON file.
    region, account
        Location whose things are listed, because SageMaker finds no others; empty for all locations.
    """

    def __init__(self, file: Path, region: str = "", account: str = "") -> None:
        self._file = file
        self._region = region
        self._account = account

    def entries(self) -> list[Entry]:
        """Return the entries of this location, the oldest first; errors are as of :meth:`elsewhere`."""
        return [entry for entry in self._read() if self._is_here(entry)]

    def elsewhere(self) -> list[Entry]:
        """Return the entries of other locations.

        Raises WorkflowError if the file exists, but isn't a ledger.
        """
        return [entry for entry in self._read() if not self._is_here(entry)]

    def find(self, kind: str, name: str) -> Entry | None:
        """Return the entry of a thing, or None."""
        return next((entry for entry in self.entries() if (entry.kind, entry.name) == (kind, name)), None)

    def record(self, kind: str, name: str, **details: str) -> Before:
        """Add an entry, or update the details of an existing one; return what :meth:`take_back` restores."""
        with self._changing() as entries:
            place, old = self._take(entries, kind, name)
            created = old.created if old else datetime.now(UTC).isoformat(timespec="seconds")
            known = old.details if old else {}
            entries.append(Entry(kind, name, created, {**known, **details}, self._region, self._account))
        return place, old

    def take_back(self, kind: str, name: str, before: Before) -> None:
        """Undo a :meth:`record`, because the thing was not created."""
        with self._changing() as entries:
            self._take(entries, kind, name)
            place, old = before
            if old is not None:
                entries.insert(place, old)

    def forget(self, kind: str, name: str) -> None:
        """Remove the entry of a thing that is deleted."""
        with self._changing() as entries:
            self._take(entries, kind, name)

    def latest(self, kind: str) -> Entry | None:
        """Return the last entry of a kind, or None."""
        return next((entry for entry in reversed(self.entries()) if entry.kind == kind), None)

    def _is_here(self, entry: Entry) -> bool:
        pairs = ((entry.region, self._region), (entry.account, self._account))
        return all(theirs == ours or not theirs or not ours for theirs, ours in pairs)

    def _take(self, entries: list[Entry], kind: str, name: str) -> Before:
        """Remove the entry of a thing from the list."""
        for place, entry in enumerate(entries):
            if (entry.kind, entry.name) == (kind, name) and self._is_here(entry):
                del entries[place]
                return place, entry
        return len(entries), None

    def _read(self) -> list[Entry]:
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

    @contextmanager
    def _changing(self) -> Iterator[list[Entry]]:
        """Return the entries, to be changed under a lock; they are written at the end."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._file.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            entries = self._read()
            yield entries
            document = {"created": [asdict(entry) for entry in entries]}
            content = (json.dumps(document, indent=2) + "\n").encode()
            write_files(self._file.parent, {self._file.name: content})
