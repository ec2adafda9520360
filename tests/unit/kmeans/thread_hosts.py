"""Hosts that are threads of this process, and meet at a barrier."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from kmeans.arrays import Float64
from kmeans.errors import KMeansError
from kmeans.hosts import Scalar

T = TypeVar("T")

DEADLINE_SECONDS = 60.0


class Meeting:
    """Where the hosts of a group exchange what they have."""

    def __init__(self, size: int) -> None:
        self._barrier = threading.Barrier(size, timeout=DEADLINE_SECONDS)
        self._brought: list[Any] = [None] * size

    def exchange(self, rank: int, thing: Any) -> list[Any]:
        self._brought[rank] = thing
        self._barrier.wait()
        everything = list(self._brought)
        self._barrier.wait()
        return everything

    def leave(self) -> None:
        """Make who waits for a host that failed fail too, instead of waiting for ever."""
        self._barrier.abort()


class ThreadHosts:
    """A host that is a thread."""

    def __init__(self, rank: int, size: int, meeting: Meeting) -> None:
        self.rank = rank
        self.size = size
        self._meeting = meeting

    def sum(self, values: Float64) -> Float64:
        total: Float64 = np.sum(self._meeting.exchange(self.rank, values), axis=0)
        return total

    def broadcast(self, values: NDArray[Scalar]) -> NDArray[Scalar]:
        leaders: NDArray[Scalar] = self._meeting.exchange(self.rank, values)[0].copy()
        return leaders

    def gather(self, rows: NDArray[Scalar]) -> NDArray[Scalar]:
        brought = self._meeting.exchange(self.rank, rows)
        return np.concatenate(brought) if self.rank == 0 else rows[:0]


def on_all_hosts(size: int, work: Callable[[ThreadHosts], T]) -> list[T | BaseException]:
    """Do ``work`` on so many hosts at once; return what each returned or how it failed."""
    meeting = Meeting(size)
    outcomes: list[T | BaseException] = [RuntimeError("not ended")] * size

    def host(rank: int) -> None:
        try:
            outcomes[rank] = work(ThreadHosts(rank, size, meeting))
        except BaseException as error:
            outcomes[rank] = error
            if not isinstance(error, KMeansError):
                meeting.leave()

    threads = [threading.Thread(target=host, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes
