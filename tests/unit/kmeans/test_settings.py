from __future__ import annotations

import dataclasses

import pytest

from kmeans.settings import Settings


@pytest.mark.parametrize(
    ("k", "factor"), [(1, 10), (10, 10), (200, 10), (201, 9), (1000, 2), (1001, 1), (2000, 1), (100_000, 1)]
)
def test_auto_gives_ten_extra_centers_until_there_are_too_many(k: int, factor: int) -> None:
    assert Settings(k=k).factor() == factor


@pytest.mark.parametrize(("k", "trials"), [(1, 10), (30, 10), (31, 9), (100, 3), (300, 1), (5000, 1)])
def test_auto_gives_ten_trials_until_they_cost_too_much(k: int, trials: int) -> None:
    assert Settings(k=k).trials() == trials


def test_auto_refinement_is_100_or_0_with_a_half_life() -> None:
    assert Settings(k=3).refinements() == 100
    assert Settings(k=3, half_life_time_size=1000).refinements() == 0


def test_all_rows_are_streamed_unless_refinement_follows() -> None:
    assert Settings(k=3).rows_to_stream(30) == 10_000
    assert Settings(k=3).rows_to_stream(2000) == 20_000
    assert Settings(k=3, refine_max_iter=0).rows_to_stream(30) is None
    assert Settings(k=3, epochs=2).rows_to_stream(30) is None


def test_streamed_rows_are_at_most_the_sample_of_refinement() -> None:
    assert Settings(k=3, refine_sample_size=700).rows_to_stream(30) == 700
    assert Settings(k=3, refine_sample_size=10**6).rows_to_stream(30) == 10_000
    assert Settings(k=3, refine_sample_size=700, epochs=2).rows_to_stream(30) is None
    assert Settings(k=3, refine_sample_size=700, refine_max_iter=0).rows_to_stream(30) is None


def test_several_starts_are_tried_where_there_are_few_clusters() -> None:
    assert Settings(k=2).other_starts() == Settings(k=40).other_starts() > 0
    assert Settings(k=41).other_starts() == 0


def test_given_values_are_used() -> None:
    settings = Settings(k=5000, extra_center_factor=7, local_lloyd_num_trials=23, refine_max_iter=0)
    assert (settings.factor(), settings.trials(), settings.refinements()) == (7, 23, 0)


def test_the_defaults_are_those_of_the_built_in_image() -> None:
    settings = Settings(k=3)
    assert (settings.epochs, settings.init_method, settings.half_life_time_size) == (1, "random", 0)
    assert (settings.local_lloyd_init_method, settings.local_lloyd_max_iter) == ("kmeans++", 300)
    assert settings.local_lloyd_tol == 1e-4
    assert settings.refine_sample_size is None


def test_settings_do_not_change_during_a_fit() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings(k=3).k = 4  # type: ignore[misc]
