"""Handwritten digits as training data: those of scikit-learn, or MNIST from its IDX files."""

from __future__ import annotations

import gzip
import json
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kmeans.arrays import Float32
from kmeans.formats import recordio

MNIST_TRAIN_ROWS = 50_000
SMALL_TRAIN_ROWS = 1_500

# IDX: two zero bytes, the type (8: unsigned byte), the number of dimensions, then their sizes as big-endian u32.
IDX_UNSIGNED_BYTE = 8


@dataclass(frozen=True, slots=True)
class Digits:
    """Digits for training, and others for requests to the server.

    Attributes
    ----------
    train, test
        Pixels from 0 to 1, float32 (n, d).
    test_digits
        The digit that each row of ``test`` shows, (n,).
    """

    train: Float32
    test: Float32
    test_digits: NDArray[np.int64]


def small() -> Digits:
    """Return scikit-learn's 1,797 digits of 8 x 8 pixels, which are part of the package."""
    from sklearn.datasets import load_digits  # noqa: PLC0415 - takes a second, and MNIST doesn't need it

    pixels, digits = load_digits(return_X_y=True)
    points = (pixels / 16).astype(np.float32)
    return Digits(points[:SMALL_TRAIN_ROWS], points[SMALL_TRAIN_ROWS:], digits[SMALL_TRAIN_ROWS:].astype(np.int64))


def mnist(folder: Path) -> Digits:
    """Return the first 50,000 and the 10,000 test digits of MNIST from its IDX files (gzip or not) in ``folder``.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    ValueError
        If a file is not an IDX file of bytes.
    """
    train = _read_idx(folder, "train-images-idx3-ubyte")
    test = _read_idx(folder, "t10k-images-idx3-ubyte")
    test_digits = _read_idx(folder, "t10k-labels-idx1-ubyte")
    return Digits(_scaled(train[:MNIST_TRAIN_ROWS]), _scaled(test), test_digits.astype(np.int64))


def as_csv(points: Float32) -> bytes:
    """Return ``points`` (n, d) as CSV, a line per row, six significant digits as AWS's notebooks write them."""
    return "".join(",".join(f"{value:g}" for value in row) + "\n" for row in points).encode()


def csv_files(digits: Digits) -> dict[str, bytes]:
    """Return the files of the channels ``train`` and ``test`` as CSV, by their paths below ``input/data``."""
    return {"train/digits.csv": as_csv(digits.train), "test/digits.csv": as_csv(digits.test)}


def recordio_files(digits: Digits) -> dict[str, bytes]:
    """Return the files of the channels ``train`` and ``test`` as RecordIO-protobuf, by their paths."""
    return {"train/digits.pbr": recordio.encode(digits.train), "test/digits.pbr": recordio.encode(digits.test)}


def write_configuration(directory: Path, features: int, content_type: str, input_mode: str) -> None:
    """Write those of the job's configuration files that are missing in ``directory`` (``input/config``).

    In Pipe mode the job has three epochs, each through its own FIFO.
    """
    channel = {"TrainingInputMode": input_mode, "ContentType": content_type}
    hyperparameters = {"k": "10", "feature_dim": str(features)}
    files = {
        "hyperparameters.json": hyperparameters | ({"epochs": "3"} if input_mode == "Pipe" else {}),
        "inputdataconfig.json": {"train": channel, "test": channel},
        "resourceconfig.json": {"current_host": "algo-1", "hosts": ["algo-1"], "network_interface_name": "eth0"},
    }
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        if not (directory / name).exists():
            (directory / name).write_text(json.dumps(content, indent=2) + "\n")


def _read_idx(folder: Path, name: str) -> NDArray[np.uint8]:
    packed, plain = folder / f"{name}.gz", folder / name
    content = gzip.decompress(packed.read_bytes()) if packed.exists() else plain.read_bytes()
    zeros, kind, dimensions = struct.unpack_from(">HBB", content)
    if zeros or kind != IDX_UNSIGNED_BYTE:
        raise ValueError(f"{name} in {folder} is no IDX file of bytes")
    shape = struct.unpack_from(f">{dimensions}I", content, 4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def _scaled(images: NDArray[np.uint8]) -> Float32:
    return images.reshape(len(images), -1).astype(np.float32) / np.float32(255)
