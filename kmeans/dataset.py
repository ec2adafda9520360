"""The rows that a model is fitted to.

They are in memory if they fit; otherwise each pass reads them, and memory holds a sample.
Rows from a pipe can't be read again: each pass has new rows, and memory holds those of the first.

Hosts that all read the same rows divide them (:class:`RowAssignment`), and still sample as one host would: each knows
the order of all rows, and contributes its local ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray

from kmeans.arrays import Batch, Float32, Float64, Int64, as_numbers, as_points, in_blocks
from kmeans.collectives import Collectives
from kmeans.coordinates import IDENTITY, Coordinates, narrowed
from kmeans.errors import DataError
from kmeans.metric import EUCLIDEAN, Metric

Pass = Callable[[], Iterator[Float32]]
Scalar = TypeVar("Scalar", bound=np.generic)

# Size of a batch of rows: enough for a task of the thread pool, little compared with the rows in memory.
BLOCK_BYTES = 4 << 20

# Memory of a fit for each row in addition to the row: its place in an order, cluster, norm, Hamerly bound; and a copy
# of these while they are sorted.
BOOKKEEPING_BYTES = 96

# Memory for each row of another host: its place in the order of all rows, and for finding the local rows in that order.
OTHERS_BYTES = 16


class RowAssignment(NamedTuple):
    """The division among hosts of rows that all of them read.

    Row i is local to host i mod ``size``; this host is ``rank``.
    """

    rank: int = 0
    size: int = 1

    def numbers(self, rows: int) -> range:
        """Return the numbers of this host's rows among this number of ``rows``."""
        return range(self.rank, rows, self.size)

    def own(self, part: Float32, first: int) -> Float32:
        """Return a view of the local rows of a ``part`` that begins with row ``first``."""
        return part[(self.rank - first) % self.size :: self.size]


class Rows(Protocol):
    """A data set that can be read several times.

    Attributes
    ----------
    features
        Number of columns, d.
    coordinates
        The coordinates of the rows; None if none were chosen, which is the identity.
    """

    features: int
    coordinates: Coordinates | None

    @property
    def in_memory(self) -> MemoryRows:
        """The rows in memory: all, or a uniform sample."""

    def __len__(self) -> int:
        """Return the number of rows, n."""

    def prepared(self, metric: Metric) -> Rows:
        """Return the same rows, each as ``metric`` prepares it.

        Rows outside of memory are prepared in each pass.

        Raises
        ------
        DataError
            If ``metric`` refuses a row; for rows outside of memory, when a pass reads it.
        """

    def batches(self, epoch: int) -> Iterator[Float32]:
        """Yield every row once, in mini-batches (b, d).

        The order depends on ``epoch``.
        If hosts divide the rows, yield the local rows of each mini-batch of all rows; they may be none.
        """

    def blocks(self) -> Iterator[Float32]:
        """Yield every row once, in blocks (b, d), always in the same order.

        A block has some megabytes.
        """

    def weighted_batches(self, epoch: int) -> Iterator[Batch]:
        """Yield the same as :meth:`batches`, with the weights of the rows."""

    def weighted_blocks(self) -> Iterator[Batch]:
        """Yield the same as :meth:`blocks`, with the weights of the rows."""


