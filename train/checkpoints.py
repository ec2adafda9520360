"""Checkpoints of a training job: states of the fit in a folder that SageMaker copies to S3, and back for a restart.

Two files are written in turn, each with a checksum and by a rename: if the newer is damaged, the older is complete. On
several hosts the leader writes and reads for all: SageMaker copies every host's folder to the same place.
"""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Callable, Mapping
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import orjson
from numpy.typing import NDArray

from kmeans.atomic_file import write_files
from kmeans.checkpoint import Checkpoints, State
from kmeans.collectives import Collectives, SingleHost
from kmeans.errors import ResourceError, SettingError

FILE_NAMES = ("kmeans-checkpoint-0", "kmeans-checkpoint-1")

# The last line of a file, after NumPy's archive of the arrays: the checkpoint's number, and a checksum of both.
_LAST_LINE = b"\nkmeans checkpoint 2: %020d %064x\n"
_LAST_LINE_BYTES = len(_LAST_LINE % (0, 0))

# Names in the archive: JSON with all that is not an array; the per-host state of all hosts, concatenated; how many rows
# of it each host has.
_HEAD, _PER_HOST, _LENGTHS = "head", "share/", "lengths/"

Say = Callable[[str, str], None]


class Identity(NamedTuple):
    """The job and the data that a checkpoint belongs to.

    Attributes
    ----------
    job
        Names and JSON values that must equal those of the job that wrote a checkpoint.
    row_digests
        A digest of the rows that each host has in memory, by rank. If the hosts hold other rows of the same data, a
        checkpoint restores its centers, but not the per-host state. None if the rows may differ between runs, as
        those of a pipe: then no per-host state is saved.
    """

    job: Mapping[str, Any]
    row_digests: list[str] | None


