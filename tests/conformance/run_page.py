"""A program: runs the code of a page of docs, as a notebook of the user's would, and writes down what it has found.

    python -m tests.conformance.run_page FOLDER

FOLDER/page.py is the code, which works in FOLDER; FOLDER/found.json gets its variables, as far as JSON has them. One
thing differs from a notebook: where the SDKs sleep for up to 30 s between two checks, 0.2 s pass for that time.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

LONGEST_SLEEP = 0.2


class Clock:
    """Sleeps a little, and counts what was left out as time that has passed."""

    def __init__(self) -> None:
        self.now, self.wait = time.time, time.sleep
        self.left_out = 0.0

    def sleep(self, seconds: float) -> None:
        slept = min(seconds, LONGEST_SLEEP)
        self.left_out += seconds - slept
        self.wait(slept)

    def time(self) -> float:
        return self.now() + self.left_out


def plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(type(value))


def is_plain(value: Any) -> bool:
    try:
        json.dumps(value, default=plain)
    except (TypeError, ValueError):
        return False
    return True


if __name__ == "__main__":
    os.chdir(sys.argv[1])
    clock = Clock()
    vars(time).update(sleep=clock.sleep, time=clock.time)
    found: dict[str, Any] = {}
    exec(compile(Path("page.py").read_text(), "page.py", "exec"), found)  # noqa: S102 - code of this project's docs
    kept = {name: value for name, value in found.items() if not name.startswith("__") and is_plain(value)}
    Path("found.json").write_text(json.dumps(kept, default=plain))
