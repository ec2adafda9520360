"""The SDK's own protobuf classes read what we write, and we read what they write, whatever the messages hold."""

import io
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import sparse

from kmeans.formats import mxnet, recordio
from kmeans.formats.instances import Predictions

from .amazon import common, record_pb2

WIDTHS = (1, 7, 13, 100, 784, 4096)
ROWS = 23
# All that the SDK writes: float32, float64, and int64, which it stores as int32.
DTYPES = (np.float32, np.float64, np.int64)
LABELS = (None, *DTYPES)

MAGIC = 0xCED7230A
PACKED, FIXED32, VARINT = 2, 5, 0

Array = npt.NDArray[Any]


def numbers(shape: Sequence[int], dtype: npt.DTypeLike) -> Array:
    """Random numbers of both signs; whole ones are from one to five bytes long as varints, or ten."""
    drawn = np.random.default_rng(shape[-1]).normal(0, 1, tuple(shape)) * 10.0 ** (np.arange(shape[0]) % 7)[:, None]
    return drawn.astype(dtype)


def labels_of(dtype: npt.DTypeLike | None, rows: int = ROWS) -> Array | None:
    """Labels, zeros among them, and some of them of more bytes than others."""
    if dtype is None:
        return None
    return (np.arange(rows) % 5 * np.where(np.arange(rows) % 3, 1, 12345)).astype(dtype)


def dense(points: Array, labels: Array | None = None) -> bytes:
    file = io.BytesIO()
    common.write_numpy_to_dense_tensor(file, points, labels)
    return file.getvalue()


def sparse_records(points: Array, labels: Array | None = None) -> bytes:
    file = io.BytesIO()
    common.write_spmatrix_to_sparse_tensor(file, sparse.csr_matrix(points), labels)
    return file.getvalue()


def read_by_sdk(content: bytes) -> list[Any]:
    """The records of a body or file, as `KMeansPredictor.predict` returns them."""
    records: list[Any] = common.RecordDeserializer().deserialize(io.BytesIO(content), "application/x-recordio-protobuf")
    return records


def values(tensors: Any, name: str = "values") -> list[float]:
    """The values under a key of a Record's features or label, of whatever type they are."""
    value = tensors[name]
    return list(getattr(value, value.WhichOneof("value")).values)


def framed(*payloads: bytes) -> bytes:
    return b"".join(
        struct.pack("<II", MAGIC, len(payload)) + payload + bytes(-len(payload) % 4) for payload in payloads
    )


def split(payload: bytes) -> bytes:
    """Frame a payload as dmlc's writer does: it is cut at each aligned magic number, which is left out."""
    aligned = range(0, len(payload) // 4 * 4, 4)
    cuts = [place for place in aligned if payload[place : place + 4] == struct.pack("<I", MAGIC)]
    starts, stops = [0, *(cut + 4 for cut in cuts)], [*cuts, len(payload)]
    last = len(cuts)
    written = b""
    for number, (start, stop) in enumerate(zip(starts, stops, strict=True)):
        kind = 0 if not last else 1 if number == 0 else 3 if number == last else 2
        part = payload[start:stop]
        written += struct.pack("<II", MAGIC, kind << 29 | len(part)) + part + bytes(-len(part) % 4)
    return written


def varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])


def field(number: int, wire: int, content: bytes) -> bytes:
    return varint(number << 3 | wire) + (varint(len(content)) if wire == PACKED else b"") + content


# ---- what we write ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", LABELS, ids=str)
@pytest.mark.parametrize("d", WIDTHS)
def test_we_write_what_the_sdk_writes_to_the_bit(d: int, label: npt.DTypeLike | None) -> None:
    points, labels = numbers((ROWS, d), np.float32), labels_of(label)
    assert recordio.encode(points, labels) == dense(points, labels)


@pytest.mark.parametrize("label", LABELS, ids=str)
@pytest.mark.parametrize("d", WIDTHS)
def test_the_sdk_reads_the_training_data_we_write(d: int, label: npt.DTypeLike | None) -> None:
    points, labels = numbers((ROWS, d), np.float32), labels_of(label)
    records = read_by_sdk(recordio.encode(points, labels))
    assert np.array_equal([values(record.features) for record in records], points)
    if labels is None:
        assert not any(record.label for record in records)
    else:
        assert [values(record.label) for record in records] == [[number] for number in labels.tolist()]


