"""What a model is said to take in memory is what it takes: never less, and not much more."""

import io
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from kmeans import artifact
from kmeans.formats import mxnet
from kmeans.model import KMeansModel
from serve.multi_model import memory

K, D = 300, 400
Array = npt.NDArray[Any]


def as_mxnet(centers: Array) -> bytes:
    return mxnet.encode(centers.astype(np.float32))


def as_mxnet_float64(centers: Array) -> bytes:
    encoded = bytearray(as_mxnet(centers))
    encoded[60:64] = struct.pack("<i", 1)
    return bytes(encoded[:64] + centers.astype("<f8").tobytes() + bytes(8))


def npy(centers: Array) -> bytes:
    file = io.BytesIO()
    np.save(file, centers)
    return file.getvalue()


def npz(centers: Array, method: int = zipfile.ZIP_STORED, name: str = "centers") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr("labels.npy", npy(np.zeros(5)))
        archive.writestr("README", "no array")
        archive.writestr(f"{name}.npy", npy(centers))
    return file.getvalue()


def alone(centers: Array) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, centers)
    return file.getvalue()


FORMS: dict[str, tuple[str, Callable[[Array], bytes]]] = {
    "model_algo-1": ("model_algo-1", as_mxnet),
    "model_algo-1 float64": ("model_algo-1", as_mxnet_float64),
    "MXNet": ("centers.params", as_mxnet),
    "npy float32": ("c.npy", lambda centers: npy(centers.astype(np.float32))),
    "npy float64": ("c.npy", npy),
    "npy int8": ("c.npy", lambda centers: npy(centers.astype(np.int8))),
    "npy in columns": ("c.npy", lambda centers: npy(np.asfortranarray(centers))),
    "npz": ("c.npz", npz),
    "npz int8": ("c.npz", lambda centers: npz(centers.astype(np.int8))),
    "npz of one": ("c.npz", alone),
    "npz packed": ("c.npz", lambda centers: npz(np.round(centers), zipfile.ZIP_DEFLATED)),
}


def files_of(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


@pytest.mark.parametrize("offset", [0.0, 30.0], ids=["at the origin", "far from it"])
@pytest.mark.parametrize("form", FORMS)
def test_estimate_covers_the_memory_of_reading_and_keeping(tmp_path: Path, form: str, offset: float) -> None:
    name, write = FORMS[form]
    centers = np.random.default_rng(0).normal(offset, 3.0, (K, D))
    (tmp_path / name).write_bytes(write(centers))
    artifact.load(tmp_path)  # what is imported or cached at the first time isn't the model's
    tracemalloc.start()
    try:
        model = artifact.load(tmp_path)
        kept, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    expected = memory.while_reading(files_of(tmp_path))
    assert expected >= 0.99 * most  # the objects around the arrays
    assert expected <= 2 * most
    assert 0.95 * kept <= memory.once_read(model, files_of(tmp_path)) <= 1.1 * kept


def test_estimate_includes_long_metadata(tmp_path: Path) -> None:
    training: dict[str, Any] = {"notes": [{} for _ in range(50_000)]}
    artifact.save(KMeansModel([[1.0]], training=training), tmp_path)
    tracemalloc.start()
    try:
        model = artifact.load(tmp_path)
        kept, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert memory.while_reading(files_of(tmp_path)) >= most
    assert memory.once_read(model, files_of(tmp_path)) >= kept


def test_estimate_ignores_other_files_next_to_model_algo_1(tmp_path: Path) -> None:
    artifact.save(KMeansModel([[1.0, 2.0]]), tmp_path)
    before = memory.while_reading(files_of(tmp_path))
    (tmp_path / "c.npy").write_bytes(npy(np.zeros((100, 100))))
    (tmp_path / "model.tar.gz").write_bytes(bytes(100_000))
    assert memory.while_reading(files_of(tmp_path)) == before


def test_estimate_of_a_false_array_header_uses_the_file_size(tmp_path: Path) -> None:
    with (tmp_path / "c.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (10**9, 10**9)})
        file.write(bytes(1000))
    assert memory.while_reading(files_of(tmp_path)) < 100_000


def test_estimate_of_a_refused_archive_ignores_its_content(tmp_path: Path) -> None:
    bomb = npz(np.zeros((1000, 1000)), zipfile.ZIP_DEFLATED)
    (tmp_path / "c.npz").write_bytes(bomb)
    assert memory.while_reading(files_of(tmp_path)) < 10 * len(bomb)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x93NUMPY",
        b"\x93NUMPY\x09\x00",
        b"PK\x03\x04",
        b"PK\x03\x04" + bytes(100),
        b"\x12\x01" + bytes(6),
        b"text",
    ],
    ids=repr,
)
def test_estimate_of_invalid_files_is_small(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "c").write_bytes(content)
    assert memory.while_reading(files_of(tmp_path)) <= 10 * len(content)


def test_estimate_of_a_missing_file_is_zero(tmp_path: Path) -> None:
    assert memory.while_reading([tmp_path / "model_algo-1", tmp_path / "kmeans.json"]) == 0
