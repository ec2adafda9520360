"""Several hosts, here threads that meet at a barrier, must find together what one host finds alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from sklearn.datasets import load_digits

from kmeans.arrays import Float32, Int64
from kmeans.assignments import Assignments
from kmeans.collectives import SingleHost
from kmeans.dataset import MemoryRows, PipedRows, RowAssignment, Rows, StreamedRows, bytes_per_row, load, load_once
from kmeans.errors import DataError
from kmeans.fitting import Fitted, fit
from kmeans.model import KMeansModel
from kmeans.relocation import MIN_CANDIDATES
from kmeans.settings import Settings
from kmeans.table_search import SEARCHES
from kmeans.threads import ThreadPool
from tests.unit.kmeans import oracle
from tests.unit.kmeans.thread_hosts import RecordingHosts, ThreadHosts, on_all_hosts

# How far several hosts may be from one on replicated rows that memory holds: the mean squared distance as a share of
# itself; centers as a share of how far they are from their middle (docs/operations.md).
SAME_DISTANCE, SAME_CENTERS = 1e-5, 1e-4

DIGITS: Float32 = load_digits().data.astype(np.float32)

# Rows of several samples, and with many equal rows, so that first centers are equal and most clusters empty.
AT_40_PLACES: Float32 = np.repeat(np.arange(40, dtype=np.float32), 400)[:, None] * np.array([10, 7], dtype=np.float32)


def _any_of(flags: Sequence[bool], hosts: ThreadHosts) -> bool:
    return hosts.any(flags[hosts.rank])


@pytest.mark.parametrize("size", [1, 3])
def test_total_and_any_are_the_same_on_all_hosts(size: int) -> None:
    totals = on_all_hosts(size, lambda hosts: hosts.total(hosts.rank + 0.5))
    assert totals == [sum(rank + 0.5 for rank in range(size))] * size
    for flags in product([False, True], repeat=size):
        found = on_all_hosts(size, partial(_any_of, flags))
        assert found == [any(flags)] * size


def test_each_operation_on_a_number_is_one_exchange() -> None:
    def exchange(hosts: ThreadHosts) -> list[int]:
        recording = RecordingHosts(hosts)
        recording.total(1)
        recording.any(True)
        recording.barrier()
        return recording.kinds("sum")

    assert on_all_hosts(2, exchange) == [[1, 1, 1]] * 2


def test_a_single_host_gets_its_own_values_back() -> None:
    hosts = SingleHost()
    assert (hosts.total(0.1), hosts.any(True), hosts.any(False)) == (0.1, True, False)
    hosts.barrier()


@pytest.fixture
def no_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin phase 3 with the shrunken centers."""
    monkeypatch.setattr("kmeans.table_search.SEARCHES", ())


@pytest.fixture
def no_relocations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Move centers to the means of their rows only."""

    def relocate(_: Assignments, means: Float32, *_args: Any, **_options: Any) -> tuple[Float32, Int64]:
        return means, np.empty(0, dtype=np.int64)

    monkeypatch.setattr("kmeans.refinement.relocate", relocate)


def fit_together(
    shares: Sequence[Rows],
    settings: Settings,
    stops: dict[int, Callable[[], bool]] | None = None,
    recorded: list[RecordingHosts] | None = None,
) -> list[Fitted | BaseException]:
    """Fit with a host for each of ``shares``; return what each found or how it failed, and note what they said."""

    def work(hosts: ThreadHosts) -> Fitted:
        recording = RecordingHosts(hosts)
        if recorded is not None:
            recorded.append(recording)
        with ThreadPool(1, (stops or {}).get(hosts.rank)) as pool:
            return fit(shares[hosts.rank], settings, pool=pool, hosts=recording, callbacks=recording.callbacks)

    return on_all_hosts(len(shares), work)


def fitted_by(outcomes: list[Fitted | BaseException]) -> Fitted:
    """Return what all hosts found, which must be the same to the bit."""
    first = outcomes[0]
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
        assert isinstance(first, Fitted)
        assert outcome.model.centers.tobytes() == first.model.centers.tobytes()
        assert outcome.mean_squared_distance == first.mean_squared_distance
        assert outcome.shrink_loss == first.shrink_loss
        assert (outcome.model.counts is None) == (first.model.counts is None)
    assert isinstance(first, Fitted)
    return first


def divided(points: Float32, size: int) -> list[Rows]:
    """Return the shares of hosts that know nothing of each other's rows: of a sharded channel."""
    return [MemoryRows(points[rank::size], 500) for rank in range(size)]


