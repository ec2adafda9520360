"""Rows as bodies of requests, and the labels in the answers, for measurements of the server."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from sklearn.datasets import load_wine

from benchmarks import data_sets
from kmeans.arrays import Float32
from kmeans.formats import recordio
from kmeans.formats.media_type import CSV, JSON, JSON_LINES, NPY, RECORDIO

FORMATS = (CSV, JSON, RECORDIO)

# Rows without MNIST: the same number of columns, and the same fraction of zeros.
SYNTHETIC_ROWS, SYNTHETIC_COLUMNS, SYNTHETIC_ZEROS = 10_000, 784, 0.8

# A row of a RecordIO answer in the built-in image's form: 72 bytes, of which two float32 vary.
RECORDIO_ANSWER = np.dtype({"names": ["label"], "formats": ["<f4"], "offsets": [33], "itemsize": 72})


def images(mnist: Path | None) -> Float32:
    """Return rows of 784 columns: those in the folder ``mnist``, or generated ones without a folder."""
    if mnist is not None:
        return data_sets.mnist(mnist)
    generator = np.random.default_rng(0)
    shape = SYNTHETIC_ROWS, SYNTHETIC_COLUMNS
    pixels = generator.integers(1, 256, shape).astype(np.float32) / np.float32(255)
    pixels[generator.random(shape) < SYNTHETIC_ZEROS] = 0
    return pixels


def wines() -> Float32:
    """Return the wine data in scikit-learn: 178 rows of 13 columns with very different scales."""
    return np.asarray(load_wine().data, dtype=np.float32)


def encode(points: Float32, media_type: str) -> bytes:
    """Return ``points`` (n, d) as the body of a request, numbers of text with the fewest digits that identify them."""
    if media_type == RECORDIO:
        return recordio.encode(points)
    if media_type == NPY:
        return npy(points)
    if media_type == CSV:
        return as_json(points).replace(b"],[", b"\n").strip(b"[]") + b"\n"
    if media_type == JSON_LINES:
        return b'{"features":' + as_json(points)[1:-1].replace(b"],[", b']}\n{"features":[') + b"}"
    return b'{"instances":[{"features":' + as_json(points)[1:-1].replace(b"],[", b']},{"features":[') + b"}]}"


def npy(array: NDArray[Any]) -> bytes:
    """Return ``array`` as an NPY file; an array of objects is pickled."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def as_json(points: Float32) -> bytes:
    """Return ``points`` as a list of lists."""
    return orjson.dumps(np.ascontiguousarray(points), option=orjson.OPT_SERIALIZE_NUMPY)


def labels(answer: bytes, media_type: str) -> NDArray[np.float64]:
    """Return the labels (n,) in an answer of our server."""
    if media_type == RECORDIO:
        return np.frombuffer(answer, RECORDIO_ANSWER)["label"].astype(np.float64)
    if media_type == CSV:
        return np.array([float(line.partition(b",")[0]) for line in answer.splitlines()])
    predictions: list[dict[str, Any]] = (
        [orjson.loads(line) for line in answer.splitlines()]
        if media_type == JSON_LINES
        else orjson.loads(answer)["predictions"]
    )
    return np.array([float(row["closest_cluster"]) for row in predictions])


def nearest(points: Float32, centers: Float32) -> NDArray[np.intp]:
    """Return the labels (n,) by brute force in float64."""
    wide = points.astype(np.float64)
    squares = [((wide - center) ** 2).sum(axis=1) for center in centers.astype(np.float64)]
    found: NDArray[np.intp] = np.stack(squares, axis=1).argmin(axis=1)
    return found
