from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmeans.errors import DataError
from kmeans.formats import recordio
from kmeans.formats.instances import Predictions
from kmeans.formats.recordio import protobuf
from kmeans.formats.registry import FORMATS
from tests.unit.kmeans import oracle
from tests.unit.kmeans.formats import wire

COLUMNS = (1, 13)


def golden(name: str) -> bytes:
    return (oracle.GOLDEN / name).read_bytes()


def expected(columns: int, name: str = "dense") -> Any:
    return np.load(oracle.GOLDEN / f"expected_{columns}.npz")[name]


def refusal(data: bytes, features: int | None = None) -> DataError:
    with pytest.raises(DataError) as raised:
        recordio.decode(data, features)
    assert str(raised.value)
    return raised.value


# Golden files.


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("dense_float32", "dense"),
        ("dense_float64", "dense"),
        ("dense_int64", "integers"),
        ("dense_float32_float32label", "dense"),
        ("dense_float32_int64label", "dense"),
        ("sparse_float32", "sparse"),
    ],
)
@pytest.mark.parametrize("columns", COLUMNS)
def test_files_of_the_sdk_are_read_to_the_bit(kind: str, name: str, columns: int) -> None:
    points = recordio.decode(golden(f"{kind}_{columns}.pbr"))
    rows = expected(columns, name).astype(np.float32)
    assert points.dtype == np.float32
    assert points.shape == rows.shape
    if name == "sparse":  # an absent number is 0, whatever its sign was
        assert np.array_equal(points, rows)
    else:
        assert points.tobytes() == rows.tobytes()


def test_a_wide_file_of_the_sdk_is_read_and_written_to_the_bit() -> None:
    data = golden("dense_float32_784.pbr")
    assert recordio.decode(data).tobytes() == expected(784).tobytes()
    assert recordio.encode(expected(784)) == data


@pytest.mark.parametrize("columns", COLUMNS)
def test_rows_are_written_as_the_sdk_writes_them(columns: int) -> None:
    assert recordio.encode(expected(columns)) == golden(f"dense_float32_{columns}.pbr")


@pytest.mark.parametrize("columns", COLUMNS)
@pytest.mark.parametrize(("kind", "dtype"), [("float32label", np.float32), ("int64label", np.int64)])
def test_labels_are_written_as_the_sdk_writes_them(columns: int, kind: str, dtype: Any) -> None:
    written = recordio.encode(expected(columns), expected(columns, "labels").astype(dtype))
    assert written == golden(f"dense_float32_{kind}_{columns}.pbr")


# Writing.


@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (5000, 3), (2, 5000)])
def test_what_is_written_is_read_again(shape: tuple[int, int]) -> None:
    points = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    assert recordio.decode(recordio.encode(points)).tobytes() == points.tobytes()


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_rows_with_labels_are_read_again(dtype: Any) -> None:
    generator = np.random.default_rng(2)
    points = generator.normal(size=(3000, 4)).astype(np.float32)
    labels = (2.0 ** generator.uniform(0, 62, 3000)).astype(dtype)
    assert recordio.decode(recordio.encode(points, labels)).tobytes() == points.tobytes()


@pytest.mark.parametrize(
    ("labels", "tensor"),
    [
        (np.array([0.5, -2.0]), wire.float64_tensor),
        (np.array([0.5, -2.0], dtype=np.float32), wire.float32_tensor),
        (np.array([127, 128]), wire.int32_tensor),
        (np.array([0, -1]), wire.int32_tensor),
        (np.array([2**62, 2**63 - 1]), wire.int32_tensor),
    ],
)
def test_labels_stand_in_a_tensor_of_their_own_type(labels: Any, tensor: Callable[..., bytes]) -> None:
    written = recordio.encode(np.array([[1.5], [2.5]], dtype=np.float32), labels)
    assert written == b"".join(
        wire.frame(wire.record(wire.float32_tensor(value)) + wire.entry(2, tensor(label)))
        for value, label in zip((1.5, 2.5), labels.tolist(), strict=True)
    )


