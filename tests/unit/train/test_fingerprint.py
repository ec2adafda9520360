"""Rows known again in any order and on any hosts, and changes noticed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from kmeans.arrays import Float32
from kmeans.collectives import SingleHost
from tests.unit.kmeans.thread_hosts import ThreadHosts, on_all_hosts
from train.fingerprint import Fingerprint


def points(columns: int, rows: int = 1000) -> Float32:
    return np.random.default_rng(0).normal(size=(rows, columns)).astype(np.float32)


def digest_of(*blocks: Float32) -> str:
    digest = Fingerprint()
    for _ in digest.over(lambda: iter(blocks))():
        pass
    return digest.text(SingleHost())


@pytest.mark.parametrize("columns", [1, 2, 3, 8, 9])
def test_any_order_in_any_blocks_gives_the_same(columns: int) -> None:
    rows = points(columns)
    expected = digest_of(rows)
    assert digest_of(rows[::-1]) == expected
    assert digest_of(*np.array_split(np.random.default_rng(1).permutation(rows), 7)) == expected
    assert digest_of(rows[::2], rows[1::2]) == expected


@pytest.mark.parametrize("columns", [1, 2, 5])
@pytest.mark.parametrize("size", [2, 3])
def test_it_does_not_matter_which_host_has_which_rows(columns: int, size: int) -> None:
    rows = points(columns)

    def work(hosts: ThreadHosts) -> str:
        digest = Fingerprint()
        # The last host has none, not even a block.
        parts = np.array_split(rows, size - 1)[hosts.rank :][:1]
        for _ in digest.over(lambda: iter(parts))():
            pass
        return digest.text(hosts)

    assert on_all_hosts(size, work) == [digest_of(rows)] * size


def _exchange(rows: Float32) -> None:
    rows[[3, 700], 1] = rows[[700, 3], 1]


def _poll_once(rows: Float32) -> None:
    rows[3, :4] = rows[3, [2, 3, 0, 1]]


def _flip(rows: Float32) -> None:
    rows.view(np.uint32)[500, 2] ^= 1


def _negate(rows: Float32) -> None:
    rows[500, -1] *= -1


def _repeat(rows: Float32) -> None:
    rows[500] = rows[501]


@pytest.mark.parametrize("change", [_exchange, _poll_once, _flip, _negate, _repeat])
@pytest.mark.parametrize("columns", [4, 5])
def test_a_change_is_noticed(change: Callable[[Float32], None], columns: int) -> None:
    rows = points(columns)
    changed = rows.copy()
    change(changed)
    assert digest_of(changed) != digest_of(rows)
    assert digest_of(rows[1:]) != digest_of(rows)


@pytest.mark.parametrize("columns", [1, 2])
def test_every_bit_counts(columns: int) -> None:
    rows = points(columns, rows=10)
    found = {digest_of(rows)}
    for column in range(columns):
        for bit in range(32):
            changed = rows.copy()
            changed.view(np.uint32)[4, column] ^= np.uint32(1 << bit)
            found.add(digest_of(changed))
    assert len(found) == 1 + 32 * columns


def test_later_passes_over_the_same_rows_count_no_more() -> None:
    rows, digest = points(4), Fingerprint()
    one_pass = digest.over(lambda: iter([rows]))
    for _ in range(3):
        assert np.array_equal(np.concatenate(list(one_pass())), rows)
        assert digest.text(SingleHost()) == digest_of(rows)