def dealt(points: Float32, size: int, mini_batch_size: int = 500, seed: int = 0) -> list[Rows]:
    """Return the shares of hosts that all read the same rows: of a replicated channel."""

    def share(rank: int) -> Rows:
        return load(lambda: iter(np.array_split(points, 7)), 1 << 30, mini_batch_size, seed, RowAssignment(rank, size))

    return [share(rank) for rank in range(size)]


def largest_difference(centers: Float32, others: Float32) -> float:
    """Return how far the center is that is farthest from its like, as a share of how far centers are from their middle.

    Which is whose like is what makes the sum of the squared distances least.
    """
    table = oracle.squared_distances(centers, others)
    matched = table[linear_sum_assignment(table)]
    return float(np.sqrt(matched.max() / np.square(centers - centers.mean(axis=0)).sum(axis=1).mean()))


def assert_same_model(found: Fitted, expected: Fitted) -> None:
    assert found.mean_squared_distance == pytest.approx(expected.mean_squared_distance, rel=SAME_DISTANCE)
    assert largest_difference(found.model.centers, expected.model.centers) < SAME_CENTERS
    if expected.shrink_loss is None:
        assert found.shrink_loss is None
    else:
        assert found.shrink_loss == pytest.approx(expected.shrink_loss, rel=SAME_DISTANCE)
    assert (found.streaming_centers, found.refinements) == (expected.streaming_centers, expected.refinements)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"refine_max_iter": 0},
        {"init_method": "kmeans++"},
        {"half_life_time_size": 700},
        {"epochs": 2},
        {"refine_sample_size": 1000},
    ],
    ids=str,
)
@pytest.mark.parametrize("mini_batch_size", [5000, 200])
def test_on_replicated_rows_several_hosts_find_what_one_finds(
    options: dict[str, Any], seed: int, mini_batch_size: int
) -> None:
    settings = Settings(k=10, seed=seed, **options)
    # Not all numbers are whole: sums in another order are others.
    points = DIGITS / np.float32(15.7)
    alone = fit(MemoryRows(points, mini_batch_size, seed), settings)
    for size in (2, 4):
        together = fitted_by(fit_together(dealt(points, size, mini_batch_size, seed), settings))
        assert_same_model(together, alone)


def test_whole_numbers_have_the_same_sum_in_any_order() -> None:
    alone = fit(MemoryRows(DIGITS), Settings(k=10))
    for size in (2, 4):
        together = fitted_by(fit_together(dealt(DIGITS, size, 5000), Settings(k=10)))
        assert together.model.centers.tobytes() == alone.model.centers.tobytes()


def test_replicated_rows_of_many_samples_fit_as_on_one_host() -> None:
    points, _ = oracle.blobs(1, n=20_000, k=100, d=5, spread=30)
    alone = fit(MemoryRows(points), Settings(k=100))
    assert_same_model(fitted_by(fit_together(dealt(points, 3, 5000), Settings(k=100))), alone)


@pytest.mark.usefixtures("no_search")
def test_hosts_compare_replicated_rows_as_one_host(monkeypatch: pytest.MonkeyPatch) -> None:
    # So low that the few rows of one of the hosts would be looked at in another way than those of all.
    monkeypatch.setattr("kmeans.assignments.CLUSTER_COST", 1000)
    points, _ = oracle.blobs(1, n=6000, k=100, d=5, spread=3)
    alone = fit(MemoryRows(points, 500), Settings(k=100))
    assert_same_model(fitted_by(fit_together(dealt(points, 4), Settings(k=100))), alone)


@pytest.mark.usefixtures("no_search")
@pytest.mark.parametrize(("k", "spread"), [(100, 30), (60, 2), (20, 2)])
def test_replicated_rows_are_relocated_to_as_by_one_host(k: int, spread: float) -> None:
    points, _ = oracle.blobs(2, n=15_000, k=k, d=4, spread=spread)
    settings = Settings(k=k, extra_center_factor=1)
    alone = fit(MemoryRows(points), settings)
    recorded: list[RecordingHosts] = []
    assert_same_model(fitted_by(fit_together(dealt(points, 3, 5000), settings, recorded=recorded)), alone)
    for hosts in recorded:  # numbers of centers, and the centers
        assert any(numbers > 0 for numbers in hosts.kinds("broadcast", "refining", "pass"))


