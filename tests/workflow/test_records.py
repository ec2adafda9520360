"""What a batch transform sends and writes, as SageMaker documents it."""

import struct
from typing import Any

import numpy as np
import pytest

from kmeans.formats import recordio
from kmeans.formats.media_type import CSV, JSON, JSON_LINES
from workflow.errors import WorkflowError
from workflow.local.records import answers, filtered, joined, pack, select, split

ROW = ["7", "0.1", "0.2", "3.0", "1.5"]
OBJECT = {"id": 4, "features": [1, 2], "inner": {"a": 1, "b": 2}}


@pytest.mark.parametrize(
    ("path", "value", "selected"),
    [
        ("$", ROW, ROW),
        ("$[1:]", ROW, ROW[1:]),
        ("$[1:3]", ROW, ROW[1:3]),
        ("$[:-2]", ROW, ROW[:-2]),
        ("$[0,-2,-1]", ROW, ["7", "3.0", "1.5"]),
        ("$[-1]", ROW, "1.5"),
        ("$.features", OBJECT, [1, 2]),
        ("$['features'][0]", OBJECT, 1),
        ("$.inner.b", OBJECT, 2),
        ("$['id','features']", OBJECT, {"id": 4, "features": [1, 2]}),
        ("$.inner.['a','b']", OBJECT, {"a": 1, "b": 2}),
    ],
)
def test_a_path_selects(path: str, value: Any, selected: Any) -> None:
    assert select(path, value) == selected


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("features", "begins with \\$"),
        ("$..features", "can't be read"),
        ("$[?(@.a)]", "can't be read"),
        ("$.nothing", "leads to nothing"),
        ("$[0]", "leads to nothing"),
        ("$.features[7]", "leads to nothing"),
        ("$.id.more", "leads to nothing"),
    ],
)
def test_a_path_that_leads_nowhere_is_said(path: str, problem: str) -> None:
    with pytest.raises(WorkflowError, match=problem):
        select(path, OBJECT)


def test_lines_keep_their_ends() -> None:
    assert split(b"1,2\r\n3,4\n5,6", "Line") == [b"1,2\r\n", b"3,4\n", b"5,6"]
    assert split(b"1,2\n3,4\n", "None") == [b"1,2\n3,4\n"]


def test_records_are_cut_at_their_lengths() -> None:
    # The magic number itself is among the values.
    magic = np.frombuffer(struct.pack("<I", 0xCED7230A), dtype=np.float32)
    points = np.array([[1, 2], [magic[0], 3], [4, 5]], dtype=np.float32)
    content = recordio.encode(points)
    records = split(content, "RecordIO")
    assert b"".join(records) == content
    assert [recordio.decode(record).tolist() for record in records] == [[row] for row in points.tolist()]
    for broken in (content[:-4], content[1:], content + b"\0"):
        with pytest.raises(WorkflowError, match=r"byte \d+: expected a"):
            split(broken, "RecordIO")


def test_a_request_holds_as_many_records_as_fit() -> None:
    lines = [b"1234\n"] * 5
    assert [len(batch) for batch in pack(lines, "MultiRecord", 12)] == [2, 2, 1]
    assert [len(batch) for batch in pack(lines, "MultiRecord", 1 << 20)] == [5]
    assert [len(batch) for batch in pack(lines, "SingleRecord", 12)] == [1] * 5
    with pytest.raises(WorkflowError, match="record 2 has 5 bytes"):
        list(pack([b"1\n", b"1234\n"], "MultiRecord", 4))


def test_the_model_gets_what_the_filter_leaves() -> None:
    assert filtered(b"7,0.1,0.2\r\n", CSV, "$[1:]") == b"0.1,0.2\n"
    assert filtered(b'{"id": 4, "features": [1, 2]}\n', JSON_LINES, "$.features") == b"[1, 2]\n"
    assert filtered(b"7, 0.1\n", CSV, "$") == b"7, 0.1\n", "what isn't filtered goes as it is"


@pytest.mark.parametrize(
    ("record", "answer", "media_type", "path", "written"),
    [
        (b"7,0.1\n", b"3.0,1.5", CSV, "$", b"7,0.1,3.0,1.5"),
        (b"7,0.1\n", b"3.0,1.5", CSV, "$[0,-2,-1]", b"7,3.0,1.5"),
        (b'{"id": 4}\n', b'{"c": 1}', JSON_LINES, "$", b'{"id": 4, "SageMakerOutput": {"c": 1}}'),
        (b'{"id": 4}\n', b'{"c": 1}', JSON_LINES, "$.SageMakerOutput.c", b"1"),
        (b"[1, 2]", b'{"c": 1}', JSON, "$", b'{"SageMakerInput": [1, 2], "SageMakerOutput": {"c": 1}}'),
    ],
)
def test_record_and_answer_are_joined(record: bytes, answer: bytes, media_type: str, path: str, written: bytes) -> None:
    assert joined(record, answer, media_type, media_type, joins=True, path=path) == written


def test_without_a_join_the_answer_alone_is_filtered() -> None:
    assert joined(b"7,0.1\n", b"3.0,1.5", CSV, CSV, joins=False, path="$[0]") == b"3.0"


def test_answers_must_be_as_many_as_records() -> None:
    assert answers(b"1,2\n3,4", CSV, 2) == answers(b"1,2\n3,4\n", CSV, 2) == [b"1,2", b"3,4"]
    assert answers(b'{"predictions": []}', JSON, 1) == [b'{"predictions": []}']
    with pytest.raises(WorkflowError, match="1 answers to 2 records"):
        answers(b"1,2\n", CSV, 2)
