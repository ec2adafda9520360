"""What must hold for any bytes: the right arrays or an error meant for the user, in bounded time and memory.

Each target is a function that takes bytes and raises when something doesn't hold. It uses nothing but the project and
the standard library, so that both libFuzzer and the unit tests can drive it.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json as python_json
import tarfile
import tempfile
import tracemalloc
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from kmeans import artifact
from kmeans.arrays import Float32
from kmeans.errors import DataError, KMeansError, ModelError, SettingError
from kmeans.formats import batches, csv, json, jsonlines, mxnet, npy, payloads, recordio, sparse
from kmeans.formats.batches import equal_batches
from kmeans.formats.buffer import Buffer, Stream
from kmeans.formats.instances import Instances, Predictions
from kmeans.formats.media_type import CSV, JSON, JSON_LINES, NPY, RECORDIO, MediaType
from kmeans.formats.recordio import reader
from kmeans.formats.registry import FORMATS
from kmeans.model import KMeansModel
from tests.fuzz import requests
from tests.unit.kmeans.formats import wire
from tests.unit.kmeans.formats.streams import Trickle
from train.config import Channel
from train.files import FileReader, ReadOptions
from train.warm_start import read_model

# Memory that a decoder may take: a number of bytes for each of its input, plus a constant. A list of empty JSON objects
# (24 bytes of memory for each of text, and as much again for what comes with the points) is the worst of all.
GROWTH = 64
CONSTANT = 4 << 20

# What sparse vectors may grow to is bounded by a constant and a factor; smaller ones, so that few bytes reach them.
SPARSE_CONSTANT, SPARSE_GROWTH = 1 << 16, 4

MAX_SENTENCE = 1000

FEATURES = 2
ROWS = np.array([[1.5, -2], [3e10, 4], [0, 1e-30], [5, 6]], dtype=np.float32)
LONG_ROWS = np.arange(600, dtype=np.float32).reshape(12, 50)


@dataclass(frozen=True)
class Target:
    """What is asked of any input, and inputs to begin with."""

    check: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]


# What every target asks.


@contextlib.contextmanager
def bounded_memory(size: int) -> Iterator[None]:
    """Assert that all within takes no more memory than an input of ``size`` bytes may."""
    started = not tracemalloc.is_tracing()
    if started:
        tracemalloc.start()
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        if started:
            tracemalloc.stop()
    assert peak <= CONSTANT + GROWTH * size, f"{peak} bytes of memory for {size} of input"


def attempt(read: Callable[[], Any]) -> Any:
    """Return what ``read`` gives, or the DataError by which it refuses its input; anything else is a defect."""
    try:
        return read()
    except DataError as error:
        assert_sentence(error)
        return error


def assert_sentence(error: KMeansError) -> None:
    """Assert that ``error`` can be shown as it is."""
    text = str(error)
    assert text, "an error without a word"
    assert len(text) <= MAX_SENTENCE, text
    assert "\n" not in text, text
    assert text.isprintable(), text


def assert_points(points: Float32) -> None:
    assert points.dtype == np.float32, points.dtype
    assert points.ndim == 2, points.shape
    assert points.shape[1] > 0, points.shape
    assert points.flags.c_contiguous
    assert np.isfinite(points).all()


def outcome(read: Callable[[], Float32]) -> Any:
    """Return all that can be seen of the points that ``read`` gives, or of its refusal."""
    found = attempt(read)
    if isinstance(found, DataError):
        return found.row, found.column, found.offset, str(found)
    assert_points(found)
    # The sign of a zero, which says nothing, is lost where the text is read as JSON.
    return found.shape, (found + np.float32(0)).tobytes()


def assert_read_alike(
    data: bytes,
    whole: Callable[[], Float32],
    read_rows: Callable[[Buffer], Iterator[batches.ParsedRows]],
    *sizes: tuple[Any, str],
) -> None:
    """Assert that a stream gives the same rows as its content, or the same refusal, in whatever steps it comes."""
    steps = 16 + zlib.crc32(data) % 200
    with contextlib.ExitStack() as patches:
        expected = outcome(whole)
        for module, name in (*sizes, (batches, "BATCH_BYTES")):
            patches.enter_context(mock.patch.object(module, name, steps))
        stream = Trickle(data, max(1, steps // 3))
        found = outcome(lambda: np.concatenate([batch.copy() for batch in equal_batches(read_rows(Buffer(stream)))]))
    assert found == expected, f"{found} as a stream, {expected} as a whole"


def _small_sparse() -> contextlib.ExitStack:
    stack = contextlib.ExitStack()
    stack.enter_context(mock.patch.object(sparse, "FREE_BYTES", SPARSE_CONSTANT))
    stack.enter_context(mock.patch.object(sparse, "MAX_GROWTH", SPARSE_GROWTH))
    return stack


def _features(data: bytes) -> int | None:
    return (None, FEATURES)[zlib.crc32(data) & 1]


# The formats.


def check_csv(data: bytes) -> None:
    """CSV: as Python's float() reads each cell, and as its own stream reads it."""
    with bounded_memory(len(data)):
        points = attempt(lambda: csv.decode(data))
    assert_read_alike(data, lambda: csv.decode(data), csv.read_rows, (csv, "CHUNK_BYTES"))
    if isinstance(points, DataError):
        return
    lines = data.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").split(b"\n")
    cells = [[float(cell) for cell in line.split(b",")] for line in lines if line.strip()]
    assert np.array_equal(points, np.array(cells, dtype=np.float64).astype(np.float32))
    again = "\n".join(",".join(map(repr, row)) for row in points.tolist()).encode()
    assert np.array_equal(csv.decode(again), points)


