"""Processes that tests start, and others start for them."""

import os


def is_running(process: int) -> bool:
    """Return whether there is a process of this number, possibly a zombie."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True
