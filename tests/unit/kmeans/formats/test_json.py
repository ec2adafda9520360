from __future__ import annotations

import json as python_json
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmeans.errors import DataError
from kmeans.formats import json, jsonlines
from kmeans.formats.instances import Instances, Predictions
from tests.unit.kmeans import oracle


def request(*instances: Any) -> bytes:
    return python_json.dumps({"instances": instances}).encode()


def lines(*instances: Any) -> bytes:
    return "\n".join(python_json.dumps(instance) for instance in instances).encode()


# The same instances in both formats.
both_formats = pytest.mark.parametrize(
    ("decode", "write"), [(json.decode, request), (jsonlines.decode, lines)], ids=["json", "jsonlines"]
)
Decode = Callable[..., Instances]
Write = Callable[..., bytes]


def refusal(decode: Decode, data: bytes, features: int | None = None) -> DataError:
    with pytest.raises(DataError) as raised:
        decode(data, features)
    assert str(raised.value).isprintable()
    return raised.value


@both_formats
@pytest.mark.parametrize(
    "shape",
    [
        lambda row: {"features": row},
        lambda row: {"data": {"features": {"values": row}}},
        lambda row: {"data": {"features": row}},
        lambda row: {"features": {"values": row}},
        lambda row: {"data": row},
        lambda row: {"data": {"any name": row}},
        lambda row: {"data": {"features": {"keys": [0, 1, 2], "shape": [3], "values": row}}},
        lambda row: {"features": {"keys": [2, 1, 0], "shape": [3], "values": row[::-1]}},
        lambda row: {"features": row, "id": None, "configuration": {}},
        lambda row: row,
    ],
)
def test_every_shape_of_a_request_is_read(decode: Decode, write: Write, shape: Callable[[list[float]], Any]) -> None:
    rows = [[1.5, -2, 3e10], [0, 0.1, -7]]
    found = decode(write(*map(shape, rows)))
    assert found.points.dtype == np.float32
    assert found.points.tobytes() == np.array(rows, dtype=np.float32).tobytes()
    assert found.attached is None


def test_a_list_without_an_object_around_it_is_read_too() -> None:
    assert json.decode(b'[[1, 2], {"features": [3, 4]}]').points.tolist() == [[1, 2], [3, 4]]
    with pytest.raises(DataError, match="found none"):
        json.decode(b"[]")


@both_formats
def test_shapes_may_be_mixed(decode: Decode, write: Write) -> None:
    sparse = {"data": {"features": {"keys": [1], "shape": [2], "values": [6]}}}
    found = decode(write({"features": [1, 2]}, [3, 4.5], sparse, {"data": {"features": {"values": [7, 8]}}}))
    assert found.points.tolist() == [[1, 2], [3, 4.5], [0, 6], [7, 8]]


@both_formats
def test_ids_come_with_their_points(decode: Decode, write: Write) -> None:
    found = decode(
        write({"features": [1], "id": "a"}, {"features": [2]}, [3], {"id": 7, "data": [4]}, {"id": 0, "data": [5]})
    )
    assert found.points.ravel().tolist() == [1, 2, 3, 4, 5]
    assert found.attached == [{"id": "a"}, {}, {}, {"id": 7}, {"id": 0}]


@both_formats
@pytest.mark.parametrize("number", [2**31, 2**49 + 1, 10**14, -(10**14), 1e-300, 0.1, -0.0])
def test_numbers_of_any_size_are_read(decode: Decode, write: Write, number: float) -> None:
    assert decode(write({"features": [number, 1]})).points.tolist() == [[np.float32(number), 1]]


