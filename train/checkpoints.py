"""Checkpoints of a training job: states of the fit in a folder that SageMaker copies to S3, and back for a restart.

Two files are written in turn, each with a checksum and by a rename: if the newer is torn, the older is whole.
"""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import orjson

from kmeans.atomic_file import write_files
from kmeans.checkpoint import Checkpoints, State
from kmeans.errors import ResourceError, SettingError

FILE_NAMES = ("kmeans-checkpoint-0", "kmeans-checkpoint-1")
MAGIC = b"kmeans checkpoint 1\n"

Say = Callable[[str, str], None]


class CheckpointFolder(Checkpoints):
    """Checkpoints in a folder.

    Parameters
    ----------
    folder
        Is made if it isn't there.
    interval
        Seconds between two of them.
    job
        What a job must have in common with the one that wrote a checkpoint to go on from it: names and JSON values.
    ignore_others
        Whether a checkpoint of another job is passed over; else it is an error.
    say
        Told what happens, and at which level.

    Raises
    ------
    kmeans.errors.SettingError
        If the newest checkpoint is that of another job; the error names what is different.
    """

    def __init__(
        self, folder: Path, interval: float, job: Mapping[str, Any], say: Say, *, ignore_others: bool = False
    ) -> None:
        self._folder = folder
        self._interval = interval
        self._job = orjson.loads(orjson.dumps(dict(job)))  # as it will be read again
        self._say = say
        self._number = 0
        self._last = time.monotonic()
        self._state: State | None = None
        newest = max(filter(None, map(self._read, FILE_NAMES)), key=lambda found: found["number"], default=None)
        if newest is not None:
            self._number = newest["number"] + 1
            self._take_over(newest, ignore_others=ignore_others)

    def found(self) -> State | None:
        """Return the newest state that is whole."""
        return self._state

    def offer(self, state: Callable[[], State]) -> None:
        """Save the state if the interval is over. A folder that takes none is told of, and the job goes on."""
        if time.monotonic() - self._last < self._interval:
            return
        started = time.monotonic()
        made = state()
        arrays = io.BytesIO()
        np.savez(arrays, **cast("Any", made.arrays))
        numbers = _without_infinity(made.numbers)
        head = {"number": self._number, "job": self._job, "phase": made.phase, "numbers": numbers}
        body = orjson.dumps(head) + b"\n" + arrays.getvalue()
        content = MAGIC + hashlib.sha256(body).hexdigest().encode() + b"\n" + body
        try:
            write_files(self._folder, {FILE_NAMES[self._number % 2]: content})
        except ResourceError as error:
            self._say(f"no checkpoint was saved, and the job goes on: {error}", "WARNING")
        else:
            seconds = time.monotonic() - started
            self._say(
                f"saved a checkpoint in phase {made.phase}: {len(content) / 1e6:.1f} MB in {seconds:.3f} secs", "INFO"
            )
            self._number += 1
        self._last = time.monotonic()

    def _read(self, name: str) -> dict[str, Any] | None:
        """Return a checkpoint's head, and its arrays as ``arrays``; None if it isn't there, or isn't whole."""
        try:
            content = (self._folder / name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            self._say(f"the checkpoint {self._folder / name} can't be read: {error.strerror}", "WARNING")
            return None
        checksum, _, body = content.removeprefix(MAGIC).partition(b"\n")
        if not content.startswith(MAGIC) or hashlib.sha256(body).hexdigest().encode() != checksum:
            self._say(f"the checkpoint {self._folder / name} is torn, and is passed over", "WARNING")
            return None
        head, _, arrays = body.partition(b"\n")
        with np.load(io.BytesIO(arrays), allow_pickle=False) as loaded:
            return {**orjson.loads(head), "arrays": dict(loaded)}

    def _take_over(self, found: dict[str, Any], *, ignore_others: bool) -> None:
        changed = sorted(name for name in {*found["job"], *self._job} if found["job"].get(name) != self._job.get(name))
        if not changed:
            self._state = State(found["phase"], _with_infinity(found["numbers"]), found["arrays"])
            self._say(f"going on from checkpoint {found['number']} in phase {found['phase']}", "INFO")
            return
        differences = ", ".join(f"{name} was {found['job'].get(name)} and is {self._job.get(name)}" for name in changed)
        if not ignore_others:
            raise SettingError(
                f"The checkpoint in {self._folder} is that of another job: {differences}. Empty the folder (its S3 "
                "prefix), or set ignore_changed_checkpoint to true."
            )
        self._say(f"the checkpoint in {self._folder} is that of another job and is ignored: {differences}", "WARNING")


def _without_infinity(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no infinity."""
    return {name: "infinity" if value == float("inf") else value for name, value in numbers.items()}


def _with_infinity(numbers: Mapping[str, Any]) -> dict[str, Any]:
    return {name: float("inf") if value == "infinity" else value for name, value in numbers.items()}
