"""The data sets: drawn from distributions with fixed seeds, read from a folder, or contained in a package."""

from __future__ import annotations

import bz2
import csv
import gzip
import importlib.util
import os
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kmeans.arrays import Float32

Labels = NDArray[np.int64]
# Points (n, d), and known labels (n,) if there are any.
Data = tuple[Float32, Labels | None]

# Number of rows that are computed at once where a temporary array of all rows would be large.
BATCH_ROWS = 100_000

MNIST_FILE = "train-images-idx3-ubyte"
MNIST_ROWS, MNIST_COLUMNS, IDX_HEADER_BYTES = 60_000, 784, 16

# The file holds int8 values; multiplied by the scale they are text embeddings of length 1.
EMBEDDINGS_FILE, EMBEDDINGS_SCALE = "descriptions_int8.npy", 0.0038541231770068407

PHOTOGRAPH = "china.jpg"

# Data sets that are read from a folder, and the environment variable that may name it.
FOLDER_VARIABLES = {"mnist": "KMEANS_MNIST_DIR", "embeddings": "KMEANS_EMBEDDINGS_DIR"}


def folder_of(data: str, given: Path | None) -> Path | None:
    """Return the folder of ``data``: the ``given`` one, otherwise that of the environment, otherwise None."""
    named = os.environ.get(FOLDER_VARIABLES[data])
    return given or (Path(named) if named else None)


def load(data: str, folders: Mapping[str, Path | None]) -> Data:
    """Return the points of ``data``, float32 (n, d), and known labels or None; the same at every call.

    Raises ValueError if the data set is read from a folder that ``folders`` does not have.
    """
    if data in FOLDER_VARIABLES:
        folder = folders.get(data)
        if folder is None:
            raise ValueError(f"{data} is wanted, but no folder was given; set {FOLDER_VARIABLES[data]}")
        return (mnist(folder) if data == "mnist" else _embeddings(folder)), None
    if data in TABLES:
        return read_table(TABLES[data]), None
    return GENERATED[data]()


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


def _pixels() -> Data:
    """Return the pixels of a photograph that scikit-learn contains, 0 to 255."""
    from sklearn.datasets import load_sample_image  # noqa: PLC0415 - not for the other data sets

    return load_sample_image(PHOTOGRAPH).reshape(-1, 3).astype(np.float32), None


@dataclass(frozen=True, slots=True)
class Table:
    """Numeric columns of a file in a package; ``tables.toml`` explains the fields."""

    name: str
    title: str
    package: str
    file: str
    columns: tuple[str, ...]
    rows: int
    k: int
    where: Mapping[str, str] = field(default_factory=dict)
    is_scaled: bool = False


def _known_tables() -> dict[str, Table]:
    with Path(__file__).with_name("tables.toml").open("rb") as file:
        records = tomllib.load(file)["table"]
    return {record["name"]: Table(**{**record, "columns": tuple(record["columns"])}) for record in records}


TABLES = _known_tables()


def read_table(table: Table) -> Float32:
    """Return the rows of ``table`` without missing values, float32 (n, d), without importing the package.

    Raises ModuleNotFoundError if the package is not installed, and ValueError if the number of rows is unexpected.
    """
    spec = importlib.util.find_spec(table.package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"{table.package} is not installed; see benchmarks/requirements.in")
    path = Path(next(iter(spec.submodule_search_locations))) / table.file
    content = bz2.decompress(path.read_bytes()) if path.suffix == ".bz2" else path.read_bytes()
    values = np.array(list(_numbers(content.decode(), table)))
    if len(values) != table.rows:
        raise ValueError(f"{path.name} of {table.package}: expected {table.rows} whole rows, found {len(values)}")
    if table.is_scaled:
        values /= values.std(axis=0)
    return values.astype(np.float32)


def _numbers(text: str, table: Table) -> Iterator[list[float]]:
    for row in csv.DictReader(text.splitlines()):
        cells = [row[column] for column in table.columns]
        if all(cells) and all(row[column] == value for column, value in table.where.items()):
            yield [float(cell) for cell in cells]


def gaussian(rows: int = 1_000_000, columns: int = 32, clusters: int = 100) -> Data:
    """Return overlapping round clusters; the largest has 250 times as many rows as the smallest."""
    generator = np.random.default_rng(1)
    centers = generator.normal(scale=0.6, size=(clusters, columns)).astype(np.float32)
    widths = generator.uniform(0.5, 1.5, size=clusters).astype(np.float32)
    weights = np.arange(1, clusters + 1) ** -1.2
    labels = generator.choice(clusters, size=rows, p=weights / weights.sum())
    points = generator.standard_normal((rows, columns), dtype=np.float32)
    points *= widths[labels, None]
    points += centers[labels]
    return points, None


