"""The rows that a model is fitted to: in memory if they fit, else read again in each pass, with a sample in memory.

What comes through a pipe can't be read again: a pass brings new rows, and memory holds those of the first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
from numpy.random import Generator

from kmeans.arrays import Float32, Int64, in_blocks
from kmeans.errors import DataError

Pass = Callable[[], Iterator[Float32]]

# A block: enough for a task of a worker, little beside the rows that memory keeps.
BLOCK_BYTES = 4 << 20

# What a fit remembers of each row in memory, beside the row: its place in an order, cluster, norm, margin; and a copy
# of these while they are sorted.
BOOKKEEPING_BYTES = 96


class Rows(Protocol):
    """A data set that can be read again and again.

    Attributes
    ----------
    features
        Number of columns, d.
    """

    features: int

    @property
    def in_memory(self) -> MemoryRows:
        """The rows that lie in memory: all, or a sample in which each row had the same chance to be."""

    def __len__(self) -> int:
        """Return the number of rows, n."""

    def batches(self, epoch: int) -> Iterator[Float32]:
        """Yield every row once, in mini-batches (b, d), in an order of that ``epoch``'s own."""

    def blocks(self) -> Iterator[Float32]:
        """Yield every row once, in blocks (b, d) of some megabytes, always in the same order."""


class MemoryRows:
    """Rows that lie in memory as one array.

    Mini-batches are drawn without replacement from a permutation of all rows, new for each epoch: files are often
    sorted (by label, by day), and the first centers and learning rates must not depend on that.

    Parameters
    ----------
    points
        Shape (n, d), float32, finite. Not copied, not written to.
    mini_batch_size
        Rows per mini-batch; the last one of an epoch may be smaller.
    seed
        Fixes the permutations.
    """

    def __init__(self, points: Float32, mini_batch_size: int = 5000, seed: int = 0) -> None:
        self.points = points
        self.features = points.shape[1]
        self._mini_batch_size = mini_batch_size
        self._seed = seed
        self._order: tuple[int, Int64] | None = None

    def __len__(self) -> int:
        return len(self.points)

    @property
    def in_memory(self) -> MemoryRows:
        """These rows."""
        return self

    def order(self, epoch: int) -> Int64:
        """Return the permutation of the row numbers that belongs to ``epoch``, (n,)."""
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, np.random.default_rng((self._seed, epoch)).permutation(len(self.points))
        return self._order[1]

    def batches(self, epoch: int, at_most: int | None = None) -> Iterator[Float32]:
        """Yield mini-batches of the permutation that belongs to ``epoch``, or of its first ``at_most`` rows."""
        order = self.order(epoch)[:at_most]
        for first in range(0, len(order), self._mini_batch_size):
            yield self.points[order[first : first + self._mini_batch_size]]

    def blocks(self) -> Iterator[Float32]:
        """Yield views of the array."""
        for _, block in in_blocks(self.points, _block_rows(self.features)):
            yield block


class StreamedRows:
    """Rows that are read from where they come from in every pass, because memory doesn't hold them.

    Mini-batches are taken as the rows come, and shuffled within each block.

    Parameters
    ----------
    one_pass
        Begins a pass over all rows, in blocks, always in the same order; each is valid until the next is asked for.
    count
        Number of rows, n.
    sample
        The rows of which memory holds a copy, (m, d).
    mini_batch_size, seed
        As for :class:`MemoryRows`.
    """

    def __init__(self, one_pass: Pass, count: int, sample: Float32, mini_batch_size: int = 5000, seed: int = 0) -> None:
        self._one_pass = one_pass
        self._count = count
        self._sample = MemoryRows(sample, mini_batch_size, seed)
        self._mini_batch_size = mini_batch_size
        self._seed = seed
        self.features = sample.shape[1]

    def __len__(self) -> int:
        return self._count

    @property
    def in_memory(self) -> MemoryRows:
        """The sample."""
        return self._sample

    def batches(self, epoch: int) -> Iterator[Float32]:
        """Yield mini-batches of a pass; rows that are left at the end of a block open the next mini-batch."""
        generator = np.random.default_rng((self._seed, epoch))
        return _mini_batches(self.blocks(), self._mini_batch_size, self.features, generator)

    def blocks(self) -> Iterator[Float32]:
        """Yield the rows of a pass, copied into blocks of some megabytes.

        Raises
        ------
        DataError
            If there are not as many rows as there were.
        """
        seen = 0
        for block in _copied(self._one_pass(), self.features):
            seen += len(block)
            yield block
        if seen != self._count:
            raise DataError(f"expected the {self._count} rows that were read at first, found {seen}: the data changed")


