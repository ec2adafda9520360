"""Reading a stream batch by batch gives the same rows as reading the whole content, or the same error."""

from __future__ import annotations

import io
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmeans.arrays import Float32
from kmeans.errors import DataError
from kmeans.formats import batches, buffer, csv, jsonlines, npy, recordio
from kmeans.formats.batches import equal_batches
from kmeans.formats.buffer import Buffer, Stream
from kmeans.formats.format import RowReader
from kmeans.formats.recordio import reader
from tests.unit.kmeans import oracle
from tests.unit.kmeans.formats import wire
from tests.unit.kmeans.formats.streams import Repeated, Trickle

ROWS = np.random.default_rng(0).normal(size=(30, 3)).astype(np.float32)


def saved(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


MAGIC_FLOAT = float(np.frombuffer(wire.MAGIC, np.float32)[0])
RECORDS = [
    recordio.encode(ROWS),
    recordio.encode(ROWS, np.arange(30) * 9),
    (oracle.GOLDEN / "dense_float64_13.pbr").read_bytes(),
    (oracle.GOLDEN / "dense_int64_13.pbr").read_bytes(),
    (oracle.GOLDEN / "sparse_float32_13.pbr").read_bytes(),
    wire.file_of(wire.float32_tensor(1, 2), wire.float64_tensor(3, 4), wire.int32_tensor(5, -6)) * 4,
    wire.file_of(wire.float32_tensor(1, 2, 3))
    + wire.frame_cut_at_magic(wire.record(wire.float32_tensor(1, MAGIC_FLOAT, 2))) * 3,
    wire.file_of(*[wire.int32_tensor(1, 2, 3)] * 3)[:-1],  # without the last record's padding
    b"",
]
LINES = [
    b"1,2\n3,4\n5,6\n",
    b"\xef\xbb\xbf1.5,-2e3\r\n\r\n.5,+7\r\n\r\n1,2",
    b"1\n2\n3",
    b"\n\n1,2\n\n\n3,4\n\n5,inf\n",
    b"1,2\n3,nan\n4\nx,y\n",
    b"a,b\n1,2\n",
    b"\xef\xbb\xbf",
    b"",
]
JSON_LINES = [
    b"[1, 2]\n[3, 4]\n\n[5, 6]",
    b'{"features": [1, 2.5]}\r\n\r\n{"data": {"features": {"values": [3, 4]}}}\n[9, 9]\n',
    b'{"features": {"keys": [1], "shape": [3], "values": [2]}}\n[1, 2, 3]\n' * 3,
    b"[1, 2]\n[3, true]\n[4]\n",
    b"[1, 2]\n[1e39, 2]\n[4]\n{\n",
    b"[]\n[]\n",
    b"[1]\n[[2]]\n",
    b" \n",
    b"",
]
ARRAYS = [
    saved(ROWS[:7]),
    saved(ROWS[:7].astype(">f8")),
    saved(ROWS[:7].T),
    saved(np.arange(12, dtype=np.uint8).reshape(4, 3)),
    saved(np.empty((0, 3))),
    saved(np.asfortranarray(np.empty((0, 3)))),
    saved(np.empty((3, 0))),
    saved(np.array([[1.0], [np.nan], [1e300]])),
    saved(ROWS[:7])[:-3],
    saved(ROWS[:7]) + b"12345",
    saved(ROWS.ravel()),
    b"",
]


@dataclass(frozen=True)
class Format:
    decode: Callable[[bytes], Float32]
    read_rows: RowReader
    modules: tuple[tuple[Any, str], ...]
    """Where the size of its buffer is set."""
    seeds: list[bytes]

    @contextmanager
    def in_steps_of(self, bytes_at_once: int) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            for module, name in self.modules:
                patch.setattr(module, name, bytes_at_once)
            patch.setattr(batches, "BATCH_BYTES", bytes_at_once)
            yield

    def read(self, stream: Stream) -> Float32:
        return np.concatenate([batch.copy() for batch in self.batches(stream)])

    def batches(self, stream: Stream, features: int | None = None) -> Iterator[Float32]:
        return equal_batches(self.read_rows(Buffer(stream), features))


FORMATS = {
    "RecordIO": Format(recordio.decode, recordio.read_rows, ((reader, "BUFFER_BYTES"),), RECORDS),
    "CSV": Format(csv.decode, csv.read_rows, ((csv, "CHUNK_BYTES"),), LINES),
    "JSON Lines": Format(
        lambda content: jsonlines.decode(content).points,
        jsonlines.read_rows,
        ((jsonlines, "CHUNK_BYTES"), (jsonlines, "DENSE_NUMBERS")),
        JSON_LINES,
    ),
    "NPY": Format(npy.decode, npy.read_rows, ((npy, "BUFFER_BYTES"),), ARRAYS),
}
each_format = pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)


def outcome(read: Callable[[], Float32]) -> Any:
    """Return the rows, or all that the refusal says."""
    try:
        points = read()
    except DataError as error:
        return error.row, error.column, error.offset, str(error)
    oracle.assert_points(points)
    assert points.flags.c_contiguous
    return points.shape, points.tobytes()


def assert_as_whole(form: Format, content: bytes, bytes_at_once: int, most: int) -> None:
    whole = outcome(lambda: form.decode(content))
    with form.in_steps_of(bytes_at_once):
        assert outcome(lambda: form.read(Trickle(content, most))) == whole


@each_format
@pytest.mark.parametrize("bytes_at_once", [1, 2, 7, 20, 64, 200, 1 << 20])
def test_every_example_is_read_as_it_is_whole(form: Format, bytes_at_once: int) -> None:
    for content in form.seeds:
        for most in (1, 13, 1 << 20):
            assert_as_whole(form, content, bytes_at_once, most)