@pytest.mark.parametrize("labels", [np.zeros(3), np.zeros((2, 1)), np.zeros(2, dtype=np.int8), np.array(["a", "b"])])
def test_labels_that_do_not_fit_are_refused(labels: Any) -> None:
    with pytest.raises(DataError, match="expected 2 labels of float32, float64 or int64"):
        recordio.encode(np.ones((2, 2), dtype=np.float32), labels)


@pytest.mark.parametrize("shape", [(3,), (2, 0), (1, 2, 3)])
def test_rows_of_another_shape_are_not_written(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="shape"):
        recordio.encode(np.zeros(shape, dtype=np.float32))


def test_no_rows_are_an_empty_file() -> None:
    assert recordio.encode(np.empty((0, 3), dtype=np.float32)) == b""


def test_an_answer_has_two_labels_of_one_float32_each() -> None:
    answer = recordio.encode_predictions(Predictions(np.array([0.0, 3.0]), np.array([6.5, 0.25])))
    assert answer == b"".join(
        wire.frame(
            wire.entry(2, wire.float32_tensor(label), b"closest_cluster")
            + wire.entry(2, wire.float32_tensor(distance), b"distance_to_cluster")
        )
        for label, distance in ((0, 6.5), (3, 0.25))
    )


def test_an_answer_gives_back_what_came_with_a_point() -> None:
    attached: list[dict[str, Any]] = [{"uid": "a", "metadata": '{"b": 1}'}, {}, {"id": 17}]
    answer = recordio.encode_predictions(Predictions(np.array([1, 2, 3]), np.array([0.5, 0.5, 0.5]), attached))
    texts = [wire.field(3, b"a") + wire.field(4, b'{"b": 1}'), b"", wire.field(3, b"17")]
    assert answer == b"".join(
        wire.frame(
            wire.entry(2, wire.float32_tensor(label), b"closest_cluster")
            + wire.entry(2, wire.float32_tensor(0.5), b"distance_to_cluster")
            + text
        )
        for label, text in zip((1, 2, 3), texts, strict=True)
    )


# Runs of records that are built alike, and records that are not.


def test_runs_of_different_records_in_one_file_are_read_in_order() -> None:
    generator = np.random.default_rng(3)
    rows = generator.normal(size=(60, 2)).astype(np.float32).tolist()
    writers: list[Callable[..., bytes]] = [wire.float32_tensor, wire.float64_tensor]
    lengths = [1, 1, 20, 1, 2, 3, 17, 15]
    tensors, taken = [], 0
    for i, length in enumerate(lengths):
        tensors += [writers[i % 2](*row) for row in rows[taken : taken + length]]
        taken += length
    assert recordio.decode(wire.file_of(*tensors)).tolist() == rows


def test_labels_of_varying_length_do_not_disturb_the_rows() -> None:
    rows = np.random.default_rng(4).normal(size=(40, 3)).astype(np.float32)
    data = b"".join(
        wire.frame(wire.record(wire.float32_tensor(*row)) + wire.entry(2, wire.int32_tensor(label)))
        for row, label in zip(rows.tolist(), [0, 300, 5, 2**20, -1] * 8, strict=True)
    )
    assert recordio.decode(data).tobytes() == rows.tobytes()


def test_long_runs_are_read_whole() -> None:
    rows = np.random.default_rng(5).normal(size=(30_000, 2)).astype(np.float32)
    changed = recordio.encode(rows) + recordio.encode(rows, np.arange(30_000))
    assert np.array_equal(recordio.decode(changed), np.concatenate([rows, rows]))


@pytest.mark.parametrize("at", [0, 1, 15, 16, 17, 79, 80, 4999])
def test_a_record_unlike_its_neighbours_is_read_at_its_place(at: int) -> None:
    rows = np.arange(5000, dtype=np.float32)[:, None]
    frames = [recordio.encode(rows[:at]), wire.file_of(wire.float64_tensor(at)), recordio.encode(rows[at + 1 :])]
    assert np.array_equal(recordio.decode(b"".join(frames)), rows)


@pytest.mark.parametrize("number", [-(2**31), -1, 0, 1, 127, 128, 2**31 - 1])
def test_whole_numbers_are_read_with_their_sign(number: int) -> None:
    assert recordio.decode(wire.file_of(wire.int32_tensor(number, 5))).tolist() == [[np.float32(number), 5]]


