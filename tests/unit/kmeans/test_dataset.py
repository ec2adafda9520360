from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product

import numpy as np
import pytest

from kmeans.arrays import Float32
from kmeans.dataset import MemoryRows, PipedRows, RowAssignment, Rows, StreamedRows, bytes_per_row, load, load_once
from kmeans.errors import DataError
from tests.unit.kmeans.thread_hosts import ThreadHosts, on_all_hosts

POINTS = np.arange(1003 * 2, dtype=np.float32).reshape(1003, 2)

# Bytes that a row of POINTS is said to take.
ROW = bytes_per_row(2)

any_size_of_batches = pytest.mark.parametrize("size", [1, 100, 1003, 5000])

any_blocks = pytest.mark.parametrize("blocks", [[1003], [1] * 1003, [400, 400, 203], [0, 7, 0, 993, 3, 0]])


# Bytes of a block: less than a row, one row, some rows (of which one is left at the end), more than there are.
any_bytes_of_a_block = pytest.mark.parametrize("block_bytes", [1, 8, 334 * 8, 3200, 1 << 20])


class Source:
    """Gives rows in blocks of some sizes, and counts how often it is read.

    Each block uses the same memory, as that of a reader may, and is overwritten when the next one is requested.
    """

    def __init__(self, points: Float32 = POINTS, blocks: Sequence[int] = (400, 400, 203)) -> None:
        assert sum(blocks) == len(points)
        self.points = points
        self.blocks = blocks
        self.begun = self.ended = 0

    def __call__(self) -> Iterator[Float32]:
        self.begun += 1
        buffer = np.empty((max(self.blocks), self.points.shape[1]), dtype=np.float32)
        first = 0
        for size in self.blocks:
            block = buffer[:size]
            block[:] = self.points[first : first + size]
            yield block
            buffer[:] = np.nan
            first += size
        self.ended += 1


def streamed(source: Source, *, held: int = 50, size: int = 100, seed: int = 0) -> StreamedRows:
    """Return the rows of ``source`` with memory for a number of them."""
    rows = load(source, held * ROW, size, seed)
    assert isinstance(rows, StreamedRows)
    return rows


def epoch_of(rows: Rows, epoch: int) -> list[list[float]]:
    found: list[list[float]] = np.concatenate(list(rows.batches(epoch))).tolist()
    return found


@any_size_of_batches
def test_an_epoch_gives_every_row_exactly_once(size: int) -> None:
    rows = MemoryRows(POINTS, mini_batch_size=size)
    assert sorted(epoch_of(rows, 0)) == POINTS.tolist()


@pytest.mark.parametrize(("size", "sizes"), [(400, [400, 400, 203]), (1003, [1003]), (5000, [1003]), (1002, [1002, 1])])
def test_only_the_last_batch_is_smaller(size: int, sizes: list[int]) -> None:
    assert [len(batch) for batch in MemoryRows(POINTS, mini_batch_size=size).batches(0)] == sizes


def test_every_epoch_has_a_separate_order() -> None:
    rows = MemoryRows(POINTS, mini_batch_size=100)
    orders = [epoch_of(rows, epoch) for epoch in range(4)]
    assert all(a != b for i, a in enumerate(orders) for b in orders[:i])
    assert all(order != POINTS.tolist() for order in orders)


def test_seed_fixes_the_order_of_every_epoch() -> None:
    first, again, other = MemoryRows(POINTS, seed=3), MemoryRows(POINTS, seed=3), MemoryRows(POINTS, seed=4)
    epoch_of(first, 0)
    assert epoch_of(first, 1) == epoch_of(again, 1)
    assert epoch_of(first, 1) != epoch_of(other, 1)


def test_the_size_of_a_batch_does_not_change_the_order() -> None:
    assert epoch_of(MemoryRows(POINTS, 7), 2) == epoch_of(MemoryRows(POINTS, 500), 2)


@pytest.mark.parametrize("epoch", [0, 1, 7])
def test_batches_come_in_the_order_of_the_epoch(epoch: int) -> None:
    rows = MemoryRows(POINTS, mini_batch_size=300)
    rows.order(epoch + 1)
    assert np.sort(rows.order(epoch)).tolist() == list(range(1003))
    assert epoch_of(rows, epoch) == POINTS[rows.order(epoch)].tolist()


