"""The other side of Pipe mode: FIFOs that are made, filled and closed as SageMaker does it, epoch after epoch."""

import errno
import fcntl
import os
import select
import struct
import termios
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path

Streams = Sequence[Iterable[bytes | None]]

# Ends a test that hangs.
DEADLINE = 30.0


class Feeder:
    """Offers streams as ``NAME_0``, ``NAME_1``, ..., each FIFO made when the one before it was closed.

    Parameters
    ----------
    channel
        The folder that the channel would have in File mode.
    streams
        What goes through each FIFO: pieces, of which each is written when the reader has taken the one before it. None
        is silence until the reader goes away.
    """

    def __init__(self, channel: Path, streams: Streams) -> None:
        self.made = self.opened = self.ended = self.refused = 0
        self._channel = channel
        self._streams = streams
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def path(self, number: int) -> Path:
        return self._channel.with_name(f"{self._channel.name}_{number}")

    def __enter__(self) -> "Feeder":
        self._channel.parent.mkdir(parents=True, exist_ok=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(DEADLINE)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        for number, pieces in enumerate(self._streams):
            make_fifo(self.path(number))
            self.made += 1
            descriptor = self._open(self.path(number))
            if descriptor is None:
                return
            self.opened += 1
            try:
                for piece in pieces:
                    if piece is not None:
                        os.write(descriptor, piece)
                    self._wait_until_taken(descriptor, everything=piece is not None)
                self.ended += 1
            except BrokenPipeError:
                self.refused += 1
            finally:
                os.close(descriptor)

    def _open(self, path: Path) -> int | None:
        """Wait for a reader; None if none has come when all is over."""
        while not self._over.wait(0.002):
            descriptor = open_for_writing(path)
            if descriptor is not None:
                os.set_blocking(descriptor, True)
                return descriptor
        return None

    def _wait_until_taken(self, descriptor: int, *, everything: bool) -> None:
        """Wait until the reader has ``everything``, or else until it goes away; if it does, raise BrokenPipeError."""
        while not self._over.wait(0.0005 if everything else 0.01):
            if everything and not waiting_bytes(descriptor):
                return
            if not has_reader(descriptor):
                raise BrokenPipeError


def make_fifo(path: Path) -> Path:
    os.mkfifo(path)
    path.chmod(0o666)  # whatever the umask: the reader may be another user
    return path


def open_for_writing(path: Path) -> int | None:
    """Open a FIFO; None if no process has it open for reading."""
    try:
        return os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return None


def is_being_read(path: Path) -> bool:
    descriptor = open_for_writing(path)
    if descriptor is not None:
        os.close(descriptor)
    return descriptor is not None


def waiting_bytes(descriptor: int) -> int:
    """How many bytes have been written and not been read."""
    (count,) = struct.unpack("i", fcntl.ioctl(descriptor, termios.FIONREAD, b"\0\0\0\0"))
    return int(count)


def has_reader(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return not any(events & select.POLLERR for _, events in poll.poll(0))


def in_pieces(content: bytes, size: int) -> list[bytes]:
    return [content[first : first + size] for first in range(0, len(content), size)]