# Everything that protobuf allows.

VALUE = wire.float32_tensor(1.5, -2.5)


@pytest.mark.parametrize(
    "payload",
    [
        wire.field(3, b"uid") + wire.record(VALUE),
        wire.record(VALUE) + wire.field(3, b"uid") + wire.field(4, b"{}") + wire.field(5, b"conf"),
        wire.entry(2, wire.int32_tensor(7)) + wire.record(VALUE),
        wire.entry(1, wire.float32_tensor(9, 9), b"other") + wire.record(VALUE),
        wire.record(VALUE) + wire.entry(1, wire.float32_tensor(9, 9), b"other"),
        wire.record(VALUE) + wire.entry(1, wire.field(9, b"image"), b"bytes"),
        wire.field(1, wire.field(2, VALUE) + wire.field(1, b"values")),
        wire.field(99, b"later") + wire.record(VALUE) + wire.tag(98, wire.VARINT) + wire.varint(300),
        wire.tag(97, wire.FIXED32) + b"abcd" + wire.record(VALUE) + wire.tag(96, wire.FIXED64) + b"abcdefgh",
        wire.field(1, wire.field(1, b"values") + wire.field(2, VALUE) + wire.field(44, b"later")),
        wire.record(wire.field(2, wire.field(77, b"later") + wire.field(1, wire.floats(1.5, -2.5)))),
        wire.record(wire.field(2, wire.field(1, wire.floats(1.5)) + wire.field(1, wire.floats(-2.5)))),
        wire.record(wire.field(2, b"".join(wire.tag(1, wire.FIXED32) + wire.floats(value) for value in (1.5, -2.5)))),
        wire.record(wire.field(3, b"".join(wire.tag(1, wire.FIXED64) + wire.doubles(value) for value in (1.5, -2.5)))),
        wire.record(wire.field(3, wire.field(1, wire.doubles(1.5, -2.5)))),
    ],
    ids=[
        "uid first",
        "uid, metadata, configuration",
        "label first",
        "another vector first",
        "another vector last",
        "bytes beside",
        "value before key",
        "unknown fields",
        "unknown fixed fields",
        "unknown field in the entry",
        "unknown field in the tensor",
        "packed in two pieces",
        "float32 unpacked",
        "float64 unpacked",
        "float64",
    ],
)
def test_a_record_is_read_however_its_fields_are_written(payload: bytes) -> None:
    assert recordio.decode(wire.frame(payload)).tolist() == [[1.5, -2.5]]
    assert recordio.decode(wire.frame(payload) * 40).tolist() == [[1.5, -2.5]] * 40
    around = recordio.encode(np.array([[3, 4]], dtype=np.float32))
    assert recordio.decode(around + wire.frame(payload) * 2 + around).tolist() == [[3, 4], *[[1.5, -2.5]] * 2, [3, 4]]


def test_unpacked_whole_numbers_are_read() -> None:
    unpacked = b"".join(wire.tag(1, wire.VARINT) + wire.varint(number) for number in (300, -1, 7))
    assert recordio.decode(wire.file_of(wire.field(7, unpacked))).tolist() == [[300, -1, 7]]


@pytest.mark.parametrize("tensor", [wire.float32_tensor(1.5, -2.5), wire.float64_tensor(1.5, -2.5)])
def test_a_dense_vector_may_have_a_shape_before_or_behind_its_values(tensor: bytes) -> None:
    number, content = tensor[0] >> 3, tensor[2:]
    shape = wire.field(3, wire.varint(2))
    for fields in (content + shape, shape + content):
        assert recordio.decode(wire.file_of(*[wire.field(number, fields)] * 3)).tolist() == [[1.5, -2.5]] * 3


