"""The methods that are compared, each with the settings that make its curve.

A peer is imported when it is first run: each method has a separate process (``benchmarks.runner``) with its own
threads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from benchmarks.cases import FEW, GROUPS, MANY, TABLES, Case, Group
from benchmarks.machine import ONE_THREAD, THREAD_VARIABLES, allocator_variables
from kmeans.arrays import Float32

Options = Mapping[str, int | float | bool | str | None]


@dataclass(frozen=True, slots=True)
class Variant:
    """One setting of a method: a point of its curve.

    ``options`` are the method's own parameters. ``default`` marks the setting that the method has without options.
    ``groups`` are the groups of cases that it is run on; ``seeds`` is the maximum number of runs, None for that of the
    group.
    """

    name: str
    options: Options = field(default_factory=dict)
    default: bool = False
    groups: tuple[Group, ...] = (FEW,)
    seeds: int | None = None

    def is_for(self, case: Case, rows: int) -> bool:
        """Return whether it is run on ``case``, which has ``rows`` rows; a sample must be smaller than that."""
        sample = int(self.options.get("rows_per_cluster") or 0) * case.k
        return case.group in self.groups and (case.group is FEW or sample < rows)


@dataclass(frozen=True, slots=True)
class Method:
    """A way to find k centers.

    ``run`` computes centers (k, d) from points (n, d), k, a seed, a number of threads and a variant's options.
    ``variants`` are in order of their cost: if one exceeds the time limit, the following ones are left out. ``ours``
    marks this project's methods. ``cosine`` has the options that make it minimize 1 - cosine; None if it cannot.
    """

    name: str
    run: Callable[[Float32, int, int, int, Options], Float32]
    variants: tuple[Variant, ...]
    ours: bool = False
    cosine: Options | None = None

    def variants_for(self, case: Case, rows: int) -> tuple[Variant, ...]:
        """Return the variants that are run on ``case``, which has ``rows`` rows, with the options of its metric."""
        chosen = tuple(variant for variant in self.variants if variant.is_for(case, rows))
        if case.metric == "euclidean":
            return chosen
        if self.cosine is None:
            return ()
        return tuple(replace(variant, options={**variant.options, **self.cosine}) for variant in chosen)

    def environment(self, threads: int) -> dict[str, str]:
        """Return the environment variables of its process.

        OpenMP and BLAS of a peer use all threads. Our methods have the settings of ``container/bin/train``:
        ``kmeans.threads`` starts the threads, and the allocator keeps freed memory.
        """
        if not self.ours:
            return dict.fromkeys(THREAD_VARIABLES, str(threads))
        return {**ONE_THREAD, **allocator_variables("train")}


def _kmeans(points: Float32, k: int, seed: int, threads: int, options: Options) -> Float32:
    """Fit as ``train`` does, except for the pass that counts the rows of each cluster."""
    from kmeans.callbacks import Callbacks  # noqa: PLC0415
    from kmeans.dataset import MemoryRows  # noqa: PLC0415
    from kmeans.fitting import fit_centers  # noqa: PLC0415 - only in its own process, like all imports below
    from kmeans.settings import Settings  # noqa: PLC0415
    from kmeans.threads import ThreadPool  # noqa: PLC0415

    settings = Settings(k=k, seed=seed, **options)  # type: ignore[arg-type]
    with ThreadPool(threads) as pool:
        rows = MemoryRows(points, seed=seed)
        return fit_centers(rows, settings, pool=pool, callbacks=Callbacks()).centers


def _kmeans_on_a_sample(points: Float32, k: int, seed: int, threads: int, options: Options) -> Float32:
    """Fit to a sample of ``rows_per_cluster`` rows per cluster; faiss and SuperKMeans do so by default, with 256."""
    others = {name: value for name, value in options.items() if name != "rows_per_cluster"}
    size = k * int(options["rows_per_cluster"] or 0)
    return _kmeans(points, k, seed, threads, {"refine_sample_size": size, **others})


def _mini_batch(points: Float32, k: int, seed: int, threads: int, options: Options) -> Float32:
    """Fit scikit-learn's MiniBatchKMeans with OpenMP's threads."""
    from sklearn.cluster import MiniBatchKMeans  # noqa: PLC0415

    return _as_float32(MiniBatchKMeans(k, random_state=seed, **options).fit(points).cluster_centers_)


def _lloyd(points: Float32, k: int, seed: int, threads: int, options: Options) -> Float32:
    """Fit scikit-learn's KMeans from greedy k-means++ starts, by default one, with OpenMP's threads."""
    from sklearn.cluster import KMeans  # noqa: PLC0415

    estimator = KMeans(k, algorithm="lloyd", random_state=seed, **{"n_init": 1, **options})
    return _as_float32(estimator.fit(points).cluster_centers_)


def _breathing(points: Float32, k: int, seed: int, threads: int, options: Options) -> Float32:
    """Fit breathing k-means, which calls scikit-learn's KMeans repeatedly."""
    from bkmeans import BKMeans  # noqa: PLC0415

    estimator = BKMeans(n_clusters=k, random_state=seed, **options)
    return _as_float32(estimator.fit(points).cluster_centers_)