@both_formats
@pytest.mark.parametrize(
    ("instances", "place", "problem"),
    [
        ([{"features": [1, 2]}, {"features": [3, "x"]}], (2, 2), "expected a number, found the text 'x'"),
        ([{"features": [1, 2]}, {"features": [3, None]}], (2, 2), "expected a number, found null"),
        ([{"features": [1, True]}], (1, 2), "expected a number, found true"),
        ([{"features": [False, 1]}], (1, 1), "expected a number, found false"),
        ([{"features": [True, False]}], (1, 1), "expected a number, found true"),
        ([{"features": [1, [2]]}], (1, 2), "expected a number, found a list of 1"),
        ([{"features": [[1, 2]]}], (1, 1), "expected a number, found a list of 2"),
        ([{"features": [[1, 2]]}, {"features": [[3, 4]]}], (1, 1), "expected a number, found a list of 2"),
        ([{"features": [1, {"a": 2}]}], (1, 2), "expected a number, found an object with 'a'"),
        ([{"features": ["1", "2"]}], (1, 1), "expected a number, found the text '1'"),
        ([{"features": ["x" * 1000]}], (1, 1), f"expected a number, found the text '{'x' * 37}...'"),
        ([[1, 2], [1, 2, 3]], (2, None), "expected 2 numbers as in the rows before, found 3"),
        ([[1, 2], [3]], (2, None), "expected 2 numbers as in the rows before, found 1"),
        ([[1, 2], []], (2, None), "expected 2 numbers as in the rows before, found 0"),
        ([[1, 2], [3, 1e39]], (2, 2), "expected a finite number, found an infinite value or one beyond float32"),
        ([[1, 2], [10**100, 3]], (2, 1), "expected a finite number, found an infinite value or one beyond float32"),
        ([[1, 2], [3, 1e16]], (2, 2), "expected a number within +-1e+15, found 1e+16"),
        ([[1, 2], [2**63, -1]], (2, 1), "expected a number within +-1e+15, found 9.22337e+18"),
    ],
)
def test_what_is_no_number_is_refused_with_its_row_and_column(
    decode: Decode, write: Write, instances: list[Any], place: tuple[int, int | None], problem: str
) -> None:
    error = refusal(decode, write(*instances))
    assert ((error.row, error.column), error.problem) == (place, problem)


@both_formats
@pytest.mark.parametrize(
    ("instance", "found"),
    [
        (5, "found 5"),
        (True, "found true"),
        (None, "found null"),
        ("text", "found the text 'text'"),
        ({}, "found an object with no keys"),
        ({"feature": [1]}, "found an object with 'feature'"),
        ({"features": 5}, "found an object with 'features'"),
        ({"features": None}, "found an object with 'features'"),
        ({"features": {"value": [1]}}, "found an object with 'features'"),
        ({"data": {"a": [1], "b": [2]}}, "found an object with 'data'"),
        ({"data": {}}, "found an object with 'data'"),
        ({"data": {"a": {"b": {}}}}, "found an object with 'data'"),
    ],
)
def test_an_instance_of_another_shape_is_refused_with_its_row(
    decode: Decode, write: Write, instance: Any, found: str
) -> None:
    error = refusal(decode, write([1], [2], instance, [3]))
    assert error.row == 3
    assert error.problem == f'expected {{"features": [number, ...]}}, {found}'


