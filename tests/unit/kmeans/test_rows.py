from __future__ import annotations

import numpy as np
import pytest

from kmeans.rows import MemoryRows

POINTS = np.arange(1003 * 2, dtype=np.float32).reshape(1003, 2)


def epoch_of(rows: MemoryRows, epoch: int) -> list[list[float]]:
    found: list[list[float]] = np.concatenate(list(rows.batches(epoch))).tolist()
    return found


@pytest.mark.parametrize("size", [1, 100, 1003, 5000])
def test_an_epoch_gives_every_row_exactly_once(size: int) -> None:
    rows = MemoryRows(POINTS, mini_batch_size=size)
    assert sorted(epoch_of(rows, 0)) == POINTS.tolist()


@pytest.mark.parametrize(("size", "sizes"), [(400, [400, 400, 203]), (1003, [1003]), (5000, [1003]), (1002, [1002, 1])])
def test_only_the_last_batch_is_smaller(size: int, sizes: list[int]) -> None:
    assert [len(batch) for batch in MemoryRows(POINTS, mini_batch_size=size).batches(0)] == sizes


def test_every_epoch_has_an_order_of_its_own() -> None:
    rows = MemoryRows(POINTS, mini_batch_size=100)
    orders = [epoch_of(rows, epoch) for epoch in range(4)]
    assert all(a != b for i, a in enumerate(orders) for b in orders[:i])
    assert all(order != POINTS.tolist() for order in orders)


def test_a_seed_fixes_the_order_whatever_was_read_before() -> None:
    first, again, other = MemoryRows(POINTS, seed=3), MemoryRows(POINTS, seed=3), MemoryRows(POINTS, seed=4)
    epoch_of(first, 0)
    assert epoch_of(first, 1) == epoch_of(again, 1)
    assert epoch_of(first, 1) != epoch_of(other, 1)


def test_the_size_of_a_batch_does_not_change_the_order() -> None:
    assert epoch_of(MemoryRows(POINTS, 7), 2) == epoch_of(MemoryRows(POINTS, 500), 2)


def test_blocks_give_every_row_in_its_order() -> None:
    rows = MemoryRows(POINTS)
    for _ in range(2):
        assert np.array_equal(np.concatenate(list(rows.blocks())), POINTS)


def test_a_sample_holds_different_rows() -> None:
    sample = MemoryRows(POINTS).sample(200, np.random.default_rng(1))
    assert sample.shape == (200, 2)
    assert len(np.unique(sample, axis=0)) == 200
    assert {tuple(row) for row in sample.tolist()} <= {tuple(row) for row in POINTS.tolist()}


def test_a_sample_repeats_by_its_generator() -> None:
    rows = MemoryRows(POINTS)
    first, again, other = (rows.sample(50, np.random.default_rng(seed)).tolist() for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize("count", [1003, 1004, 10**6])
def test_a_sample_of_all_or_more_is_all(count: int) -> None:
    assert np.array_equal(MemoryRows(POINTS).sample(count, np.random.default_rng(0)), POINTS)


def test_rows_know_their_number_and_width() -> None:
    rows = MemoryRows(POINTS)
    assert (len(rows), rows.features) == (1003, 2)