def _faiss(points: Float32, k: int, seed: int, threads: int, options: Options) -> Float32:
    """Fit faiss with its defaults: on a sample of 256 rows per cluster."""
    import faiss  # noqa: PLC0415

    faiss.omp_set_num_threads(threads)
    estimator = faiss.Kmeans(points.shape[1], k, seed=seed, **options)
    estimator.train(points)
    return _as_float32(estimator.centroids)


def _faiss_all_rows(points: Float32, k: int, seed: int, threads: int, options: Options) -> Float32:
    everything = {"max_points_per_centroid": len(points), "min_points_per_centroid": 1}
    return _faiss(points, k, seed, threads, {**everything, **options})


def _superkmeans(points: Float32, k: int, seed: int, threads: int, options: Options) -> Float32:
    """Fit SuperKMeans with its defaults: on 256 rows per cluster, hierarchically above 100,000 rows."""
    from superkmeans import SuperKMeans  # noqa: PLC0415

    return _as_float32(SuperKMeans(k, points.shape[1], n_threads=threads, seed=seed, **options).train(points))


def _superkmeans_all_rows(points: Float32, k: int, seed: int, threads: int, options: Options) -> Float32:
    """Fit SuperKMeans in its flat mode; it may still stop early by its own tolerance."""
    everything = {"hierarchical": False, "sampling_fraction": 1.0, "max_points_per_cluster": len(points)}
    return _superkmeans(points, k, seed, threads, {**everything, **options})


def _as_float32(centers: object) -> Float32:
    return np.ascontiguousarray(np.asarray(centers), dtype=np.float32)


# The runs that the losses on tables are divided by: a method and a variant.
REFERENCE = ("scikit-learn KMeans", "n_init=30")

# Another setting of ours needs one line here, with the groups of cases that it is run on.
OURS = (
    Variant(
        "init_method=hierarchical, refine_max_iter=0",
        {"init_method": "hierarchical", "refine_max_iter": 0},
        groups=(FEW, MANY),
    ),
    Variant("refine_max_iter=1", {"refine_max_iter": 1}, groups=(FEW, MANY)),
    Variant("refine_max_iter=3", {"refine_max_iter": 3}),
    Variant("refine_max_iter=8", {"refine_max_iter": 8}),
    Variant("default", default=True, groups=GROUPS),
    Variant("local_lloyd_tol=1e-5", {"local_lloyd_tol": 1e-5}),
    Variant("local_lloyd_tol=1e-6", {"local_lloyd_tol": 1e-6, "refine_max_iter": 1000}),
)


def _sample(rows: int, factor: int, trials: int, groups: tuple[Group, ...] = (FEW,)) -> Variant:
    """Return a variant that is fitted to a sample of ``rows`` rows per cluster."""
    options = {"rows_per_cluster": rows, "extra_center_factor": factor, "local_lloyd_num_trials": trials}
    name = f"{rows} rows per cluster, extra_center_factor={factor}, {trials} trials"
    return Variant(name, {**options, "local_lloyd_tol": 1e-3}, groups=groups)


METHODS = (
    Method("kmeans", _kmeans, OURS, ours=True, cosine={"distance_metric": "cosine"}),
    Method(
        "kmeans, on a sample",
        _kmeans_on_a_sample,
        (
            *(_sample(rows, 1, 1, groups=(FEW, MANY)) for rows in (32, 128)),
            *(_sample(*each) for each in ((128, 2, 1), (256, 3, 1), (256, 10, 1), (256, 3, 3), (512, 3, 3))),
        ),
        ours=True,
        cosine={"distance_metric": "cosine"},
    ),
    Method(
        "scikit-learn MiniBatchKMeans",
        _mini_batch,
        (Variant("default", default=True, groups=GROUPS), Variant("batch_size=4096", {"batch_size": 4096})),
        # It only has squared distances, which are 2 (1 - cosine) where rows and centers have length 1.
        cosine={},
    ),
    Method(
        "scikit-learn KMeans",
        _lloyd,
        (
            Variant("n_init=1, max_iter=10", {"max_iter": 10}),
            Variant("n_init=1 (max_iter=300)", default=True, groups=(FEW, TABLES)),
            Variant("n_init=30", {"n_init": 30}, groups=(TABLES,), seeds=1),
        ),
    ),
    Method("breathing k-means", _breathing, (Variant("default", default=True, groups=(TABLES,)),)),
    Method(
        "faiss",
        _faiss,
        (Variant("niter=10", {"niter": 10}), Variant("default (niter=25)", default=True, groups=(FEW, MANY))),
        cosine={"spherical": True},
    ),
    Method(
        "faiss, all rows",
        _faiss_all_rows,
        (
            Variant("niter=5", {"niter": 5}),
            Variant("niter=10", {"niter": 10}, groups=(FEW, MANY)),
            Variant("niter=25", {"niter": 25}, groups=(FEW, MANY)),
        ),
        cosine={"spherical": True},
    ),
    Method(
        "SuperKMeans", _superkmeans, (Variant("default", default=True, groups=(FEW, MANY)),), cosine={"angular": True}
    ),
    Method(
        "SuperKMeans, all rows",
        _superkmeans_all_rows,
        (
            Variant("iters=5", {"iters": 5}),
            Variant("iters=10", {"iters": 10}, groups=(FEW, MANY)),
            Variant("iters=25", {"iters": 25}, groups=(FEW, MANY)),
        ),
        cosine={"angular": True},
    ),
)
