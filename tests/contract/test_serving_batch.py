"""Batch transforms: what arrives by SplitType and BatchStrategy, and what AssembleWith makes of the answers."""

import json
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from kmeans.formats import recordio

from .opt_ml import OptMl
from .samples import Points, csv, digits, instances, json_lines, nearest, predictions, read_centers
from .server import Server, serving

POINTS = digits()[:60]
LINE_TYPES = {"text/csv": csv, "application/jsonlines": json_lines}


@pytest.fixture(scope="module")
def batch(trained: OptMl, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server as local mode starts it for a batch transform."""
    output = tmp_path_factory.mktemp("batch") / "output"
    variables = {"SAGEMAKER_BATCH": "True", "SAGEMAKER_MODEL_SERVER_WORKERS": "1"}
    with serving(trained.base, output, **variables) as server:
        yield server


@pytest.fixture(scope="module")
def lenient(trained: OptMl, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that answers bad rows with placeholders."""
    output = tmp_path_factory.mktemp("lenient") / "output"
    variables = {"SAGEMAKER_BATCH": "true", "KMEANS_BAD_ROWS": "placeholder", "SAGEMAKER_MODEL_SERVER_WORKERS": "1"}
    with serving(trained.base, output, **variables) as server:
        yield server


def mini_batches(content: bytes, lines: int) -> list[bytes]:
    """Split as SageMaker does: whole lines with their ends."""
    parts = content.splitlines(keepends=True)
    return [b"".join(parts[first : first + lines]) for first in range(0, len(parts), lines)]


@pytest.mark.parametrize("lines", [1, 7, 60], ids=["SingleRecord", "MultiRecord", "one mini-batch"])
@pytest.mark.parametrize("accept", LINE_TYPES)
@pytest.mark.parametrize("content_type", LINE_TYPES)
def test_batch_lines_are_answered_without_blank_lines(
    batch: Server, trained: OptMl, content_type: str, accept: str, lines: int
) -> None:
    answers = [
        batch.invoke(part, content_type, Accept=accept)
        for part in mini_batches(LINE_TYPES[content_type](POINTS), lines)
    ]
    assert {answer.status for answer in answers} == {200}
    # AssembleWith=Line puts a line end behind each answer.
    assembled = b"".join(answer.body + b"\n" for answer in answers)
    found = assembled.removesuffix(b"\n")
    assert found.count(b"\n") == len(POINTS) - 1
    assert all(found.split(b"\n"))
    np.testing.assert_array_equal(predictions(accept, found)[:, 0], nearest(POINTS, read_centers(trained.model))[0])


@pytest.mark.parametrize("records", [1, 7, 60])
def test_batch_records_are_answered_as_records(batch: Server, trained: OptMl, records: int) -> None:
    """SplitType and AssembleWith RecordIO: the answers are put one behind another."""
    kind = "application/x-recordio-protobuf"
    parts = [recordio.encode(POINTS[first : first + records]) for first in range(0, len(POINTS), records)]
    assembled = b"".join(batch.invoke(part, kind, Accept=kind).body for part in parts)
    np.testing.assert_array_equal(predictions(kind, assembled)[:, 0], nearest(POINTS, read_centers(trained.model))[0])


def test_batch_object_is_answered_as_one(batch: Server, trained: OptMl) -> None:
    """SplitType None, with MaxPayloadInMB=0 in chunks."""
    answer = batch.invoke(iter([instances(POINTS)]), "application/json")
    np.testing.assert_array_equal(
        predictions("application/json", answer.body)[:, 0], nearest(POINTS, read_centers(trained.model))[0]
    )


WRITERS: dict[str, Callable[[Points], bytes]] = {
    "text/csv": csv,
    "application/json": instances,
    "application/jsonlines": json_lines,
    "application/x-recordio-protobuf": recordio.encode,
}


@pytest.mark.parametrize("content_type", WRITERS)
def test_body_of_several_chunks_is_answered_as_one(batch: Server, trained: OptMl, content_type: str) -> None:
    points = np.tile(digits(), (12, 1))
    body = WRITERS[content_type](points)
    assert len(body) > 2 << 20
    answer = batch.invoke(body, content_type, Accept="text/csv")
    assert answer.status == 200, answer.body
    labels, distances = nearest(points, read_centers(trained.model))
    found = predictions("text/csv", answer.body)
    np.testing.assert_array_equal(found[:, 0], labels)
    np.testing.assert_allclose(found[:, 1], distances, rtol=1e-5)


@pytest.mark.parametrize("content_type", ["text/csv", "application/json", "application/jsonlines"])
def test_error_far_into_a_body_names_its_row(batch: Server, content_type: str) -> None:
    points = np.tile(digits(), (12, 1))
    points[20_000, 5] = 12345.5
    body = WRITERS[content_type](points).replace(b"12345.5", b'"abc"')
    answer = batch.invoke(body, content_type)
    assert answer.status == 400
    assert answer.error["details"]["row"] == 20_001
    assert answer.error["details"].get("column") == 6


@pytest.mark.slow
def test_answer_to_many_rows_is_sent_in_chunks(batch: Server, trained: OptMl) -> None:
    points = np.tile(digits(), (60, 1))
    body = recordio.encode(points)
    labels = nearest(digits(), read_centers(trained.model))[0]
    for accept in ("application/json", "application/jsonlines", "text/csv", "application/x-recordio-protobuf"):
        answer = batch.invoke(body, "application/x-recordio-protobuf", Accept=accept)
        assert answer.headers["Transfer-Encoding"] == "chunked"
        found = predictions(accept, answer.body)
        np.testing.assert_array_equal(found[:, 0], np.tile(labels, 60))


@pytest.mark.slow
def test_batch_body_limit_is_100_mib_by_default(batch: Server) -> None:
    row = csv(POINTS[:1])
    limit = 100 << 20
    assert batch.invoke(row + b"\n" * (limit - len(row))).status == 200
    with batch.upload(limit + 1) as upload:
        assert not upload.is_wanted, "the body is refused before it is sent"
        assert upload.answer().status == 413


# Rows that can't be read.

BAD_LINES = (b"1,2,3", b"a," * 63 + b"a", b"", b",".join([b"nan"] * 64), b"\xff", b",".join([b"1e39"] * 64))


def test_bad_csv_rows_become_placeholders_in_place(lenient: Server, trained: OptMl) -> None:
    good = csv(POINTS[:4]).splitlines()
    lines = [good[0], BAD_LINES[0], good[1], BAD_LINES[1], BAD_LINES[3], good[2], BAD_LINES[4], BAD_LINES[5], good[3]]
    answer = lenient.invoke(b"\n".join(lines), Accept="text/csv")
    assert answer.status == 200, answer.body
    found = predictions("text/csv", answer.body)
    assert np.flatnonzero(np.isnan(found[:, 0])).tolist() == [1, 3, 4, 6, 7]
    assert np.flatnonzero(np.isnan(found[:, 1])).tolist() == [1, 3, 4, 6, 7]
    np.testing.assert_array_equal(found[[0, 2, 5, 8], 0], nearest(POINTS[:4], read_centers(trained.model))[0])


@pytest.mark.parametrize("labels", ["float", "int"])
def test_placeholders_are_null_in_json(lenient: Server, labels: str) -> None:
    good = json.loads(instances(POINTS[:1]))["instances"][0]
    body = json.dumps({"instances": [good, {"features": [1]}, 7, {"x": 1}, {"features": ["a"] * 64}, good]})
    answer = lenient.invoke(body.encode(), "application/json", Accept=f"application/json; labels={labels}")
    assert answer.status == 200, answer.body
    found = json.loads(answer.body)["predictions"]
    missing = {"closest_cluster": None, "distance_to_cluster": None}
    assert [prediction == missing for prediction in found] == [False, True, True, True, True, False]
    assert isinstance(found[0]["closest_cluster"], int if labels == "int" else float)


@pytest.mark.parametrize("is_bad", [True, False], ids=["a bad row", "no other"])
def test_instance_nested_too_deeply_becomes_a_placeholder(lenient: Server, is_bad: bool) -> None:
    (good,) = json.loads(instances(POINTS[:1]))["instances"]
    deep = good | {"id": json.loads("[" * 300 + "]" * 300)}
    answer = lenient.invoke(json.dumps([good, deep, *[7] * is_bad]).encode(), "application/json")
    assert answer.status == 200, answer.body
    found = [prediction["closest_cluster"] is None for prediction in json.loads(answer.body)["predictions"]]
    assert found == [False, True, *[True] * is_bad]


def test_bad_json_lines_become_placeholders(lenient: Server) -> None:
    lines = json_lines(POINTS[:2]).split(b"\n")
    body = b"\n".join([lines[0], b"{", b"[1, 2]", lines[1]])
    answer = lenient.invoke(body, "application/jsonlines", Accept="application/jsonlines")
    assert answer.status == 200, answer.body
    found = [json.loads(line)["closest_cluster"] for line in answer.body.split(b"\n")]
    assert [label is None for label in found] == [False, True, True, False]


def test_bad_records_become_placeholders(lenient: Server) -> None:
    kind = "application/x-recordio-protobuf"
    nan = POINTS[:1].copy()
    nan[0, 0] = np.nan
    body = (
        recordio.encode(POINTS[:1])
        + recordio.encode(POINTS[:1, :5])
        + recordio.encode(nan)
        + recordio.encode(POINTS[:1])
    )
    answer = lenient.invoke(body, kind, Accept=kind)
    assert answer.status == 200, answer.body
    assert np.isnan(predictions(kind, answer.body)[:, 0]).tolist() == [False, True, True, False]


def test_placeholders_in_several_chunks_are_in_place(lenient: Server) -> None:
    lines = csv(np.tile(digits(), (12, 1))).splitlines()
    bad = [0, 9_000, 9_001, len(lines) - 1]
    for row in bad:
        lines[row] = b"oops"
    found = predictions("text/csv", lenient.invoke(b"\n".join(lines), Accept="text/csv").body)
    assert len(found) == len(lines)
    assert np.flatnonzero(np.isnan(found[:, 0])).tolist() == bad


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b'{"instances": [{"features": [1,', "application/json"),
        (b'{"instances": 3}', "application/json"),
        (b"no record", "application/x-recordio-protobuf"),
        (recordio.encode(POINTS[:3])[:-4], "application/x-recordio-protobuf"),
        (b"", "text/csv"),
        (b"\n\n", "text/csv"),
        (b'{"instances": []}', "application/json"),
    ],
)
def test_body_that_cannot_be_split_into_rows_is_refused(lenient: Server, body: bytes, content_type: str) -> None:
    answer = lenient.invoke(body, content_type)
    assert (answer.status, answer.error["code"]) == (400, "invalid_payload")


@pytest.mark.parametrize("body", [b"\n", b"\r\n", b" \n", b" "])
@pytest.mark.parametrize("content_type", LINE_TYPES)
def test_single_blank_line_becomes_a_placeholder(
    lenient: Server, batch: Server, content_type: str, body: bytes
) -> None:
    """With SplitType=Line and BatchStrategy=SingleRecord such a body comes; a refusal would fail the whole object."""
    answer = lenient.invoke(body, content_type, Accept="text/csv")
    assert (answer.status, answer.body) == (200, b"nan,nan")
    assert batch.invoke(body, content_type).status == 400


def test_placeholders_are_counted_in_log_and_metrics(lenient: Server) -> None:
    assert lenient.invoke(b"oops\nx").status == 200
    assert '"bad_rows":2' in lenient.output.read_text()
    assert b"kmeans_bad_rows_total" in lenient.ask("GET", "/metrics").body