def check_json(data: bytes) -> None:
    """JSON: points, and ids that an answer can give back."""
    with _small_sparse():
        with bounded_memory(len(data)):
            found = attempt(lambda: json.decode(data, _features(data)))
        if isinstance(found, Instances):
            assert_answered(found)
            again = python_json.dumps(found.points.tolist()).encode()
            assert np.array_equal(json.decode(again).points, found.points)


def check_jsonlines(data: bytes) -> None:
    """JSON Lines: as JSON, and as its own stream."""
    features = _features(data)
    with _small_sparse():
        with bounded_memory(len(data)):
            found = attempt(lambda: jsonlines.decode(data, features))
        if isinstance(found, Instances):
            assert_answered(found)
            again = b"\n".join(python_json.dumps(row).encode() for row in found.points.tolist())
            assert np.array_equal(jsonlines.decode(again).points, found.points)
    # With the sizes as they are: what sparse vectors may grow to depends on how much of a stream has been seen.
    with mock.patch.object(sparse, "FREE_BYTES", 1 << 22):
        assert_read_alike(
            data,
            lambda: jsonlines.decode(data, features).points,
            lambda buffer: jsonlines.read_rows(buffer, features),
            (jsonlines, "CHUNK_BYTES"),
            (jsonlines, "DENSE_NUMBERS"),
        )


