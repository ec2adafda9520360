"""Two levels must find about what all centers at once find, on any data and any number of hosts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from kmeans.arrays import Float32
from kmeans.collectives import Collectives, SingleHost
from kmeans.dataset import MemoryRows, RowAssignment
from kmeans.errors import SettingError
from kmeans.fitting import fit
from kmeans.hierarchy import GROUPED_CLUSTERS, _apportion, two_level_centers
from kmeans.metric import METRICS
from kmeans.random_streams import RandomStreams
from kmeans.settings import Settings
from kmeans.threads import ThreadPool
from tests.unit.kmeans import oracle
from tests.unit.kmeans.thread_hosts import on_all_hosts

POINTS = np.random.default_rng(0).normal(size=(6000, 8)).astype(np.float32)


def centers_of(
    rows: MemoryRows,
    k: int,
    *,
    total: int | None = None,
    hosts: Collectives | None = None,
    pool: ThreadPool | None = None,
) -> Float32:
    return two_level_centers(
        rows,
        k,
        total=total or len(rows),
        random_streams=RandomStreams(0),
        pool=pool or ThreadPool(),
        hosts=hosts or SingleHost(),
    )


def loss(points: Float32, centers: Float32) -> float:
    return float(oracle.nearest(points, centers)[1].mean())


def plain_loss(points: Float32, k: int) -> float:
    """Return the loss of ten passes of Lloyd's algorithm from random rows."""
    model = KMeans(k, init="random", n_init=1, max_iter=10, random_state=1).fit(points)
    return float(model.inertia_ / len(points))


@pytest.mark.parametrize("k", [1, 2, 10, 40, 41, 200, GROUPED_CLUSTERS - 1, GROUPED_CLUSTERS, 1000])
def test_two_levels_lose_at_most_a_few_percent(k: int) -> None:
    """One Gaussian is the worst case: rows at the edges of all groups."""
    centers = centers_of(MemoryRows(POINTS), k)
    assert centers.dtype == np.float32
    assert centers.shape == (k, 8)
    allowed = 1.1 if k >= GROUPED_CLUSTERS else 1.03
    assert loss(POINTS, centers) <= allowed * plain_loss(POINTS, k)


def test_skewed_rows_get_centers_where_the_loss_is() -> None:
    points = np.random.default_rng(0).lognormal(0, 1.5, size=(10_000, 3)).astype(np.float32)
    assert loss(points, centers_of(MemoryRows(points), 450)) < plain_loss(points, 450)


@pytest.mark.parametrize("k", [10, 500])
def test_threads_do_not_change_a_bit(k: int) -> None:
    with ThreadPool(3) as pool:
        found = centers_of(MemoryRows(POINTS), k, pool=pool)
    assert found.tobytes() == centers_of(MemoryRows(POINTS), k).tobytes()


@pytest.mark.parametrize("k", [10, 500])
@pytest.mark.parametrize("weighted", [False, True])
def test_hosts_that_share_rows_find_what_one_finds(k: int, weighted: bool) -> None:
    points = POINTS[:5000]
    weights = np.random.default_rng(0).uniform(0.5, 2, len(points)) if weighted else None

    def local(rank: int) -> MemoryRows:
        own = None if weights is None else weights[rank::3]
        return MemoryRows(points[rank::3], numbers=RowAssignment(rank, 3).numbers(len(points)), weights=own)

    expected = centers_of(MemoryRows(points, weights=weights), k)
    for found in on_all_hosts(3, lambda hosts: centers_of(local(hosts.rank), k, total=len(points), hosts=hosts)):
        assert isinstance(found, np.ndarray), found
        assert np.allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("k", [10, 500])
def test_hosts_with_rows_of_their_own_agree_on_good_centers(k: int) -> None:
    parts = np.split(POINTS, [1000, 4000])
    found = on_all_hosts(3, lambda hosts: centers_of(MemoryRows(parts[hosts.rank]), k, total=6000, hosts=hosts))
    assert all(isinstance(each, np.ndarray) for each in found), found
    first = found[0]
    assert isinstance(first, np.ndarray)
    assert all(isinstance(each, np.ndarray) and each.tobytes() == first.tobytes() for each in found)
    assert loss(POINTS, first) <= 1.1 * plain_loss(POINTS, k)


def test_a_large_weight_attracts_centers() -> None:
    weights = np.ones(len(POINTS))
    heavy = POINTS[:, 0] > 1.5
    weights[heavy] = 1000
    even, drawn = (centers_of(MemoryRows(POINTS, weights=given), 500) for given in (None, weights))
    assert (drawn[:, 0] > 1.5).sum() > 2 * (even[:, 0] > 1.5).sum()


def test_cosine_centers_have_length_one() -> None:
    rows = MemoryRows(POINTS).prepared(METRICS["cosine"])
    assert np.allclose(np.linalg.norm(centers_of(rows, 450), axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("k", [20, 450])
def test_fewer_distinct_rows_than_clusters_are_all_found(k: int) -> None:
    points = np.repeat(POINTS[: k // 2], 50, axis=0)
    assert loss(points, centers_of(MemoryRows(points), k)) <= 0.05 * points.var(axis=0).sum()


def test_a_stop_ends_with_k_centers_that_are_rows() -> None:
    with ThreadPool(2, stop_wanted=lambda: True) as pool:
        centers = centers_of(MemoryRows(POINTS), 500, pool=pool)
    assert len(np.unique(centers, axis=0)) == 500
    assert loss(centers, POINTS) == 0


@given(
    st.lists(st.tuples(st.integers(0, 50), st.floats(0, 1e6)), min_size=1, max_size=30), st.integers(1, 400), st.data()
)
def test_clusters_are_apportioned_completely(
    groups: list[tuple[int, float]], features: int, data: st.DataObject
) -> None:
    counts = np.array([count for count, _ in groups])
    errors = np.array([error if count else 0.0 for count, error in groups])
    present = int(np.count_nonzero(counts))
    if not present:
        return
    k = data.draw(st.integers(present, int(counts.sum())))
    clusters = _apportion(errors, counts, k, features)
    assert clusters.sum() == k
    assert (clusters <= counts).all()
    assert (clusters[counts > 0] > 0).all()


@pytest.mark.parametrize("refine_max_iter", [0, None])
def test_a_fit_begins_with_two_levels(refine_max_iter: int | None) -> None:
    settings = Settings(k=500, init_method="hierarchical", refine_max_iter=refine_max_iter)
    fitted = fit(MemoryRows(POINTS), settings)
    assert fitted.streaming_centers == 500
    assert fitted.shrink_loss is None
    assert (fitted.refinements == 0) == (refine_max_iter == 0)
    assert fitted.mean_squared_distance == pytest.approx(loss(POINTS, fitted.model.centers), rel=1e-5)
    assert fitted.model.counts is not None
    assert fitted.model.counts.sum() == len(POINTS)


@pytest.mark.parametrize("other", [{"epochs": 2}, {"half_life_time_size": 1000}])
def test_two_levels_refuse_settings_of_mini_batches(other: dict[str, int]) -> None:
    with pytest.raises(SettingError, match="init_method=hierarchical has no mini-batch phase"):
        fit(MemoryRows(POINTS), Settings(k=2, init_method="hierarchical", **other))  # type: ignore[arg-type]
