from __future__ import annotations

import io
import struct
import zipfile
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmeans.errors import DataError
from kmeans.formats import npy
from tests.unit.kmeans import oracle

TABLE = np.array([[1.0, 2.0, 3.0], [-4.0, 5.5, 0.0]])


def saved(array: Any, version: tuple[int, int] | None = None) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asanyarray(array), version=version)
    return file.getvalue()


def zipped(compressed: bool = False, /, **arrays: Any) -> bytes:
    file = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(file, **arrays)
    return file.getvalue()


def with_header(header: str, content: bytes = b"", version: int = 1) -> bytes:
    text = header.encode("latin1") + b"\n"
    return npy.MAGIC + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", len(text)) + text + content


def described(shape: str, descr: str = "'<f4'", content: bytes = b"") -> bytes:
    return with_header(f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}", content)


@pytest.mark.parametrize("dtype", ["<f4", "<f8", ">f4", ">f8", "<f2", "<i4", ">i8", "i1", "<i2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_an_array_of_numbers_is_read_whatever_its_type_and_order(dtype: str, order: Any) -> None:
    table = np.asarray(TABLE.astype(dtype), order=order)
    found = npy.decode(saved(table))
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    assert np.array_equal(found, table.astype(np.float32))


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_every_version_is_read(version: tuple[int, int]) -> None:
    assert np.array_equal(npy.decode(saved(TABLE, version)), TABLE)


@pytest.mark.parametrize("version", [(0, 0), (1, 1), (4, 0), (39, 0)])
def test_a_version_that_there_is_not_is_refused(version: tuple[int, int]) -> None:
    data = bytearray(saved(TABLE, (2, 0)))
    data[6:8] = version
    with pytest.raises(DataError, match=f"of version 1.0, 2.0 or 3.0, found {version[0]}.{version[1]}"):
        npy.decode(bytes(data))


def test_unsigned_bytes_are_read() -> None:
    assert npy.decode(saved(np.array([[0, 255]], dtype=np.uint8))).tolist() == [[0, 255]]


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.array([1.0, 2.0]), "shape (2,)"),
        (np.array(1.0), "shape ()"),
        (np.zeros((2, 2, 2)), "shape (2, 2, 2)"),
        (np.zeros((2, 0)), "shape (2, 0)"),
        (np.array([["a", "b"]]), "expected numbers, found an array of <U1"),
        (np.array([[True]]), "expected numbers, found an array of bool"),
        (np.array([[1j]]), "expected numbers, found an array of complex128"),
        (np.array([["2020-01-01"]], dtype="M8[D]"), "expected numbers"),
        (np.zeros(2, dtype=[("a", "<f4"), ("b", "<f4")]), "expected numbers"),
        (np.array([[1, np.nan]]), "row 1, column 2: expected a finite number, found NaN"),
        (np.array([[1.0], [1e300]]), "row 2, column 1: expected a finite number"),
    ],
)
def test_an_array_of_something_else_is_refused(array: Any, words: str) -> None:
    with pytest.raises(DataError) as raised:
        npy.decode(saved(array))
    assert words in str(raised.value)


def test_a_pickle_is_refused_without_being_opened() -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return pytest.fail, ("a pickle was opened",)

    data = np.array([[Trap()]], dtype=object)
    with pytest.raises(DataError, match="expected numbers, found an array of object"):
        npy.decode(saved(data))


def test_a_file_cut_anywhere_is_refused() -> None:
    data = saved(TABLE)
    for cut in range(len(data)):
        with pytest.raises(DataError):
            npy.decode(data[:cut])


def test_bytes_beyond_the_array_are_refused() -> None:
    with pytest.raises(DataError, match="expected 48 bytes for shape"):
        npy.decode(saved(TABLE) + b"x")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"1,2\n",
        npy.MAGIC + b"\x09\x00",
        with_header("nonsense"),
        with_header("{'descr': '<f4'}"),
        with_header("{" * 300),
        with_header("(" * 5000),
        with_header("-" * 9000 + "1"),
        with_header("1+" * 4000 + "1"),
        with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2)"),
        with_header("'''"),
        with_header("  {'a': 1\n b"),
        described("(1, 1)", "'zz'", b"1234"),
        described("(1, 1)", "'O'", b"1234"),
        described("(1, 1)", "('<f4', (2,))", b"12345678"),
        described("(1, 1)", "[]"),
        described("(1, 1)", "None"),
        described("5"),
        described("('a', 1)"),
        described("(-1, -1)", content=b"1234"),
        described("(-2, -1)", content=b"12345678"),
        described("(-1, 1)", content=b"1234"),
        described("(1000000, 1000000)", content=b"1234"),
        described(f"({10**30}, 1)", content=b"1234"),
    ],
)
def test_what_is_no_npy_file_is_refused(data: bytes) -> None:
    with pytest.raises(DataError) as raised:
        npy.decode(data)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 500


