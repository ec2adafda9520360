"""One file to rows: type, compression, encoding."""

import gc
import gzip
import io
import os
import tracemalloc
from contextlib import closing
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from kmeans.arrays import Float32
from kmeans.errors import DataError, SettingError
from kmeans.formats import batches, csv, recordio
from kmeans.formats.media_type import MediaType
from train.files import FileReader, ReadOptions

ROWS = np.array([[1, 2.5], [-3, 4]], dtype=np.float32)
CSV = b"1,2.5\n-3,4\n"
LINES = b'{"features": [1, 2.5]}\n{"features": [-3, 4]}\n'
RECORDS = recordio.encode(ROWS)


def npy(array: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def reader(path: Path, content_type: str | None = None, feature_dim: int | None = None) -> FileReader:
    return FileReader(path, MediaType.parse(content_type), ReadOptions(feature_dim))


def rows_of(file: FileReader) -> Float32:
    return np.concatenate([block.copy() for block in file.batches()])


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
    file = reader(path, kind if declared else None, 2)
    points = rows_of(file)
    np.testing.assert_array_equal(points, ROWS)
    assert points.dtype == np.float32
    assert (file.bytes, file.content_type, file.label_columns) == (len(stored), kind, 0)
    assert (file.rows, file.columns) == ROWS.shape


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
    file = reader(path, name)
    rows_of(file)
    assert file.content_type == kind


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
    np.testing.assert_array_equal(rows_of(reader(path, f"text/csv; {parameter}")), ROWS)


@pytest.mark.parametrize("encoding", ["klingon", "hex", "rot13", "undefined", "a\0b"])
def test_an_unknown_encoding_is_refused(path: Path, encoding: str) -> None:
    path.write_bytes(CSV)
    with pytest.raises(SettingError, match=r"Content type: encoding '.+' is not known"):
        rows_of(reader(path, f"text/csv; charset={encoding}"))


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
        pytest.param(gzip.compress(b""), "", "expected rows of numbers, found none", id="gzip of nothing"),
        pytest.param(npy(ROWS)[:-4], "", "expected 16 bytes", id="cut-off NPY"),
        pytest.param(npy(ROWS.ravel()), "", "data: ", id="NPY of one dimension"),
        pytest.param(LINES + b'{"features": [1]}\n', "", "row 3", id="JSON Lines of two widths"),
        pytest.param(LINES + b"{\n", "", "row 3", id="half a line of JSON"),
    ],
)
def test_file_with_content_of_another_type_is_named(
    path: Path, content: bytes, content_type: str, problem: str
) -> None:
    path.write_bytes(content)
    with pytest.raises(DataError, match=problem) as caught:
        rows_of(reader(path, content_type))
    assert caught.value.source == str(path)


def test_an_empty_file_has_no_batches(path: Path) -> None:
    path.write_bytes(b"")
    file = reader(path)
    assert list(file.batches()) == []
    assert (file.rows, file.columns, file.bytes) == (0, 0, 0)


def test_labels_are_passed_over_in_every_block(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv, "CHUNK_BYTES", 40)
    monkeypatch.setattr(batches, "BATCH_BYTES", 60)
    table = np.arange(300, dtype=np.float32).reshape(100, 3)
    path.write_bytes("\n".join(",".join(map(repr, row)) for row in table.tolist()).encode())
    file = reader(path, "text/csv;label_size=1")
    blocks = [block.copy() for block in file.batches()]
    assert len(blocks) == 20
    assert all(block.flags.c_contiguous for block in blocks)
    assert np.array_equal(np.concatenate(blocks), table[:, 1:])
    assert (file.columns, file.label_columns) == (3, 1)


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip of two members"])
def test_rows_and_bytes_are_counted_in_the_whole_file(
    path: Path, packed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv, "CHUNK_BYTES", 100)
    lines = [b"1,2\n"] * 1000
    lines[777] = b"1,x\n"
    parts = b"".join(lines[:300]), b"".join(lines[300:])
    path.write_bytes(b"".join(map(gzip.compress, parts)) if packed else b"".join(parts))
    with pytest.raises(DataError) as raised:
        rows_of(reader(path))
    assert str(raised.value) == f"{path}, row 778, column 2: expected a number, found 'x'."


def test_the_offset_is_that_in_the_unpacked_file(path: Path) -> None:
    path.write_bytes(gzip.compress(RECORDS * 10_000) + gzip.compress(RECORDS[:-5]))
    with pytest.raises(DataError, match="ends within a record") as raised:
        rows_of(reader(path))
    assert (raised.value.row, raised.value.offset) == (20_002, 10_000 * len(RECORDS) + len(RECORDS) // 2 + 8)


def test_a_pipe_is_read_as_a_file_is_in_bounded_memory(path: Path) -> None:
    body = recordio.encode(np.ones((1000, 784), dtype=np.float32))
    os.mkfifo(path)

    def write() -> None:
        with path.open("wb") as pipe:
            for _ in range(100):
                pipe.write(body)

    writer = Thread(target=write, daemon=True)
    writer.start()
    tracemalloc.start()
    file = reader(path, feature_dim=784)
    rows = sum(len(block) for block in file.batches())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    writer.join()
    assert (rows, file.rows, file.bytes) == (100_000, 100_000, 100 * len(body))
    assert peak < 8 << 20


def open_files() -> int:
    return sum(isinstance(thing, io.FileIO) and not thing.closed for thing in gc.get_objects())


def test_reading_that_ends_early_or_fails_closes_the_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv, "CHUNK_BYTES", 8)
    monkeypatch.setattr(batches, "BATCH_BYTES", 8)
    path.write_bytes(CSV * 10 + b"x")
    before = open_files()
    with closing(reader(path).batches()) as blocks:
        next(blocks)
        assert open_files() == before + 1
    assert open_files() == before
    with pytest.raises(DataError) as raised:
        rows_of(reader(path))
    assert open_files() == before
    assert raised.value.row == 21