class MemoryRows:
    """Rows in memory as one array.

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
    numbers
        Numbers of these rows among all rows that several hosts divide (:meth:`RowAssignment.numbers`). Default: there
        are only these rows.
    weights
        Weight of each row, (n,), finite and at least 0. Rows of weight 0 are removed. Default: 1 for each row.
    metric
        The metric that the points were prepared for.
    coordinates
        The coordinates of the points (:meth:`of` chooses them); None if none were chosen.

    Attributes
    ----------
    points
        As given, without rows of weight 0.
    weights
        Weights of ``points``, float64, all above 0; None if each row counts once.
    mini_batch_size, metric, coordinates
        As given.
    ordered
        Number of rows of an order: all that hosts divide, or just these.
    is_dealt
        Whether an order has rows of other hosts. A host that removes rows has a separate order.

    Raises
    ------
    DataError
        If a weight is negative or not finite (the error names its row), if all are 0, if their sum is not finite, or if
        there isn't one for each row.
    """

    def __init__(
        self,
        points: Float32,
        mini_batch_size: int = 5000,
        seed: int = 0,
        numbers: range | None = None,
        *,
        weights: ArrayLike | None = None,
        metric: Metric = EUCLIDEAN,
        coordinates: Coordinates | None = None,
    ) -> None:
        numbers = range(len(points)) if numbers is None else numbers
        self._numbers: range | Int64 = numbers
        self.coordinates = coordinates
        self.weights: Float64 | None = None
        if weights is not None:
            self.weights = _checked_weights(weights, numbers)
            counted = np.flatnonzero(self.weights)
            if len(counted) < len(points):
                self._numbers = np.asarray(numbers)[counted]
                points, self.weights = points[counted], self.weights[counted]
                numbers = range(len(points))
        self.points = points
        self.features = points.shape[1]
        self.mini_batch_size = mini_batch_size
        self.metric = metric
        self._seed = seed
        self._assignment = RowAssignment(numbers.start, numbers.step)
        self.ordered = numbers.stop
        self.is_dealt = numbers.step > 1
        self._order: tuple[int, Int64] | None = None

    @classmethod
    def of(
        cls,
        points: ArrayLike,
        mini_batch_size: int = 5000,
        seed: int = 0,
        *,
        weights: ArrayLike | None = None,
        metric: Metric = EUCLIDEAN,
    ) -> MemoryRows:
        """Return rows of ``points`` (n, d) of any type of numbers, such as float64.

        They get coordinates in which float32 keeps their differences. A model that is fitted to them, and its loss,
        are in the units of the points. For a ``metric`` that normalizes rows, the coordinates are the identity.

        Raises
        ------
        DataError
            As :func:`kmeans.arrays.as_points`, and for wrong weights.

        Examples
        --------
        >>> rows = MemoryRows.of(np.array([[1_700_000_000.0], [1_700_000_060.0]]))
        >>> rows.points.tolist(), rows.coordinates.offset.tolist()
        ([[0.0], [60.0]], [1700000000.0])
        """
        array = as_numbers(points)
        if metric.normalizes:
            found, coordinates = metric.prepare(as_points(array)), IDENTITY
        else:
            found, coordinates = narrowed(as_points(array) if array.dtype == np.float32 else array)
        return cls(found, mini_batch_size, seed, weights=weights, metric=metric, coordinates=coordinates)

    def measured(self) -> MemoryRows:
        """Return the same rows in the coordinates that they need.

        In most cases these are the rows themselves.
        """
        if self.coordinates is not None or self.metric.normalizes or not len(self.points):
            return self
        found, coordinates = narrowed(self.points)
        if coordinates.is_identity:
            return self
        measured = self._like(found, self.weights, self.metric)
        measured.coordinates = coordinates
        return measured

    def __len__(self) -> int:
        return len(self.points)

    @property
    def in_memory(self) -> MemoryRows:
        """These rows."""
        return self

    def by_themselves(self) -> MemoryRows:
        """Return these rows with a separate order."""
        return MemoryRows(self.points, self.mini_batch_size, self._seed, weights=self.weights, metric=self.metric)

    def with_weights(self) -> MemoryRows:
        """Return these rows with weights: 1 each if they have none."""
        return self if self.weights is not None else self._like(self.points, np.ones(len(self)), self.metric)

    def _like(self, points: Float32, weights: Float64 | None, metric: Metric) -> MemoryRows:
        """Return ``points`` in place of these, in the same order."""
        numbers = self._assignment.numbers(self.ordered)
        return MemoryRows(points, self.mini_batch_size, self._seed, numbers, weights=weights, metric=metric)

    def prepared(self, metric: Metric) -> MemoryRows:
        """Return the same rows prepared by ``metric``, without a copy if none changes."""
        try:
            points = metric.prepare(self.points)
        except DataError as error:
            if error.row is not None:
                error.row = int(self._numbers[error.row - 1]) + 1
            raise
        return self._like(points, self.weights, metric)

    def order(self, epoch: int) -> Int64:
        """Return the permutation of the row numbers for ``epoch``, (ordered,)."""
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, np.random.default_rng((self._seed, epoch)).permutation(self.ordered)
        return self._order[1]

    def own(self, numbers: Int64) -> Int64:
        """Return the positions in ``points`` of the local rows among ``numbers``."""
        if not self.is_dealt:
            return numbers
        own: Int64 = numbers[numbers % self._assignment.size == self._assignment.rank] // self._assignment.size
        return own

    def positions(self, numbers: Int64) -> Int64:
        """Return the positions in ``numbers`` of local rows.

        :meth:`own` returns their positions in ``points``.
        """
        if not self.is_dealt:
            return np.arange(len(numbers))
        return np.flatnonzero(numbers % self._assignment.size == self._assignment.rank)

    def numbers_of(self, own: Int64) -> Int64:
        """Return the numbers of the rows at these positions in ``points``.

        This is the inverse of :meth:`own`.
        """
        return own * self._assignment.size + self._assignment.rank if self.is_dealt else own

    def gather(self, numbers: Int64, hosts: Collectives) -> Float32:
        """Return the rows with these ``numbers`` on the leader, else no rows.

        If hosts divide the rows, they are in the order of the numbers, as they would be on one host. Otherwise each
        host passes numbers of its rows, and they are concatenated by rank.
        """
        return self._gathered(self.points[self.own(numbers)], numbers, hosts)

    def gather_weights(self, numbers: Int64, hosts: Collectives) -> Float64 | None:
        """Return the weights of the rows of :meth:`gather`; None without weights.

        Either the rows of all ``hosts`` have weights, or of none (:meth:`with_weights`).
        """
        if self.weights is None:
            return None
        return self._gathered(self.weights[self.own(numbers), None], numbers, hosts)[:, 0]

    def gather_local(self, local: Int64, notes: Float64, hosts: Collectives) -> tuple[Float32, Float64]:
        """Return all hosts' rows at ``local`` (m,) in their points, with their ``notes`` (m, c), on the leader.

        The first note is the position of a row in the order of all rows. If hosts divide the rows, they are sorted by
        it, as they would be on one host. Otherwise they are concatenated by rank.
        """
        notes, points = hosts.gather(notes), hosts.gather(self.points[local])
        if self.is_dealt:
            order = notes[:, 0].argsort(kind="stable")
            points, notes = points[order], notes[order]
        return points, notes

    def _gathered(self, own: NDArray[Scalar], numbers: Int64, hosts: Collectives) -> NDArray[Scalar]:
        gathered = hosts.gather(own)
        if not self.is_dealt or hosts.rank:
            return gathered
        ordered = np.empty_like(gathered)
        ordered[(numbers % self._assignment.size).argsort(kind="stable")] = gathered
        return ordered

    def batches(self, epoch: int, at_most: int | None = None) -> Iterator[Float32]:
        """Yield mini-batches of the order of ``epoch``, or of its first rows.

        ``at_most`` is the number of rows to use.
        """
        order = self.order(epoch)[:at_most]
        for first in range(0, len(order), self.mini_batch_size):
            yield self.points[self.own(order[first : first + self.mini_batch_size])]

    def blocks(self) -> Iterator[Float32]:
        """Yield views of the array."""
        for _, block in in_blocks(self.points, _block_rows(self.features)):
            yield block

    def weighted_batches(self, epoch: int, at_most: int | None = None) -> Iterator[Batch]:
        """Yield the same as :meth:`batches`, with the weights of the rows."""
        batches, size = self.batches(epoch, at_most), self.mini_batch_size
        if self.weights is None:
            yield from map(Batch, batches)
            return
        order = self.order(epoch)[:at_most]
        for number, batch in enumerate(batches):
            yield Batch(batch, self.weights[self.own(order[number * size : (number + 1) * size])])

    def weighted_blocks(self) -> Iterator[Batch]:
        """Yield the same as :meth:`blocks`, with the weights of the rows."""
        first = 0
        for block in self.blocks():
            yield Batch(block, None if self.weights is None else self.weights[first : first + len(block)])
            first += len(block)


