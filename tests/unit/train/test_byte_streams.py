"""Streams: unpacked, and converted to UTF-8, however few bytes come at a time."""

from __future__ import annotations

import gzip
import random

import pytest

from kmeans.errors import DataError
from kmeans.formats.buffer import Buffer, Stream
from tests.unit.kmeans.formats.streams import Trickle
from train import byte_streams
from train.byte_streams import UnpackedStream, Utf8Stream

TEXT = "1,2.5\n-3,\u00e4\u20ac\U0001f600\n"


def read(stream: Stream, size: int = 1000) -> bytes:
    content, buffer = b"", bytearray(size)
    while count := stream.readinto(memoryview(buffer)):
        content += buffer[:count]
    return content


@pytest.mark.parametrize("most", [1, 10, 1000])
@pytest.mark.parametrize("sizes", [[0], [100], [100, 0, 1], [30_000, 20_000]])
def test_all_members_are_unpacked(sizes: list[int], most: int) -> None:
    members = [random.Random(size).randbytes(size) for size in sizes]  # noqa: S311 - no secret
    packed = b"".join(map(gzip.compress, members))
    for padding in (b"", bytes(20)):
        assert read(UnpackedStream(Buffer(Trickle(packed + padding, most)))) == b"".join(members)


PACKED = gzip.compress(bytes(100), mtime=0)


@pytest.mark.parametrize(
    ("packed", "problem"),
    [
        pytest.param(PACKED[:10] + b"\xff" * 20, "Error -3", id="damaged"),
        pytest.param(PACKED[:-8] + bytes(8), "CRC check failed", id="of other content"),
        pytest.param(PACKED + b"rubbish", "Not a gzipped file", id="with rubbish behind it"),
        pytest.param(b"\x1f\x8bnothing but the magic", "Unknown compression method", id="of another kind"),
    ],
)
def test_damaged_bytes_are_refused(packed: bytes, problem: str) -> None:
    with pytest.raises(DataError, match=f"expected gzip, but {problem}") as raised:
        read(UnpackedStream(Buffer(Trickle(packed, 7))))
    assert raised.value.hint == "Was the file cut off?"


@pytest.mark.parametrize("before", [b"", PACKED])
def test_truncated_bytes_are_refused(before: bytes) -> None:
    for cut in range(3, len(PACKED)):
        with pytest.raises(DataError, match="expected gzip, but Compressed file ended before the end-of-stream marker"):
            read(UnpackedStream(Buffer(Trickle(before + PACKED[:cut], 7))))


def test_an_error_of_the_disk_is_not_one_of_the_data() -> None:
    class Broken:
        def readinto(self, _: memoryview, /) -> int:
            raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output error"):
        read(UnpackedStream(Buffer(Broken())))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "utf-8-sig", "gb18030", "utf-7"])
@pytest.mark.parametrize("text_bytes", [1, 2, 3, 1000])
def test_a_text_is_put_into_utf_8(encoding: str, text_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(byte_streams, "TEXT_BYTES", text_bytes)
    for most in (1, 5, 1000):
        assert read(Utf8Stream(Trickle(TEXT.encode(encoding), most), encoding), most).decode() == TEXT


@pytest.mark.parametrize("most", [1, 2, 3, 1000])
@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        ("1,2\n".encode("utf-16-be") + b"\xd8\x00\x00\x31", "utf-16-be"),
        ("1,2\n".encode("utf-16-le") + b"\x31", "utf-16-le"),
        ("1,2\n".encode("utf-32-le") + b"\xff\xff\xff\xff", "utf-32-le"),
        (b"1,2\n3,\xff\xff", "shift-jis"),
        (b"1,2\n3,\x81", "cp1252"),
    ],
)
def test_bytes_that_are_no_text_are_refused_at_their_place(content: bytes, encoding: str, most: int) -> None:
    with pytest.raises(UnicodeDecodeError) as whole:
        content.decode(encoding)
    with pytest.raises(DataError) as raised:
        read(Utf8Stream(Trickle(content, most), encoding))
    sentence = f"byte {whole.value.start}: expected text in {encoding}, but {whole.value.reason}."
    assert str(raised.value) == sentence


@pytest.mark.parametrize("most", [1, 1000])
@pytest.mark.parametrize(("encoding", "name"), [("utf-16", "UTF-16"), ("utf-32", "UTF-32")])
def test_text_without_a_byte_order_mark_is_refused(encoding: str, name: str, most: int) -> None:
    """Python says so by an error of another kind than for bytes that are no text."""
    content = "1,2\n".encode(f"{encoding}-le")
    with pytest.raises(DataError) as raised:
        read(Utf8Stream(Trickle(content, most), encoding))
    assert str(raised.value) == f"byte 0: expected text in {encoding}, but {name} stream does not start with BOM."


def test_half_a_surrogate_pair_is_left_to_the_reader() -> None:
    assert read(Utf8Stream(Trickle(b"1,\\ud800", 3), "unicode_escape")) == b"1,\xed\xa0\x80"
