"""A digest of rows by which a job that starts again knows its data, however they are dealt to hosts and read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kmeans.arrays import Float32
from kmeans.collectives import Collectives
from kmeans.dataset import Pass, RowAssignment

# Any factors would do, but they must be the same in each run.
_SEED = 20_170_411

_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)

_SHORT_DIGEST_BYTES = 8


class Fingerprint:
    """The sum, modulo 2^64, of a number made of each row's bits: any order of the rows gives the same.

    It is there for changes that happen, not for those that someone devises. All bits of a row have a say in its number,
    by an odd factor for each two columns (J. L. Carter and M. N. Wegman, "Universal classes of hash functions", 1979).
    """

    def __init__(self) -> None:
        self._is_complete = False
        self._total = np.zeros(1, dtype=np.uint64)
        self._factors: NDArray[np.uint64] | None = None

    def restart(self) -> None:
        """Forget the rows, which are read again in other coordinates."""
        self._is_complete = False
        self._total[:] = 0

    def over(self, one_pass: Pass, assignment: RowAssignment | None = None) -> Pass:
        """Return the same pass, whose rows are taken in on their way when it is made for the first time.

        With an ``assignment`` only the local rows are included.
        """
        assignment = assignment or RowAssignment()

        def blocks() -> Iterator[Float32]:
            seen = 0
            for block in one_pass():
                if not self._is_complete:
                    self._add(assignment.own(block, seen))
                    seen += len(block)
                yield block
            self._is_complete = True

        return blocks

    def text(self, hosts: Collectives) -> str:
        """Return the digest of the rows that all ``hosts`` have taken in, 16 hexadecimal digits."""
        # In halves, of which float64 holds the sums over any number of hosts exactly.
        halves = np.concatenate([self._total & _LOW, self._total >> _HALF]).astype(np.float64)
        low, high = hosts.sum(halves).astype(np.uint64).tolist()
        return f"{(low + (high << 32)) % (1 << 64):016x}"

    def _add(self, block: Float32) -> None:
        columns = block.shape[1]
        if self._factors is None:
            generator = np.random.default_rng(_SEED)
            self._factors = generator.integers(0, 1 << 63, columns // 2 + 1, dtype=np.uint64) * 2 + 1
        bits = block.view(np.uint32)
        numbers = bits[:, : columns - columns % 2].view(np.uint64) @ self._factors[:-1]
        if columns % 2:
            numbers = numbers + bits[:, -1] * self._factors[-1]
        # Without a step that is no sum, rows that exchange columns would go unnoticed.
        numbers ^= numbers >> _HALF
        numbers *= numbers | np.uint64(1)
        self._total += numbers.sum(dtype=np.uint64)


def short_digest(*arrays: NDArray[Any] | None) -> bytes:
    """Return 8 bytes of a SHA-256 over the arrays' bytes, in C order; None adds nothing."""
    digest = hashlib.sha256()
    for array in arrays:
        if array is not None:
            digest.update(np.ascontiguousarray(array).data)
    return digest.digest()[:_SHORT_DIGEST_BYTES]