class CheckpointFolder(Checkpoints):
    """Checkpoints in a folder; all ``hosts`` save at the same moment.

    Parameters
    ----------
    folder
        The leader's folder; created if it is missing.
    interval
        Seconds between two checkpoints.
    max_state_bytes
        If the per-host state of all hosts takes more bytes, the checkpoint omits it.
    ignore_others
        Whether a checkpoint of another job is ignored; default: it is an error.
    say
        Writes a log line: text and level.

    Raises
    ------
    kmeans.errors.SettingError
        On the leader, if the newest checkpoint is that of another job; the error names the differences.
    """

    def __init__(
        self,
        folder: Path,
        interval: float,
        identity: Identity,
        say: Say,
        *,
        hosts: Collectives | None = None,
        max_state_bytes: int = 1 << 30,
        ignore_others: bool = False,
    ) -> None:
        self._folder = folder
        self._interval = interval
        self._job = orjson.loads(orjson.dumps(dict(identity.job)))  # as it is read from a file
        self._row_digests = identity.row_digests
        self._say = say
        self._hosts = hosts or SingleHost()
        self._max_state_bytes = max_state_bytes
        self._number = 0
        self._last = time.monotonic()
        self._noted: State | None = None
        self._state: State | None = None
        newest = self._newest(ignore_others=ignore_others) if self._hosts.rank == 0 else memoryview(b"")
        archive = self._hosts.broadcast(np.frombuffer(newest, dtype=np.uint8))
        if len(archive):
            self._restore(archive.data)

    def found(self) -> State | None:
        """Return the newest complete state, None if there is none."""
        return self._state

    def offer(self, state: Callable[[], State]) -> None:
        """Remember the state, and save it if the interval is over by the leader's clock."""
        self._noted = state()
        is_due = self._hosts.rank == 0 and time.monotonic() - self._last >= self._interval
        if self._hosts.any(is_due):
            self.save()

    def save(self) -> None:
        """Save the last remembered state, if it isn't saved yet; all hosts call this at the same moment.

        If the folder can't be written, it is logged, and the job continues.
        """
        noted, self._noted = self._noted, None
        if noted is None:
            return
        started = time.monotonic()
        arrays = noted.arrays | self._gathered(noted.per_host)
        if self._hosts.rank == 0:
            self._write(noted, arrays, started)
        self._last = time.monotonic()

    def _write(self, noted: State, arrays: dict[str, NDArray[Any]], started: float) -> None:
        head = {
            "number": self._number,
            "job": self._job,
            "shares": self._row_digests,
            "phase": noted.phase,
            "numbers": _without_infinity(noted.numbers),
        }
        content = io.BytesIO()
        np.savez(content, **cast("Any", {_HEAD: np.frombuffer(orjson.dumps(head), dtype=np.uint8), **arrays}))
        content.write(_last_line(self._number, content.getbuffer()))
        try:
            write_files(self._folder, {FILE_NAMES[self._number % 2]: content.getbuffer()})
        except ResourceError as error:
            self._say(f"no checkpoint was saved, and the job goes on: {error}", "WARNING")
            return
        seconds, size = time.monotonic() - started, content.tell() / 1e6
        self._say(f"saved a checkpoint in phase {noted.phase}: {size:.1f} MB in {seconds:.3f} secs", "INFO")
        self._number += 1

    def _gathered(self, per_host: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return the per-host state of all hosts, on the leader; nothing if it is too large or of no use later."""
        if self._row_digests is None:
            return {}
        size = sum(array.nbytes for array in per_host.values())
        if self._hosts.total(size) > self._max_state_bytes:
            return {}
        gathered = {}
        for name, array in per_host.items():
            lengths = np.zeros(self._hosts.size)
            lengths[self._hosts.rank] = len(array)
            gathered[_LENGTHS + name] = self._hosts.sum(lengths).astype(np.int64)
            gathered[_PER_HOST + name] = self._hosts.gather(array)
        return gathered

    def _newest(self, *, ignore_others: bool) -> memoryview:
        """Return the archive of the newest complete checkpoint; empty if there is none of this job."""
        whole = [found for name in FILE_NAMES if (found := self._read(name)) is not None]
        number, archive = max(whole, key=lambda found: found[0], default=(-1, memoryview(b"")))
        self._number = number + 1
        if not archive:
            return archive
        with np.load(io.BytesIO(archive), allow_pickle=False) as arrays:
            found = orjson.loads(arrays[_HEAD].tobytes())["job"]
        changed = sorted(name for name in {*found, *self._job} if found.get(name) != self._job.get(name))
        if not changed:
            return archive
        differences = ", ".join(f"{name} was {found.get(name)} and is {self._job.get(name)}" for name in changed)
        if not ignore_others:
            raise SettingError(
                f"The checkpoint in {self._folder} is that of another job: {differences}. Empty the folder (its S3 "
                "prefix), or set ignore_changed_checkpoint to true."
            )
        self._say(f"the checkpoint in {self._folder} is that of another job and is ignored: {differences}", "WARNING")
        return memoryview(b"")

    def _read(self, name: str) -> tuple[int, memoryview] | None:
        """Return the number and the archive of a checkpoint; None if it is missing or damaged."""
        path = self._folder / name
        try:
            content = memoryview(path.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            self._say(f"the checkpoint {path} can't be read: {error.strerror}", "WARNING")
            return None
        archive, last_line = content[:-_LAST_LINE_BYTES], bytes(content[-_LAST_LINE_BYTES:])
        number = last_line.partition(b": ")[2].partition(b" ")[0]
        if not number.isdigit() or last_line != _last_line(int(number), archive):
            self._say(f"the checkpoint {path} is torn, and is passed over", "WARNING")
            return None
        return int(number), archive

    def _restore(self, archive: memoryview) -> None:
        with np.load(io.BytesIO(archive), allow_pickle=False) as loaded:
            arrays = dict(loaded)
        head = orjson.loads(arrays.pop(_HEAD).tobytes())
        names = [name.removeprefix(_PER_HOST) for name in arrays if name.startswith(_PER_HOST)]
        per_host = {}
        if head["shares"] == self._row_digests:
            for name in names:
                ends = [0, *accumulate(arrays[_LENGTHS + name].tolist())]
                first, end = list(pairwise(ends))[self._hosts.rank]
                per_host[name] = arrays[_PER_HOST + name][first:end]
        common = {name: array for name, array in arrays.items() if not name.startswith((_PER_HOST, _LENGTHS))}
        self._state = State(head["phase"], _with_infinity(head["numbers"]), common, per_host)
        inexactly = ", not to the same bits: other rows were in memory" if head["shares"] != self._row_digests else ""
        self._say(f"going on from checkpoint {head['number']} in phase {head['phase']}{inexactly}", "INFO")


def _last_line(number: int, archive: memoryview) -> bytes:
    checksum = hashlib.sha256(b"%d " % number)
    checksum.update(archive)
    return _LAST_LINE % (number, int.from_bytes(checksum.digest()))


def _without_infinity(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``numbers`` with infinity as text: JSON has no infinity."""
    return {name: "infinity" if value == float("inf") else value for name, value in numbers.items()}


def _with_infinity(numbers: Mapping[str, Any]) -> dict[str, Any]:
    return {name: float("inf") if value == "infinity" else value for name, value in numbers.items()}
