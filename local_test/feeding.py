"""What SageMaker does for a channel in Pipe mode: a FIFO for each epoch, filled with all files of the channel."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

# How often a reader is looked for, in seconds.
LOOK_SECONDS = 0.02


def pipe_channels(base: Path) -> list[str]:
    """Return the channels that the configuration below ``base`` (``/opt/ml``) has in Pipe mode."""
    try:
        channels = json.loads((base / "input" / "config" / "inputdataconfig.json").read_bytes())
        return [name for name, fields in channels.items() if fields.get("TrainingInputMode") == "Pipe"]
    except (OSError, ValueError, AttributeError):
        return []  # the job says what is wrong with it


@contextmanager
def feeding(base: Path) -> Iterator[list[Feeder]]:
    """Return a context in which all channels in Pipe mode are fed, each by a thread of its own.

    The channel ``train`` goes through ``input/data/train_0``, ``train_1`` and so on; its files lie where they would in
    File mode, in ``input/data/train``. There is always one FIFO more, until the job that reads them has ended: how
    many it takes is its own affair.
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
    """Feeds one channel until all is ``over``.

    Parameters
    ----------
    folder
        Holds the files, of which each FIFO gets all, sorted by path, one after the other.
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
        """Make FIFO after FIFO, and fill each."""
        while not self._over.is_set():
            path = self.folder.with_name(f"{self.folder.name}_{self.epochs}")
            path.unlink(missing_ok=True)
            os.mkfifo(path)
            path.chmod(0o666)  # whatever the umask: the job may run as another user
            try:
                self.epochs += self._fill(path)
            finally:
                path.unlink()

    def _fill(self, path: Path) -> bool:
        """Write all files into a FIFO; tell whether somebody has taken it all."""
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
            # Whoever read it has ended, or wants no more: nobody is expected to come back for this one.
            self._over.wait()
            return False
        return True

    def _open(self, path: Path) -> int | None:
        """Open a FIFO as soon as somebody reads it; None if all is over before."""
        while not self._over.wait(LOOK_SECONDS):
            try:
                descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
            else:
                os.set_blocking(descriptor, True)
                return descriptor
        return None