class PipedRows:
    """Rows that come once: those of the first pass are in memory, all or a sample, and each epoch has rows of its own.

    Parameters
    ----------
    next_pass
        Begins the next pass, in blocks; each is valid until the next is asked for. Called once for each epoch but the
        first, and only when its rows are read at once.
    seen
        Number of rows of the first pass, which is over.
    held
        Those of them that memory holds, (m, d).
    mini_batch_size, seed
        As for :class:`MemoryRows`.

    Attributes
    ----------
    seen
        As given; ``len`` is the number of rows in memory.
    """

    def __init__(self, next_pass: Pass, seen: int, held: Float32, mini_batch_size: int = 5000, seed: int = 0) -> None:
        self.seen = seen
        self.features = held.shape[1]
        self._next_pass = next_pass
        self._held = MemoryRows(held, mini_batch_size, seed)
        self._mini_batch_size = mini_batch_size
        self._seed = seed

    def __len__(self) -> int:
        return len(self._held)

    @property
    def in_memory(self) -> MemoryRows:
        """The rows of the first pass that memory holds."""
        return self._held

    def batches(self, epoch: int) -> Iterator[Float32]:
        """Yield mini-batches of the rows in memory in epoch 0, and in a later one of the pass that comes next."""
        if epoch == 0:
            return self._held.batches(epoch)
        generator = np.random.default_rng((self._seed, epoch))
        blocks = _copied(self._next_pass(), self.features)
        return _mini_batches(blocks, self._mini_batch_size, self.features, generator)

    def blocks(self) -> Iterator[Float32]:
        """Yield the rows in memory."""
        return self._held.blocks()


def _mini_batches(blocks: Iterator[Float32], size: int, features: int, generator: Generator) -> Iterator[Float32]:
    """Yield the rows, shuffled within each block; those that are left at its end open the next mini-batch."""
    left = np.empty((0, features), dtype=np.float32)
    for block in blocks:
        rows = np.concatenate([left, generator.permutation(block)])
        whole = len(rows) - len(rows) % size
        for first in range(0, whole, size):
            yield rows[first : first + size]
        left = rows[whole:]
    if len(left):
        yield left


def _copied(parts: Iterator[Float32], features: int) -> Iterator[Float32]:
    """Yield the rows of ``parts``, copied into blocks of some megabytes."""
    size = _block_rows(features)
    block, filled = np.empty((size, features), dtype=np.float32), 0
    for part in parts:
        taken = 0
        while taken < len(part):
            more = min(size - filled, len(part) - taken)
            block[filled : filled + more] = part[taken : taken + more]
            taken, filled = taken + more, filled + more
            if filled == size:
                yield block
                block, filled = np.empty_like(block), 0
    if filled:
        yield block[:filled]


def _block_rows(features: int) -> int:
    return max(1, BLOCK_BYTES // (4 * features))


def bytes_per_row(features: int) -> int:
    """Return what a row of so many ``features`` takes in memory while a model is fitted to it."""
    return 4 * features + BOOKKEEPING_BYTES


def load(one_pass: Pass, budget: int, mini_batch_size: int = 5000, seed: int = 0) -> MemoryRows | StreamedRows:
    """Read all rows once and keep them, or as large a sample of them as can be fitted to in ``budget`` bytes.

    The sample is uniform.

    Raises
    ------
    DataError
        If there are no rows.
    """
    held, seen = _read(one_pass(), budget, seed)
    if seen == len(held):
        return MemoryRows(held, mini_batch_size, seed)
    return StreamedRows(one_pass, seen, held, mini_batch_size, seed)


def load_once(next_pass: Pass, budget: int, mini_batch_size: int = 5000, seed: int = 0) -> PipedRows:
    """Do what :func:`load` does with rows that can't be read again; each later call of ``next_pass`` brings new ones.

    Raises
    ------
    DataError
        If there are no rows.
    """
    held, seen = _read(next_pass(), budget, seed)
    return PipedRows(next_pass, seen, held, mini_batch_size, seed)


def _read(blocks: Iterator[Float32], budget: int, seed: int) -> tuple[Float32, int]:
    """Return all rows, or a sample of as many as ``budget`` bytes allow, and how many there were.

    Once memory is full, row t replaces a random one with probability m / t (J. S. Vitter, "Random sampling with a
    reservoir", 1985, algorithm R).
    """
    generator = np.random.default_rng((seed, 1))
    held: Float32 | None = None
    seen = 0
    for block in blocks:
        if not len(block):
            continue
        if held is None:
            # As large as the budget allows: memory that no row reaches is never touched, so it costs nothing.
            capacity = max(1, budget // bytes_per_row(block.shape[1]))
            held = np.empty((capacity, block.shape[1]), dtype=np.float32)
        fitting = max(0, min(len(held) - seen, len(block)))
        held[seen : seen + fitting] = block[:fitting]
        if fitting < len(block):
            rest = block[fitting:]
            number = np.arange(seen + fitting + 1, seen + len(block) + 1)
            kept = np.flatnonzero(generator.random(len(rest)) * number < len(held))
            held[generator.integers(0, len(held), len(kept))] = rest[kept]
        seen += len(block)
    if held is None:
        raise DataError("there are no rows")
    return held[:seen], seen