class StreamedRows:
    """Rows that every pass reads, because memory doesn't hold them.

    Mini-batches have the rows in the order of the source, shuffled within each block.

    Parameters
    ----------
    one_pass
        Begins a pass over all rows, in blocks, always in the same order; each is valid until the next is requested.
        If hosts divide the rows, a pass has those of all hosts.
    numbers
        Numbers of the n local rows among them.
    sample
        The rows in memory, (m, d), with a separate order.
    mini_batch_size, seed, metric
        As for :class:`MemoryRows`.
    """

    def __init__(
        self,
        one_pass: Pass,
        numbers: range,
        sample: Float32,
        mini_batch_size: int = 5000,
        seed: int = 0,
        *,
        metric: Metric = EUCLIDEAN,
    ) -> None:
        self._one_pass = one_pass
        self._numbers = numbers
        self._assignment = RowAssignment(numbers.start, numbers.step)
        self._sample = MemoryRows(sample, mini_batch_size, seed, metric=metric)
        self._mini_batch_size = mini_batch_size
        self._seed = seed
        self.features = sample.shape[1]
        self.coordinates: Coordinates | None = None

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def in_memory(self) -> MemoryRows:
        """The sample."""
        return self._sample

    def prepared(self, metric: Metric) -> StreamedRows:
        """Return the same rows prepared by ``metric``.

        The sample is prepared now, all rows in each pass.
        """
        one_pass = _prepared_pass(self._one_pass, metric)
        try:
            sample = metric.prepare(self._sample.points)
        except DataError as error:
            for _ in one_pass():  # only a pass knows the row's number
                pass
            error.row = None
            raise
        return StreamedRows(one_pass, self._numbers, sample, self._mini_batch_size, self._seed, metric=metric)

    def batches(self, epoch: int) -> Iterator[Float32]:
        """Yield mini-batches of a pass.

        The remaining rows of a block begin the next mini-batch.
        """
        generator = np.random.default_rng((self._seed, epoch))
        blocks = _copied(self._all(), self.features)
        return _mini_batches(blocks, self._mini_batch_size, self.features, generator, self._assignment)

    def blocks(self) -> Iterator[Float32]:
        """Yield the rows of a pass, copied into blocks of some megabytes.

        Raises
        ------
        DataError
            If the number of rows has changed.
        """
        return _copied(_own(self._all(), self._assignment), self.features)

    def weighted_batches(self, epoch: int) -> Iterator[Batch]:
        """Yield the same as :meth:`batches`, without weights."""
        return map(Batch, self.batches(epoch))

    def weighted_blocks(self) -> Iterator[Batch]:
        """Yield the same as :meth:`blocks`, without weights."""
        return map(Batch, self.blocks())

    def _all(self) -> Iterator[Float32]:
        """Yield the blocks of a pass, and check its number of rows."""
        seen = 0
        for part in self._one_pass():
            seen += len(part)
            yield part
        if seen != self._numbers.stop:
            raise DataError(
                f"expected the {self._numbers.stop} rows that were read at first, found {seen}: the data changed"
            )


