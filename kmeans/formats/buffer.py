"""A stream seen through a window that moves forward: bounded memory, no seeking, no question for its size.

The window is one buffer, filled again and again, because memory that is touched for the first time costs more than what
is read into it. What a reader could not use yet, such as the first half of a line, moves to the front.
"""

from __future__ import annotations

from typing import Protocol

from kmeans.errors import DataError

# Bytes in memory at once, in binary formats. Reading is fastest from 1 to 4 MB: few steps, and all stays in cache.
WINDOW_BYTES = 2 << 20

# A longer record or line makes the window grow up to this: rows of 60 million numbers.
MAX_BYTES = 256 << 20


class Stream(Protocol):
    """What can be read forward: a file, a pipe, an unpacked stream."""

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Fill ``buffer`` from its front; return how many bytes came, 0 at the end."""


class Window:
    """The part of a stream that is in memory.

    Attributes
    ----------
    buffer
        Holds what was read and not yet used, from ``start`` to ``stop``. A reader moves ``start`` on behind what it
        has used.
    offset
        Where the first byte of ``buffer`` lies in the stream.
    is_last
        Nothing follows in the stream.

    Parameters
    ----------
    stream
        Read by ``readinto`` alone.
    size
        Bytes of the buffer, until a record or line needs more.
    """

    def __init__(self, stream: Stream, size: int) -> None:
        self.buffer: bytes | bytearray = bytearray(size)
        self.start = self.stop = self.offset = 0
        self.is_last = False
        self._stream: Stream | None = stream

    @classmethod
    def over(cls, content: bytes) -> Window:
        """Return a window that shows all of ``content``, without a copy."""
        window = cls.__new__(cls)
        window.buffer, window.start, window.stop, window.offset = content, 0, len(content), 0
        window.is_last, window._stream = True, None
        return window

    @property
    def position(self) -> int:
        """Where the first unused byte lies in the stream."""
        return self.offset + self.start

    @property
    def bytes_seen(self) -> int:
        """Bytes of the stream up to the end of the window."""
        return self.offset + self.stop

    def __len__(self) -> int:
        return self.stop - self.start

    def advance(self, row: int | None = None) -> bool:
        """Drop what was used and read on behind the rest; return False at the end, when nothing is left.

        Called again with nothing used, it makes the window larger.

        Parameters
        ----------
        row
            Number of the record or line at ``start``, for the error.

        Raises
        ------
        DataError
            If a record or line is longer than MAX_BYTES.
        """
        if self._stream is None or self.is_last:
            return self.start < self.stop
        kept = memoryview(self.buffer)[self.start : self.stop]
        if len(kept) == len(self.buffer):
            if len(self.buffer) >= MAX_BYTES:
                problem = f"expected a record or line of at most {MAX_BYTES} bytes, found a longer one"
                raise DataError(problem, row=row, offset=self.position)
            self.buffer = bytearray(min(2 * len(self.buffer), MAX_BYTES))
        view = memoryview(self.buffer)
        view[: len(kept)] = kept
        self.offset, self.start, self.stop = self.position, 0, len(kept)
        while self.stop < len(view):
            count = self._stream.readinto(view[self.stop :])
            if not count:
                self.is_last = True
                break
            self.stop += count
        return self.stop > 0

    def take_lines(self) -> bytes:
        """Use up all whole lines of the window, and at the end of the stream also a last line without a line end."""
        stop = self.stop if self.is_last else self.buffer.rfind(b"\n", self.start, self.stop) + 1
        lines = bytes(memoryview(self.buffer)[self.start : stop])
        self.start = max(self.start, stop)
        return lines

    def take_rest(self) -> bytes:
        """Use up all that is left of the stream, however long it is."""
        parts = []
        while self.advance():
            parts.append(bytes(memoryview(self.buffer)[self.start : self.stop]))
            self.start = self.stop
        return b"".join(parts)
