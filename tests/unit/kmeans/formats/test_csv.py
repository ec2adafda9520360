from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmeans.errors import DataError
from kmeans.formats import csv
from kmeans.formats.instances import Predictions
from tests.unit.kmeans import oracle


def refusal(data: bytes) -> DataError:
    with pytest.raises(DataError) as raised:
        csv.decode(data)
    return raised.value


# Against numpy.loadtxt.

numbers = st.floats(-1e14, 1e14, allow_subnormal=False) | st.floats(-1, 1, width=32) | st.integers(-(10**6), 10**6)
WRITERS: list[Callable[[float], str]] = [
    repr,
    "{:e}".format,
    "{:+.3f}".format,
    "{:.10G}".format,
    lambda number: f" {number!r}\t",
    lambda number: f"{number:.0f}.",
    lambda number: f"{number:+}".replace("0.", "."),
    lambda number: f"{number:.2E}".replace("E+", "e"),
    lambda number: f"00{abs(number)!r}",
]


@st.composite
def tables(draw: st.DrawFn) -> str:
    columns = draw(st.integers(1, 5))
    writer = draw(st.sampled_from(WRITERS)) if draw(st.booleans()) else None
    lines = []
    for _ in range(draw(st.integers(1, 12))):
        row = [draw(numbers) for _ in range(columns)]
        lines.append(",".join((writer or draw(st.sampled_from(WRITERS)))(number) for number in row))
        lines += [""] * draw(st.sampled_from([0, 0, 0, 0, 1, 2]))
    return draw(st.sampled_from(["\n", "\r\n"])).join(lines) + draw(st.sampled_from(["", "\n", "\r\n"]))


@oracle.PROPERTY
@given(tables())
def test_any_table_of_numbers_is_read_as_numpy_reads_it(table: str) -> None:
    expected = np.loadtxt(io.StringIO(table), delimiter=",", ndmin=2).astype(np.float32)
    found = csv.decode(table.encode())
    assert found.dtype == np.float32
    assert found.shape == expected.shape
    assert np.array_equal(found, expected)


@oracle.PROPERTY
@given(tables(), st.integers(1, 40))
def test_the_size_of_chunks_does_not_change_the_numbers(table: str, chunk_bytes: int) -> None:
    whole = csv.decode(table.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv, "CHUNK_BYTES", chunk_bytes)
        assert np.array_equal(csv.decode(table.encode()), whole)


def test_a_file_of_many_chunks_is_read_whole() -> None:
    points = np.random.default_rng(0).normal(size=(40_000, 4)).astype(np.float32)
    text = "\n".join(",".join(map(repr, row)) for row in points.tolist()).encode()
    assert len(text) > 5 * csv.CHUNK_BYTES
    assert csv.decode(text).tobytes() == points.tobytes()


# What people write.


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("1,2\n3,4", [[1, 2], [3, 4]]),
        ("1,2\n3,4\n", [[1, 2], [3, 4]]),
        ("1,2\r\n3,4\r\n", [[1, 2], [3, 4]]),
        ("1,2\r\n3,4", [[1, 2], [3, 4]]),
        ("\ufeff1,2\n3,4\n", [[1, 2], [3, 4]]),
        ("\ufeff1,2\r\n3,4\r\n", [[1, 2], [3, 4]]),
        ("\n\n1,2\n\n\n3,4\n\n", [[1, 2], [3, 4]]),
        ("1,2\n   \n3,4\n\t", [[1, 2], [3, 4]]),
        ("7", [[7]]),
        ("7\n8\n", [[7], [8]]),
        ("7\n\n8\n", [[7], [8]]),
        (".5,+1,1.,-.5", [[0.5, 1, 1, -0.5]]),
        ("1e3,1E3,1e+3,1e-3,-1.5e2", [[1000, 1000, 1000, np.float32(0.001), -150]]),
        (" 1 ,\t2,3 \t\n4 , 5,6", [[1, 2, 3], [4, 5, 6]]),
        ("007,-0,00.5", [[7, 0, 0.5]]),
        ("1" + "0" * 14 + ",123456789012345678901234567890e-20", [[1e14, np.float32(1234567890.123)]]),
        ("1e-999,4e-320", [[0, 0]]),
        ("1," + "0" * 400 + "2", [[1, 2]]),
    ],
)
def test_what_people_write_is_read(text: str, rows: list[list[float]]) -> None:
    assert csv.decode(text.encode()).tolist() == np.array(rows, dtype=np.float32).tolist()


# What is wrong, and where.


