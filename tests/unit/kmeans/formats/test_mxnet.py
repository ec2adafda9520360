from __future__ import annotations

import struct
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmeans.errors import DataError
from kmeans.formats import mxnet
from tests.unit.kmeans import oracle

GOLDEN = (oracle.GOLDEN / "model_algo-1").read_bytes()
CENTERS = np.load(oracle.GOLDEN / "model_algo-1_expected.npy")


def written(
    array: Any,
    *,
    magic: int = 0x112,
    arrays: int = 1,
    version: int = 0xF993FAC9,
    storage: int = 0,
    shape: tuple[int, ...] | None = None,
    device: tuple[int, int] = (1, 0),
    code: int = 0,
    names: bytes = struct.pack("<Q", 0),
) -> bytes:
    """Write a list by the layout in MXNet's source, with any of its fields wrong."""
    shape = array.shape if shape is None else shape
    return (
        struct.pack("<QQQ", magic, 0, arrays)
        + struct.pack("<IiI", version, storage, len(shape))
        + struct.pack(f"<{len(shape)}q", *shape)
        + struct.pack("<iii", *device, code)
        + bytes(array.tobytes())
        + names
    )


def refusal(data: bytes) -> DataError:
    with pytest.raises(DataError) as raised:
        mxnet.decode(data)
    return raised.value


def test_a_file_of_mxnet_is_read_to_the_bit() -> None:
    centers = mxnet.decode(GOLDEN)
    assert centers.dtype == np.float32
    assert centers.shape == (5, 13)
    assert centers.tobytes() == CENTERS.tobytes()


def test_an_array_is_written_as_mxnet_writes_it() -> None:
    assert mxnet.encode(CENTERS) == GOLDEN


@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (100, 784)])
def test_what_is_written_is_read_again(shape: tuple[int, int]) -> None:
    centers = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    assert mxnet.decode(mxnet.encode(centers)).tobytes() == centers.tobytes()


@pytest.mark.parametrize("view", [CENTERS.T, CENTERS[::2], CENTERS[:, ::3], CENTERS.astype(">f4")])
def test_an_array_is_written_whatever_its_layout_in_memory(view: Any) -> None:
    assert np.array_equal(mxnet.decode(mxnet.encode(view)), view)


def test_float64_and_version_3_and_names_are_read() -> None:
    wide = CENTERS.astype("<f8")
    names = struct.pack("<QQ", 1, 7) + b"centers"
    for data in (written(wide, code=1), written(CENTERS, version=0xF993FACA), written(CENTERS, names=names)):
        assert np.array_equal(mxnet.decode(data), CENTERS)


def test_an_array_from_another_device_is_read() -> None:
    assert np.array_equal(mxnet.decode(written(CENTERS, device=(2, 3))), CENTERS)


def test_a_file_cut_anywhere_is_refused() -> None:
    for cut in range(len(GOLDEN)):
        error = refusal(GOLDEN[:cut])
        assert error.offset is not None
        assert error.offset <= cut


@pytest.mark.parametrize(
    ("changes", "words", "offset"),
    [
        ({"magic": 0x113}, "magic 0x112), found 0x113", 0),
        ({"arrays": 0}, "expected one array of centers, found 0", 16),
        ({"arrays": 2}, "expected one array of centers, found 2", 16),
        ({"version": 0xF993FAC8}, "found magic 0xf993fac8", 24),
        ({"storage": 1}, "expected a dense array", 28),
        ({"storage": -1}, "expected a dense array", 28),
        ({"shape": (65,)}, "found 1 dimensions", 32),
        ({"shape": (5, 13, 1)}, "found 3 dimensions", 32),
        ({"shape": ()}, "found 0 dimensions", 32),
        ({"shape": (0, 13)}, "found shape (0, 13)", 36),
        ({"shape": (5, 0)}, "found shape (5, 0)", 36),
        ({"shape": (-5, -13)}, "found shape (-5, -13)", 36),
        ({"shape": (5, 15)}, "expected 300 bytes of values for shape (5, 15)", 64),
        ({"shape": (2**62, 2**62)}, f"for shape ({2**62}, {2**62})", 64),
        ({"code": 4}, "found type code 4", 60),
        ({"code": -1}, "found type code -1", 60),
        ({"code": 1}, "expected 520 bytes of values", 64),
    ],
)
def test_a_list_that_is_none_is_refused_with_the_byte(changes: dict[str, Any], words: str, offset: int) -> None:
    error = refusal(written(CENTERS, **changes))
    assert words in str(error)
    assert error.offset == offset


def test_a_huge_shape_takes_no_memory() -> None:
    data = written(CENTERS, shape=(2**40, 2**20))
    tracemalloc.start()
    refusal(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.parametrize("bits", [0x7FF0000000000001, struct.unpack("<Q", struct.pack("<d", 1e300))[0]])
def test_a_float64_that_is_no_float32_is_read_without_a_warning(bits: int) -> None:
    array = np.frombuffer(struct.pack("<Q", bits), "<f8").reshape(1, 1)
    assert not np.isfinite(mxnet.decode(written(array, code=1))).any()


@oracle.PROPERTY
@given(oracle.damaged([GOLDEN, written(CENTERS.astype("<f8"), code=1)]) | st.binary(max_size=120))
def test_any_bytes_give_an_array_or_a_data_error(data: bytes) -> None:
    centers = oracle.attempt(mxnet.decode, data)
    if centers is not None:
        assert centers.dtype == np.float32
        assert centers.ndim == 2
        assert centers.size
