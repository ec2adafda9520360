"""One file to rows: type, compression, encoding."""

import gzip
import io
from pathlib import Path

import numpy as np
import pytest

from kmeans.errors import DataError, SettingError
from kmeans.formats import recordio
from kmeans.formats.media_type import MediaType
from train.files import read_file

ROWS = np.array([[1, 2.5], [-3, 4]], dtype=np.float32)
CSV = b"1,2.5\n-3,4\n"
LINES = b'{"features": [1, 2.5]}\n{"features": [-3, 4]}\n'
RECORDS = recordio.encode(ROWS)


def npy(array: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("declared", [False, True], ids=["told by its bytes", "declared"])
@pytest.mark.parametrize(
    ("content", "kind"),
    [
        pytest.param(CSV, "text/csv", id="CSV"),
        pytest.param(LINES, "application/jsonlines", id="JSON Lines"),
        pytest.param(RECORDS, "application/x-recordio-protobuf", id="RecordIO"),
        pytest.param(npy(ROWS), "application/x-npy", id="NPY"),
    ],
)
def test_each_type_is_read_declared_or_not_packed_or_not(
    path: Path, content: bytes, kind: str, declared: bool, compressed: bool
) -> None:
    stored = gzip.compress(content) if compressed else content
    path.write_bytes(stored)
    data = read_file(path, MediaType.parse(kind if declared else None), 2)
    np.testing.assert_array_equal(data.points, ROWS)
    assert data.points.dtype == np.float32
    assert (data.bytes, data.content_type, data.label_columns) == (len(stored), kind, 0)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("csv", "text/csv"),
        ("application/csv", "text/csv"),
        ("TEXT/CSV", "text/csv"),
        ("application/jsonl", "application/jsonlines"),
        ("application/x-ndjson", "application/jsonlines"),
    ],
)
def test_other_names_of_a_type_are_known(path: Path, name: str, kind: str) -> None:
    path.write_bytes(CSV if kind == "text/csv" else LINES)
    assert read_file(path, MediaType.parse(name), None).content_type == kind


@pytest.mark.parametrize(
    ("parameter", "encoding"),
    [
        ("charset=utf-8", "utf-8"),
        ("charset=US-ASCII", "ascii"),
        ("charset=utf-16", "utf-16"),
        ("encoding=utf-16-le", "utf-16-le"),
        ('encoding="latin-1"', "latin-1"),
    ],
)
def test_text_is_read_in_the_encoding_that_is_declared(path: Path, parameter: str, encoding: str) -> None:
    path.write_bytes(CSV.decode().encode(encoding))
    np.testing.assert_array_equal(read_file(path, MediaType.parse(f"text/csv; {parameter}"), None).points, ROWS)


def test_an_unknown_encoding_is_refused(path: Path) -> None:
    path.write_bytes(CSV)
    with pytest.raises(SettingError, match="encoding 'klingon' is not known"):
        read_file(path, MediaType.parse("text/csv; charset=klingon"), None)


@pytest.mark.parametrize(
    ("content", "content_type", "problem"),
    [
        pytest.param(gzip.compress(CSV)[:-9], "text/csv", "gzip", id="cut-off gzip"),
        pytest.param(b"\x1f\x8bnothing", "", "gzip", id="nothing but gzip's magic"),
        pytest.param(b"\xd8\x00", "text/csv;charset=utf-16-be", "expected text in utf-16-be", id="broken UTF-16"),
        pytest.param(b"PK\3\4\0\0", "", "neither RecordIO-protobuf, NPY nor text", id="a zip"),
        pytest.param(LINES, "text/csv", "row 1, column 1", id="JSON Lines as CSV"),
        pytest.param(CSV, "application/jsonlines", "row 1", id="CSV as JSON Lines"),
        pytest.param(CSV, "application/x-npy", "data: ", id="CSV as NPY"),
        pytest.param(npy(ROWS)[:-4], "", "expected 16 bytes", id="cut-off NPY"),
        pytest.param(npy(ROWS.ravel()), "", "data: ", id="NPY of one dimension"),
        pytest.param(LINES + b'{"features": [1]}\n', "", "row 3", id="JSON Lines of two widths"),
        pytest.param(LINES + b"{\n", "", "row 3", id="half a line of JSON"),
    ],
)
def test_what_is_not_what_it_promises_is_named(path: Path, content: bytes, content_type: str, problem: str) -> None:
    path.write_bytes(content)
    with pytest.raises(DataError, match=problem) as caught:
        read_file(path, MediaType.parse(content_type), None)
    assert caught.value.source == str(path)