@pytest.mark.parametrize(
    "tensor",
    [
        wire.field(2, wire.tag(1, wire.VARINT) + wire.varint(2**27)),
        wire.field(2, wire.tag(1, wire.FIXED64) + wire.doubles(1)),
        wire.field(3, (wire.tag(1, wire.FIXED32) + wire.floats(1)) * 2),
        wire.field(7, wire.tag(1, wire.FIXED32) + wire.floats(1)),
        wire.field(7, wire.tag(1, wire.FIXED64) + wire.doubles(1)),
    ],
    ids=["varint as float32", "fixed64 as float32", "fixed32 as float64", "fixed32 as int32", "fixed64 as int32"],
)
def test_values_of_a_wire_type_that_is_not_theirs_are_not_read_as_numbers(tensor: bytes) -> None:
    assert refusal(wire.file_of(tensor)).row == 1


# Sparse vectors.


@pytest.mark.parametrize(
    ("tensor", "row"),
    [
        (wire.sparse_tensor([0, 3], [1.5, 2.5], [5]), [1.5, 0, 0, 2.5, 0]),
        (wire.sparse_tensor([3, 0], [2.5, 1.5], [5]), [1.5, 0, 0, 2.5, 0]),
        (wire.sparse_tensor([4], [2.5], [5]), [0, 0, 0, 0, 2.5]),
        (wire.sparse_tensor([], [], [5]), [0, 0, 0, 0, 0]),
        (wire.field(3, wire.field(2, b"\1") + wire.field(3, b"\5") + wire.field(1, wire.doubles(7))), [0, 7, 0, 0, 0]),
        (
            wire.field(7, wire.field(2, b"\1") + wire.field(3, b"\5") + wire.field(1, wire.varints(-7))),
            [0, -7, 0, 0, 0],
        ),
    ],
)
def test_a_sparse_vector_is_filled_up_with_zeros(tensor: bytes, row: list[float]) -> None:
    assert recordio.decode(wire.file_of(tensor)).tolist() == [row]
    dense = wire.float32_tensor(1, 2, 3, 4, 5)
    assert recordio.decode(wire.file_of(dense, tensor, dense)).tolist() == [[1, 2, 3, 4, 5], row, [1, 2, 3, 4, 5]]


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (wire.sparse_tensor([5], [1.0], [5]), "keys from 0 to 4"),
        (wire.sparse_tensor([-1], [1.0], [5]), "keys from 0 to 4"),
        (wire.sparse_tensor([2**63], [1.0], [5]), "keys from 0 to 4"),
        (wire.sparse_tensor([1, 2], [1.0], [5]), "as many keys as values, found 2 and 1"),
        (wire.sparse_tensor([1], [], [5]), "as many keys as values, found 1 and 0"),
        (wire.sparse_tensor([1], [1.0], []), "expected a shape"),
        (wire.sparse_tensor([1], [1.0], [2**62]), "width"),
        (wire.sparse_tensor([], [], [10**9]), "width 1000000000"),
        (wire.sparse_tensor([], [], [0]), "width 0"),
        (wire.sparse_tensor([1], [np.nan], [5]), "row 2, column 2: expected a finite number, found NaN"),
    ],
)
def test_a_sparse_vector_that_is_none_is_refused_with_its_record(tensor: bytes, words: str) -> None:
    error = refusal(wire.file_of(wire.sparse_tensor([1], [2.0], [5]), tensor))
    assert error.row == 2
    assert words in str(error)


def test_many_sparse_vectors_of_a_great_width_are_refused_before_memory_runs_out() -> None:
    assert "Reduce the number of columns." in str(refusal(wire.file_of(*[wire.sparse_tensor([], [], [10**7])] * 1000)))


# Parts.

MAGIC_FLOAT = struct.unpack("<f", wire.MAGIC)[0]


def test_the_magic_number_among_the_values_is_a_value() -> None:
    rows = np.full((20, 3), MAGIC_FLOAT, dtype=np.float32)
    assert recordio.decode(recordio.encode(rows)).tobytes() == rows.tobytes()


