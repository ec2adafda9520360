"""Waiting for what another process does: always for an event, never for a time, and never for ever."""

import time
from collections.abc import Callable

POLL_SECONDS = 0.01


def wait_until(condition: Callable[[], bool], what: str, at_most: float = 30) -> None:
    deadline = time.monotonic() + at_most
    while not condition():
        assert time.monotonic() < deadline, f"waited {at_most} s in vain for {what}"
        time.sleep(POLL_SECONDS)
