"""Bodies cut between their rows: nothing is lost, and each chunk can be decoded by itself."""

import json as standard_json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmeans.errors import DataError
from kmeans.formats import json, payloads, recordio
from kmeans.formats.payloads import Body, Chunk
from kmeans.formats.recordio import framing

SIZES = st.integers(1, 200)


def contents(cut: Any, body: Body, size: int) -> list[Chunk]:
    found = list(cut(body, size))
    assert found
    return found


@given(st.lists(st.text("0123456789,.-\r ", max_size=30), max_size=30), SIZES, st.booleans())
def test_lines_are_cut_behind_their_ends(lines: list[str], size: int, has_end: bool) -> None:
    body = ("\n".join(lines) + "\n" * has_end).encode()
    found = list(payloads.split_lines(body, size))
    rows = [line for chunk in found for line in chunk.content.split(b"\n") if line.strip()]
    assert rows == [line for line in body.split(b"\n") if line.strip()]
    for chunk in found:
        assert body[chunk.offset : chunk.offset + len(chunk.content)] == chunk.content
        assert chunk.content.endswith(b"\n") or chunk.offset + len(chunk.content) == len(body)


def test_blank_lines_alone_are_one_chunk_at_least() -> None:
    assert [chunk.content for chunk in payloads.split_lines(b"\n\n\n\n", 1)] == [b"\n"]


NUMBERS = st.lists(st.floats(-1e6, 1e6, width=32), min_size=2, max_size=2)
IDS = st.none() | st.text('ab"\\{}[],: \n', max_size=10)
WRAPPED = (
    '{"instances": %s}',
    '{"instances":%s, "configuration": {"a": [{"b": 1}]}}',
    "%s",
    ' {\n"instances" : %s }\n',
)


def instance(shape: int, numbers: list[float], identity: str | None) -> Any:
    if shape == 0:
        return numbers
    found: dict[str, Any] = {"features": numbers} if shape == 1 else {"data": {"features": {"values": numbers}}}
    return found if identity is None else found | {"id": identity}


INSTANCES = st.lists(st.builds(instance, st.integers(0, 2), NUMBERS, IDS), min_size=1, max_size=12)


@pytest.mark.slow
@given(
    INSTANCES,
    st.sampled_from(WRAPPED),
    SIZES,
    st.sampled_from([(", ", ": "), (",", ":"), (" ,\n", " : ")]),
    st.integers(1, 40),
)
def test_json_is_cut_between_instances_and_nowhere_else(
    instances: list[Any], wrapped: str, size: int, separators: tuple[str, str], step: int
) -> None:
    """Whatever the steps in which a chunk is looked at, which may end within an escape."""
    body = (wrapped % standard_json.dumps(instances, separators=separators)).encode()
    whole = json.decode(body)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(payloads, "PAYLOAD_CHUNK_BYTES", step)
        parts = [json.decode(chunk.content) for chunk in contents(payloads.split_instances, body, size)]
    np.testing.assert_array_equal(np.concatenate([part.points for part in parts]), whole.points)
    attached = [item for part in parts for item in part.attached or [{}] * len(part.points)]
    assert attached == list(whole.attached or [{}] * len(whole.points))


def test_a_long_json_body_is_cut_into_many_chunks() -> None:
    body = standard_json.dumps({"instances": [{"features": [1.5, 2.5]}] * 1000}).encode()
    found = contents(payloads.split_instances, body, 500)
    assert len(found) > 30
    assert max(len(chunk.content) for chunk in found) < 1100


@pytest.mark.parametrize("body", [b"", b"{", b"[", b'{"configuration": {}, "instances": [[1], [2]]}', b"[" * 500])
def test_what_begins_otherwise_comes_whole(body: bytes) -> None:
    assert b"".join(chunk.content for chunk in payloads.split_instances(body, 5)) == body


def test_search_for_a_place_to_cut_takes_linear_time() -> None:
    """Each place looks like one, and none is: a second look begins twice as far on."""
    body = b'[["' + b"},{" * 300_000
    (chunk,) = payloads.split_instances(body, 100)
    assert chunk.content == body


@pytest.mark.parametrize(
    "text", [b'\\"' * 100_000, b"x" * 1_000_000, b"\\\\" * 500_000], ids=["quotes", "plain", "escapes"]
)
def test_a_place_within_a_long_text_is_none(text: bytes) -> None:
    """Looked for by a pattern, the end of such a text takes minutes, or a hundred times the text's memory."""
    inner = b'[{"id": "' + text + b'},{", "features": [1]}'
    found = contents(payloads.split_instances, inner + b', {"features": [2]}]', 1000)
    assert [chunk.content for chunk in found] == [inner + b"]", b'[{"features": [2]}]']


def test_an_instance_that_cant_be_written_again_is_none() -> None:
    deep = b"[" * 500 + b"]" * 500
    content = b'[{"features": [1]}, {"features": [2], "id": %s}, [3]]' % deep
    assert payloads.each_instance(content) == [b'[{"features":[1]}]', b"[null]", b"[[3]]"]


@given(st.lists(st.integers(1, 6), min_size=1, max_size=12), SIZES)
def test_records_are_cut_between_their_frames(widths: list[int], size: int) -> None:
    frames = [recordio.encode(np.ones((1, width), dtype=np.float32)) for width in widths]
    found = contents(framing.split_records, b"".join(frames), size)
    assert b"".join(chunk.content for chunk in found) == b"".join(frames)
    starts = {sum(map(len, frames[:number])) for number in range(len(frames))}
    assert {chunk.offset for chunk in found} <= starts
    assert framing.each_record(b"".join(frames)) == frames


@pytest.mark.parametrize("cut", [1, 4, 9])
def test_records_that_are_cut_off_are_no_rows(cut: int) -> None:
    frames = recordio.encode(np.ones((2, 3), dtype=np.float32))
    assert framing.each_record(frames[:-cut]) is None
    assert framing.each_record(b"nonsense") is None
    assert framing.each_record(frames + b"\0") is None


@given(st.binary(max_size=300), SIZES)
def test_any_bytes_are_cut_without_a_loss(body: bytes, size: int) -> None:
    assert b"".join(chunk.content for chunk in framing.split_records(body, size)) == body
    list(payloads.split_lines(body, size))
    list(payloads.split_instances(body, size))
    framing.each_record(body)
    payloads.each_instance(body)


@pytest.mark.parametrize("size", [20, 200, 10_000])
@pytest.mark.parametrize("rows", [1, 5, 50])
@pytest.mark.parametrize("name", ["instances", "\\u0069nstances"])
def test_two_lists_of_instances_in_any_chunks_are_refused(rows: int, name: str, size: int) -> None:
    instances = ", ".join(['{"features": [1, 2]}'] * rows)
    body = f'{{"instances": [{instances}], "{name}": [{instances}]}}'.encode()
    with pytest.raises(DataError, match='found the key "instances" several times'):
        _ = [json.decode(chunk.content) for chunk in payloads.split_instances(body, size)]


@pytest.mark.parametrize("size", [20, 200, 10_000])
def test_lists_under_other_keys_are_skipped(size: int) -> None:
    objects = ", ".join(['{"features": [1, 2]}'] * 50)
    body = f'{{"instances": [{objects}], "other": [{objects}]}}'.encode()
    assert sum(len(json.decode(chunk.content).points) for chunk in payloads.split_instances(body, size)) == 50