@pytest.mark.parametrize("at_most", [0, 1, 299, 300, 301, 1003, 2000])
def test_batches_with_at_most_are_the_first_rows_of_the_epoch(at_most: int) -> None:
    rows = MemoryRows(POINTS, mini_batch_size=300)
    first = [row for batch in rows.batches(1, at_most) for row in batch.tolist()]
    assert first == epoch_of(rows, 1)[:at_most]


def test_epochs_read_in_turns_do_not_disturb_each_other() -> None:
    rows = MemoryRows(POINTS, mini_batch_size=300)
    expected = epoch_of(rows, 0)
    found = []
    for batch in rows.batches(0):
        found += batch.tolist()
        epoch_of(rows, 1)
    assert found == expected


def test_blocks_of_rows_in_memory_are_not_copied() -> None:
    assert all(np.shares_memory(block, POINTS) for block in MemoryRows(POINTS).blocks())


def test_rows_know_their_number_and_width() -> None:
    rows = MemoryRows(POINTS)
    assert (len(rows), rows.features) == (1003, 2)


def test_rows_in_memory_are_all_in_memory() -> None:
    rows = MemoryRows(POINTS)
    assert rows.in_memory is rows
    assert rows.points is POINTS


def test_streamed_rows_have_number_width_and_rows_in_memory() -> None:
    rows = streamed(Source(), held=50)
    assert (len(rows), rows.features, len(rows.in_memory), rows.in_memory.features) == (1003, 2, 50, 2)


