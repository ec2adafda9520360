"""The data sets that methods are compared on, each with the number of clusters asked for."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kmeans.arrays import Float32

MNIST_FILE = "train-images-idx3-ubyte"
MNIST_ROWS, MNIST_COLUMNS, IDX_HEADER_BYTES = 60_000, 784, 16


@dataclass(frozen=True, slots=True)
class Case:
    """A data set and a number of clusters.

    Attributes
    ----------
    name
        What ``--cases`` calls it.
    title
        What the table calls it.
    k
        Clusters asked for.
    data
        Name of the data set; cases that share it share the array.
    """

    name: str
    title: str
    k: int
    data: str


CASES = (
    Case("mnist-10", "MNIST, 60,000 x 784, k = 10", 10, "mnist"),
    Case("mnist-100", "MNIST, 60,000 x 784, k = 100", 100, "mnist"),
    Case("mnist-1000", "MNIST, 60,000 x 784, k = 1000", 1000, "mnist"),
    Case("gaussian-100", "Overlapping Gaussians of unequal sizes, 1,000,000 x 32, k = 100", 100, "gaussian"),
    Case("embedding-256", "Correlated features, 500,000 x 128, k = 256", 256, "embedding"),
)


def load(data: str, mnist: Path | None) -> Float32:
    """Return the points of the data set ``data``, float32 (n, d), the same at every call."""
    if data == "mnist":
        if mnist is None:
            raise ValueError("MNIST is wanted, but no folder was given")
        return _mnist(mnist)
    return GENERATED[data]()


def _mnist(folder: Path) -> Float32:
    """Return the 60,000 training images, pixels from 0 to 1, from the IDX file (gzip or not) in ``folder``."""
    packed = folder / f"{MNIST_FILE}.gz"
    content = gzip.decompress(packed.read_bytes()) if packed.exists() else (folder / MNIST_FILE).read_bytes()
    pixels = np.frombuffer(content, np.uint8, offset=IDX_HEADER_BYTES).reshape(MNIST_ROWS, MNIST_COLUMNS)
    return pixels.astype(np.float32) / np.float32(255)


def _gaussian(rows: int = 1_000_000, columns: int = 32, clusters: int = 100) -> Float32:
    """Return round clusters that overlap; the largest has 250 times the rows of the smallest."""
    generator = np.random.default_rng(1)
    centers = generator.normal(scale=0.6, size=(clusters, columns)).astype(np.float32)
    widths = generator.uniform(0.5, 1.5, size=clusters).astype(np.float32)
    shares = np.arange(1, clusters + 1) ** -1.2
    labels = generator.choice(clusters, size=rows, p=shares / shares.sum())
    points = generator.standard_normal((rows, columns), dtype=np.float32)
    points *= widths[labels, None]
    points += centers[labels]
    return points


def _embedding(rows: int = 500_000, columns: int = 128, rank: int = 64) -> Float32:
    """Return what a layer of a network might say: ReLU of a linear map of Gaussians whose spectrum decays."""
    generator = np.random.default_rng(2)
    spectrum = (np.arange(1, rank + 1) ** -0.5).astype(np.float32)
    mixing = generator.normal(size=(rank, columns)).astype(np.float32)
    shift = generator.normal(scale=0.5, size=columns).astype(np.float32)
    points = (generator.standard_normal((rows, rank), dtype=np.float32) * spectrum) @ mixing
    points += shift
    rectified: Float32 = np.maximum(points, 0, out=points)
    return rectified


GENERATED: dict[str, Callable[[], Float32]] = {"gaussian": _gaussian, "embedding": _embedding}