def test_empty_clusters_of_replicated_rows_fill_as_on_one_host() -> None:
    settings = Settings(k=40, extra_center_factor=1)
    alone = fit(MemoryRows(AT_40_PLACES, 500), settings)
    for size in (2, 4):
        assert_same_model(fitted_by(fit_together(dealt(AT_40_PLACES, size), settings)), alone)


@pytest.mark.usefixtures("no_search", "no_relocations")
@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("reseed_rows", [100, 20_000])
def test_empty_clusters_of_replicated_rows_reseed_as_on_one_host(
    size: int, reseed_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kmeans.refinement.RESEED_ROWS", reseed_rows)
    settings = Settings(k=40, extra_center_factor=1)
    alone = fit(MemoryRows(AT_40_PLACES, 500), settings)
    recorded: list[RecordingHosts] = []
    together = fitted_by(fit_together(dealt(AT_40_PLACES, size), settings, recorded=recorded))
    assert_same_model(together, alone)
    leader = next(hosts for hosts in recorded if hosts.rank == 0)
    assert len(leader.kinds("gather")) > 1, "seeding gathers rows once, so clusters were reseeded"


@pytest.mark.parametrize("size", [2, 3])
def test_epochs_of_replicated_pipes_have_one_hosts_batches(size: int) -> None:
    def piped(assignment: RowAssignment) -> PipedRows:
        return load_once(lambda: iter(np.array_split(DIGITS, 7)), 1 << 30, 200, 0, assignment)

    settings = Settings(k=10, epochs=3, refine_max_iter=0)
    alone = fit(piped(RowAssignment()), settings)
    together = fitted_by(fit_together([piped(RowAssignment(rank, size)) for rank in range(size)], settings))
    assert_same_model(together, alone)


@pytest.mark.parametrize("size", [2, 3])
def test_passes_over_replicated_files_have_one_hosts_batches(size: int) -> None:
    def streamed(assignment: RowAssignment) -> Rows:
        budget = 300 * bytes_per_row(64, assignment.size)
        rows = load(lambda: iter(np.array_split(DIGITS, 7)), budget, 200, 0, assignment)
        assert isinstance(rows, StreamedRows)
        return rows

    def host(hosts: ThreadHosts) -> Fitted:
        start = KMeansModel(DIGITS[:10], np.arange(1, 11))
        settings = Settings(k=10, epochs=2, refine_max_iter=0)
        return fit(streamed(RowAssignment(hosts.rank, hosts.size)), settings, hosts=hosts, start=start)

    assert_same_model(fitted_by(on_all_hosts(size, host)), fitted_by(on_all_hosts(1, host)))


@pytest.mark.parametrize(("n", "size"), [(3, 4), (2, 3), (5, 4), (9, 8)])
@pytest.mark.parametrize("options", [{}, {"refine_max_iter": 0}, {"init_method": "kmeans++"}], ids=str)
def test_a_host_that_owns_no_replicated_row_takes_part(n: int, size: int, options: dict[str, Any]) -> None:
    settings = Settings(k=2, **options)
    alone = fit(MemoryRows(DIGITS[:n]), settings)
    together = fitted_by(fit_together(dealt(DIGITS[:n], size), settings))
    assert_same_model(together, alone)
    assert together.model.counts is not None
    assert together.model.counts.sum() == n


@pytest.mark.parametrize("options", [{}, {"refine_max_iter": 0}, {"epochs": 2}], ids=str)
@pytest.mark.parametrize("room", [[900, 5000], [5000, 900], [900, 900]], ids=str)
def test_replicated_rows_beyond_one_memory_are_fitted_as_well(room: list[int], options: dict[str, Any]) -> None:
    points, _ = oracle.blobs(3, n=8000, k=6, d=3, spread=30)

    def share(rank: int) -> Rows:
        budget = room[rank] * bytes_per_row(3, 2)
        return load(lambda: iter(np.array_split(points, 7)), budget, 500, 0, RowAssignment(rank, 2))

    shares = [share(rank) for rank in range(2)]
    assert [isinstance(rows, StreamedRows) for rows in shares] == [held < 4000 for held in room]
    alone = fit(MemoryRows(points, 500), Settings(k=6, **options))
    together = fitted_by(fit_together(shares, Settings(k=6, **options)))
    assert together.mean_squared_distance == pytest.approx(alone.mean_squared_distance, rel=1e-3)


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("options", [{}, {"refine_max_iter": 0}, {"epochs": 3}, {"refine_sample_size": 3000}], ids=str)
def test_hosts_find_together_what_one_finds_alone(size: int, options: dict[str, int]) -> None:
    points, _ = oracle.blobs(0, n=8000, k=12, d=5, spread=30)
    settings = Settings(k=12, **options)  # type: ignore[arg-type]
    alone = fit(MemoryRows(points, 500), settings)
    together = fitted_by(fit_together(divided(points, size), settings))
    assert together.mean_squared_distance == pytest.approx(alone.mean_squared_distance, rel=1e-3)
    assert together.model.counts is not None
    labels, _ = oracle.nearest(points, together.model.centers)
    assert together.model.counts.tolist() == np.bincount(labels, minlength=12).tolist()
    assert together.streaming_centers == alone.streaming_centers


@pytest.mark.parametrize("sizes", [[7000, 1000], [0, 8000], [8000, 0, 0], [5, 7990, 5], [7999, 1]])
def test_local_rows_may_be_of_any_number(sizes: list[int]) -> None:
    points, _ = oracle.blobs(2, n=8000, k=6, d=3, spread=30)
    ends = np.cumsum([0, *sizes])
    shares: list[Rows] = [MemoryRows(points[first:end], 500) for first, end in pairwise(ends)]
    alone = fit(MemoryRows(points, 500), Settings(k=6))
    together = fitted_by(fit_together(shares, Settings(k=6)))
    assert together.mean_squared_distance == pytest.approx(alone.mean_squared_distance, rel=1e-3)
    assert together.model.counts is not None
    assert together.model.counts.sum() == len(points)


def test_local_rows_beyond_memory_are_fitted_together() -> None:
    points, _ = oracle.blobs(3, n=8000, k=6, d=3, spread=30)

    def share(rank: int) -> Rows:
        own = points[rank::2]
        rows = load(lambda: iter(np.array_split(own, 7)), 900 * bytes_per_row(3), 500)
        assert isinstance(rows, StreamedRows)
        return rows

    alone = fit(MemoryRows(points, 500), Settings(k=6))
    together = fitted_by(fit_together([share(0), share(1)], Settings(k=6)))
    assert together.mean_squared_distance == pytest.approx(alone.mean_squared_distance, rel=1e-3)


def test_rows_are_counted_over_all_hosts() -> None:
    points, _ = oracle.blobs(4, n=10, k=2, d=2)
    fitted_by(fit_together(divided(points, 3), Settings(k=10)))
    for outcome in fit_together(divided(points, 3), Settings(k=11)):
        assert isinstance(outcome, DataError)
        assert "there are only 10 rows" in str(outcome)


def test_clusters_that_fell_empty_are_reseeded_by_all() -> None:
    points = np.repeat(np.arange(40, dtype=np.float32)[:, None] * 10, 50, axis=0)
    together = fitted_by(fit_together(divided(points, 3), Settings(k=40, extra_center_factor=1)))
    assert together.mean_squared_distance == pytest.approx(0, abs=1e-3)


class StopAfter:
    """Requests a stop after a number of calls."""

    def __init__(self, times: int) -> None:
        self.left = times

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0


@pytest.mark.parametrize("times", [0, 1, 2, 5, 10, 20, 40, 80])
def test_a_stop_at_any_moment_ends_with_centers_that_are_valid(times: int) -> None:
    points, _ = oracle.blobs(5, n=8000, k=6, d=3, spread=3)
    with ThreadPool(1, StopAfter(times)) as pool:
        fitted = fit(MemoryRows(points, 500), Settings(k=6, local_lloyd_tol=0), pool=pool)
    assert fitted.interrupted
    assert fitted.model.centers.shape == (6, 3)
    assert np.isfinite(fitted.model.centers).all()
    assert fitted.mean_squared_distance is None
    assert fitted.model.counts is None
    # Better than one center for all, whenever it was.
    spread = float(((points - points.mean(axis=0)) ** 2).sum())
    assert oracle.inertia(points, fitted.model.centers) < spread


def test_a_stop_that_never_comes_changes_nothing() -> None:
    points, _ = oracle.blobs(5, n=8000, k=6, d=3, spread=3)
    with ThreadPool(1, StopAfter(10**9)) as pool:
        fitted = fit(MemoryRows(points, 500), Settings(k=6), pool=pool)
    assert not fitted.interrupted
    assert fitted.model.centers.tobytes() == fit(MemoryRows(points, 500), Settings(k=6)).model.centers.tobytes()


@pytest.mark.parametrize("times", [0, 3, 9, 27])
def test_a_stop_of_one_host_is_one_of_all(times: int) -> None:
    points, _ = oracle.blobs(6, n=8000, k=20, d=3, spread=1)
    stop = StopAfter(times)
    outcomes = fit_together(divided(points, 3), Settings(k=20, local_lloyd_tol=0), stops={1: stop})
    assert stop.left < 0
    assert fitted_by(outcomes).interrupted


@pytest.mark.parametrize("times", [1, 30, 60])
def test_stop_in_a_pass_beyond_memory_keeps_the_last_centers(times: int) -> None:
    points, _ = oracle.blobs(7, n=8000, k=6, d=3, spread=3)
    rows = load(lambda: iter(np.array_split(points, 7)), 900 * bytes_per_row(3), 500)
    with ThreadPool(2, StopAfter(times)) as pool:
        fitted = fit(rows, Settings(k=6, local_lloyd_tol=0), pool=pool)
    assert fitted.interrupted
    assert np.isfinite(fitted.model.centers).all()


def recorded_fit(shares: Sequence[Rows], settings: Settings) -> tuple[Fitted, list[RecordingHosts]]:
    """Fit, and return also what the hosts said, by rank."""
    recorded: list[RecordingHosts] = []
    fitted = fitted_by(fit_together(shares, settings, recorded=recorded))
    return fitted, sorted(recorded, key=lambda hosts: hosts.rank)


any_shares = pytest.mark.parametrize("shares", [dealt, divided], ids=["replicated", "sharded"])

Share = Callable[[Float32, int], list[Rows]]


@pytest.mark.usefixtures("no_search")
@any_shares
@pytest.mark.parametrize("init_method", ["random", "kmeans++"])
def test_what_hosts_tell_each_other_in_each_step(shares: Share, init_method: Any) -> None:
    k, d, n = 5, 3, 12_000
    points, _ = oracle.blobs(8, n=n, k=k, d=d, spread=3)
    fitted, recorded = recorded_fit(shares(points, 3), Settings(k=k, init_method=init_method))
    streaming = fitted.streaming_centers
    for hosts in recorded:
        # Counts of rows, whether they have weights, and then each host's share of the first mini-batch.
        assert hosts.kinds("sum", "start") == [4, 1]
        seeded, refined = hosts.kinds("gather", "seeded"), hosts.kinds("gather", "refining", "pass")
        assert sum(seeded) <= (500 / 3 + 60) * d
        assert hosts.kinds("gather") == seeded + refined
        assert hosts.kinds("broadcast", "seeded") == [streaming * d]
        # A mini-batch: K sums of d numbers, K counts, the inertia, and whether a stop is wanted.
        steps = hosts.kinds("sum", "seed done", "batch")
        assert set(steps) == {streaming * (d + 1) + 2}
        assert len(steps) > 5
        # A pass of refinement: the same of k; before relocations errors, utilities and counts of k, and whether a stop
        # is wanted; in between a count of rows, and the inertia that exact labels save.
        passes = hosts.kinds("sum", "refining", "pass")
        relocations = passes.count(3 * k)
        assert set(passes) <= {k * (d + 1) + 2, 3 * k, 1, 2}
        assert passes.count(k * (d + 1) + 2) > fitted.refinements
        assert 1 <= relocations < passes.count(k * (d + 1) + 2)
        assert passes.count(1) == relocations + 1
        assert passes.count(2) <= 2
        assert_gathered_for_relocations(hosts, relocations, k, d)
    assert sum(sum(hosts.kinds("gather", "seeded")) for hosts in recorded) in range(500 * d, 503 * d)


def assert_gathered_for_relocations(hosts: RecordingHosts, relocations: int, k: int, d: int) -> None:
    """Check the rows gathered in refinement, with three numbers each, and the centers that are sent back."""
    gathered, sent = hosts.kinds("gather", "refining", "pass"), hosts.kinds("broadcast", "refining", "pass")
    assert len(gathered) == len(sent) <= 2 * relocations
    for notes, points in zip(gathered[::2], gathered[1::2], strict=True):
        assert notes * d == points * 3
    for numbers, centers in zip(sent[::2], sent[1::2], strict=True):
        assert numbers <= 2 * max(1, k // 20)
        assert centers == numbers * d


@any_shares
def test_rows_gathered_for_relocations_are_bounded(shares: Share, monkeypatch: pytest.MonkeyPatch) -> None:
    k, d, size = 20, 3, 150
    monkeypatch.setattr("kmeans.table_search.SEARCHES", ())
    monkeypatch.setattr("kmeans.relocation.VALUES", size * d * MIN_CANDIDATES)
    points, _ = oracle.blobs(8, n=30_000, k=k, d=d, spread=3)
    _, recorded = recorded_fit(shares(points, 3), Settings(k=k, extra_center_factor=1))
    gathered = [hosts.kinds("gather", "refining", "pass")[1::2] for hosts in recorded]
    assert gathered[0]
    for of_each_host in zip(*gathered, strict=True):
        assert 0 < sum(of_each_host) <= 1.2 * MIN_CANDIDATES * size * d


@any_shares
def test_rows_gathered_for_a_search_are_bounded(shares: Share) -> None:
    k, d, n = 5, 3, 30_000
    points, _ = oracle.blobs(8, n=n, k=k, d=d, spread=3)
    _, recorded = recorded_fit(shares(points, 3), Settings(k=k))
    sizes = [scope.rows for scope in SEARCHES]
    gathered = np.array([hosts.kinds("gather", "refining")[: 2 * len(sizes)] for hosts in recorded])
    assert (gathered[:, ::2] * d == gathered[:, 1::2] * 2).all()  # of each row its position, its weight and itself
    np.testing.assert_allclose(gathered[:, ::2].sum(axis=0) / 2, sizes, rtol=0.1)
    for hosts in recorded:
        # Weights, inertia and number of rows; the size that remains after distant rows; whether a stop is requested.
        assert hosts.kinds("sum", "refining")[: 2 * len(sizes)] == [3, 1] * len(sizes)
        assert hosts.kinds("broadcast", "refining")[: len(sizes)] == [k * d] * len(sizes)


@pytest.mark.usefixtures("no_search")
@any_shares
def test_hosts_of_many_clusters_tell_each_other_one_number_more(shares: Share) -> None:
    k, d = 50, 3
    points, _ = oracle.blobs(8, n=12_000, k=k, d=d, spread=3)
    fitted, recorded = recorded_fit(shares(points, 3), Settings(k=k, extra_center_factor=2))
    for hosts in recorded:
        passes = hosts.kinds("sum", "refining", "pass")
        relocations = passes.count(3 * k)
        assert set(passes) <= {k * (d + 1) + 2, 3 * k, 1, 2}
        # Whether a stop is wanted before a relocation, and how many rows are compared in a pass of replicated rows.
        assert passes.count(1) <= relocations + passes.count(k * (d + 1) + 2) + 1
        assert passes.count(2) <= passes.count(k * (d + 1) + 2) + 1
        assert passes.count(k * (d + 1) + 2) > fitted.refinements
        assert_gathered_for_relocations(hosts, relocations, k, d)


@any_shares
@pytest.mark.parametrize(("trials", "sets"), [(1, 1), (4, 4), (10, 5)])
def test_the_leader_alone_shrinks_and_tells_the_others(shares: Share, trials: int, sets: int) -> None:
    k, d = 5, 3
    points, _ = oracle.blobs(8, n=6000, k=k, d=d, spread=3)
    settings = Settings(k=k, local_lloyd_num_trials=trials)
    _, (leader, *others) = recorded_fit(shares(points, 3), settings)
    assert "shrinking" in leader.told
    assert not any("shrinking" in hosts.told for hosts in others)
    assert leader.kinds("broadcast", "shrinking") == [sets * k * d]
    assert leader.kinds("gather", "shrinking") == []
    for hosts in others:
        assert hosts.kinds("broadcast", "stream done") == [sets * k * d]
        assert hosts.kinds("sum", "stream done") == leader.kinds("sum", "shrinking") == [1]


@pytest.mark.usefixtures("no_search", "no_relocations")
@any_shares
def test_rows_gathered_for_empty_clusters_are_bounded(shares: Share, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kmeans.refinement.RESEED_ROWS", 100)
    _, recorded = recorded_fit(shares(AT_40_PLACES, 4), Settings(k=40, extra_center_factor=1))
    reseeded = [hosts.kinds("gather", "refining", "pass") for hosts in recorded]
    assert all(reseeded)
    for of_each_host in zip(*reseeded, strict=True):
        assert sum(of_each_host) <= 100 * 2
    for hosts in recorded:
        assert all(numbers <= 40 * 2 for numbers in hosts.kinds("broadcast", "refining", "pass"))
