"""Processes that tests start, and others start for them."""

import os


def is_running(process: int) -> bool:
    """Tell whether there is a process of this number, if only as one that nobody has seen off."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True
