from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmeans.errors import DataError
from kmeans.formats import batches
from kmeans.formats.batches import ParsedRows, equal_batches, joined
from tests.unit.kmeans import oracle


def parsed(sizes: list[int], columns: int = 3, dtype: Any = np.float32) -> list[ParsedRows]:
    bounds = np.cumsum([0, *sizes]).tolist()
    table = np.arange(bounds[-1] * columns).reshape(-1, columns).astype(dtype)
    return [ParsedRows(table[a:b], range(a + 1, b + 1)) for a, b in pairwise(bounds)]


@oracle.PROPERTY
@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(1, 8), st.sampled_from(["<f4", ">f8", "<i2"]))
def test_equal_batches_any_sizes_hold_all_rows_in_order(sizes: list[int], rows: int, dtype: str) -> None:
    some = parsed(sizes, dtype=dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "BATCH_BYTES", 12 * rows)
        found = [batch.copy() for batch in equal_batches(some)]
    assert {len(batch) for batch in found[:-1]} <= {rows}
    assert 0 < len(found[-1]) <= rows
    assert np.array_equal(np.concatenate(found), joined(some))
    assert all(batch.dtype == np.float32 and batch.flags.c_contiguous for batch in found)


def test_equal_batches_share_the_same_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "BATCH_BYTES", 60)
    assert len({batch.ctypes.data for batch in equal_batches(parsed([7, 7, 7]))}) == 1


def test_a_row_larger_than_a_batch_is_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "BATCH_BYTES", 4)
    assert [batch.tolist() for batch in equal_batches(parsed([2]))] == [[[0, 1, 2]], [[3, 4, 5]]]


def test_no_rows_say_their_width_and_take_no_memory() -> None:
    nothing = ParsedRows(np.empty((0, 10**15), dtype=np.float32), range(0))
    assert [batch.shape for batch in equal_batches([nothing])] == [(0, 10**15)]


@pytest.mark.parametrize("batch_rows", [1, 2, 100])
@pytest.mark.parametrize("dtype", ["<f4", "<f8"])
def test_number_that_is_not_finite_is_refused_by_its_row(
    batch_rows: int, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "BATCH_BYTES", 4 * batch_rows)
    vectors = np.array([[1], [2], [np.inf], [np.nan]], dtype=dtype)
    broken = [ParsedRows(vectors[:1], range(1, 2)), ParsedRows(vectors[1:], [3, 7, 8])]
    for read in (joined, lambda some: list(equal_batches(some))):
        with pytest.raises(DataError, match="infinite") as raised:
            read(broken)
        assert (raised.value.row, raised.value.column) == (7, 1)


def test_a_number_beyond_float32_is_refused_without_a_warning() -> None:
    with pytest.raises(DataError, match="row 1, column 1: expected a finite number"):
        list(equal_batches([ParsedRows(np.array([[1e300]]), range(1, 2))]))


def test_an_array_that_is_as_it_should_be_is_not_copied() -> None:
    points = np.ones((3, 2), dtype=np.float32)
    assert np.shares_memory(joined([ParsedRows(points, range(1, 4))]), points)


def test_the_rows_before_a_fault_are_given_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "BATCH_BYTES", 12)

    def faulty() -> Iterator[ParsedRows]:
        yield from parsed([2])
        raise DataError("cut off")

    found = equal_batches(faulty())
    assert [next(found).tolist(), next(found).tolist()] == [[[0, 1, 2]], [[3, 4, 5]]]
    with pytest.raises(DataError, match="cut off"):
        next(found)
