"""Feeds channels in Pipe mode as SageMaker does: a FIFO for each epoch, filled with all files of the channel."""

from __future__ import annotations

import errno
import glob
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

# Seconds between two checks for a reader.
POLL_SECONDS = 0.02


def pipe_channels(base: Path) -> list[str]:
    """Return the channels that the configuration below ``base`` (``/opt/ml``) has in Pipe mode."""
    try:
        channels = json.loads((base / "input" / "config" / "inputdataconfig.json").read_bytes())
        return [name for name, fields in channels.items() if fields.get("TrainingInputMode") == "Pipe"]
    except (OSError, ValueError, AttributeError):
        return []  # the job reports what is wrong with it


def leftover_fifos(base: Path) -> list[Path]:
    """Return what exists where FIFOs of channels in Pipe mode are made: `train_0`, `train_1` and so on."""
    return [
        path
        for name in pipe_channels(base)
        for path in sorted((base / "input" / "data").glob(f"{glob.escape(name)}_*"))
        if path.name.removeprefix(f"{name}_").isdigit()
    ]


@contextmanager
def feeding(base: Path) -> Iterator[list[Feeder]]:
    """Return a context in which all channels in Pipe mode are fed, each by its own thread.

    The channel ``train`` goes through ``input/data/train_0``, ``train_1`` and so on; its files are in
    ``input/data/train``, as in File mode. Until the context ends there is always a next FIFO: the job decides how many
    it reads.
    """
    over = Event()
    feeders = [Feeder(base / "input" / "data" / name, over) for name in pipe_channels(base)]
    for feeder in feeders:
        feeder.start()
    try:
        yield feeders
    finally:
        over.set()
        for feeder in feeders:
            feeder.join()


class Feeder(Thread):
    """Feeds one channel until ``over`` is set.

    Parameters
    ----------
    folder
        Holds the files. Each FIFO gets all of them, sorted by path, one after the other.
    over
        Set when the reader has ended.

    Attributes
    ----------
    folder
        As given.
    epochs
        FIFOs that were read to their ends.
    """

    def __init__(self, folder: Path, over: Event) -> None:
        super().__init__(name=f"feeds {folder.name}", daemon=True)
        self.folder = folder
        self.epochs = 0
        self._over = over

    def run(self) -> None:
        """Make one FIFO after the other, and fill each."""
        while not self._over.is_set():
            path = self.folder.with_name(f"{self.folder.name}_{self.epochs}")
            if path.is_fifo():  # of a run that was killed
                path.unlink()
            os.mkfifo(path)
            path.chmod(0o666)  # despite the umask: the job may run as another user
            try:
                self.epochs += self._fill(path)
            finally:
                path.unlink()

    def _fill(self, path: Path) -> bool:
        """Write all files into a FIFO; return whether a reader has read all of it."""
        descriptor = self._open(path)
        if descriptor is None:
            return False
        try:
            with open(descriptor, "wb") as pipe:
                for file in sorted(self.folder.rglob("*")):
                    if file.is_file() and not file.name.startswith("."):
                        with file.open("rb") as content:
                            shutil.copyfileobj(content, pipe)
        except BrokenPipeError:
            # The reader has ended, or needs no more rows: no other will open this FIFO.
            self._over.wait()
            return False
        return True

    def _open(self, path: Path) -> int | None:
        """Open a FIFO as soon as there is a reader; return None if the context ends before."""
        while not self._over.wait(POLL_SECONDS):
            try:
                descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
            else:
                os.set_blocking(descriptor, True)
                return descriptor
        return None