@pytest.mark.parametrize("times", [1, 2, 5])
def test_a_record_cut_at_the_magic_number_is_put_together_again(times: int) -> None:
    values = [1.0, *[MAGIC_FLOAT] * times, 2.0]
    divided = wire.frame_cut_at_magic(wire.record(wire.float32_tensor(*values)))
    assert divided.count(wire.MAGIC) == times + 1
    plain = wire.float32_tensor(*range(times + 2))
    data = wire.file_of(plain) + divided * 2 + wire.file_of(plain, plain)
    row = list(range(times + 2))
    assert recordio.decode(data).tolist() == [row, values, values, row, row]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([2], "part 2"),
        ([3], "part 3"),
        ([1, 0], "part 0"),
        ([1, 1], "part 1"),
        ([4], "part 4"),
        ([7], "part 7"),
        ([1, 2, 5], "part 5"),
        ([1], "ends within"),
        ([1, 2], "ends within"),
    ],
)
def test_parts_out_of_order_are_refused(flags: list[int], words: str) -> None:
    payload = wire.record(VALUE)
    assert words in str(refusal(b"".join(wire.frame(payload, flag) for flag in flags)))


# What is wrong, and where.


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dense_float32_1.pbr", "dense_int64_1.pbr", "sparse_float32_1.pbr"])
def test_a_file_cut_anywhere_is_refused_or_complete(name: str) -> None:
    data = golden(name)
    whole = recordio.decode(data)
    ends = {0: 0}  # where a record may end, with or without its padding: how many there are so far
    position = 0
    for rows in range(1, len(whole) + 1):
        (length,) = struct.unpack_from("<I", data, position + 4)
        for padding in range(-length % 4 + 1):
            ends[position + 8 + length + padding] = rows
        position += 8 + length + -length % 4
    assert position == len(data)
    for cut in range(1, len(data)):
        if cut in ends:
            assert np.array_equal(recordio.decode(data[:cut]), whole[: ends[cut]])
        else:
            error = refusal(data[:cut])
            assert error.row == 1 + max(rows for end, rows in ends.items() if end < cut)
            assert "cut off" in str(error)


def test_a_file_without_the_last_record_s_padding_is_read() -> None:
    payload = wire.record(wire.int32_tensor(1, 2, 3))
    assert len(payload) % 4
    data = wire.frame(payload) * 3
    assert recordio.decode(data[: -(-len(payload) % 4)]).tolist() == [[1, 2, 3]] * 3


@pytest.mark.parametrize("data", [b"1,2\n3,4\n", b"\0" * 40, b"\x0a\x23\xd7\xcf" + b"\0" * 36])
def test_another_format_is_refused_at_its_first_byte(data: bytes) -> None:
    error = refusal(data)
    assert (error.row, error.offset) == (1, 0)
    assert "magic number 0xced7230a" in str(error)
    assert "content type" in str(error)


def test_rubbish_between_records_is_refused_at_its_byte() -> None:
    good = recordio.encode(np.ones((3, 1), dtype=np.float32))
    error = refusal(good + b"rubbish!" * 4)
    assert (error.row, error.offset) == (4, len(good))


def test_an_empty_file_is_refused() -> None:
    assert str(refusal(b"")) == "expected RecordIO records, found none. Is the file or the request empty?"


@pytest.mark.parametrize("at", [0, 1, 20, 39])
@pytest.mark.parametrize(("value", "found"), [(np.nan, "NaN"), (np.inf, "infinite"), (1e16, "within")])
@pytest.mark.parametrize("tensor", [wire.float32_tensor, wire.float64_tensor])
def test_a_number_that_is_none_is_refused_with_record_and_column(
    at: int, value: float, found: str, tensor: Callable[..., bytes]
) -> None:
    rows = np.ones((40, 3)).tolist()
    rows[at][1] = value
    error = refusal(wire.file_of(*[tensor(*row) for row in rows]))
    assert (error.row, error.column) == (at + 1, 2)
    assert found in str(error)


@pytest.mark.parametrize("records", [1, 2, 3])
def test_a_float64_beyond_float32_is_refused_not_rounded(records: int) -> None:
    tensors = [wire.float64_tensor(1.0)] * (records - 1) + [wire.float64_tensor(1e300)]
    error = refusal(wire.file_of(*tensors))
    assert error.row == records
    assert "beyond float32" in str(error)


@pytest.mark.parametrize("before", [0, 1])
def test_a_signalling_nan_is_refused_as_any_other(before: int) -> None:
    signalling = wire.field(3, wire.field(1, struct.pack("<Q", 0x7FF0000000000001)))
    assert "found NaN" in str(refusal(wire.file_of(*[wire.float64_tensor(1)] * before, signalling)))