class PipedRows:
    """Rows that can be read once, such as those of a pipe.

    Memory holds the rows of the first pass, or a sample; each later epoch has other rows.

    Parameters
    ----------
    next_pass
        Begins the next pass, in blocks; each is valid until the next is requested. Called once for each epoch except
        the first, immediately before its rows are read. If hosts divide the rows, a pass has those of all hosts.
    numbers
        Numbers of the local rows among those of the first pass, which is over.
    held
        The local rows in memory, (m, d); if these aren't all, they have a separate order.
    mini_batch_size, seed, metric
        As for :class:`MemoryRows`.

    Attributes
    ----------
    seen
        Number of local rows of the first pass; ``len`` is the number of those in memory.
    """

    def __init__(
        self,
        next_pass: Pass,
        numbers: range,
        held: Float32,
        mini_batch_size: int = 5000,
        seed: int = 0,
        *,
        metric: Metric = EUCLIDEAN,
    ) -> None:
        self.seen = len(numbers)
        self.features = held.shape[1]
        self.coordinates: Coordinates | None = None
        self._next_pass = next_pass
        self._assignment = RowAssignment(numbers.start, numbers.step)
        self._numbers = numbers
        all_numbers = numbers if len(held) == len(numbers) else None
        self._held = MemoryRows(held, mini_batch_size, seed, all_numbers, metric=metric)
        self._mini_batch_size = mini_batch_size
        self._seed = seed

    def __len__(self) -> int:
        return len(self._held)

    @property
    def in_memory(self) -> MemoryRows:
        """The rows of the first pass that memory holds."""
        return self._held

    def prepared(self, metric: Metric) -> PipedRows:
        """Return the same rows prepared by ``metric``.

        Those in memory are prepared now, later passes as they are read.
        """
        try:
            held = self._held.prepared(metric).points
        except DataError as error:
            if len(self._held) < self.seen:
                error.row = None  # unknown for a sample
            raise
        next_pass = _prepared_pass(self._next_pass, metric)
        return PipedRows(next_pass, self._numbers, held, self._mini_batch_size, self._seed, metric=metric)

    def batches(self, epoch: int) -> Iterator[Float32]:
        """Yield mini-batches of ``epoch``.

        Epoch 0 has the rows in memory, a later one those of the next pass.
        """
        if epoch == 0:
            return self._held.batches(epoch)
        generator = np.random.default_rng((self._seed, epoch))
        blocks = _copied(self._next_pass(), self.features)
        return _mini_batches(blocks, self._mini_batch_size, self.features, generator, self._assignment)

    def blocks(self) -> Iterator[Float32]:
        """Yield the rows in memory."""
        return self._held.blocks()

    def weighted_batches(self, epoch: int) -> Iterator[Batch]:
        """Yield the same as :meth:`batches`; each row counts once."""
        return map(Batch, self.batches(epoch))

    def weighted_blocks(self) -> Iterator[Batch]:
        """Yield the same as :meth:`blocks`; each row counts once."""
        return map(Batch, self.blocks())


