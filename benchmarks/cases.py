"""The data sets that methods are compared on, each with a number of clusters."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import tables
from benchmarks.quality import Metric
from benchmarks.synthetic import GENERATED, Data
from kmeans.arrays import Float32

MNIST_FILE = "train-images-idx3-ubyte"
MNIST_ROWS, MNIST_COLUMNS, IDX_HEADER_BYTES = 60_000, 784, 16

# int8 values times this are text embeddings of length 1.
EMBEDDINGS_FILE, EMBEDDINGS_SCALE = "descriptions_int8.npy", 0.0038541231770068407

PHOTOGRAPH = "china.jpg"

# Data sets that are read from a folder, and the variable of the environment that may name it.
FOLDER_VARIABLES = {"mnist": "KMEANS_MNIST_DIR", "embeddings": "KMEANS_EMBEDDINGS_DIR"}


@dataclass(frozen=True, slots=True)
class Group:
    """Cases that are measured with the same methods and effort.

    Attributes
    ----------
    name
        Name for ``--groups``.
    seeds
        Number of runs of each setting.
    slow_seeds
        Number of runs of a setting whose first run was slow.
    limit
        Seconds after which a run is cut.
    """

    name: str
    seeds: int
    slow_seeds: int
    limit: float


FEW = Group("few", seeds=5, slow_seeds=2, limit=120)
TABLES = Group("tables", seeds=8, slow_seeds=2, limit=60)
MANY = Group("many", seeds=3, slow_seeds=1, limit=240)
GROUPS = (FEW, TABLES, MANY)


@dataclass(frozen=True, slots=True)
class Case:
    """A data set and a number of clusters.

    Attributes
    ----------
    name
        Name for ``--cases``.
    title
        Name in the report.
    k
        Clusters asked for.
    data
        Name of the data set; cases that share it share the array.
    group
        Decides which methods are run, and how often.
    metric
        Distance that the loss is the mean of.
    """

    name: str
    title: str
    k: int
    data: str
    group: Group = FEW
    metric: Metric = "euclidean"


def _table(name: str, title: str, shape: tuple[int, int], k: int, data: str | None = None) -> Case:
    rows, columns = shape
    return Case(name, f"{title}, {rows:,} x {columns}, k = {k}", k, data or name, TABLES)


def _many(name: str, title: str, k: int, data: str, metric: Metric = "euclidean") -> Case:
    return Case(name, f"{title}, k = {k}", k, data, MANY, metric)


CASES = (
    Case("mnist-10", "MNIST, 60,000 x 784, k = 10", 10, "mnist"),
    Case("mnist-100", "MNIST, 60,000 x 784, k = 100", 100, "mnist"),
    Case("mnist-1000", "MNIST, 60,000 x 784, k = 1000", 1000, "mnist"),
    Case("gaussian-100", "Overlapping Gaussians of unequal sizes, 1,000,000 x 32, k = 100", 100, "gaussian"),
    Case("embedding-256", "Correlated features, 500,000 x 128, k = 256", 256, "embedding"),
    _table("lognormal-2", "Lognormal(0, 2)", (5_000, 2), 8),
    _table("lognormal-3", "Lognormal(0, 3)", (5_000, 2), 8),
    _table("pareto", "Pareto 1.2", (20_000, 3), 10),
    _table("zipf", "Counts by Zipf's law 1.8", (5_000, 4), 8),
    _table("far-outliers", "Normal rows and five far outliers", (100_005, 4), 3),
    _table("few-rows-60", "Normal, few rows per cluster", (100, 5), 60, "few-rows"),
    _table("few-rows-95", "Normal, hardly more rows than clusters", (100, 5), 95, "few-rows"),
    _table("tiny-blobs", "Tight blobs of one to three rows", (127, 3), 60),
    *(_table(table.name, table.title, (table.rows, len(table.columns)), table.k) for table in tables.TABLES),
    _many("texts-1000", "Text embeddings, 125,718 x 384", 1000, "embeddings"),
    _many("texts-4096", "Text embeddings, 125,718 x 384", 4096, "embeddings"),
    _many("texts-1000-cosine", "Text embeddings by cosine, 125,718 x 384", 1000, "embeddings", "cosine"),
    _many("texts-4096-cosine", "Text embeddings by cosine, 125,718 x 384", 4096, "embeddings", "cosine"),
    _many("mnist-2000", "MNIST, 60,000 x 784", 2000, "mnist"),
    _many("overlapping-4000", "4,000 overlapping clusters, 1,000,000 x 128", 4000, "overlapping-4000"),
    _many("overlapping-8000", "8,000 overlapping clusters, 100,000 x 128", 8000, "overlapping-8000"),
    _many("blobs-1000", "300 blobs, 500,000 x 50", 1000, "blobs-300"),
    _many("blobs-1001", "300 blobs, 500,000 x 50", 1001, "blobs-300"),
    _many("blobs-1500", "300 blobs, 500,000 x 50", 1500, "blobs-300"),
    _many("blobs-200", "200 blobs with known labels, 50,000 x 384", 200, "blobs-200"),
    _many("pixels-64", "Pixels of a photograph, 273,280 x 3", 64, "pixels"),
    _many("pixels-256", "Pixels of a photograph, 273,280 x 3", 256, "pixels"),
)

QUICK_CASES = (
    *("mnist-10", "gaussian-100", "embedding-256"),
    *("lognormal-3", "pareto", "few-rows-95", "tiny-blobs", "counties", "countries"),
    *("texts-1000", "texts-1000-cosine", "blobs-200", "pixels-64"),
)


def load(data: str, folders: Mapping[str, Path | None]) -> Data:
    """Return the points of ``data``, float32 (n, d), and known labels or None.

    They are the same at every call.

    Raises
    ------
    ValueError
        If the data set is read from a folder and ``folders`` has none for it.
    """
    if data in FOLDER_VARIABLES:
        folder = folders.get(data)
        if folder is None:
            raise ValueError(f"{data} is wanted, but no folder was given; set {FOLDER_VARIABLES[data]}")
        return (mnist(folder) if data == "mnist" else _embeddings(folder)), None
    if data == "pixels":
        return _pixels(), None
    by_name = {table.name: table for table in tables.TABLES}
    return (tables.read(by_name[data]), None) if data in by_name else GENERATED[data]()


def mnist(folder: Path) -> Float32:
    """Return the 60,000 training images in ``folder``, pixels from 0 to 1.

    The IDX file may be compressed by gzip.
    """
    packed = folder / f"{MNIST_FILE}.gz"
    content = gzip.decompress(packed.read_bytes()) if packed.exists() else (folder / MNIST_FILE).read_bytes()
    pixels = np.frombuffer(content, np.uint8, offset=IDX_HEADER_BYTES).reshape(MNIST_ROWS, MNIST_COLUMNS)
    return pixels.astype(np.float32) / np.float32(255)


def _embeddings(folder: Path) -> Float32:
    values: Float32 = np.load(folder / EMBEDDINGS_FILE).astype(np.float32)
    values *= np.float32(EMBEDDINGS_SCALE)
    return values


def _pixels() -> Float32:
    """Return the pixels of a photograph that ships with scikit-learn, 0 to 255."""
    from sklearn.datasets import load_sample_image  # noqa: PLC0415 - not for the other data sets

    pixels: Float32 = load_sample_image(PHOTOGRAPH).reshape(-1, 3).astype(np.float32)
    return pixels