def test_a_sparse_signalling_nan_is_refused_as_any_other() -> None:
    values = wire.field(1, struct.pack("<Q", 0x7FF0000000000001))
    tensor = wire.field(3, values + wire.field(2, b"\1") + wire.field(3, b"\5"))
    assert "found NaN" in str(refusal(wire.file_of(tensor)))


@pytest.mark.parametrize("first", [1, 20])
def test_vectors_of_two_widths_are_refused_with_both(first: int) -> None:
    error = refusal(wire.file_of(*[wire.float32_tensor(1, 2)] * first, wire.float32_tensor(1, 2, 3)))
    assert str(error) == f"row {first + 1}: expected 2 values as in the records before, found 3."


def test_vectors_of_another_width_than_the_model_s_are_refused_with_both() -> None:
    assert str(refusal(wire.file_of(VALUE), features=3)) == "row 1: expected 3 values, found 2."
    assert recordio.decode(wire.file_of(VALUE), features=2).shape == (1, 2)


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (b"", "found none"),
        (wire.field(3, b"uid"), "under the key 'values'"),
        (wire.entry(1, VALUE, b"other"), "under the key 'values'"),
        (wire.field(1, wire.field(2, VALUE)), "under the key 'values'"),
        (wire.field(1, wire.field(1, b"values")), "found none"),
        (wire.record(b""), "found none"),
        (wire.record(wire.field(9, b"bytes")), "expected a tensor of float32, float64 or int32"),
        (wire.record(wire.field(2, b"")), "at least one value"),
        (wire.record(wire.field(2, wire.field(1, b""))), "at least one value"),
        (wire.record(wire.field(7, b"")), "at least one value"),
        (wire.record(wire.field(2, wire.field(1, b"12345"))), "5 bytes"),
        (wire.record(wire.field(3, wire.field(1, b"1234"))), "4 bytes"),
        (wire.record(wire.field(7, wire.field(1, b"\xff"))), "doesn't end"),
        (wire.record(wire.field(7, wire.field(1, b"\xff" * 12 + b"\1"))), "more than 10 bytes"),
        (b"\xff" * 20, "doesn't end"),
        (b"\x0a", "doesn't end"),
        (b"\x0a\x7f1234", "beyond its message"),
        (wire.field(1, b"\x12\x7f12"), "beyond its message"),
        (wire.tag(97, wire.FIXED64) + b"1234", "beyond its message"),
        (wire.tag(1, 3) + b"12", "unknown protobuf wire type 3"),
        (wire.tag(1, 7) + b"12", "unknown protobuf wire type 7"),
    ],
)
def test_a_record_without_a_vector_is_refused_with_its_place(payload: bytes, words: str) -> None:
    good = wire.file_of(VALUE)
    error = refusal(good * 2 + wire.frame(payload) + good)
    assert error.row == 3
    assert words in str(error)
    assert error.offset is not None
    assert 2 * len(good) <= error.offset <= 2 * len(good) + 8 + len(payload)


def test_a_length_beyond_the_file_takes_no_memory() -> None:
    assert "the data ends" in str(refusal(wire.MAGIC + struct.pack("<I", (1 << 29) - 1) + b"1234"))


# What is attached to points.


def texts_of(data: bytes) -> Any:
    return recordio.decode_instances(data).attached


def test_uid_and_metadata_come_with_their_points() -> None:
    payloads = [
        wire.record(VALUE) + wire.field(3, b"first"),
        wire.record(VALUE) + wire.field(3, b"other"),
        wire.record(VALUE),
        wire.field(4, b"{}") + wire.record(wire.sparse_tensor([1], [3.0], [2])),
        wire.record(VALUE) + wire.field(3, b"\xff") + wire.field(4, "\u00e4".encode()),
    ]
    data = b"".join(map(wire.frame, payloads))
    assert texts_of(data) == [
        {"uid": "first"},
        {"uid": "other"},
        {},
        {"metadata": "{}"},
        {"uid": "\ufffd", "metadata": "\u00e4"},
    ]
    assert recordio.decode_instances(data).points.tolist() == [[1.5, -2.5]] * 3 + [[0, 3], [1.5, -2.5]]


