"""A channel in Pipe mode to batches of rows, pipe by pipe.

SageMaker makes a FIFO for each epoch, ``CHANNEL_0``, ``CHANNEL_1`` and so on, when it is ready to fill it: with all
objects of the channel one after another, perhaps in another order or other objects than before. If the channel's
``RecordWrapperType`` is RecordIO, each object is in its own record (API reference, ``Channel``). A FIFO is read once,
by one reader, and the platform fails the job if one is opened and not read. So each is opened when its rows are used
at once, and is read to its end.
"""

from __future__ import annotations

import io
import os
import select
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from kmeans.arrays import Float32
from kmeans.errors import NoDataError, ResourceError
from kmeans.formats.buffer import Stream
from kmeans.formats.recordio.framing import UnwrappedStream
from train.channels import Reader
from train.config import Channel
from train.files import FileReader, ReadOptions

# Seconds between looks for a FIFO that doesn't exist yet, and between reports while waiting.
LOOK_SECONDS, TELL_SECONDS = 0.1, 1.0

# Seconds after which a silent pipe is given up. Before the first byte the platform may list millions of objects.
PATIENCE_SECONDS = 1200.0


class PipeReader(Reader):
    """The rows of a channel in Pipe mode, new ones in each pass; parameters and attributes are those of ``Reader``.

    The FIFOs need not exist yet. Progress is reported before each batch, and about once a second while waiting.
    """

    def __init__(self, channel: Channel, options: ReadOptions) -> None:
        super().__init__(channel, options)
        self._next = 0

    def batches(self) -> Generator[Float32, None, None]:
        """Yield the rows of the next FIFO as batches (b, d) float32, each valid until the next one is asked for.

        Raises
        ------
        kmeans.errors.SettingError
            If the stream is empty, or the content type has parameters that don't fit.
        kmeans.errors.DataError
            If the stream ends within a row, has other columns than the one before it, or is not what its type promises;
            the error names the FIFO, and the row, column or byte that is wrong.
        kmeans.errors.ResourceError
            If the FIFO doesn't appear, or nothing comes through it, for a long time.
        """
        path = self._channel.directory.with_name(f"{self._channel.name}_{self._next}")
        self._next += 1
        file = FileReader(path, self._channel.content_type, self._options, self._open)
        with closing(file.batches()) as batches:
            for batch in batches:
                self._options.on_progress(f"{path.name}, {file.bytes / 1e6:.1f} MB so far")
                self._note(file, batch)
                yield batch
        if not file.rows:
            what = "it holds no rows" if file.bytes else "not one byte came through it"
            raise NoDataError(
                f"Channel {self._channel.name} has no data: {path} was read to its end, and {what}. "
                "Does the S3 prefix of the channel name the right objects?"
            )
        self.rows, self.files, self.bytes = file.rows, self.files + 1, file.bytes

    @contextmanager
    def _open(self, path: Path) -> Iterator[Stream]:
        self._wait(lambda seconds: _appears(path, seconds), f"waiting for {path}")
        with PipeStream(
            path, lambda comes, taken: self._wait(comes, f"waiting for byte {taken + 1} of {path}")
        ) as pipe:
            yield UnwrappedStream(pipe) if self._channel.is_wrapped else pipe

    def _wait(self, happens: Callable[[float], bool], state: str) -> None:
        """Wait until ``happens`` returns True; it is called again and again, with the seconds that it may take.

        Raises
        ------
        kmeans.errors.ResourceError
            If that takes too long.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not happens(TELL_SECONDS):
            self._options.on_progress(state)
            if time.monotonic() >= deadline:
                raise ResourceError(
                    f"Channel {self._channel.name}: {state} was given up after {PATIENCE_SECONDS:g} s. "
                    "In Pipe mode each epoch needs a FIFO that someone fills: use File mode if there is none."
                )


class PipeStream(io.FileIO):
    """The bytes of a FIFO; waiting for them can be interrupted.

    Parameters
    ----------
    path
        A FIFO that exists.
    wait
        Called with a function that returns whether bytes, or the end, come within some seconds, and with the number of
        bytes so far. It returns when they have come.
    """

    def __init__(self, path: Path, wait: Callable[[Callable[[float], bool], int], None]) -> None:
        # Opening a FIFO, or reading from it, would wait for the writer, and a signal handler could not end that: Python
        # continues to wait after it.
        super().__init__(path, opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))
        self._wait = wait
        self._taken = 0
        self._is_over = False
        self._poll = select.poll()
        self._poll.register(self, select.POLLIN)

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        """Fill ``buffer`` from its front with the bytes that are there; return their number, 0 at the end."""
        # A read before the first writer opens the FIFO would return an end; Linux doesn't report one before that.
        count = None
        while count is None and not self._is_over:
            self._wait(self._comes, self._taken)
            count = super().readinto(buffer)
        self._is_over = not count
        self._taken += count or 0
        return count or 0

    def _comes(self, seconds: float) -> bool:
        return bool(self._poll.poll(1000 * seconds))


def _appears(path: Path, seconds: float) -> bool:
    """Return True if ``path`` exists within some ``seconds``."""
    until = time.monotonic() + seconds
    while not path.exists():
        if time.monotonic() >= until:
            return False
        time.sleep(LOOK_SECONDS)
    return True
