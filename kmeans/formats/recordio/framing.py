"""RecordIO frames: the only code that parses or writes them.

A RecordIO file is a sequence of frames::

    u32 magic number 0xCED7230A | u32 length (low 29 bits) and part (high 3 bits) | payload | zeros to a multiple of 4

A record is one frame (part 0). A writer may cut a payload wherever it holds the magic number at a multiple of 4: the
record is then several frames (part 1 first, 2 middle, 3 last), and the magic numbers between the parts are left out.
SageMaker's own writers don't cut payloads, so frames are found by their lengths, never by searching for the magic
number. (SageMaker developer guide, "Common Data Formats for Training"; dmlc-core's ``recordio.h``.)
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from kmeans.errors import DataError
from kmeans.formats.buffer import Buffer, Stream
from kmeans.formats.payloads import Body, Chunk

MAGIC = 0xCED7230A
MAGIC_BYTES = struct.pack("<I", MAGIC)

_HEADER = struct.Struct("<II")
HEADER_BYTES = _HEADER.size

_LENGTH_BITS = 29
_LENGTH_MASK = (1 << _LENGTH_BITS) - 1
_WHOLE, _FIRST, _LAST = 0, 1, 3


@dataclass(frozen=True, slots=True)
class Frame:
    """One record of a buffer.

    Attributes
    ----------
    payload
        Its content, put together if it was cut.
    start
        Offset of the payload in the stream, if the record is one frame.
    size
        Bytes of the record in the stream, with headers and padding.
    is_whole
        Whether it is one frame.
    """

    payload: bytes
    start: int
    size: int
    is_whole: bool


def padded(length: int) -> int:
    """Return the bytes that a payload of ``length`` bytes takes in its frame, without the header."""
    return -(-length // 4) * 4


def header(length: int) -> bytes:
    """Return the header of a record of one frame, whose payload has ``length`` bytes."""
    return _HEADER.pack(MAGIC, length)


def frame(payload: bytes) -> bytes:
    """Return a record of one frame."""
    return header(len(payload)) + payload + bytes(padded(len(payload)) - len(payload))


def read_frame(buffer: Buffer) -> Frame | None:
    """Return the record at the start of ``buffer``; None if the buffer ends within it and the stream continues.

    Raises
    ------
    DataError
        If there is no record, its parts are out of order, or the stream ends within it.
    """
    position = buffer.start
    parts: list[bytes] = []
    while True:
        left = buffer.stop - position
        if left < HEADER_BYTES:
            if not buffer.is_last:
                return None
            raise DataError(
                f"the data ends within a record's header: expected {HEADER_BYTES} bytes, found {left}",
                offset=buffer.offset + position,
                hint="Was the file cut off?",
            )
        magic, flagged = _HEADER.unpack_from(buffer.content, position)
        if magic != MAGIC:
            hint = "Is this RecordIO-protobuf? Set the content type to what it is."
            raise _wrong_magic(magic, buffer.offset + position, hint)
        part, length = flagged >> _LENGTH_BITS, flagged & _LENGTH_MASK
        if (part in (_WHOLE, _FIRST)) != (not parts) or part > _LAST:
            raise DataError(f"found part {part} of a divided record out of order", offset=buffer.offset + position + 4)
        position += HEADER_BYTES
        left, needed = buffer.stop - position, padded(length)
        if left < needed and not buffer.is_last:
            return None
        if left < length:
            raise DataError(
                f"the data ends within a record: expected {length} bytes, found {left}",
                offset=buffer.offset + position,
                hint="Was the file cut off?",
            )
        parts.append(bytes(memoryview(buffer.content)[position : position + length]))
        position += min(needed, left)
        if part in (_WHOLE, _LAST):
            start, size = buffer.position + HEADER_BYTES, position - buffer.start
            return Frame(MAGIC_BYTES.join(parts), start, size, part == _WHOLE)


def find_records(content: Body) -> Iterator[tuple[int, int]]:
    """Yield the start and the end of each record in ``content``; stop where none follows, or an incomplete one.

    The last record may lack its padding.
    """
    begin = position = 0
    size = len(content)
    read_header = _HEADER.unpack_from
    # As few calls as possible: a body may have a million records.
    while position + HEADER_BYTES <= size:
        magic, flagged = read_header(content, position)
        length = flagged & _LENGTH_MASK
        position += HEADER_BYTES + length
        if magic != MAGIC or position > size:
            return
        position += -length & 3
        if flagged == length or flagged >> _LENGTH_BITS == _LAST:
            if position >= size:
                break
            yield begin, position
            begin = position
    else:
        return
    yield begin, size


def split_records(body: Body, size: int) -> Iterator[Chunk]:
    """Yield chunks of about ``size`` bytes of whole records; the last one has the rest, whatever it is."""
    start = 0
    for begin, _ in find_records(body):
        if begin - start >= size:
            yield Chunk(bytes(memoryview(body)[start:begin]), start)
            start = begin
    yield Chunk(bytes(memoryview(body)[start:]), start)


def each_record(content: bytes) -> list[bytes] | None:
    """Return each record as a body; None if the records don't follow one another to the end."""
    found = list(find_records(content))
    is_sound = bool(found) and found[-1][1] == len(content)
    return [content[begin:end] for begin, end in found] if is_sound else None


