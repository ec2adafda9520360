from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmeans.errors import DataError
from kmeans.formats import buffer
from kmeans.formats.buffer import Buffer
from tests.unit.kmeans import oracle
from tests.unit.kmeans.formats.streams import Trickle


def shown(seen: Buffer) -> bytes:
    return bytes(seen.content[seen.start : seen.stop])


@oracle.PROPERTY
@given(st.binary(max_size=60), st.integers(1, 20), st.integers(1, 20), st.lists(st.integers(0, 60), max_size=20))
def test_every_byte_is_shown_once_and_at_its_place(content: bytes, size: int, most: int, used_up: list[int]) -> None:
    seen = Buffer(Trickle(content, most), size)
    used = b""
    wanted = itertools.chain(used_up, itertools.repeat(1))
    while seen.advance():
        assert seen.position == len(used)
        assert shown(seen) == content[len(used) : seen.bytes_seen]
        assert len(seen) == len(shown(seen))
        count = min(next(wanted), len(seen))
        used += shown(seen)[:count]
        seen.start += count
    assert used == content


def test_the_buffer_stays_the_same_until_a_record_needs_more() -> None:
    seen = Buffer(Trickle(bytes(100), 7), 10)
    buffers = set()
    while seen.advance():
        buffers.add(id(seen.content))
        assert len(seen.content) == 10
        seen.start += 4
    assert len(buffers) == 1


def test_what_is_longer_than_the_buffer_makes_it_grow() -> None:
    seen = Buffer(Trickle(bytes(range(100)), 7), 10)
    for size in (10, 20, 40, 80, 100):
        assert seen.advance()
        assert shown(seen) == bytes(range(size))
    assert seen.is_last


def test_what_is_longer_than_the_limit_is_refused_at_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buffer, "MAX_BYTES", 25)
    seen = Buffer(Trickle(bytes(100), 100), 10)
    assert seen.advance()
    seen.start += 3
    for size in (10, 20, 25):
        assert seen.advance(row=5)
        assert len(seen) == size
    with pytest.raises(DataError) as raised:
        seen.advance(row=5)
    sentence = "row 5, byte 3: expected a record or line of at most 25 bytes, found a longer one."
    assert str(raised.value) == sentence


@pytest.mark.parametrize("content", [b"", b"12345"])
def test_content_that_is_there_is_shown_whole_and_not_copied(content: bytes) -> None:
    seen = Buffer.over(content)
    assert seen.content is content
    assert seen.is_last
    assert seen.advance() == bool(content)
    seen.start = seen.stop
    assert not seen.advance()


@oracle.PROPERTY
@given(st.text("a\n", max_size=60).map(str.encode), st.integers(1, 20), st.integers(1, 20))
def test_lines_are_taken_whole(text: bytes, size: int, most: int) -> None:
    seen = Buffer(Trickle(text, most), size)
    parts = []
    while seen.advance():
        parts.append(seen.take_lines())
    assert b"".join(parts) == text
    assert all(part.endswith(b"\n") for part in parts[:-1] if part)


@oracle.PROPERTY
@given(st.binary(max_size=60), st.integers(1, 20), st.integers(0, 20))
def test_the_rest_is_taken_from_where_one_is(content: bytes, size: int, used: int) -> None:
    seen = Buffer(Trickle(content, 3), size)
    seen.advance()
    seen.start += min(used, len(seen))
    assert seen.take_rest() == content[min(used, size, len(content)) :]
    assert not seen.advance()


@oracle.PROPERTY
@given(
    st.binary(max_size=60),
    st.lists(st.tuples(st.sampled_from(["peek", "read", "reserve", "advance"]), st.integers(0, 70)), max_size=6),
    st.integers(1, 20),
    st.integers(1, 20),
)
def test_buffer_as_stream_any_calls_give_every_byte_once(
    content: bytes, calls: list[tuple[str, int]], size: int, most: int
) -> None:
    seen = Buffer(Trickle(content, most), size)
    used = b""
    for name, count in calls:
        if name == "peek":
            assert seen.peek(count) == content[len(used) :][:count]
        elif name == "read":
            part = seen.read(count)
            assert part == content[len(used) :][:count]
            used += part
        elif name == "reserve":
            seen.reserve(max(1, count))
        else:
            seen.advance()
        assert seen.position == len(used)
    into = bytearray(size)
    while count := seen.readinto(memoryview(into)):
        used += into[:count]
        assert seen.position == len(used)
    assert used == content
    assert seen.bytes_seen == len(content)