@pytest.mark.parametrize(
    ("text", "place", "problem"),
    [
        ("1,2\n3,x", (2, 2), "expected a number, found 'x'"),
        ("1,2\n\n3, abc ", (3, 2), "expected a number, found 'abc'"),
        ("1,2\n3,", (2, 2), "expected a number, found an empty cell"),
        (",2\n3,4", (1, 1), "expected a number, found an empty cell"),
        ("1,2\n3,  \n", (2, 2), "expected a number, found an empty cell"),
        ("1,2\n,", (2, 1), "expected a number, found an empty cell"),
        ("1,2\n3", (2, None), "expected 2 columns as in the rows before, found 1"),
        ("1,2\n\n3,4,5\n", (3, None), "expected 2 columns as in the rows before, found 3"),
        ("1,2\n3\n4,5,6", (2, None), "expected 2 columns as in the rows before, found 1"),
        ("1,2\n3,4,", (2, 3), "expected a number, found an empty cell"),
        ("1\n2,3", (2, None), "expected 1 columns as in the rows before, found 2"),
        ("1;2\n3;4", (1, 1), "expected a number, found '1;2'"),
        ("1 2\n3 4", (1, 1), "expected a number, found '1 2'"),
        ('"1","2"', (1, 1), "expected a number, found '\"1\"'"),
        ("1,1_000", (1, 2), "expected a number, found '1_000'"),
        ("1,0x10", (1, 2), "expected a number, found '0x10'"),
        ("1,1e", (1, 2), "expected a number, found '1e'"),
        ("1,--1", (1, 2), "expected a number, found '--1'"),
        ("1,1.2.3", (1, 2), "expected a number, found '1.2.3'"),
        ("1,True", (1, 2), "expected a number, found 'True'"),
        ("1,\u0663", (1, 2), "expected a number, found '\u0663'"),
        ("1,2\r3,4", (1, 2), r"expected a number, found '2\r3'"),
        ("1,2\n3,nan\n", (2, 2), "expected a finite number, found NaN"),
        ("1,2\n\n\nNaN,4", (4, 1), "expected a finite number, found NaN"),
        ("1,2\n3,inf", (2, 2), "expected a finite number, found an infinite value or one beyond float32"),
        ("1,2\n-Infinity,4", (2, 1), "expected a finite number, found an infinite value or one beyond float32"),
        ("1,2\n3,1e999", (2, 2), "expected a finite number, found an infinite value or one beyond float32"),
        ("1,2\n3,-1e39", (2, 2), "expected a finite number, found an infinite value or one beyond float32"),
        ("1,2\n3," + "9" * 50, (2, 2), "expected a finite number, found an infinite value or one beyond float32"),
        ("1,2\n3,1e16", (2, 2), "expected a number within +-1e+15, found 1e+16"),
        ("1,2\n\n3,1e16", (3, 2), "expected a number within +-1e+15, found 1e+16"),
    ],
)
@pytest.mark.parametrize("chunk_bytes", [1, 5, 1 << 20])
def test_what_is_wrong_is_refused_with_its_line_and_cell(
    text: str, place: tuple[int, int | None], problem: str, chunk_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv, "CHUNK_BYTES", chunk_bytes)
    for content in (text, "\ufeff" + text, text.replace("\n", "\r\n")):
        error = refusal(content.encode())
        assert ((error.row, error.column), error.problem) == (place, problem)


@pytest.mark.parametrize("data", [b"", b"\n", b"\r\n\r\n", b"  \n\t\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n"])
def test_nothing_is_refused_as_nothing(data: bytes) -> None:
    assert str(refusal(data)) == "expected rows of numbers, found none. Is the file or the request empty?"


@pytest.mark.parametrize("header", ["x,y", "label,feature 1", "a,\u00e4".encode("ascii", "ignore").decode() + "b"])
def test_a_header_is_refused_with_what_to_do(header: str) -> None:
    error = refusal(f"{header}\n1,2\n".encode())
    assert (error.row, error.column) == (1, 1)
    assert str(error).endswith("The first row looks like a header: remove it.")


@pytest.mark.parametrize("text", ["1,x\n3,4", "1,2\nx,y", "\nx,y\n1,2"])
def test_what_is_no_header_is_not_called_one(text: str) -> None:
    assert refusal(text.encode()).hint is None


@pytest.mark.parametrize(
    "data", ["1,2\n3,4".encode("utf-16"), b"\x93NUMPY\x01\x00", b"\xff\xfe\x00\x01", b"1,2\n3,\x004"]
)
def test_binary_data_are_refused_in_a_printable_sentence(data: bytes) -> None:
    sentence = str(refusal(data))
    assert "expected a number, found" in sentence
    assert "header" not in sentence
    assert sentence.isprintable()


def test_a_long_cell_is_shown_in_short() -> None:
    assert len(str(refusal(b"1," + b"x" * 10**6))) < 150


@pytest.mark.parametrize("chunk_bytes", [1, 100, 1000, 10**6])
@pytest.mark.parametrize("at", [0, 1, 499, 998, 999])
def test_the_row_is_right_across_chunks_and_blank_lines(
    at: int, chunk_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv, "CHUNK_BYTES", chunk_bytes)
    for blank_every in (0, 7):
        for wrong, column in (("1,oops", 2), ("inf,1", 1), ("1,2,3", None)):
            lines = ["1.5,2"] * 1000
            lines[at] = wrong
            if at == 0 and column is None:  # then the second row is the odd one
                continue
            text = "\n".join(
                f"{line}\n" if blank_every and i % blank_every == 0 else line for i, line in enumerate(lines)
            )
            error = refusal(text.encode())
            assert error.row == text.split("\n").index(wrong) + 1
            assert error.column == column


# Writing.


def test_an_answer_is_a_line_of_label_and_distance_for_each_point() -> None:
    written = csv.encode(Predictions(np.array([0.0, 3.0]), np.array([1.5, 1e-7])))
    assert written == b"0.0,1.5\n3.0,1e-07"
    assert csv.encode(Predictions(np.array([2]), np.array([0.1]))) == b"2,0.1"


def test_an_answer_is_read_again() -> None:
    labels, distances = np.arange(50, dtype=np.float64), np.random.default_rng(0).uniform(size=50)
    read = csv.decode(csv.encode(Predictions(labels, distances)))
    assert np.array_equal(read, np.c_[labels, distances].astype(np.float32))


# Anything else.


@oracle.PROPERTY
@given(
    st.binary(max_size=60)
    | st.text(alphabet="0123456789+-.eE, \t\r\n\ufeffnaif_x", max_size=40).map(str.encode)
    | oracle.damaged([b"1,2\n3,4\n", b"\xef\xbb\xbf1.5,-2e3\r\n\r\n.5,+7\r\n", b"1\n2\n3"])
)
def test_any_bytes_give_points_or_a_data_error(data: bytes) -> None:
    oracle.assert_points_or_data_error(csv.decode, data)