def _checked_weights(weights: ArrayLike, numbers: range) -> Float64:
    """Return ``weights`` as float64 (n,); ``numbers`` are their rows' numbers."""
    try:
        checked: Float64 = np.asarray(as_numbers(weights), dtype=np.float64)
    except DataError as error:
        raise error.within("weights") from None
    if checked.shape != (len(numbers),):
        raise DataError(f"expected a weight for each of the {len(numbers)} rows, found an array of {checked.shape}")
    is_wrong = ~((checked >= 0) & np.isfinite(checked))
    if is_wrong.any():
        first = int(is_wrong.argmax())
        raise DataError(
            f"expected a finite weight of at least 0, found {checked[first]:g}", row=int(numbers[first]) + 1
        )
    if len(checked) and not checked.any():
        raise DataError("expected a weight above 0, found only zeros")
    with np.errstate(over="ignore"):
        if not np.isfinite(checked.sum()):
            raise DataError("expected weights with a finite sum, found larger ones")
    return checked


def _prepared_pass(one_pass: Pass, metric: Metric) -> Pass:
    """Return the same passes with rows prepared by ``metric``.

    Errors name the row within the pass.
    """

    def blocks() -> Iterator[Float32]:
        seen = 0
        for block in one_pass():
            try:
                prepared = metric.prepare(block)
            except DataError as error:
                if error.row is not None:
                    error.row += seen
                raise
            yield prepared
            seen += len(block)

    return blocks


