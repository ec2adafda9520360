"""A byte stream in bounded memory, read forward: no seeking, and its size isn't needed.

Memory that is touched for the first time costs more than reading into it, so one buffer is filled again and again.
Bytes that a reader can't use yet, such as the first half of a line, move to its front.
"""

from __future__ import annotations

from typing import Protocol

from kmeans.errors import DataError

# Bytes of a buffer of a binary format. Reading is fastest from 1 to 4 MB: few steps, and all stays in cache.
BUFFER_BYTES = 2 << 20

# Bytes of a buffer whose format is not known yet: enough to detect it.
HEAD_BYTES = 4096

# A longer record or line makes the buffer grow up to this: rows of 60 million numbers.
MAX_BYTES = 256 << 20


class Stream(Protocol):
    """Anything that can be read forward: a file, a pipe, an unpacked stream."""

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Fill ``buffer`` from its front; return the number of bytes, 0 at the end."""


class Buffer:
    """The part of a stream that is in memory, and itself a stream.

    Attributes
    ----------
    content
        Holds what was read and not yet used, from ``start`` to ``stop``. A reader moves ``start`` to the end of the
        bytes that it has used.
    offset
        Offset of the first byte of ``content`` in the stream.
    is_last
        Whether nothing follows in the stream.

    Parameters
    ----------
    stream
        Read by ``readinto`` alone.
    size
        Bytes of the buffer, until a record or line needs more.
    """

    def __init__(self, stream: Stream, size: int = HEAD_BYTES) -> None:
        self.content: bytes | bytearray = bytearray(size)
        self.start = self.stop = self.offset = 0
        self.is_last = False
        self._stream: Stream | None = stream

    @classmethod
    def over(cls, content: bytes) -> Buffer:
        """Return a buffer that holds all of ``content``, without a copy."""
        buffer = cls.__new__(cls)
        buffer.content, buffer.start, buffer.stop, buffer.offset = content, 0, len(content), 0
        buffer.is_last, buffer._stream = True, None
        return buffer

    @property
    def position(self) -> int:
        """Offset of the first unused byte in the stream."""
        return self.offset + self.start

    @property
    def bytes_seen(self) -> int:
        """Bytes that were read from the stream."""
        return self.offset + self.stop

    def __len__(self) -> int:
        return self.stop - self.start

    def advance(self, row: int | None = None) -> bool:
        """Drop the used bytes and fill the buffer after the rest; return False at the end, if nothing is left.

        If nothing was used since the last call, the buffer grows.

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
        kept = memoryview(self.content)[self.start : self.stop]
        if len(kept) == len(self.content):
            if len(self.content) >= MAX_BYTES:
                problem = f"expected a record or line of at most {MAX_BYTES} bytes, found a longer one"
                raise DataError(problem, row=row, offset=self.position)
            self.content = bytearray(min(2 * len(self.content), MAX_BYTES))
        view = memoryview(self.content)
        view[: len(kept)] = kept
        self.offset, self.start, self.stop = self.position, 0, len(kept)
        while self.stop < len(view):
            count = self._stream.readinto(view[self.stop :])
            if not count:
                self.is_last = True
                break
            self.stop += count
        return self.stop > 0

    def reserve(self, size: int) -> None:
        """Make the buffer ``size`` bytes large, or as large as the bytes in it if they are more."""
        if self._stream is None:
            return
        content = bytearray(max(size, len(self)))
        content[: len(self)] = memoryview(self.content)[self.start : self.stop]
        self.content, self.offset, self.start, self.stop = content, self.position, 0, len(self)

    def peek(self, size: int) -> bytes:
        """Return the next ``size`` bytes without using them; fewer if the stream has no more."""
        if self._stream is not None and len(self.content) - self.start < size:
            self.reserve(size)
        view = memoryview(self.content)
        while self._stream is not None and len(self) < size and not self.is_last:
            count = self._stream.readinto(view[self.stop : self.start + size])
            self.is_last = not count
            self.stop += count or 0
        return bytes(view[self.start : min(self.stop, self.start + size)])

    def read(self, size: int) -> bytes:
        """Use up and return the next ``size`` bytes, fewer at the end of the stream."""
        while len(self) < size and not self.is_last:
            self.advance()
        content = bytes(memoryview(self.content)[self.start : min(self.stop, self.start + size)])
        self.start += len(content)
        return content

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill ``buffer`` from its front; return the number of bytes, 0 at the end."""
        if len(self) or self._stream is None or self.is_last:
            count = min(len(buffer), len(self))
            buffer[:count] = memoryview(self.content)[self.start : self.start + count]
            self.start += count
            return count
        count = self._stream.readinto(buffer) or 0
        self.is_last = not count
        self.offset, self.start, self.stop = self.position + count, 0, 0
        return count

    def take_lines(self) -> bytes:
        """Use up all whole lines of the buffer, and at the end of the stream also a last line without a line end."""
        stop = self.stop if self.is_last else self.content.rfind(b"\n", self.start, self.stop) + 1
        lines = bytes(memoryview(self.content)[self.start : stop])
        self.start = max(self.start, stop)
        return lines

    def take_rest(self) -> bytes:
        """Use up and return the rest of the stream, however long it is."""
        parts = []
        while self.advance():
            parts.append(bytes(memoryview(self.content)[self.start : self.stop]))
            self.start = self.stop
        return b"".join(parts)
