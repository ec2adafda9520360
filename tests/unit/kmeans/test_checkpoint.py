"""A fit that is interrupted at any step and goes on must end as if nothing had happened, to the bit."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from kmeans.checkpoint import Checkpoints, State, generator_from, generator_state
from kmeans.estimator import Fitted, fit
from kmeans.model import KMeansModel
from kmeans.rows import MemoryRows, Rows, bytes_per_row, load
from kmeans.settings import Settings
from tests.unit.kmeans import oracle

POINTS, _ = oracle.blobs(0, n=12_000, k=12, d=4, spread=4)


class Killed(Exception):  # noqa: N818 - nothing is wrong
    """The machine is taken away."""


class Kept(Checkpoints):
    """Keeps the newest state, and ends the fit after so many."""

    def __init__(self, state: State | None = None, *, states: int | None = None) -> None:
        self.state = state
        self.phases: list[str] = []
        self._states = states

    def found(self) -> State | None:
        return copy.deepcopy(self.state)

    def offer(self, state: Callable[[], State]) -> None:
        if len(self.phases) == self._states:
            raise Killed
        self.state = copy.deepcopy(state())
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


@pytest.mark.parametrize(
    ("rows", "options", "phases"),
    [
        (in_memory, {}, {"stream", "refine"}),
        (in_memory, {"k": 60, "extra_center_factor": 2}, {"stream", "refine"}),
        (in_memory, {"epochs": 2, "refine_max_iter": 0}, {"stream"}),
        (in_memory, {"half_life_time_size": 3000}, {"stream"}),
        (in_memory, {"init_method": "kmeans++", "refine_sample_size": 7000}, {"stream", "refine"}),
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
def test_a_fit_that_goes_on_from_a_model_can_be_killed_too(options: dict[str, Any]) -> None:
    start = KMeansModel(POINTS[:12], np.arange(1, 13))
    settings = Settings(k=12, **options)
    whole = Kept()
    expected = fit(in_memory(), settings, start=start, checkpoints=whole)
    before = Kept(states=len(whole.phases) // 2)
    with pytest.raises(Killed):
        fit(in_memory(), settings, start=start, checkpoints=before)
    same(fit(in_memory(), settings, start=start, checkpoints=Kept(before.state)), expected)


def test_a_generator_goes_on_where_it_was() -> None:
    generator = np.random.default_rng(7)
    generator.random(5)
    state = generator_state(generator)
    assert generator_from(state).random(3).tolist() == generator.random(3).tolist()
