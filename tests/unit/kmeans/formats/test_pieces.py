from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmeans.errors import DataError
from kmeans.formats import pieces
from kmeans.formats.pieces import Piece, in_equal_blocks, joined
from tests.unit.kmeans import oracle


def pieces_of(sizes: list[int], columns: int = 3, dtype: Any = np.float32) -> list[Piece]:
    bounds = np.cumsum([0, *sizes]).tolist()
    table = np.arange(bounds[-1] * columns).reshape(-1, columns).astype(dtype)
    return [Piece(table[a:b], range(a + 1, b + 1)) for a, b in pairwise(bounds)]


@oracle.PROPERTY
@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(1, 8), st.sampled_from(["<f4", ">f8", "<i2"]))
def test_blocks_hold_all_rows_in_order_and_all_but_the_last_are_equal(sizes: list[int], rows: int, dtype: str) -> None:
    given_pieces = pieces_of(sizes, dtype=dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "BLOCK_BYTES", 12 * rows)
        blocks = [block.copy() for block in in_equal_blocks(given_pieces)]
    assert {len(block) for block in blocks[:-1]} <= {rows}
    assert 0 < len(blocks[-1]) <= rows
    assert np.array_equal(np.concatenate(blocks), joined(given_pieces))
    assert all(block.dtype == np.float32 and block.flags.c_contiguous for block in blocks)


def test_all_blocks_lie_in_the_same_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "BLOCK_BYTES", 60)
    assert len({block.ctypes.data for block in in_equal_blocks(pieces_of([7, 7, 7]))}) == 1


def test_a_row_larger_than_a_block_is_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "BLOCK_BYTES", 4)
    assert [block.tolist() for block in in_equal_blocks(pieces_of([2]))] == [[[0, 1, 2]], [[3, 4, 5]]]


def test_no_rows_say_their_width_and_take_no_memory() -> None:
    nothing = Piece(np.empty((0, 10**15), dtype=np.float32), range(0))
    assert [block.shape for block in in_equal_blocks([nothing])] == [(0, 10**15)]


@pytest.mark.parametrize("block_rows", [1, 2, 100])
@pytest.mark.parametrize("dtype", ["<f4", "<f8"])
def test_a_number_that_is_none_is_refused_by_the_row_s_own_number(
    block_rows: int, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "BLOCK_BYTES", 4 * block_rows)
    vectors = np.array([[1], [2], [np.inf], [np.nan]], dtype=dtype)
    broken = [Piece(vectors[:1], range(1, 2)), Piece(vectors[1:], [3, 7, 8])]
    for read in (joined, lambda given_pieces: list(in_equal_blocks(given_pieces))):
        with pytest.raises(DataError, match="infinite") as raised:
            read(broken)
        assert (raised.value.row, raised.value.column) == (7, 1)


def test_a_number_beyond_float32_is_refused_without_a_warning() -> None:
    with pytest.raises(DataError, match="row 1, column 1: expected a finite number"):
        list(in_equal_blocks([Piece(np.array([[1e300]]), range(1, 2))]))


def test_an_array_that_is_as_it_should_be_is_not_copied() -> None:
    points = np.ones((3, 2), dtype=np.float32)
    assert np.shares_memory(joined([Piece(points, range(1, 4))]), points)


def test_the_rows_before_a_fault_are_given_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "BLOCK_BYTES", 12)

    def faulty() -> Iterator[Piece]:
        yield from pieces_of([2])
        raise DataError("cut off")

    blocks = in_equal_blocks(faulty())
    assert [next(blocks).tolist(), next(blocks).tolist()] == [[[0, 1, 2]], [[3, 4, 5]]]
    with pytest.raises(DataError, match="cut off"):
        next(blocks)
