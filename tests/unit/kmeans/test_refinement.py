"""Lloyd's iterations on a growing sample must end where Lloyd's iterations on all rows end, or as well."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from sklearn.cluster import KMeans

from kmeans.arrays import Float32, Int64
from kmeans.assignments import Assignments
from kmeans.collectives import Collectives
from kmeans.dataset import MemoryRows
from kmeans.random_streams import RandomStreams
from kmeans.refinement import MIN_ROWS, TRUST_ROWS, Refined, refine
from kmeans.sums import ClusterSums
from kmeans.threads import ThreadPool
from tests.unit.kmeans import oracle


@dataclass
class Heard:
    """Arguments of ``on_pass``."""

    moves: list[int] = field(default_factory=list)
    rows: list[float] = field(default_factory=list)
    inertia: list[float] = field(default_factory=list)

    def __call__(self, done: int, sums: ClusterSums) -> None:
        self.moves.append(done)
        self.rows.append(sums.weights.sum())
        self.inertia.append(sums.inertia)


def run(
    points: Float32,
    *starts: Float32,
    max_rows: int = 10**9,
    max_iter: int = 100,
    tol: float = 1e-4,
    threads: int = 1,
    heard: Heard | None = None,
) -> Refined:
    with ThreadPool(threads) as pool:
        return refine(
            MemoryRows(points),
            starts,
            max_rows=max_rows,
            max_iter=max_iter,
            tol=tol,
            random_streams=RandomStreams(0),
            pool=pool,
            on_pass=heard,
        )


@pytest.fixture
def no_relocations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Move centers to the means of their rows only."""

    def relocate(_: Assignments, means: Float32, *_args: Any, **_options: Any) -> tuple[Float32, Int64]:
        return means, np.empty(0, dtype=np.int64)

    monkeypatch.setattr("kmeans.refinement.relocate", relocate)


def random_start(points: Float32, k: int, seed: int = 0) -> Float32:
    return points[np.random.default_rng(seed).choice(len(points), k, replace=False)]


def scikit_learn(points: Float32, start: Float32) -> float:
    return float(KMeans(len(start), init=start, n_init=1, tol=0).fit(points).inertia_)


@pytest.mark.parametrize(("k", "n"), [(1, 3000), (8, 3000), (8, 4 * MIN_ROWS), (40, 12_345), (100, 4 * MIN_ROWS)])
@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_result_is_as_good_as_scikit_learn_from_the_same_start(k: int, n: int, offset: float) -> None:
    points, _ = oracle.blobs(0, n=n, k=k, d=5, spread=2)
    points += np.float32(offset)
    start = random_start(points, k)
    result = run(points, start)
    assert result.centers.dtype == np.float32
    assert oracle.inertia(points, result.centers) < 1.02 * scikit_learn(points, start)


@pytest.mark.parametrize("k", [8, 100])
@pytest.mark.parametrize(("spread", "offset"), [(5, 0.0), (100, 0.0), (5, 1e6)])
def test_last_reported_sums_are_those_of_the_returned_centers(k: int, spread: float, offset: float) -> None:
    points, _ = oracle.blobs(1, n=2 * MIN_ROWS, k=k, d=3, spread=spread)
    points = (points + offset).astype(np.float32)
    heard = Heard()
    result = run(points, random_start(points, k), heard=heard)
    assert heard.inertia[-1] == pytest.approx(oracle.inertia(points, result.centers), rel=1e-2)
    assert set(heard.rows) == {len(points)}


def test_of_several_starts_the_best_is_pursued() -> None:
    points, centers = oracle.blobs(2, n=2 * MIN_ROWS, k=6, d=3, spread=100)
    bad: Float32 = np.repeat(centers[:1], 6, axis=0) + np.arange(6, dtype=np.float32)[:, None] / np.float32(100)
    best = oracle.inertia(points, centers)
    tried: list[list[Float32]] = [[bad, centers, bad], [centers, bad], [bad, bad, centers]]
    for starts in tried:
        assert oracle.inertia(points, run(points, *starts).centers) == pytest.approx(best, rel=0.01)