@pytest.mark.filterwarnings("ignore:Reading `.npy` or `.npz` file required additional header parsing")
@each_format
def test_any_content_is_read_as_it_is_whole(form: Format) -> None:
    @oracle.PROPERTY
    @given(oracle.damaged(form.seeds) | st.binary(max_size=80), st.integers(1, 300), st.integers(1, 300))
    def check(content: bytes, bytes_at_once: int, most: int) -> None:
        assert_as_whole(form, content, bytes_at_once, most)

    check()


@oracle.PROPERTY
@given(
    st.lists(st.text("0123456789+-.eE, \t\r\ufeffnaif_x", max_size=12), max_size=8).map("\n".join).map(str.encode),
    st.integers(1, 40),
)
def test_any_text_is_read_as_it_is_whole(text: bytes, bytes_at_once: int) -> None:
    assert_as_whole(FORMATS["CSV"], text, bytes_at_once, 1000)


@oracle.PROPERTY
@given(
    st.lists(
        st.sampled_from(["[1, 2]", "[1.5, 2]", "[1, true]", "[1]", "[]", "[1, 1e99]", "[1, null]", "{", "", "5"])
        | st.sampled_from(['{"features": {"keys": [0], "shape": [2], "values": [7]}}', '{"features": [1, 2]}']),
        max_size=8,
    )
    .map("\n".join)
    .map(str.encode),
    st.integers(1, 100),
)
def test_any_lines_of_json_are_read_as_they_are_whole(text: bytes, bytes_at_once: int) -> None:
    assert_as_whole(FORMATS["JSON Lines"], text, bytes_at_once, 1000)


@each_format
def test_content_cut_anywhere_is_read_as_it_is_whole(form: Format) -> None:
    for cut in range(len(form.seeds[0])):
        assert_as_whole(form, form.seeds[0][:cut], 50, 1000)


@pytest.mark.parametrize("kind", ["dense_float32_784.pbr", "dense_float32_int64label_13.pbr"])
def test_files_of_the_sdk_are_read_to_the_bit(kind: str) -> None:
    content = (oracle.GOLDEN / kind).read_bytes()
    for bytes_at_once in (100, 4000, 10_000, 1 << 20):
        assert_as_whole(FORMATS["RecordIO"], content, bytes_at_once, 1 << 20)


def test_sparse_vectors_have_the_width_that_is_asked_for() -> None:
    records = wire.file_of(wire.sparse_tensor([1], [2.0], [3]))
    lines = b'{"features": {"keys": [1], "shape": [3], "values": [2]}}'
    for form, content in (("RecordIO", records), ("JSON Lines", lines)):
        assert [batch.tolist() for batch in FORMATS[form].batches(io.BytesIO(content), 3)] == [[[0, 2, 0]]]
        with pytest.raises(DataError, match="expected a sparse vector of width 4, found 3"):
            list(FORMATS[form].batches(io.BytesIO(content), 4))


@pytest.mark.parametrize(
    ("form", "content", "row"),
    [
        ("RecordIO", wire.file_of(wire.float32_tensor(1)) * 3 + wire.file_of(wire.float32_tensor(*range(50))), 4),
        ("CSV", b"1\n2\n" + b"1," * 100 + b"1\n3\n", 3),
        ("JSON Lines", b"[1]\n\n[2]\n" + b" " * 200 + b"[3]\n", 3),
        ("NPY", saved(np.zeros((3, 50), dtype=np.float32)), 1),
    ],
)
def test_record_or_line_beyond_the_limit_is_refused_by_row(
    form: str, content: bytes, row: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buffer, "MAX_BYTES", 150)
    monkeypatch.setattr(npy, "MAX_HEADER_BYTES", 128)
    with FORMATS[form].in_steps_of(10), pytest.raises(DataError, match="at most 150 bytes, found a longer") as raised:
        FORMATS[form].read(Trickle(content, 1000))
    assert raised.value.row == row


def test_rows_come_before_the_stream_is_at_its_end() -> None:
    for form, content in (("RecordIO", RECORDS[0]), ("CSV", b"1,2\n" * 1000), ("NPY", saved(np.ones((20_000, 2))))):
        stream = Trickle(content, 1 << 20)
        with FORMATS[form].in_steps_of(100):
            next(FORMATS[form].batches(stream))
        assert stream.taken < len(content)


MB = 1 << 20
SPARSE_LINE = b'{"features": {"keys": [1], "shape": [4000], "values": [2]}}\n'
SPARSE_RECORD = wire.file_of(wire.sparse_tensor([1], [2.0], [4000]))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "content", "times"),
    [
        pytest.param("RecordIO", recordio.encode(np.ones((1000, 784), dtype=np.float32)), 100, id="300 MB of RecordIO"),
        pytest.param("CSV", (b"0.5," * 783 + b"1\n") * 300, 16, id="15 MB of CSV"),
        pytest.param("JSON Lines", (b"[" + b"0.5," * 783 + b"1]\n") * 300, 16, id="15 MB of JSON Lines"),
        pytest.param("RecordIO", SPARSE_RECORD, 5000, id="80 MB in sparse records"),
        pytest.param("JSON Lines", SPARSE_LINE, 5000, id="80 MB in sparse lines"),
    ],
)
def test_memory_is_bounded_however_long_the_stream_is(form: str, content: bytes, times: int) -> None:
    stream = Repeated(content, times)
    tracemalloc.start()
    rows = sum(len(batch) for batch in FORMATS[form].batches(stream))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert rows >= times
    assert peak < 8 * MB