@both_formats
@pytest.mark.parametrize(
    ("vector", "words"),
    [
        ({"keys": [3], "shape": [3], "values": [1]}, "keys from 0 to 2"),
        ({"keys": [-1], "shape": [3], "values": [1]}, "expected whole numbers for keys and shape, found -1"),
        ({"keys": [0.5], "shape": [3], "values": [1]}, "expected whole numbers for keys and shape, found 0.5"),
        ({"keys": ["0"], "shape": [3], "values": [1]}, "expected whole numbers for keys and shape, found the text '0'"),
        ({"keys": [True], "shape": [3], "values": [1]}, "expected whole numbers for keys and shape, found true"),
        ({"keys": [2**63], "shape": [3], "values": [1]}, "expected whole numbers for keys and shape"),
        ({"keys": [0, 1], "shape": [3], "values": [1]}, "as many keys as values, found 2 and 1"),
        ({"keys": [0], "shape": [3], "values": ["x"]}, "column 1: expected a number, found the text 'x'"),
        ({"keys": [0], "shape": [3], "values": [True]}, "column 1: expected a number, found true"),
        ({"keys": [0], "shape": [3], "values": [[1]]}, "column 1: expected a number, found a list of 1"),
        ({"keys": [0], "shape": [3]}, '{"keys": [...], "shape": [width], "values": [...]}'),
        ({"keys": [0], "values": [1]}, '{"keys": [...], "shape": [width], "values": [...]}'),
        ({"keys": [0], "shape": 3, "values": [1]}, '{"keys": [...], "shape": [width], "values": [...]}'),
        ({"keys": [0], "shape": [1, 3], "values": [1]}, '{"keys": [...], "shape": [width], "values": [...]}'),
        ({"keys": 0, "shape": [3], "values": [1]}, '{"keys": [...], "shape": [width], "values": [...]}'),
        ({"keys": [], "shape": [10**9], "values": []}, "width 1000000000"),
        ({"keys": [], "shape": [0], "values": []}, "width 0"),
        ({"keys": [0], "shape": [3], "values": [1e39]}, "column 1: expected a finite number"),
        ({"keys": [0], "shape": [4], "values": [1]}, "expected 3 numbers as in the rows before, found 4"),
    ],
)
def test_a_sparse_instance_that_is_none_is_refused_with_its_row(
    decode: Decode, write: Write, vector: dict[str, Any], words: str
) -> None:
    for instance in ({"features": vector}, {"data": {"features": vector}}):
        error = refusal(decode, write([1, 2, 3], instance))
        assert error.row == 2
        assert words in str(error)


@both_formats
def test_a_sparse_instance_of_another_width_than_the_model_s_is_refused(decode: Decode, write: Write) -> None:
    data = write({"features": {"keys": [0], "shape": [3], "values": [1]}})
    assert decode(data, 3).points.tolist() == [[1, 0, 0]]
    error = refusal(decode, data, features=4)
    assert str(error) == "row 1: expected a sparse vector of width 4, found 3."


@both_formats
def test_many_sparse_instances_of_a_great_width_are_refused_before_memory_runs_out(
    decode: Decode, write: Write
) -> None:
    error = refusal(decode, write(*[{"features": {"keys": [], "shape": [10**7], "values": []}}] * 1000))
    assert "Reduce the number of columns." in str(error)


@both_formats
def test_instances_without_a_single_number_are_refused(decode: Decode, write: Write) -> None:
    empty: list[list[Any]] = [[[]], [[], []], [{"features": []}]]
    for instances in empty:
        assert "expected points of shape" in str(refusal(decode, write(*instances)))


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"5", "found 5"),
        (b"null", "found null"),
        (b'"text"', "found the text 'text'"),
        (b"{}", "found an object with no keys"),
        (b'{"instance": [[1]]}', "found an object with 'instance'"),
        (b'{"instances": {"features": [1]}}', "found an object with 'instances'"),
        (b'{"instances": null}', "found an object with 'instances'"),
    ],
)
def test_another_shape_than_a_request_s_is_refused_with_what_was_expected(data: bytes, found: str) -> None:
    error = refusal(json.decode, data)
    assert error.problem == f"expected a JSON object of the form {json.SHAPE}, {found}"


def test_a_request_without_instances_is_refused() -> None:
    assert "expected at least one instance" in str(refusal(json.decode, request()))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"1,2\n3,4",
        b'{"instances": [[1, 2]',
        b'{"instances": [[1,]]}',
        b'{"instances": [[NaN]]}',
        b'{"instances": [[Infinity]]}',
        b'{"instances": [[1e999]]}',
        b'{"instances": [[.5]]}',
        b'{"instances": [[1]]} and more',
        b'\xff\xfe{"instances": [[1]]}',
        b'{"instances": ["\xff"]}',
        b'{"instances":' + b"[" * 5000 + b"]" * 5000 + b"}",
    ],
)
def test_what_is_no_json_is_refused_with_its_place(data: bytes) -> None:
    error = refusal(json.decode, data)
    assert error.problem.startswith("expected JSON, but ")
    assert "line" in error.problem


@pytest.mark.parametrize("depth", [2, 60, 70, 900])
def test_lists_within_lists_are_refused_however_deep(depth: int) -> None:
    data = b'{"instances": [' + b"[" * depth + b"1" + b"]" * depth + b"]}"
    error = refusal(json.decode, data)
    assert (error.row, error.column) == (1, 1)