@pytest.mark.parametrize("max_iter", [1, 3])
@pytest.mark.parametrize("n", [MIN_ROWS // 2, 2 * MIN_ROWS])
def test_moves_on_all_rows_are_capped_and_counted(max_iter: int, n: int) -> None:
    points, _ = oracle.blobs(3, n=n, k=8, d=3, spread=1)
    heard = Heard()
    result = run(points, random_start(points, 8), max_iter=max_iter, tol=0, heard=heard)
    assert result.moves == max_iter
    assert heard.moves == list(range(1, max_iter + 1))
    assert heard.rows == [n] * max_iter


@pytest.mark.parametrize("k", [8, 40])
def test_moves_are_capped_where_labels_are_never_trusted(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Assignments, "excess", lambda *_: 2.0)
    points, _ = oracle.blobs(3, n=3000, k=k, d=3, spread=1)
    heard = Heard()
    result = run(points, random_start(points, k), max_iter=7, tol=1.0, heard=heard)  # settled after each move
    assert result.moves == 7
    assert heard.moves == [1, 2, 3, 4, 5, 6, 7]


def test_all_rows_follow_no_more_often_than_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    follow = Assignments.follow

    def counted(
        assignments: Assignments, centers: Float32, relocated: Int64 | None = None, *, everywhere: bool = False
    ) -> None:
        sizes.append(len(assignments.members))
        follow(assignments, centers, relocated, everywhere=everywhere)

    monkeypatch.setattr(Assignments, "follow", counted)
    points, _ = oracle.blobs(3, n=3 * MIN_ROWS, k=8, d=3, spread=1)
    result = run(points, random_start(points, 8), tol=1e-5)
    assert sizes == sorted(sizes)
    assert set(sizes) == {MIN_ROWS, 2 * MIN_ROWS, 3 * MIN_ROWS}
    assert sizes.count(3 * MIN_ROWS) == result.moves


def test_a_larger_tolerance_ends_earlier() -> None:
    points, _ = oracle.blobs(3, n=2 * MIN_ROWS, k=20, d=3, spread=1)
    start = random_start(points, 20)
    moves = [run(points, start, tol=tol).moves for tol in (0.1, 1e-3, 1e-5)]
    assert moves == sorted(moves)
    assert moves[0] < moves[2]


@pytest.mark.parametrize("k", [8, 100])
@pytest.mark.parametrize("max_rows", [1000, 3 * MIN_ROWS])
def test_rows_outside_of_the_sample_have_no_say(k: int, max_rows: int) -> None:
    points, _ = oracle.blobs(6, n=4 * MIN_ROWS, k=k, d=3, spread=5)
    start = random_start(points, k)
    first, again = Heard(), Heard()
    result = run(points, start, max_rows=max_rows, heard=first)
    assert set(first.rows) == {max_rows}
    others = points.copy()
    others[MemoryRows(points).order(epoch=0)[max_rows:]] = 1e6
    assert run(others, start, max_rows=max_rows, heard=again).centers.tobytes() == result.centers.tobytes()
    assert again.inertia == first.inertia


def test_more_sampled_rows_give_a_better_result() -> None:
    points, _ = oracle.blobs(7, n=8 * MIN_ROWS, k=10, d=3, spread=3)
    start = random_start(points, 10)
    few, some, all_rows = (
        oracle.inertia(points, run(points, start, max_rows=rows).centers) for rows in (200, 2 * MIN_ROWS, 8 * MIN_ROWS)
    )
    assert some == pytest.approx(all_rows, rel=0.01)
    assert few > some


def test_a_sample_larger_than_the_rows_is_all_rows() -> None:
    points, _ = oracle.blobs(8, n=2 * MIN_ROWS, k=8, d=3, spread=5)
    start = random_start(points, 8)
    exactly, more = (run(points, start, max_rows=rows).centers for rows in (len(points), len(points) + 1))
    assert exactly.tobytes() == more.tobytes()


def test_fewer_rows_than_clusters_are_their_own_centers() -> None:
    points, _ = oracle.blobs(9, n=2000, k=4, d=3, spread=5)
    result = run(points, random_start(points, 30), max_rows=10)
    sampled = points[MemoryRows(points).order(epoch=0)[:10]]
    assert result.centers.shape == (30, 3)
    assert oracle.inertia(sampled, result.centers) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("k", [6, 60])
def test_empty_clusters_are_reseeded(k: int) -> None:
    points, centers = oracle.blobs(4, n=2 * MIN_ROWS, k=k, d=3, spread=100)
    start = centers.copy()
    start[1::2] = 1e6
    result = run(points, start)
    assert len(np.unique(oracle.nearest(points, result.centers)[0])) == k
    assert oracle.inertia(points, result.centers) < 20 * oracle.inertia(points, centers)


@pytest.mark.parametrize(("k", "times"), [(6, 10), (60, 2)])
def test_empty_clusters_far_from_the_origin_are_reseeded(k: int, times: float) -> None:
    points, centers = oracle.blobs(4, n=2 * MIN_ROWS, k=k, d=3, spread=10)
    points, centers = (points + 1e6).astype(np.float32), (centers + 1e6).astype(np.float32)
    start = centers.copy()
    start[1::2] = 0
    assert oracle.inertia(points, run(points, start).centers) < times * oracle.inertia(points, centers)


@pytest.mark.parametrize("k", [8, 100])
@pytest.mark.parametrize("max_rows", [MIN_ROWS + 1, 10**9])
def test_threads_do_not_change_a_bit(k: int, max_rows: int) -> None:
    points, _ = oracle.blobs(5, n=3 * MIN_ROWS, k=k, d=3, spread=5)
    start = random_start(points, k)
    alone = run(points, start, max_rows=max_rows)
    together = run(points, start, max_rows=max_rows, threads=3)
    assert alone.centers.tobytes() == together.centers.tobytes()
    assert alone.moves == together.moves


@pytest.mark.usefixtures("no_relocations")
@pytest.mark.parametrize("k", [8, 100])
def test_wrong_labels_are_detected_and_corrected(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kmeans.assignments.MOVEMENT_FRACTION", 0.0)  # no point is compared again, however centers move
    points, _ = oracle.blobs(10, n=2 * MIN_ROWS, k=k, d=3, spread=3)
    start = random_start(points, k)
    heard = Heard()
    result = run(points, start, heard=heard)
    assert oracle.inertia(points, result.centers) < 1.03 * scikit_learn(points, start)
    assert heard.moves == list(range(1, result.moves + 1))


@pytest.mark.parametrize("k", [16, 32, 48])
def test_excess_of_the_result_is_within_the_tolerance(k: int) -> None:
    points = np.random.default_rng(0).uniform(size=(30_000, 3)).astype(np.float32)
    heard = Heard()
    result = run(points, random_start(points, k), heard=heard)
    assert result.moves < 100
    # A sample of the rows tells, hence the factor.
    assert heard.inertia[-1] < (1 + 2e-4) * oracle.inertia(points, result.centers)


@pytest.mark.parametrize(("shares", "reassigned"), [([0.0], 0), ([0.5, 0.02, 0.0], 2)])
def test_passes_continue_until_labels_are_nearly_exact(
    shares: list[float], reassigned: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    times = 0
    reassign = Assignments.reassign

    def excess(assignments: Assignments, members: Int64) -> float:
        asked.append(len(np.unique(members)))
        assert bool((np.diff(members) > 0).all())
        assert members[-1] < len(assignments.members)
        return shares[len(asked) - 1]

    def counted(assignments: Assignments) -> None:
        nonlocal times
        times += 1
        reassign(assignments)

    monkeypatch.setattr(Assignments, "excess", excess)
    monkeypatch.setattr(Assignments, "reassign", counted)
    points, _ = oracle.blobs(11, n=3000, k=8, d=3, spread=3)
    heard = Heard()
    result = run(points, random_start(points, 8), heard=heard)
    assert asked == [TRUST_ROWS] * len(shares)
    assert times == reassigned
    assert heard.moves == list(range(1, result.moves + 1))


@pytest.mark.usefixtures("no_relocations")
def test_empty_clusters_are_reseeded_from_the_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kmeans.refinement.RESEED_ROWS", 300)
    points, _ = oracle.blobs(13, n=4 * MIN_ROWS, k=8, d=3, spread=5)
    rows, start = MemoryRows(points), random_start(points, 8)
    start[3] = 1e6
    asked: list[Int64] = []

    def gather(rows: MemoryRows, numbers: Int64, _: Collectives) -> Float32:
        asked.append(numbers)
        return rows.points[numbers]

    monkeypatch.setattr(MemoryRows, "gather", gather)
    refine(rows, [start], max_rows=7000, max_iter=9, tol=1e-4, random_streams=RandomStreams(0), pool=ThreadPool())
    assert len(asked) == 1
    assert len(np.unique(asked[0])) == 300
    assert set(asked[0]) <= set(rows.order(epoch=0)[:MIN_ROWS])


def test_the_caller_s_arrays_are_not_changed() -> None:
    points, _ = oracle.blobs(12, n=2 * MIN_ROWS, k=8, d=3, spread=5)
    start = random_start(points, 8)
    points.flags.writeable = start.flags.writeable = False
    rows = MemoryRows(points)
    before = rows.order(epoch=0).copy()
    refine(rows, [start], max_rows=7000, max_iter=9, tol=1e-4, random_streams=RandomStreams(0), pool=ThreadPool())
    assert np.array_equal(rows.order(epoch=0), before)


@pytest.mark.parametrize("value", [3.0, 0.1, 1e6])
def test_points_that_are_all_equal_need_no_moving(value: float) -> None:
    points = np.full((20, 2), value, dtype=np.float32)
    assert run(points, points[:2]).centers.tolist() == points[:2].tolist()
