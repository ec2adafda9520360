"""RecordIO frames: whole, cut at magic numbers, broken, however few bytes come at a time."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmeans.errors import DataError
from kmeans.formats.buffer import Stream
from kmeans.formats.recordio import framing
from kmeans.formats.recordio.framing import UnwrappedStream, find_records
from tests.unit.kmeans import oracle
from tests.unit.kmeans.formats.streams import Trickle


def read(stream: Stream, size: int = 1000) -> bytes:
    content, buffer = b"", bytearray(size)
    while count := stream.readinto(memoryview(buffer)):
        content += buffer[:count]
    return content


def frame(content: bytes, part: int = 0) -> bytes:
    return struct.pack("<II", 0xCED7230A, part << 29 | len(content)) + content + bytes(-len(content) % 4)


MAGIC = struct.pack("<I", 0xCED7230A)


@oracle.PROPERTY
@given(st.lists(st.binary(max_size=20), max_size=4), st.integers(1, 20), st.integers(1, 20))
def test_objects_come_out_of_their_records_one_after_the_other(objects: list[bytes], size: int, most: int) -> None:
    assert read(UnwrappedStream(Trickle(b"".join(map(frame, objects)), most)), size) == b"".join(objects)


@pytest.mark.parametrize("size", [1, 3, 100])
def test_an_object_that_was_cut_at_magic_numbers_is_whole_again(size: int) -> None:
    """As dmlc's writer does it: the numbers themselves are left out."""
    cut = frame(b"abcd", 1) + frame(b"efgh", 2) + frame(b"", 2) + frame(b"ij", 3)
    assert read(UnwrappedStream(Trickle(cut + frame(b"k"), 5)), size) == b"abcd" + MAGIC + b"efgh" + MAGIC * 2 + b"ijk"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"1,2,3\n4,5,6\n", "byte 0: expected RecordIO's magic number 0xced7230a, found 0x2c322c31"),
        (frame(b"1,2\n") + b"1,2,3\n4,5", "byte 12: expected RecordIO's magic number"),
        (frame(b"1,2\n") + MAGIC, "byte 16: expected 8 bytes of a record's header, found the end"),
        (frame(b"1,2\n3,4\n")[:-3], "byte 13: expected 3 more bytes of a record, found the end"),
    ],
)
def test_what_is_in_no_record_is_named(content: bytes, problem: str) -> None:
    with pytest.raises(DataError) as caught:
        read(UnwrappedStream(Trickle(content, 7)))
    assert problem in str(caught.value)


CUT = frame(b"abcd", 1) + frame(b"efgh", 2) + frame(b"ij", 3)


def test_find_records_cut_record_found_whole() -> None:
    content = frame(b"a") + CUT + frame(b"b")
    assert [content[begin:end] for begin, end in find_records(content)] == [frame(b"a"), CUT, frame(b"b")]


@pytest.mark.parametrize("rest", [b"\0", MAGIC, b"1,2,3\n4,5,6\n", frame(b"12345")[:-4], CUT[:-13], frame(b"efgh", 2)])
def test_find_records_stops_before_what_is_no_record(rest: bytes) -> None:
    assert list(find_records(frame(b"a") + rest)) == [(0, 12)]


def test_find_records_last_padding_missing_found() -> None:
    assert list(find_records(frame(b"a") + frame(b"b")[:-3])) == [(0, 12), (12, 21)]


@oracle.PROPERTY
@given(st.lists(st.binary(max_size=20), max_size=4))
def test_frame_written_then_found_again(payloads: list[bytes]) -> None:
    frames = [framing.frame(payload) for payload in payloads]
    assert frames == [frame(payload) for payload in payloads]
    content = b"".join(frames)
    assert [content[begin:end] for begin, end in find_records(content)] == frames
