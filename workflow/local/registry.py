"""What SageMaker would remember of each thing: its description, in a JSON file of its own."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

from kmeans.atomic_file import write_files
from workflow.local.validation import check_name, refusal


class Registry:
    """Descriptions by kind and name, each in ``<root>/<kind>/<name>.json``."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lock = threading.Lock()

    def add(self, operation: str, kind: str, name: str, description: dict[str, Any]) -> None:
        """Add a description; a name that is taken is refused as SageMaker does."""
        check_name(operation, name)
        with self._lock:
            if self._file(kind, name).exists():
                raise refusal(operation, f"Cannot create {kind} {name!r}: it exists already.", "ResourceInUse")
            self._write(kind, name, description)

    def get(self, operation: str, kind: str, name: str) -> dict[str, Any]:
        """Return a description; one that isn't there is refused as SageMaker does."""
        check_name(operation, name)
        try:
            found: dict[str, Any] = json.loads(self._file(kind, name).read_bytes())
        except FileNotFoundError:
            raise refusal(operation, f"Could not find {kind} {name!r}.") from None
        return found

    def update(self, kind: str, name: str, **members: Any) -> dict[str, Any]:
        """Replace members of a description, and return it."""
        with self._lock:
            description: dict[str, Any] = json.loads(self._file(kind, name).read_bytes()) | members
            self._write(kind, name, description)
        return description

    def remove(self, operation: str, kind: str, name: str) -> dict[str, Any]:
        """Remove a description, and return it."""
        description = self.get(operation, kind, name)
        self._file(kind, name).unlink()
        return description

    def _file(self, kind: str, name: str) -> Path:
        return self._root / kind / f"{name}.json"

    def _write(self, kind: str, name: str, description: dict[str, Any]) -> None:
        write_files(self._root / kind, {f"{name}.json": (json.dumps(description, indent=2) + "\n").encode()})
