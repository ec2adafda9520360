"""Streams that convert the bytes of a file while they are read: unpacked from gzip, and text to UTF-8."""

from __future__ import annotations

import codecs
import gzip
import zlib

from kmeans.errors import DataError
from kmeans.formats.buffer import Buffer, Stream

GZIP_MAGIC = b"\x1f\x8b"

# Packed bytes that are read at once: as many as Python's gzip module asks for.
PACKED_BYTES = 128 << 10

# Bytes of text that are converted at once.
TEXT_BYTES = 64 << 10


class UnpackedStream:
    """The content of a gzip file of one or several members."""

    def __init__(self, packed: Buffer) -> None:
        self._packed = packed
        # Of the file it calls nothing but read(), which must not return too few bytes before the end.
        self._file = gzip.GzipFile(fileobj=packed, mode="rb")  # type: ignore[call-overload]

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill ``buffer`` from its front; return the number of bytes, 0 at the end.

        Raises
        ------
        DataError
            If the stream isn't gzip, is damaged or cut off.
        """
        try:
            count: int = self._file.readinto(buffer)
            return count
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            # Only where the stream ends too early, all bytes before have been used, and not just read ahead.
            offset = self._packed.bytes_seen if isinstance(error, EOFError) else None
            raise DataError(f"expected gzip, but {error}", offset=offset, hint="Was the file cut off?") from None


class Utf8Stream:
    """Text in another encoding as UTF-8.

    Parameters
    ----------
    encoding
        A text encoding that Python knows.
    """

    def __init__(self, stream: Stream, encoding: str) -> None:
        self._stream = stream
        self._encoding = encoding
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._chunk = bytearray(TEXT_BYTES)
        self._taken = 0
        self._ready = b""

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill ``buffer`` from its front; return the number of bytes, 0 at the end.

        Raises
        ------
        DataError
            If bytes aren't text in the encoding; with their offset.
        """
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
        # Half a surrogate pair isn't text either, but the format's reader reports it by row and column.
        return text.encode("utf-8", "surrogatepass")
