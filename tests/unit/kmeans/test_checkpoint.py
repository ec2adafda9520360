"""A fit that is interrupted at any step and resumed is bit-identical to one without an interruption."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from kmeans.checkpoint import Checkpoints, State
from kmeans.dataset import MemoryRows, RowAssignment, Rows, bytes_per_row, load
from kmeans.fitting import Fitted, fit
from kmeans.model import KMeansModel
from kmeans.settings import Settings
from tests.unit.kmeans import oracle
from tests.unit.kmeans.thread_hosts import on_all_hosts

POINTS, _ = oracle.blobs(0, n=12_000, k=12, d=4, spread=4)


class Killed(Exception):  # noqa: N818 - nothing is wrong
    """Ends a fit, as the loss of its machine would."""


class Kept(Checkpoints):
    """Keeps the newest state, and ends the fit after a number of states."""

    def __init__(self, state: State | None = None, *, states: int | None = None) -> None:
        self.state = state
        self.phases: list[str] = []
        self._states = states

    def found(self) -> State | None:
        return copy.deepcopy(self.state)

    def offer(self, state: Callable[[], State]) -> None:
        if len(self.phases) == self._states:
            raise Killed
        self.state = state()
        self.phases.append(self.state.phase)


def in_memory() -> Rows:
    return MemoryRows(POINTS, 500)


def streamed() -> Rows:
    return load(lambda: iter(np.array_split(POINTS, 9)), 5000 * bytes_per_row(4), 500)


def same(fitted: Fitted, expected: Fitted) -> None:
    assert fitted.model.centers.tobytes() == expected.model.centers.tobytes()
    assert fitted.mean_squared_distance == expected.mean_squared_distance
    assert fitted.shrink_loss == expected.shrink_loss
    assert fitted.streaming_centers == expected.streaming_centers
    assert fitted.refinements == expected.refinements


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rows", "options", "phases"),
    [
        (in_memory, {}, {"stream", "refine"}),
        (in_memory, {"k": 60, "extra_center_factor": 2}, {"stream", "refine"}),
        (in_memory, {"epochs": 2, "refine_max_iter": 0}, {"stream"}),
        (in_memory, {"half_life_time_size": 3000}, {"stream"}),
        (in_memory, {"init_method": "kmeans++", "refine_sample_size": 7000}, {"stream", "refine"}),
        (in_memory, {"init_method": "hierarchical", "k": 60}, {"refine"}),
        (streamed, {}, {"stream", "refine", "all rows"}),
        (streamed, {"epochs": 2}, {"stream", "refine", "all rows"}),
    ],
)
def test_a_fit_killed_at_any_step_ends_as_one_that_was_not(
    rows: Callable[[], Rows], options: dict[str, Any], phases: set[str]
) -> None:
    settings = Settings(**{"k": 12, "local_lloyd_tol": 1e-6, **options})
    whole = Kept()
    expected = fit(rows(), settings, checkpoints=whole)
    assert set(whole.phases) == phases
    steps = len(whole.phases)
    for killed_after in sorted({1, 2, steps // 3, steps // 2, steps - 2, steps - 1} & set(range(1, steps))):
        before = Kept(states=killed_after)
        with pytest.raises(Killed):
            fit(rows(), settings, checkpoints=before)
        after = Kept(before.state)
        same(fit(rows(), settings, checkpoints=after), expected)
        assert before.phases + after.phases == whole.phases


@pytest.mark.slow
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("k", [20, 60])
def test_fit_killed_between_relocations_ends_with_the_same_bits(
    k: int, weighted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a search before phase 3, so that centers are relocated on each sample."""
    monkeypatch.setattr("kmeans.table_search.SEARCHES", ())
    weights = np.random.default_rng(0).integers(1, 4, len(POINTS)) if weighted else None
    settings = Settings(k=k, local_lloyd_tol=1e-6, extra_center_factor=1)
    whole = Kept()
    expected = fit(MemoryRows(POINTS, 500, weights=weights), settings, checkpoints=whole)
    first = whole.phases.index("refine") + 1
    assert len(whole.phases) >= first + 4
    for killed_after in (first, first + 1, first + 2, first + 3, len(whole.phases) - 1):
        before = Kept(states=killed_after)
        with pytest.raises(Killed):
            fit(MemoryRows(POINTS, 500, weights=weights), settings, checkpoints=before)
        after = Kept(before.state)
        same(fit(MemoryRows(POINTS, 500, weights=weights), settings, checkpoints=after), expected)
        assert before.phases + after.phases == whole.phases


