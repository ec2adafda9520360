"""The cases that methods are compared on: a data set, a number of clusters, and a group with its effort."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks import data_sets
from benchmarks.quality import Metric


@dataclass(frozen=True, slots=True)
class Group:
    """Cases that are measured with the same methods and effort.

    ``seeds`` is the number of runs of each setting, ``slow_seeds`` that of a setting whose first run was slow, and
    ``limit`` the seconds after which a run is stopped.
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

    ``name`` is the case's name for ``--cases``, ``title`` that in the document. Cases with the same ``data`` share the
    array. ``group`` decides which methods are run, and how often. The loss is the mean of ``metric``.
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
    *(_table(each.name, each.title, (each.rows, len(each.columns)), each.k) for each in data_sets.TABLES.values()),
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