@pytest.mark.parametrize("rows", [1, 2, 1000])
def test_the_sdk_reads_our_answers(rows: int) -> None:
    labels = np.arange(rows, dtype=np.float64)
    distances = np.abs(numbers((rows, 1), np.float32))[:, 0].astype(np.float64)
    records = read_by_sdk(recordio.encode_predictions(Predictions(labels, distances)))
    # As AWS's notebooks and the SDK's own tests take them out.
    assert [list(record.label["closest_cluster"].float32_tensor.values) for record in records] == labels[
        :, None
    ].tolist()
    assert [list(record.label["distance_to_cluster"].float32_tensor.values) for record in records] == distances[
        :, None
    ].tolist()
    assert not any(record.features or record.uid or record.metadata for record in records)


def test_the_sdk_reads_uid_and_metadata_that_we_give_back() -> None:
    requests = []
    for number in range(3):
        record = record_pb2.Record(uid=f"row {number}" * number, metadata='{"größe": 1}' if number else "")
        record.features["values"].float32_tensor.values.extend([number, 1])
        requests.append(record)
    instances = recordio.decode_instances(framed(*(record.SerializeToString() for record in requests)))
    predictions = Predictions(np.zeros(3), np.ones(3), instances.attached)
    answers = read_by_sdk(recordio.encode_predictions(predictions))
    assert [(answer.uid, answer.metadata) for answer in answers] == [(one.uid, one.metadata) for one in requests]
    assert [values(answer.label, "distance_to_cluster") for answer in answers] == [[1.0]] * 3


# ---- what we read ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", LABELS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("d", WIDTHS)
def test_we_read_dense_records_of_the_sdk(d: int, dtype: npt.DTypeLike, label: npt.DTypeLike | None) -> None:
    points = numbers((ROWS, d), dtype)
    assert np.array_equal(recordio.decode(dense(points, labels_of(label)), d), points.astype(np.float32))