class UnwrappedStream:
    """The payloads of a stream of records, one after the other.

    In Pipe mode, SageMaker can wrap each object of a channel in a record (``RecordWrapperType``).
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._offset = 0
        self._ahead = b""  # the magic number that was left out before the part that follows
        self._left = self._padding = 0  # of the frame that is being read

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill ``buffer`` from its front; return the number of bytes, 0 at the end.

        Raises
        ------
        DataError
            If the stream isn't a sequence of whole records.
        """
        while not self._ahead and not self._left:
            if not self._begin_frame():
                return 0
        if self._ahead:
            count = min(len(buffer), len(self._ahead))
            buffer[:count] = self._ahead[:count]
            self._ahead = self._ahead[count:]
            return count
        count = self._take(buffer[: self._left])
        if not count:
            raise self._cut_off(f"{self._left} more bytes of a record")
        self._left -= count
        return count

    def _begin_frame(self) -> bool:
        """Read the next header; return False if the stream ends before it."""
        self._read(self._padding)
        content = self._read(HEADER_BYTES)
        if not content:
            return False
        if len(content) < HEADER_BYTES:
            raise self._cut_off(f"{HEADER_BYTES} bytes of a record's header")
        magic, flagged = _HEADER.unpack(content)
        if magic != MAGIC:
            hint = "The channel's RecordWrapperType says that each object is wrapped in a record."
            raise _wrong_magic(magic, self._offset - HEADER_BYTES, hint)
        self._left = flagged & _LENGTH_MASK
        self._padding = -self._left % 4
        self._ahead = b"" if flagged >> _LENGTH_BITS in (_WHOLE, _FIRST) else MAGIC_BYTES
        return True

    def _read(self, size: int) -> bytes:
        """Return the next ``size`` bytes, fewer at the end."""
        content = bytearray(size)
        done = 0
        with memoryview(content) as view:
            while done < size and (count := self._take(view[done:])):
                done += count
        return bytes(content[:done])

    def _take(self, buffer: memoryview) -> int:
        count = self._stream.readinto(buffer) or 0
        self._offset += count
        return count

    def _cut_off(self, expected: str) -> DataError:
        return DataError(f"expected {expected}, found the end", offset=self._offset, hint="Was the stream cut off?")


def _wrong_magic(found: int, offset: int, hint: str) -> DataError:
    return DataError(f"expected RecordIO's magic number {MAGIC:#x}, found {found:#x}", offset=offset, hint=hint)
