"""The bytes of a file as streams that are read forward, once: shown before they are read, unpacked, put into UTF-8."""

from __future__ import annotations

import codecs
import gzip
import io
import zlib

from kmeans.errors import DataError
from kmeans.formats.buffer import Stream

GZIP_MAGIC = b"\x1f\x8b"

# Packed bytes that are read at once.
PACKED_BYTES = 64 << 10

# Bytes of a text that are put into UTF-8 at once.
TEXT_BYTES = 64 << 10


class ForwardStream(io.RawIOBase):
    """A stream whose first bytes can be looked at before they are read, and that counts what it gave.

    Attributes
    ----------
    taken
        Bytes taken from the stream below.
    """

    def __init__(self, stream: Stream) -> None:
        self.taken = 0
        self._stream = stream
        self._head = b""

    def peek(self, size: int) -> bytes:
        """Return the next ``size`` bytes, which stay to be read; fewer where the stream has no more."""
        head = bytearray(max(size, len(self._head)))
        count = len(self._head)
        head[:count] = self._head
        with memoryview(head) as view:
            while count < size and (more := self._take(view[count:])):
                count += more
        self._head = bytes(head[:count])
        return self._head[:size]

    def readable(self) -> bool:
        """Tell ``io`` that this can be read."""
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        """Fill ``buffer`` from its front; return how many bytes came, 0 at the end."""
        if not self._head:
            return self._take(buffer)
        count = min(len(buffer), len(self._head))
        buffer[:count] = self._head[:count]
        self._head = self._head[count:]
        return count

    def _take(self, buffer: memoryview) -> int:
        count = self._stream.readinto(buffer) or 0
        self.taken += count
        return count


class UnpackedStream:
    """What is packed by gzip, in one or several members, unpacked."""

    def __init__(self, stream: ForwardStream) -> None:
        self._packed = stream
        # GzipFile takes a short read for the end; a BufferedReader reads until it has what was asked for.
        self._file = gzip.GzipFile(fileobj=io.BufferedReader(stream, PACKED_BYTES), mode="rb")

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill ``buffer`` from its front; raise a DataError if the stream is no gzip, damaged or cut off."""
        try:
            return self._file.readinto(buffer)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            # Only where it ends too early all bytes before have been used, and not just read ahead.
            offset = self._packed.taken if isinstance(error, EOFError) else None
            raise DataError(f"expected gzip, but {error}", offset=offset, hint="Was the file cut off?") from None


class Utf8Stream:
    """A text in another encoding, put into UTF-8.

    Parameters
    ----------
    encoding
        One that Python knows as an encoding of text.
    """

    def __init__(self, stream: Stream, encoding: str) -> None:
        self._stream = stream
        self._encoding = encoding
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._chunk = bytearray(TEXT_BYTES)
        self._taken = 0
        self._ready = b""

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill ``buffer`` from its front; raise a DataError with the offset of bytes that are no text."""
        while not self._ready:
            count = self._stream.readinto(memoryview(self._chunk)) or 0
            self._taken += count
            self._ready = self._transcoded(bytes(self._chunk[:count]))
            if not count:
                break
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def _transcoded(self, content: bytes) -> bytes:
        try:
            text = self._decoder.decode(content, final=not content)
        except UnicodeDecodeError as error:
            # The decoder may have kept some bytes of the chunk before: `object` ends where `content` does.
            offset = self._taken - len(error.object) + error.start
            raise DataError(f"expected text in {self._encoding}, but {error.reason}", offset=offset) from None
        except UnicodeError as error:  # without the byte order mark that the encoding begins with
            raise DataError(f"expected text in {self._encoding}, but {error}", offset=0) from None
        # Half a surrogate pair is no text either, and what reads the text says so by row and column.
        return text.encode("utf-8", "surrogatepass")