@pytest.mark.parametrize("header", ["{'descr': name}", "{'descr': '<f4' * 1000000000}", "[1 for _ in ()]"])
def test_a_refusal_tells_no_address_in_memory(header: str) -> None:
    with pytest.raises(DataError, match=r"expected a \.npy file, but malformed node or string on line 1\.$"):
        npy.decode(with_header(header))


@pytest.mark.parametrize("descr", ["'<\x1b7'", "'\x7f\x9b'"])
def test_a_refusal_is_printable(descr: str) -> None:
    with pytest.raises(DataError, match=r"expected a \.npy file, but ") as raised:
        npy.decode(described("(1, 1)", descr, b"1234"))
    assert str(raised.value).isprintable()


def test_a_refusal_doesnt_advise_to_trust_the_file() -> None:
    with pytest.raises(DataError, match=r"but Header info length \(20001\) is large") as raised:
        npy.decode(with_header(" " * 20_000))
    assert "allow" not in str(raised.value)


# NPZ.


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("name", ["arr_0", "centers", "centroids", "cluster_centers_", "whatever"])
def test_the_only_array_of_an_archive_holds_the_centers(name: str, compressed: bool) -> None:
    assert np.array_equal(npy.decode_centers(zipped(compressed, **{name: TABLE})), TABLE)


@pytest.mark.parametrize("name", ["centers", "centroids", "cluster_centers", "cluster_centers_"])
def test_of_several_arrays_the_one_named_so_holds_the_centers(name: str) -> None:
    assert np.array_equal(npy.decode_centers(zipped(labels=np.arange(9), **{name: TABLE}, n=np.zeros(2))), TABLE)


def test_several_arrays_of_which_none_is_named_so_are_refused() -> None:
    with pytest.raises(DataError, match="expected one array, or one named centers, found 'a', 'b'"):
        npy.decode_centers(zipped(a=TABLE, b=TABLE))


def test_an_empty_archive_is_refused() -> None:
    with pytest.raises(DataError, match="expected one array"):
        npy.decode_centers(zipped())


def archive_of(content: bytes, compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr("centers.npy", content)
    return file.getvalue()


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_every_compression_that_numpy_writes_is_read(compression: int) -> None:
    assert np.array_equal(npy.decode_centers(archive_of(saved(TABLE), compression)), TABLE)


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_another_compression_is_refused_before_it_takes_the_memory_it_asks_for(compression: int) -> None:
    with pytest.raises(DataError, match=f"stored or deflated, as NumPy does it, found ZIP's method {compression}"):
        npy.decode_centers(archive_of(saved(TABLE), compression))


def test_of_many_arrays_the_first_few_are_named() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for number in range(100):
            archive.writestr(f"{number}\n{'x' * 1000}.npy", b"")
    with pytest.raises(DataError, match="found '0") as raised:
        npy.decode_centers(file.getvalue())
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 500


def test_an_array_that_would_grow_beyond_measure_is_refused() -> None:
    with pytest.raises(DataError, match="found an array of 8000128 bytes in a file of"):
        npy.decode_centers(archive_of(saved(np.zeros((1000, 1000)))))


def test_an_archive_of_something_else_is_refused() -> None:
    with pytest.raises(DataError, match=r"expected a \.npy file"):
        npy.decode_centers(archive_of(b"hello"))


@pytest.mark.parametrize("data", [b"", b"PK\3\4", b"1,2\n", saved(TABLE)])
def test_file_that_is_not_an_archive_is_refused(data: bytes) -> None:
    with pytest.raises(DataError, match=r"expected a \.npz file, but "):
        npy.decode_centers(data)


# Anything else.

ARRAYS = [saved(TABLE), saved(TABLE.astype("<f4").T), described("(1, 1)", content=b"\0\0\0\0")]
COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
ARCHIVES = [zipped(centers=TABLE), *(archive_of(saved(TABLE), compression) for compression in COMPRESSIONS)]


def saved_as(header: str) -> bytes:
    return with_header(header.encode("ascii", "replace").decode())


# A damaged header may look like one of Python 2, which NumPy still reads, and warns of.
ignore_python_2 = pytest.mark.filterwarnings("ignore:Reading `.npy` or `.npz` file required additional header parsing")


@ignore_python_2
@oracle.PROPERTY
@given(oracle.damaged(ARRAYS) | st.binary(max_size=100) | st.text(max_size=60).map(saved_as))
def test_any_bytes_give_points_or_a_data_error(data: bytes) -> None:
    oracle.assert_points_or_data_error(npy.decode, data)


@ignore_python_2
@oracle.PROPERTY
@given(oracle.damaged(ARCHIVES) | st.binary(max_size=100))
def test_any_archive_gives_points_or_a_data_error(data: bytes) -> None:
    oracle.assert_points_or_data_error(npy.decode_centers, data)
