"""A semaphore for large bodies: a worker processes at most one for each of its CPUs at the same time.

More would not be faster, since the interpreter runs one thread at a time, and each switch to another body finds its
text and numbers evicted from the cache. They would also need more memory.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

# A body that has waited this long is processed anyway: the one before may take a hundred times as long.
PATIENCE_SECONDS = 0.5


class Semaphore:
    """Limits how many large bodies a worker processes at once.

    Parameters
    ----------
    places
        Number of bodies at the same time.
    patience
        Most seconds that a body waits for others.
    """

    def __init__(self, places: int, patience: float = PATIENCE_SECONDS) -> None:
        self._places = threading.Semaphore(places)
        self._patience = patience

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Wait for a place, at most ``patience`` seconds, and hold it in this context."""
        has_place = self._places.acquire(timeout=self._patience)
        try:
            yield
        finally:
            if has_place:
                self._places.release()