def test_the_words_true_and_false_in_other_places_do_no_harm() -> None:
    data = b'{"instances": [{"features": [1, 2], "id": "true"}], "false": true}'
    assert json.decode(data).points.tolist() == [[1, 2]]


# Writing.


def predictions(attached: Any = None) -> Predictions:
    return Predictions(np.array([1.0, 0.0, 12.0]), np.array([3.0368, 1e-07, 123456789012345680.0]), attached)


def expected(attached: Any = None) -> list[dict[str, Any]]:
    rows = zip([1.0, 0.0, 12.0], [3.0368, 1e-07, 123456789012345680.0], attached or [{}] * 3, strict=True)
    return [{"closest_cluster": label, "distance_to_cluster": distance} | more for label, distance, more in rows]


def test_an_answer_is_written_as_python_writes_it() -> None:
    assert json.encode(predictions()) == python_json.dumps({"predictions": expected()}).encode()


def test_an_answer_in_lines_is_an_object_per_line_without_a_final_one() -> None:
    assert jsonlines.encode(predictions()) == lines(*expected())


def test_an_answer_gives_back_what_came_with_a_point() -> None:
    attached: list[dict[str, Any]] = [{"id": 'a "b"\n'}, {}, {"id": [1, {"x": None}]}]
    written = json.encode(predictions(attached))
    assert python_json.loads(written) == {"predictions": expected(attached)}
    in_lines = jsonlines.encode(predictions(attached)).split(b"\n")
    assert [python_json.loads(line) for line in in_lines] == expected(attached)


def test_whole_labels_are_written_as_whole_numbers() -> None:
    written = json.encode(Predictions(np.array([3]), np.array([0.5])))
    assert written == b'{"predictions": [{"closest_cluster": 3, "distance_to_cluster": 0.5}]}'


def test_an_answer_to_nothing_is_empty() -> None:
    nothing = Predictions(np.empty(0), np.empty(0))
    assert json.encode(nothing) == b'{"predictions": []}'
    assert jsonlines.encode(nothing) == b""


@both_formats
def test_an_id_is_taken_only_as_deep_as_an_answer_can_be_written(decode: Decode, write: Write) -> None:
    """orjson reads four times as deep as it writes."""
    instance: dict[str, Any] = {"features": [1], "id": python_json.loads("[" * 200 + "]" * 200)}
    attached = decode(write(instance)).attached
    assert attached == [{"id": instance["id"]}]
    assert python_json.loads(jsonlines.encode(Predictions(np.zeros(1), np.zeros(1), attached)))["id"] == instance["id"]
    deep = {"features": [1], "id": python_json.loads("[" * 300 + "]" * 300)}
    error = refusal(decode, write(instance, deep))
    assert error.row == 2
    assert "nested" in str(error)


def test_lines_take_memory_in_proportion_to_their_points() -> None:
    content = b'{"features": [1], "x": 0}\n' * 40_000
    tracemalloc.start()
    jsonlines.decode(content)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * len(content)


# Anything else.

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["features", "data", "values", "keys", "shape", "instances", "id"]) | st.text(max_size=3),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
SEEDS = [
    request([1, 2.5], {"features": [3, -4]}),
    request({"data": {"features": {"keys": [1], "shape": [2], "values": [6]}}, "id": "a"}),
    lines({"features": [1, 2]}, {"data": {"features": {"values": [3, 4]}}}),
]


@oracle.PROPERTY
@given(
    st.binary(max_size=40)
    | oracle.damaged(SEEDS)
    | st.lists(values, max_size=3).map(lambda instances: request(*instances))
    | st.lists(values, max_size=3).map(lambda instances: lines(*instances))
)
def test_any_bytes_give_points_or_a_data_error(data: bytes) -> None:
    for decode in (json.decode, jsonlines.decode):
        found = oracle.attempt(decode, data)
        if isinstance(found, Instances):
            oracle.assert_points(found.points)
            assert found.attached is None or len(found.attached) == len(found.points)