def test_a_fit_that_is_killed_again_and_again_ends() -> None:
    expected = fit(in_memory(), Settings(k=12))
    state, fitted = None, None
    for _ in range(1000):
        checkpoints = Kept(state, states=1)
        try:
            fitted = fit(in_memory(), Settings(k=12), checkpoints=checkpoints)
            break
        except Killed:
            state = checkpoints.state
    assert fitted is not None
    same(fitted, expected)


@pytest.mark.parametrize("options", [{}, {"refine_max_iter": 0}])
def test_warm_started_fit_can_be_resumed(options: dict[str, Any]) -> None:
    start = KMeansModel(POINTS[:12], np.arange(1, 13))
    settings = Settings(k=12, **options)
    whole = Kept()
    expected = fit(in_memory(), settings, start=start, checkpoints=whole)
    before = Kept(states=len(whole.phases) // 2)
    with pytest.raises(Killed):
        fit(in_memory(), settings, start=start, checkpoints=before)
    same(fit(in_memory(), settings, start=start, checkpoints=Kept(before.state)), expected)


def test_state_does_not_change_while_the_fit_continues() -> None:
    class All(Checkpoints):
        def __init__(self) -> None:
            self.noted: list[tuple[State, State]] = []

        def offer(self, state: Callable[[], State]) -> None:
            made = state()
            self.noted.append((made, copy.deepcopy(made)))

    checkpoints = All()
    fit(in_memory(), Settings(k=12), checkpoints=checkpoints)
    for made, as_it_was in checkpoints.noted:
        assert made.numbers == as_it_was.numbers
        for now, then in ((made.arrays, as_it_was.arrays), (made.per_host, as_it_was.per_host)):
            for name, array in then.items():
                assert array.tobytes() == now[name].tobytes(), name


@pytest.mark.parametrize("killed_after", [1, 9, 15, 19])
def test_without_what_was_known_of_each_row_a_fit_ends_as_well(killed_after: int) -> None:
    settings = Settings(k=12, local_lloyd_tol=1e-6)
    expected = fit(in_memory(), settings)
    before = Kept(states=killed_after)
    with pytest.raises(Killed):
        fit(in_memory(), settings, checkpoints=before)
    assert before.state is not None
    fitted = fit(in_memory(), settings, checkpoints=Kept(replace(before.state, per_host={})))
    assert fitted.mean_squared_distance == pytest.approx(expected.mean_squared_distance, rel=1e-3)


def share(assignment: RowAssignment) -> Rows:
    """Return a host's rows, of those that all hosts read."""
    return load(lambda: iter(np.array_split(POINTS, 9)), 1 << 30, 500, 0, assignment)


def shard(assignment: RowAssignment) -> Rows:
    """Return rows that no other host knows of."""
    return MemoryRows(POINTS[assignment.rank :: assignment.size], 500)


@pytest.mark.slow
@pytest.mark.parametrize("rows", [share, shard])
@pytest.mark.parametrize("k", [12, 60])
@pytest.mark.parametrize("share_done", [0.01, 0.3, 0.6, 0.8, 0.9, 0.99])
@pytest.mark.parametrize("searches", [True, False])
def test_hosts_that_are_killed_together_end_as_if_they_were_not(
    searches: bool, share_done: float, k: int, rows: Callable[[RowAssignment], Rows], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not searches:
        monkeypatch.setattr("kmeans.table_search.SEARCHES", ())
    settings = Settings(k=k, local_lloyd_tol=1e-6, extra_center_factor=3)

    def fitted(checkpoints: list[Kept]) -> list[Fitted | BaseException]:
        size = len(checkpoints)
        return on_all_hosts(
            size,
            lambda hosts: fit(
                rows(RowAssignment(hosts.rank, size)), settings, hosts=hosts, checkpoints=checkpoints[hosts.rank]
            ),
        )

    whole = [Kept(), Kept(), Kept()]
    expected = fitted(whole)[0]
    assert isinstance(expected, Fitted)
    killed_after = 1 + int(share_done * (len(whole[0].phases) - 1))
    before = [Kept(states=killed_after) for _ in whole]
    assert any(isinstance(outcome, Killed) for outcome in fitted(before))
    after = [Kept(killed.state) for killed in before]
    for outcome in fitted(after):
        assert isinstance(outcome, Fitted)
        same(outcome, expected)
