"""Data for the jobs, and what is needed to check their results without the code under test."""

import gzip
import math
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits

Points = npt.NDArray[np.float32]


def digits() -> Points:
    """scikit-learn's digits: 1797 images of 8 x 8 pixels, gray from 0 to 16."""
    return np.asarray(load_digits().data, dtype=np.float32)


def mnist(folder: Path) -> Points:
    """The 50,000 training images of MNIST that k-means examples use, gray from 0 to 1, from the original IDX file."""
    file = next(folder.glob("train-images*idx3-ubyte*"))
    content = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    magic, n, height, width = struct.unpack_from(">IIII", content)
    assert magic == 0x803
    pixels = np.frombuffer(content, dtype=np.uint8, offset=16).reshape(n, height * width)
    return pixels[:50_000].astype(np.float32) / np.float32(255)


def csv(points: Points) -> bytes:
    return b"".join(b",".join(b"%g" % value for value in row) + b"\n" for row in points.tolist())


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])


def recordio(points: Points) -> bytes:
    """Dense float32 records as SageMaker's SDK writes them: only the values differ from one record to the next."""
    d = points.shape[1]
    head = b""
    # From the inside: the packed values, the float32 tensor, its entry "values" in the map of features, the record.
    for tag in (b"\x0a", b"\x12", b"\x0a\x06values\x12", b"\x0a"):
        head = tag + _varint(len(head) + 4 * d) + head
    length = len(head) + 4 * d
    frame = struct.pack("<II", 0xCED7230A, length) + head
    padding = bytes(-length % 4)
    records = np.empty((len(points), len(frame) + 4 * d + len(padding)), dtype=np.uint8)
    records[:, : len(frame)] = np.frombuffer(frame, dtype=np.uint8)
    records[:, len(frame) : len(frame) + 4 * d] = points.astype("<f4").view(np.uint8)
    records[:, len(frame) + 4 * d :] = 0
    return records.tobytes()


def read_centers(file: Path) -> Points:
    """The one (k, d) float32 array of a `model_algo-1` file, which is a list of MXNet arrays."""
    content = file.read_bytes()
    magic, _, arrays = struct.unpack_from("<QQQ", content)
    k, d = struct.unpack_from("<qq", content, 36)
    assert (magic, arrays, len(content)) == (0x112, 1, 64 + 4 * k * d + 8)
    return np.frombuffer(content, dtype="<f4", count=k * d, offset=64).reshape(k, d)


def nearest(points: Points, centers: Points) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """Labels and distances by the definition, in float64, some rows at a time."""
    labels, distances = [], []
    for block in np.array_split(points, math.ceil(len(points) / 500)):
        differences = block[:, None, :].astype(np.float64) - centers[None, :, :]
        all_distances = np.sqrt((differences**2).sum(axis=2))
        labels.append(all_distances.argmin(axis=1))
        distances.append(all_distances.min(axis=1))
    return np.concatenate(labels), np.concatenate(distances)