def correlated(rows: int = 500_000, columns: int = 128, rank: int = 64) -> Data:
    """Return features like those of a neural network's layer: ReLU of a linear map of Gaussians."""
    generator = np.random.default_rng(2)
    spectrum = (np.arange(1, rank + 1) ** -0.5).astype(np.float32)
    mixing = generator.normal(size=(rank, columns)).astype(np.float32)
    shift = generator.normal(scale=0.5, size=columns).astype(np.float32)
    points = (generator.standard_normal((rows, rank), dtype=np.float32) * spectrum) @ mixing
    points += shift
    rectified: Float32 = np.maximum(points, 0, out=points)
    return rectified, None


def mixture(rows: int, columns: int, clusters: int, *, scale: float, exponent: float = 0.0, seed: int) -> Data:
    """Return rows of round clusters of standard deviation 1, and their labels.

    ``scale`` is the standard deviation of the true centers in each column: the smaller, the more the clusters overlap.
    Cluster i of 1, 2, ... is drawn with a probability in proportion to ``i ** -exponent``.
    """
    generator = np.random.default_rng(seed)
    centers = generator.normal(scale=scale, size=(clusters, columns)).astype(np.float32)
    weights = np.arange(1.0, clusters + 1) ** -exponent
    labels = generator.choice(clusters, size=rows, p=weights / weights.sum())
    points = generator.standard_normal((rows, columns), dtype=np.float32)
    for first in range(0, rows, BATCH_ROWS):
        points[first : first + BATCH_ROWS] += centers[labels[first : first + BATCH_ROWS]]
    return points, labels


def lognormal(sigma: float, rows: int = 5_000, columns: int = 2) -> Data:
    """Return independent columns whose logarithms are normal(0, ``sigma``)."""
    return np.random.default_rng(3).lognormal(0, sigma, (rows, columns)).astype(np.float32), None


def pareto(shape: float = 1.2, rows: int = 20_000, columns: int = 3) -> Data:
    """Return independent columns with a Pareto tail: the variance is infinite."""
    return (1 + np.random.default_rng(4).pareto(shape, (rows, columns))).astype(np.float32), None


def zipf(exponent: float = 1.8, rows: int = 5_000, columns: int = 4, largest: int = 1_000_000) -> Data:
    """Return counts drawn from Zipf's law, cut at ``largest``."""
    counts = np.random.default_rng(5).zipf(exponent, (rows, columns))
    return np.minimum(counts, largest).astype(np.float32), None


def far_outliers(rows: int = 100_000, outliers: int = 5) -> Data:
    """Return standard normal rows and a few far from them, in random order."""
    generator = np.random.default_rng(6)
    points = generator.standard_normal((rows + outliers, 4))
    points[rows:] += (200, -200, 200, -200)
    return generator.permutation(points).astype(np.float32), None


def few_rows(rows: int = 100, columns: int = 5) -> Data:
    """Return standard normal rows, for numbers of clusters near the number of rows."""
    return np.random.default_rng(7).standard_normal((rows, columns), dtype=np.float32), None


def tiny_blobs(blobs: int = 60, columns: int = 3) -> Data:
    """Return tight blobs of one to three rows, and the blob of each row."""
    generator = np.random.default_rng(8)
    centers = generator.uniform(0, 10, size=(blobs, columns))
    labels = generator.permutation(np.repeat(np.arange(blobs), generator.integers(1, 4, size=blobs)))
    return generator.normal(centers[labels], 0.01).astype(np.float32), labels


GENERATED: dict[str, Callable[[], Data]] = {
    "gaussian": gaussian,
    "embedding": correlated,
    "pixels": _pixels,
    "lognormal-2": lambda: lognormal(2),
    "lognormal-3": lambda: lognormal(3),
    "pareto": pareto,
    "zipf": zipf,
    "far-outliers": far_outliers,
    "few-rows": few_rows,
    "tiny-blobs": tiny_blobs,
    "overlapping-4000": lambda: mixture(1_000_000, 128, 4_000, scale=0.25, exponent=0.5, seed=9),
    "overlapping-8000": lambda: mixture(100_000, 128, 8_000, scale=0.25, exponent=0.5, seed=10),
    "blobs-300": lambda: mixture(500_000, 50, 300, scale=2.0, seed=11),
    "blobs-200": lambda: mixture(50_000, 384, 200, scale=1.0, seed=12),
}