def assert_answered(instances: Instances) -> None:
    """Assert that every form of answer can be given to ``instances``, with the ids that came."""
    assert_points(instances.points)
    attached = instances.attached
    assert attached is None or len(attached) == len(instances.points)
    n = len(instances.points)
    predictions = Predictions(np.zeros(n), np.full(n, 0.5), attached)
    written = python_json.loads(json.encode(predictions))["predictions"]
    assert len(written) == n
    for row, answer in enumerate(written):
        given = {**answer}
        assert given.pop("closest_cluster") == 0
        assert given.pop("distance_to_cluster") == 0.5
        assert given.keys() == (attached[row].keys() if attached else set())
    assert len(jsonlines.encode(predictions).split(b"\n")) == n
    assert len(csv.encode(predictions).split(b"\n")) == n
    position, frames = 0, recordio.encode_predictions(predictions)
    for _ in range(n):
        magic, length = int.from_bytes(frames[position : position + 4], "little"), frames[position + 4 : position + 8]
        assert magic == 0xCED7230A
        position += 8 + -(-int.from_bytes(length, "little") // 4) * 4
    assert position == len(frames)


def check_npy(data: bytes) -> None:
    """NPY: as NumPy reads it, where we read it at all."""
    with _quiet(), bounded_memory(len(data)):
        points = attempt(lambda: npy.decode(data))
    with _quiet():
        assert_read_alike(data, lambda: npy.decode(data), npy.read_rows, (npy, "BUFFER_BYTES"))
        if not isinstance(points, DataError):
            expected = np.load(io.BytesIO(data), allow_pickle=False)
            assert np.array_equal(expected.astype(np.float32), points)
            assert npy.decode(_saved(points)).tobytes() == points.tobytes()


def check_npz(data: bytes) -> None:
    """NPZ: one array of centers out of an archive."""
    with _quiet(), bounded_memory(npy.MAX_GROWTH * len(data)):
        points = attempt(lambda: npy.decode_centers(data))
    if not isinstance(points, DataError):
        assert_points(points)


def check_ndarray_list(data: bytes) -> None:
    """MXNet's list: what is read is written again, and the same."""
    with bounded_memory(len(data)):
        centers = attempt(lambda: mxnet.decode(data))
    if not isinstance(centers, DataError):
        assert centers.dtype == np.float32
        assert centers.ndim == 2
        assert min(centers.shape) > 0
        assert mxnet.decode(mxnet.encode(centers)).tobytes() == centers.tobytes()


def check_recordio(data: bytes) -> None:
    """RecordIO-protobuf: the same points with and without what comes with them, whole and as a stream."""
    features = _features(data)
    with _small_sparse():
        with bounded_memory(len(data)):
            found = attempt(lambda: recordio.decode_instances(data, features))
        if isinstance(found, Instances):
            assert_answered(found)
            assert recordio.decode(data, features).tobytes() == found.points.tobytes()
            assert recordio.decode(recordio.encode(found.points)).tobytes() == found.points.tobytes()
    with mock.patch.object(sparse, "FREE_BYTES", 1 << 22):
        assert_read_alike(
            data,
            lambda: recordio.decode(data, features),
            lambda buffer: recordio.read_rows(buffer, features),
            (reader, "BUFFER_BYTES"),
        )


# Bodies that are cut into chunks, each of which is decoded by itself.

CUT = (CSV, JSON, JSON_LINES, RECORDIO)


def check_chunks(data: bytes) -> None:
    """A body in chunks says what it says as a whole. The first two bytes choose the type and the size."""
    if len(data) < 2:
        return
    form, size, body = FORMATS[CUT[data[0] % len(CUT)]], 1 + data[1], data[2:]

    def read(contents: Iterator[payloads.Chunk]) -> tuple[Float32, list[Any]]:
        found = [form.decode(chunk.content, FEATURES) for chunk in contents]
        if any(instances.points.shape[1] != FEATURES for instances in found):
            raise DataError("another width")
        attached = [instances.attached or [{}] * len(instances.points) for instances in found]
        return np.concatenate([instances.points for instances in found]), [one for some in attached for one in some]

    with _small_sparse():
        whole = attempt(lambda: read(payloads.whole(body)))
        if isinstance(whole, DataError):
            return  # an honest body is what chunks must not change
        parts = attempt(lambda: read(form.split(body, size)))
    assert not isinstance(parts, DataError), f"only in chunks: {parts}"
    assert np.array_equal(parts[0], whole[0])
    assert parts[1] == whole[1]


def chunks_seeds() -> list[bytes]:
    """Bodies of each type, in small chunks and in one."""
    bodies = {0: csv_seeds()[:3], 1: json_seeds()[:6], 2: jsonlines_seeds()[:2], 3: recordio_seeds()}
    return [bytes([kind, size]) + body for kind, some in bodies.items() for body in some for size in (0, 20, 255)]


# Training.

CHANNEL_TYPES = (
    "",
    "text/csv;label_size=0",
    "text/csv",
    "text/csv;encoding=utf-16",
    "text/csv;charset=gb18030",
    "text/csv;encoding=utf-7",
    JSON_LINES,
    RECORDIO,
    NPY,
)


def check_training_file(data: bytes) -> None:
    """A file of a channel, whose first two bytes choose the content type and whether it comes packed by gzip."""
    if len(data) < 2:
        return
    content = data[2:]
    if data[1] & 1:
        content = gzip.compress(content, 1, mtime=0)
        content = content if data[1] & 2 else content[: -1 - data[1] % 30]  # some are cut off

    @contextlib.contextmanager
    def opened(_: Path) -> Iterator[Stream]:
        yield Trickle(content, 1000)

    content_type = MediaType.parse(CHANNEL_TYPES[data[0] % len(CHANNEL_TYPES)])
    file = FileReader(Path("rows"), content_type, ReadOptions((None, FEATURES)[data[1] >> 2 & 1]), opened)

    def read() -> None:
        for block in file.batches():
            assert_points(block)

    # A packed row of zeros is a thousandth of its size, but never more than a buffer is in memory.
    with _quiet(), mock.patch.object(sparse, "FREE_BYTES", SPARSE_CONSTANT), bounded_memory(len(data) + (1 << 18)):
        attempt(read)


def check_packed_file(data: bytes) -> None:
    """A file of a channel that may be gzip, as it stands."""

    @contextlib.contextmanager
    def opened(_: Path) -> Iterator[Stream]:
        yield Trickle(data, 100)

    file = FileReader(Path("rows.gz"), MediaType.parse(CSV), ReadOptions(), opened)

    def read() -> int:
        return sum(len(block) for block in file.batches())

    with bounded_memory(len(data) + (1 << 18)):
        attempt(read)


def check_model_archive(data: bytes) -> None:
    """The channel ``model``: an archive is unpacked within its folder, or refused."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "channel"
        folder.mkdir()
        (folder / "model.tar").write_bytes(_archive(data[1:]) if data[:1] == b"\0" else data[1:])
        unpacked = Path(name) / "unpacked"
        unpacked.mkdir()
        channel = Channel("model", folder, MediaType.parse(""), "File")
        with _quiet(), mock.patch.object(tempfile, "tempdir", str(unpacked)):
            try:
                model = read_model(channel, len(ROWS))
            except (ModelError, SettingError) as refusal:
                assert_sentence(refusal)
            else:
                assert isinstance(model, KMeansModel)
        assert [path.name for path in folder.iterdir()] == ["model.tar"], "something was written beside the archive"
        assert sorted(path.name for path in Path(name).iterdir()) == ["channel", "unpacked"], "something lies outside"
        assert not list(unpacked.iterdir()), "something was left behind"


def _archive(data: bytes) -> bytes:
    """Return an archive with sound checksums; ``data`` says what its members are: name, type, mode, content."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for part in data.split(b"\n\n")[:20]:
            kind, name, link, content = (*part.split(b"\n", 3), b"", b"", b"", b"")[:4]
            member = tarfile.TarInfo(name[:200].decode("latin1") or "model_algo-1")
            member.type = kind[:1] if kind[:1] in tuple(b"%d" % number for number in range(8)) else tarfile.REGTYPE
            member.mode = int.from_bytes(kind[1:3], "little") & 0o7777
            member.linkname = link[:200].decode("latin1")
            member.size = len(content) if member.isfile() else 0
            tar.addfile(member, io.BytesIO(content))
    return file.getvalue()


def _saved(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def _zipped(compression: int, **members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return file.getvalue()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without NumPy's warning of headers that Python 2 wrote."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


# First inputs.


def csv_seeds() -> list[bytes]:
    """Plain ones, and all that the slow path knows."""
    n = len(ROWS)
    return [
        b"\n".join(b",".join(b"%g" % value for value in row) for row in ROWS.tolist()),
        csv.encode(Predictions(np.arange(n, dtype=np.float64), np.full(n, 0.5))),
        b"\xef\xbb\xbf1.5,-2e3\r\n\r\n.5,+7\r\n",
        b"a,b\n1,2\n",
        b"1,nan\n-inf,1e400\n",
        b"1_0, 2\t\n3,,\n",
        b"\xff\xfe1\0,\0002\0",
    ]


JSON_INSTANCES = [
    b"[1, 2.5]",
    b'{"features": [3, -4e5], "id": "a"}',
    b'{"data": {"features": {"values": [1, 2]}}, "configuration": {}}',
    b'{"data": {"features": {"keys": [1], "shape": [2], "values": [6]}}, "id": [1, null]}',
    b'{"data": {"any": [7, 8]}}',
]


def json_seeds() -> list[bytes]:
    """Every shape of an instance, and numbers at the edges of their types."""
    return [
        *(b'{"instances": [%s]}' % instance for instance in JSON_INSTANCES),
        b"[%s]" % b", ".join(JSON_INSTANCES),
        b"[[1, true], [null, 1e400]]",
        b"[[9223372036854775808, -9223372036854775809], [18446744073709551616, 1e308]]",
        b'{"instances": [{"features": {"keys": [0], "shape": [4611686018427387904], "values": [1]}}]}',
        b"[" * 40 + b"]" * 40,
        python_json.dumps(LONG_ROWS.tolist()).encode(),
    ]


def jsonlines_seeds() -> list[bytes]:
    """The same, a line each."""
    return [b"\n".join(JSON_INSTANCES), b"\r\n\r\n".join(JSON_INSTANCES[:2]), *JSON_INSTANCES, b"[1, true]\n[2]\n{\n"]


def npy_seeds() -> list[bytes]:
    """Every type, order and version."""
    arrays = [
        ROWS,
        ROWS.T,
        ROWS.astype(">f8"),
        LONG_ROWS.astype("<f2"),
        LONG_ROWS.astype("<i8"),
        LONG_ROWS.astype("u1"),
    ]
    seeds = [_saved(array) for array in arrays]
    file = io.BytesIO()
    np.lib.format.write_array(file, ROWS, version=(2, 0))
    pickled = io.BytesIO()
    np.save(pickled, np.array([[{}]], dtype=object))
    return [*seeds, file.getvalue(), pickled.getvalue(), _saved(ROWS.ravel()), _saved(np.empty((0, 3)))]


def npz_seeds() -> list[bytes]:
    """Every compression; one array, or several."""
    kinds = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    one = [_zipped(kind, centers=_saved(ROWS)) for kind in kinds]
    return [*one, _zipped(zipfile.ZIP_STORED, a=_saved(ROWS), b=_saved(ROWS)), _zipped(zipfile.ZIP_DEFLATED)]


def ndarray_list_seeds() -> list[bytes]:
    """What we write, and its other version and type."""
    written = mxnet.encode(ROWS)
    version_3 = written[:24] + mxnet.ARRAY_MAGICS[1].to_bytes(4, "little") + written[28:]
    wide = written[:60] + b"\1" + written[61:64] + ROWS.astype("<f8").tobytes() + bytes(8)
    return [written, version_3, wide]


def recordio_seeds() -> list[bytes]:
    """What we write, what the SDK writes, and what is allowed besides."""
    magic = float(np.frombuffer(wire.MAGIC, np.float32)[0])
    n = len(ROWS)
    attached: list[dict[str, Any]] = [{"uid": "a", "metadata": "{}"}, {}, {"id": 7}, {"uid": "\u00e9"}]
    with_texts = wire.record(wire.float32_tensor(1, 2)) + wire.field(3, b"uid") + wire.field(4, b"\xff{}")
    return [
        recordio.encode(ROWS),
        recordio.encode(ROWS, np.arange(n) * 200),
        recordio.encode(ROWS, np.arange(n, dtype=np.float64)),
        recordio.encode(LONG_ROWS),
        recordio.encode_predictions(Predictions(np.zeros(n), np.ones(n), attached)),
        wire.file_of(wire.float32_tensor(1, 2), wire.float64_tensor(3, 4), wire.int32_tensor(5, -6)),
        wire.file_of(wire.sparse_tensor([1], [2.0], [2]), wire.sparse_tensor([], [], [2])),
        wire.frame_cut_at_magic(wire.record(wire.float32_tensor(1, magic, 2))),
        wire.frame(with_texts) * 3,
        wire.frame(wire.entry(1, wire.float32_tensor(1), b"other") + wire.record(wire.float32_tensor(1, 2))),
    ]


def training_file_seeds() -> list[bytes]:
    """Files of every type, packed and not."""
    of_types = {0: csv_seeds()[:2], 1: csv_seeds()[2:4], 2: [b"1,2,3\n"], 6: jsonlines_seeds(), 7: recordio_seeds()[:6]}
    of_types |= {8: npy_seeds()[:3], 3: ["1,2\n3,4\n".encode("utf-16")], 4: [b"1,2\n"], 5: [b"1,2\n"]}
    return [
        bytes([kind, packing]) + content
        for kind, contents in of_types.items()
        for content in contents
        for packing in (0, 3)
    ]


def packed_file_seeds() -> list[bytes]:
    """gzip in one or several members, cut off, and not packed."""
    one = gzip.compress(b"1,2\n3,4\n" * 20, mtime=0)
    return [one, one + one + bytes(5), one[:-4], gzip.compress(b"", mtime=0), b"1,2\n", b"\x1f\x8b"]


def model_archive_seeds() -> list[bytes]:
    """A model's archive as we pack it, and what an attacker would."""
    with tempfile.TemporaryDirectory() as folder:
        artifact.save(KMeansModel(ROWS, np.arange(4)), Path(folder))
        contents = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
    plain = b"\n\n".join(b"0\xa4\x01\n%s\n\n%s" % (b"model_algo-1", contents["model_algo-1"]) for _ in range(1))
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    links = [
        b"2\n../link\n/etc/passwd\n",
        b"1\na\n../model.tar\n",
        b"0\n../../evil\n\nx",
        b"0\n/evil\n\nx",
        b"5\nd\n\n\n\n0\nd/a\n\nx",
    ]
    return [
        b"\1" + packed.getvalue(),
        b"\1" + gzip.decompress(packed.getvalue()),
        b"\0" + plain,
        *(b"\0" + link for link in links),
    ]


TARGETS = {
    "csv": Target(check_csv, csv_seeds),
    "json": Target(check_json, json_seeds),
    "jsonlines": Target(check_jsonlines, jsonlines_seeds),
    "npy": Target(check_npy, npy_seeds),
    "npz": Target(check_npz, npz_seeds),
    "ndarray_list": Target(check_ndarray_list, ndarray_list_seeds),
    "recordio": Target(check_recordio, recordio_seeds),
    "chunks": Target(check_chunks, chunks_seeds),
    "training_file": Target(check_training_file, training_file_seeds),
    "packed_file": Target(check_packed_file, packed_file_seeds),
    "model_archive": Target(check_model_archive, model_archive_seeds),
    "negotiation": Target(requests.check_negotiation, requests.negotiation_seeds),
    "server": Target(requests.check_request, requests.request_seeds),
    "placeholders": Target(requests.check_lenient_request, requests.lenient_request_seeds),
    "models": Target(requests.check_models_request, requests.models_request_seeds),
}