def _mini_batches(
    blocks: Iterator[Float32], size: int, features: int, generator: Generator, assignment: RowAssignment
) -> Iterator[Float32]:
    """Yield mini-batches of the rows, shuffled within each block.

    The remaining rows of a block begin the next mini-batch.
    If hosts divide the rows, yield the local rows of each mini-batch.
    """
    left, seen = np.empty((0, features), dtype=np.float32), 0
    left_is_own = np.empty(0, dtype=bool)
    for block in blocks:
        order = generator.permutation(len(block))
        rows = np.concatenate([left, block[order]])
        is_own = np.concatenate([left_is_own, (order + seen) % assignment.size == assignment.rank])
        seen += len(block)
        whole = len(rows) - len(rows) % size
        for first in range(0, whole, size):
            batch = slice(first, first + size)
            yield rows[batch] if assignment.size == 1 else rows[batch][is_own[batch]]
        left, left_is_own = rows[whole:], is_own[whole:]
    if len(left):
        yield left[left_is_own]


def _own(parts: Iterator[Float32], assignment: RowAssignment) -> Iterator[Float32]:
    """Yield this host's rows of ``parts``."""
    seen = 0
    for part in parts:
        yield assignment.own(part, seen)
        seen += len(part)


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


def bytes_per_row(features: int, hosts: int = 1) -> int:
    """Return the memory of a fit for each row with this number of ``features``.

    ``hosts`` is the number of hosts that divide the rows.
    """
    return 4 * features + BOOKKEEPING_BYTES + (hosts - 1) * OTHERS_BYTES


def load(
    one_pass: Pass, budget: int, mini_batch_size: int = 5000, seed: int = 0, assignment: RowAssignment | None = None
) -> MemoryRows | StreamedRows:
    """Read all rows and keep them, or a sample whose fit takes ``budget`` bytes.

    The sample is uniform.
    With an ``assignment`` the result has this host's rows only; it may have none.

    Raises
    ------
    DataError
        If there are no rows.
    """
    held, numbers = _read(one_pass(), budget, seed, assignment or RowAssignment())
    if len(numbers) == len(held):
        return MemoryRows(held, mini_batch_size, seed, numbers)
    return StreamedRows(one_pass, numbers, held, mini_batch_size, seed)


def load_once(
    next_pass: Pass, budget: int, mini_batch_size: int = 5000, seed: int = 0, assignment: RowAssignment | None = None
) -> PipedRows:
    """Do the same as :func:`load` with rows that can't be read again.

    Later passes have new rows.

    Raises
    ------
    DataError
        If there are no rows.
    """
    held, numbers = _read(next_pass(), budget, seed, assignment or RowAssignment())
    return PipedRows(next_pass, numbers, held, mini_batch_size, seed)


def _read(blocks: Iterator[Float32], budget: int, seed: int, assignment: RowAssignment) -> tuple[Float32, range]:
    """Return the local rows, or a sample, and the numbers of all local rows.

    The fit of the sample takes ``budget`` bytes.
    Once memory is full, row t replaces a random one with probability m / t (J. S. Vitter, "Random sampling with a
    reservoir", 1985, algorithm R).
    """
    generator = np.random.default_rng((seed, 1))
    held: Float32 | None = None
    read = seen = 0
    for block in blocks:
        if not len(block):
            continue
        if held is None:
            # As large as the budget allows: memory that is never written to costs nothing.
            capacity = max(1, budget // bytes_per_row(block.shape[1], assignment.size))
            held = np.empty((capacity, block.shape[1]), dtype=np.float32)
        own = assignment.own(block, read)
        read += len(block)
        fitting = max(0, min(len(held) - seen, len(own)))
        held[seen : seen + fitting] = own[:fitting]
        if fitting < len(own):
            rest = own[fitting:]
            number = np.arange(seen + fitting + 1, seen + len(own) + 1)
            kept = np.flatnonzero(generator.random(len(rest)) * number < len(held))
            held[generator.integers(0, len(held), len(kept))] = rest[kept]
        seen += len(own)
    if held is None:
        raise DataError("there are no rows")
    return held[:seen], assignment.numbers(read)