@pytest.mark.parametrize("label", LABELS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("d", WIDTHS)
def test_we_read_sparse_records_of_the_sdk(d: int, dtype: npt.DTypeLike, label: npt.DTypeLike | None) -> None:
    points = numbers((ROWS, d), dtype)
    points[np.random.default_rng(d).random(points.shape) < 0.7] = 0
    points[[0, 11, ROWS - 1]] = 0  # rows without keys and values, of which only the shape is left
    assert np.array_equal(recordio.decode(sparse_records(points, labels_of(label)), d), points.astype(np.float32))


def test_decoder_reads_dense_and_sparse_records_of_several_types() -> None:
    runs = [numbers((ROWS, 13), dtype) for dtype in (np.float32, np.int64, np.float64, np.float32)]
    written = [dense(runs[0]), sparse_records(runs[1]), dense(runs[2], labels_of(np.int64)), sparse_records(runs[3])]
    expected = np.concatenate([run.astype(np.float32) for run in runs])
    assert np.array_equal(recordio.decode(b"".join(written)), expected)


@pytest.mark.parametrize("kind", ["float32_tensor", "float64_tensor", "int32_tensor"])
def test_we_read_records_with_all_fields(kind: str) -> None:
    """Several features and labels, uid, metadata, configuration, and a shape, which dense vectors needn't have."""
    points = numbers((ROWS, 7), np.int64)
    payloads = []
    for row, point in enumerate(points.tolist()):
        record = record_pb2.Record(uid=str(row), metadata="m" * row, configuration="{}")
        record.features["another"].float32_tensor.values.extend([1, 2, 3])
        getattr(record.features["values"], kind).values.extend(point)
        getattr(record.features["values"], kind).shape.append(7)
        record.label["values"].int32_tensor.values.append(row)
        record.label["weight"].float32_tensor.values.append(0.5)
        record.label["picture"].bytes.value.append(b"\0\xff")
        payloads.append(record.SerializeToString())
    instances = recordio.decode_instances(framed(*payloads))
    assert np.array_equal(instances.points, points.astype(np.float32))
    assert instances.attached is not None
    assert [attached["uid"] for attached in instances.attached] == [str(row) for row in range(ROWS)]


def pack_floats(point: Sequence[int]) -> bytes:
    return b"".join(field(1, FIXED32, struct.pack("<f", number)) for number in point)


def pack_in_two(point: Sequence[int]) -> bytes:
    floats = struct.pack(f"<{len(point)}f", *point)
    return field(1, PACKED, floats[:8]) + field(1, PACKED, floats[8:])


def key_last(tensor: bytes) -> bytes:
    return field(2, PACKED, field(2, PACKED, tensor)) + field(1, PACKED, b"values")


def key_first(tensor: bytes) -> bytes:
    return field(1, PACKED, b"values") + field(2, PACKED, field(2, PACKED, tensor))


@pytest.mark.parametrize(
    "unknown", [b"", field(99, VARINT, b"\x07") + field(98, PACKED, b"later")], ids=["", "unknown"]
)
@pytest.mark.parametrize("entry", [key_first, key_last])
@pytest.mark.parametrize("pack", [pack_floats, pack_in_two])
def test_we_read_what_protobuf_allows_and_the_sdk_does_not_write(pack: Any, entry: Any, unknown: bytes) -> None:
    """Unpacked values, values in two pieces, fields in another order, fields of a later version.

    That the bytes are a Record, and which, the SDK's own class says.
    """
    points = np.array([[1, 2, 3, 4], [5, 6, 7, 8]], dtype=np.float32)
    uid = field(3, PACKED, b"before the features")
    payloads = [uid + unknown + field(1, PACKED, entry(pack(point))) + unknown for point in points.tolist()]
    content = framed(*payloads)
    records = read_by_sdk(content)
    assert [(record.uid, values(record.features)) for record in records] == [
        ("before the features", point) for point in points.tolist()
    ]
    assert np.array_equal(recordio.decode(content), points)


def test_of_a_key_that_is_repeated_the_last_counts() -> None:
    first, last = np.array([1, 2], dtype=np.float32), np.array([3, 4], dtype=np.float32)
    payload = b"".join(field(1, PACKED, key_first(pack_floats(point.tolist()))) for point in (first, last))
    (record,) = read_by_sdk(framed(payload))
    assert values(record.features) == last.tolist()
    assert np.array_equal(recordio.decode(framed(payload)), [last])


def test_a_magic_number_within_a_record_is_data() -> None:
    """The SDK doesn't cut there, dmlc's writer does; either is read."""
    points = numbers((ROWS, 13), np.float32)
    points.view(np.uint32)[::2, 3] = MAGIC
    points.view(np.uint32)[4, :] = MAGIC
    whole = dense(points)
    assert whole.count(struct.pack("<I", MAGIC)) > ROWS
    assert np.array_equal(recordio.decode(whole), points)
    assert np.array_equal([values(record.features) for record in read_by_sdk(whole)], points)


def test_we_read_records_in_several_parts() -> None:
    """A uid in front of the features shifts the values: at one length of the four the magic numbers are aligned."""
    points = numbers((ROWS, 13), np.float32)
    points.view(np.uint32)[::2, 3] = MAGIC
    points.view(np.uint32)[4, :] = MAGIC
    divided = 0
    for length in range(4, 8):
        uid = field(3, PACKED, b"u" * length)
        payloads = [uid + field(1, PACKED, key_first(field(1, PACKED, point.tobytes()))) for point in points]
        content = b"".join(map(split, payloads))
        divided += content != framed(*payloads)
        assert np.array_equal(recordio.decode(content), points)
        assert np.array_equal([values(record.features) for record in read_by_sdk(framed(*payloads))], points)
    assert divided == 1


def test_we_read_the_model_file_that_mxnet_wrote(request: pytest.FixtureRequest) -> None:
    """MXNet can't be installed together with the others; its file can."""
    golden = Path(str(request.config.rootpath)) / "tests" / "data" / "golden"
    content = (golden / "model_algo-1").read_bytes()
    expected = np.load(golden / "model_algo-1_expected.npy", allow_pickle=False)
    assert np.array_equal(mxnet.decode(content), expected)
    assert mxnet.encode(expected) == content