@any_size_of_batches
@any_blocks
@any_bytes_of_a_block
def test_an_epoch_of_streamed_rows_gives_every_row_exactly_once(
    size: int, blocks: list[int], block_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kmeans.dataset.BLOCK_BYTES", block_bytes)
    rows = streamed(Source(blocks=blocks), size=size)
    for epoch in range(2):
        batches = list(rows.batches(epoch))
        assert sorted(np.concatenate(batches).tolist()) == POINTS.tolist()
        whole, rest = divmod(1003, size)
        assert [len(batch) for batch in batches] == [size] * whole + [rest] * (rest > 0)


def test_streamed_rows_are_shuffled_within_a_block_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("kmeans.dataset.BLOCK_BYTES", 400 * 8)
    epoch = np.array(epoch_of(streamed(Source(blocks=[1] * 1003)), 0))
    for first, last in (0, 400), (400, 800), (800, 1003):
        block = epoch[first:last].tolist()
        assert sorted(block) == POINTS[first:last].tolist() != block


def test_every_epoch_of_streamed_rows_has_a_separate_order() -> None:
    rows = streamed(Source())
    orders = [epoch_of(rows, epoch) for epoch in range(4)]
    assert all(a != b for i, a in enumerate(orders) for b in orders[:i])


def test_seed_fixes_the_order_of_streamed_rows() -> None:
    first, again, other = (streamed(Source(), seed=seed) for seed in (3, 3, 4))
    epoch_of(first, 0)
    assert epoch_of(first, 1) == epoch_of(again, 1)
    assert epoch_of(first, 1) != epoch_of(other, 1)


@any_blocks
@any_bytes_of_a_block
@pytest.mark.parametrize("in_memory", [True, False])
def test_blocks_give_every_row_in_its_order_and_stay_as_they_are(
    blocks: list[int], block_bytes: int, in_memory: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kmeans.dataset.BLOCK_BYTES", block_bytes)
    rows: Rows = MemoryRows(POINTS) if in_memory else streamed(Source(blocks=blocks))
    whole, rest = divmod(1003, max(1, block_bytes // 8))
    for _ in range(2):
        found = list(rows.blocks())
        assert np.array_equal(np.concatenate(found), POINTS)
        assert [len(block) for block in found] == [max(1, block_bytes // 8)] * whole + [rest] * (rest > 0)


def test_streamed_batches_stay_when_the_source_continues() -> None:
    batches, seen = [], []
    for batch in streamed(Source(), size=300).batches(0):
        batches.append(batch)
        seen.append(batch.copy())
    assert np.array_equal(np.concatenate(batches), np.concatenate(seen))


def test_batches_are_read_as_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kmeans.dataset.BLOCK_BYTES", 100 * 8)
    source = Source(blocks=[100] * 10 + [3])
    rows = streamed(source, size=100)
    for _ in zip(range(3), rows.batches(0), strict=False):
        pass
    assert (source.begun, source.ended) == (2, 1)


@pytest.mark.parametrize("size", [0, 1002, 1004, 2006])
def test_source_with_another_number_of_rows_is_refused(size: int) -> None:
    source = Source()
    rows = streamed(source)
    source.points, source.blocks = np.resize(POINTS, (size, 2)), [size]
    for read in (rows.blocks(), rows.batches(0)):
        with pytest.raises(DataError, match=rf"expected the 1003 rows .* found {size}\b"):
            list(read)


@any_blocks
@pytest.mark.parametrize("room", [0, 1, 10**6])
def test_rows_that_fit_are_all_kept_in_their_order(blocks: list[int], room: int) -> None:
    source = Source(blocks=blocks)
    rows = load(source, (1003 + room) * ROW, 100, 5)
    assert isinstance(rows, MemoryRows)
    assert np.array_equal(rows.points, POINTS)
    assert rows.points.dtype == np.float32
    assert (source.begun, source.ended) == (1, 1)
    assert epoch_of(rows, 1) == epoch_of(MemoryRows(POINTS, 100, 5), 1)


@any_blocks
@pytest.mark.parametrize("held", [1, 2, 50, 400, 1002])
def test_rows_beyond_memory_are_sampled_without_repetition(blocks: list[int], held: int) -> None:
    source = Source(blocks=blocks)
    rows = load(source, held * ROW + ROW - 1, 100)
    assert isinstance(rows, StreamedRows)
    assert (source.begun, source.ended) == (1, 1)
    kept = rows.in_memory.points
    assert kept.shape == (held, 2)
    assert len(np.unique(kept, axis=0)) == held
    assert {tuple(row) for row in kept.tolist()} <= {tuple(row) for row in POINTS.tolist()}


@pytest.mark.parametrize("budget", [0, 1, ROW - 1, ROW])
def test_a_budget_of_less_than_a_row_holds_one(budget: int) -> None:
    rows = load(Source(), budget)
    assert len(rows) == 1003
    assert len(rows.in_memory) == 1
    one = load(Source(POINTS[:1], [1]), budget)
    assert isinstance(one, MemoryRows)
    assert one.points.tolist() == POINTS[:1].tolist()


@pytest.mark.slow
@pytest.mark.parametrize(("held", "blocks"), [(10, [40]), (10, [1] * 40), (10, [7, 7, 7, 7, 7, 5]), (1, [3, 37])])
def test_every_row_has_the_same_chance_to_be_kept(held: int, blocks: list[int]) -> None:
    points, runs = np.arange(40, dtype=np.float32)[:, None], 4000
    kept = np.zeros(40)
    for seed in range(runs):
        rows = load(lambda: iter(np.split(points, np.cumsum(blocks)[:-1])), bytes_per_row(1) * held, seed=seed)
        kept[rows.in_memory.points[:, 0].astype(int)] += 1
    share = held / 40
    deviations = (kept - runs * share) / np.sqrt(runs * share * (1 - share))
    assert kept.sum() == runs * held
    assert np.abs(deviations).max() < 4
    assert np.square(deviations).mean() < 1.6
    # Early rows and late ones, which a wrong rule would treat differently.
    assert abs(deviations[:20].sum()) / np.sqrt(20) < 3


def test_a_row_takes_its_numbers_in_memory_and_what_goes_with_it() -> None:
    assert bytes_per_row(101) - bytes_per_row(100) == 4
    assert bytes_per_row(1) > 4


def test_a_seed_fixes_which_rows_are_kept() -> None:
    first, again, other = (streamed(Source(), seed=seed).in_memory.points.tolist() for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize("blocks", [[], [0], [0, 0]])
def test_no_rows_are_refused(blocks: list[int]) -> None:
    with pytest.raises(DataError, match="no rows"):
        load(lambda: iter([POINTS[:size] for size in blocks]), 1000)


def test_errors_of_a_source_are_raised_unchanged() -> None:
    def broken() -> Iterator[Float32]:
        yield POINTS[:10]
        raise DataError("row 11 is none")

    for budget in (ROW, 100 * ROW):
        with pytest.raises(DataError, match="row 11 is none"):
            load(broken, budget)


class Streams(Source):
    """Gives other rows in each pass: those of pass e are larger by 10,000 e, and there are fewer and fewer."""

    def __call__(self) -> Iterator[Float32]:
        epoch = self.begun
        self.points, self.blocks = POINTS[: 1003 - epoch] + 10_000 * epoch, [1003 - epoch]
        return super().__call__()


@pytest.mark.parametrize("held", [1, 50, 1002, 1003, 2000])
def test_load_once_keeps_the_rows_that_load_keeps(held: int) -> None:
    rows, again = load_once(Streams(), held * ROW, 100, 5), load(Source(blocks=[1003]), held * ROW, 100, 5)
    assert np.array_equal(rows.in_memory.points, again.in_memory.points)
    assert (len(rows), rows.seen, rows.features) == (min(held, 1003), 1003, 2)
    assert np.array_equal(np.concatenate(list(rows.blocks())), rows.in_memory.points)
    assert epoch_of(rows, 0) == epoch_of(rows.in_memory, 0)


@any_size_of_batches
@any_bytes_of_a_block
def test_each_later_epoch_reads_other_rows(size: int, block_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kmeans.dataset.BLOCK_BYTES", block_bytes)
    source = Streams()
    rows = load_once(source, 50 * ROW, size)
    for epoch in (0, 1, 2):
        assert source.begun == max(1, epoch)
        batches = list(rows.batches(epoch))
        expected = POINTS[: 1003 - epoch] + 10_000 * epoch if epoch else rows.in_memory.points
        assert sorted(np.concatenate(batches).tolist()) == sorted(expected.tolist())
        assert all(len(batch) == size for batch in batches[:-1])
    assert (source.begun, source.ended) == (3, 3)


def test_no_rows_that_come_once_are_refused() -> None:
    with pytest.raises(DataError, match="no rows"):
        load_once(lambda: iter([]), 1000)


def held_by(assignment: RowAssignment) -> Rows:
    return load(Source(), 2000 * ROW, 100, 3, assignment)


def streamed_by(assignment: RowAssignment) -> Rows:
    return load(Source(), 50 * ROW, 100, 3, assignment)


def piped_by(assignment: RowAssignment) -> Rows:
    return load_once(Streams(), 2000 * ROW, 100, 3, assignment)


def lines(rows: Float32) -> list[list[float]]:
    """Return the rows in lexical order."""
    found: list[list[float]] = sorted(rows.tolist())
    return found


@pytest.mark.parametrize(
    ("rows_by", "size"),
    [*product((held_by, streamed_by, piped_by), (2, 3, 4)), (held_by, 1100), (piped_by, 1100)],
)
def test_hosts_that_deal_rows_out_have_the_mini_batches_of_one(
    rows_by: Callable[[RowAssignment], Rows], size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Blocks end in the middle of mini-batches.
    monkeypatch.setattr("kmeans.dataset.BLOCK_BYTES", 130 * 8)
    # Of very many hosts some have no rows.
    ranks = range(size) if size < 10 else [0, 1, 7, 1002, 1003, 1099]
    one, hosts = rows_by(RowAssignment()), [rows_by(RowAssignment(rank, size)) for rank in ranks]
    for epoch in range(3):
        expected, found = list(one.batches(epoch)), [list(rows.batches(epoch)) for rows in hosts]
        assert {len(batches) for batches in found} == {len(expected)}
        for number, batch in enumerate(expected):
            parts = [batches[number] for batches in found]
            together = lines(np.concatenate(parts))
            assert together == lines(batch) if size < 10 else all(row in batch.tolist() for row in together)
            for rank, part in zip(ranks, parts, strict=True):
                assert (part[:, 0].astype(int) % 10_000 // 2 % size == rank).all()


@pytest.mark.parametrize("size", [2, 3, 1100])
@pytest.mark.parametrize("rows_by", [held_by, streamed_by, piped_by])
def test_blocks_of_divided_rows_are_local_rows(rows_by: Callable[[RowAssignment], Rows], size: int) -> None:
    for rank in {0, 1, size - 1}:
        rows = rows_by(RowAssignment(rank, size))
        assert lines(np.concatenate([np.empty((0, 2)), *rows.blocks()])) == POINTS[rank::size].tolist()
        assert len(rows) == len(POINTS[rank::size])


@pytest.mark.parametrize("epoch", [0, 2])
def test_the_first_rows_of_an_epoch_are_those_of_all_hosts(epoch: int) -> None:
    one, hosts = MemoryRows(POINTS, 100, 3), [held_by(RowAssignment(rank, 3)).in_memory for rank in range(3)]
    for at_most in (0, 1, 250, 5000):
        together = [row for rows in hosts for batch in rows.batches(epoch, at_most) for row in batch.tolist()]
        assert sorted(together) == lines(POINTS[one.order(epoch)[:at_most]])


@pytest.mark.parametrize("size", [1, 2, 4])
def test_gather_returns_rows_in_the_order_of_their_numbers(size: int) -> None:
    numbers = np.random.default_rng(0).permutation(1003)[:500]

    def gathered(hosts: ThreadHosts) -> Float32:
        return held_by(RowAssignment(hosts.rank, size)).in_memory.gather(numbers, hosts)

    leaders, *others = on_all_hosts(size, gathered)
    assert isinstance(leaders, np.ndarray)
    assert np.array_equal(leaders, POINTS[numbers])
    assert all(isinstance(rows, np.ndarray) and len(rows) == 0 for rows in others)


def test_rows_by_themselves_have_a_separate_order() -> None:
    rows = held_by(RowAssignment(1, 3)).in_memory
    assert rows.is_dealt
    alone = rows.by_themselves()
    assert not alone.is_dealt
    assert alone.points is rows.points
    assert epoch_of(alone, 1) == epoch_of(MemoryRows(POINTS[1::3], 100, 3), 1)


@pytest.mark.parametrize("read", [load, load_once])
@pytest.mark.parametrize("n", [1, 3])
def test_a_host_that_owns_none_of_the_rows_has_none(read: Callable[..., Rows], n: int) -> None:
    rows = read(Source(POINTS[:n], [n]), 100 * ROW, 100, 3, RowAssignment(3, 4))
    assert (len(rows), len(rows.in_memory), rows.features) == (0, 0, 2)
    assert list(rows.blocks()) == []
    assert [len(batch) for batch in rows.batches(0)] == [0]
    with pytest.raises(DataError, match="no rows"):
        read(lambda: iter([]), 100 * ROW, 100, 3, RowAssignment(3, 4))


@pytest.mark.parametrize("size", [0, 1002, 1004])
def test_change_of_divided_rows_is_detected_on_each_host(size: int) -> None:
    for rank in range(3):
        source = Source()
        rows = load(source, 50 * ROW, 100, 3, RowAssignment(rank, 3))
        source.points, source.blocks = np.resize(POINTS, (size, 2)), [size]
        for again in (rows.blocks(), rows.batches(0)):
            with pytest.raises(DataError, match=rf"expected the 1003 rows .* found {size}\b"):
                list(again)


def test_sample_of_divided_rows_has_local_rows() -> None:
    for rows in (streamed_by(RowAssignment(2, 3)), load_once(Streams(), 50 * ROW, 100, 3, RowAssignment(2, 3))):
        assert isinstance(rows, StreamedRows | PipedRows)
        assert not rows.in_memory.is_dealt
        assert {tuple(row) for row in rows.in_memory.points.tolist()} < {tuple(row) for row in POINTS[2::3].tolist()}


def test_the_order_of_all_rows_has_its_place_in_memory() -> None:
    assert bytes_per_row(5, 4) - bytes_per_row(5) >= 3 * 8