def test_uids_in_a_long_run_stay_with_their_points() -> None:
    frames = [wire.frame(wire.record(wire.float32_tensor(i)) + wire.field(3, b"%05d" % i)) for i in range(500)]
    assert texts_of(b"".join(frames)) == [{"uid": f"{i:05d}"} for i in range(500)]


@pytest.mark.parametrize("name", ["dense_float32_13.pbr", "dense_float32_int64label_13.pbr", "sparse_float32_13.pbr"])
def test_nothing_is_attached_where_nothing_came(name: str) -> None:
    assert texts_of(golden(name)) is None
    assert np.array_equal(recordio.decode_instances(golden(name)).points, recordio.decode(golden(name)))


def test_a_file_is_known_by_its_first_bytes() -> None:
    assert FORMATS.detect(golden("dense_float32_1.pbr")[:4]) is recordio.FORMAT
    assert FORMATS.detect(b"1,2\n") is not recordio.FORMAT
    assert FORMATS.detect(b"") is not recordio.FORMAT


# What a fuzzer and attackers send.


def test_numbers_that_lie_across_the_ends_of_blocks_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = [int(number) for number in np.random.default_rng(0).integers(-300, 300, 500)]
    for chunk_bytes in (1, 2, 9, 10, 11, 64, 5000):
        monkeypatch.setattr(protobuf, "_CHUNK_BYTES", chunk_bytes)
        assert recordio.decode(wire.file_of(wire.int32_tensor(*numbers))).tolist() == [numbers]
        for packed, words in ((b"\1\x80", "doesn't end"), (b"\1" + b"\x80" * 11 + b"\1", "a number")):
            with pytest.raises(DataError, match=words):
                recordio.decode(wire.file_of(wire.field(7, wire.field(1, packed))))


@pytest.mark.slow
@pytest.mark.parametrize(
    "tensor",
    [
        pytest.param(wire.field(7, (wire.tag(1, wire.VARINT) + b"\1") * 200_000), id="numbers one by one"),
        pytest.param(wire.field(2, (wire.tag(1, wire.FIXED32) + bytes(4)) * 100_000), id="float32 one by one"),
        pytest.param(wire.field(2, wire.field(1, b"") * 200_000 + wire.field(1, bytes(4))), id="empty parts"),
        pytest.param(wire.field(7, wire.field(1, b"\1" * 1_000_000)), id="numbers in one part"),
    ],
)
def test_a_vector_in_many_parts_takes_memory_in_proportion(tensor: bytes) -> None:
    content = wire.file_of(tensor)
    tracemalloc.start()
    recordio.decode_instances(content)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * len(content) + (4 << 20)


def test_a_shape_of_many_dimensions_is_refused() -> None:
    assert recordio.decode(wire.file_of(wire.sparse_tensor([1], [2.0], [1, 3, 1]))).tolist() == [[0, 2, 0]]
    with pytest.raises(DataError, match="row 1, byte 8: expected a sparse vector of at most 8 dimensions, found 300"):
        recordio.decode(wire.file_of(wire.sparse_tensor([], [], [1 << 62] * 300)))


# Anything else.

SEEDS = [
    golden("dense_float32_1.pbr")[:112],
    golden("sparse_float32_13.pbr")[:160],
    wire.file_of(wire.float64_tensor(1, 2), wire.float64_tensor(3, 4)),
    wire.file_of(wire.int32_tensor(1, -2), wire.int32_tensor(300, 4)),
    wire.frame(wire.record(VALUE) + wire.field(3, b"uid") + wire.field(4, b"{}")) * 2,
    wire.frame_cut_at_magic(wire.record(wire.float32_tensor(1, MAGIC_FLOAT, 2))),
]


@oracle.PROPERTY
@given(oracle.damaged(SEEDS) | st.binary(max_size=200))
def test_any_bytes_give_points_or_a_data_error(data: bytes) -> None:
    for decode in (recordio.decode, lambda content: recordio.decode_instances(content).points):
        oracle.assert_points_or_data_error(decode, data)
