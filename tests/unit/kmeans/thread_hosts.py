"""Hosts that are threads of this process, and meet at a barrier; they can note what they tell each other."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from kmeans.arrays import Float64
from kmeans.callbacks import Callbacks
from kmeans.collectives import Collectives, Scalar
from kmeans.errors import KMeansError

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


class ThreadHosts(Collectives):
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


class Message(NamedTuple):
    """What a host brought to an exchange, and what the fit last said of itself before: its phase, or a step of it."""

    kind: str
    numbers: int
    after: str


class RecordingHosts(Collectives):
    """Any host, which notes its messages.

    Attributes
    ----------
    messages
        All, in their order.
    observer
        To be given to the fit; tells what it is at.
    told
        What the fit said of itself.
    """

    def __init__(self, hosts: ThreadHosts) -> None:
        self._hosts = hosts
        self.rank, self.size = hosts.rank, hosts.size
        self.messages: list[Message] = []
        self.told = ["start"]
        self.callbacks: Callbacks = _Listener(self.told)

    def kinds(self, kind: str, *after: str) -> list[int]:
        """Return how many numbers each message of this kind had, after any of these events or at any time."""
        return [
            message.numbers
            for message in self.messages
            if message.kind == kind and (not after or message.after in after)
        ]

    def sum(self, values: Float64) -> Float64:
        self._note("sum", values)
        return self._hosts.sum(values)

    def broadcast(self, values: NDArray[Scalar]) -> NDArray[Scalar]:
        values = self._hosts.broadcast(values)
        self._note("broadcast", values)
        return values

    def gather(self, rows: NDArray[Scalar]) -> NDArray[Scalar]:
        self._note("gather", rows)
        return self._hosts.gather(rows)

    def _note(self, kind: str, values: NDArray[Any]) -> None:
        self.messages.append(Message(kind, values.size, self.told[-1]))


class _Listener(Callbacks):
    """Records the names of the steps."""

    def __init__(self, told: list[str]) -> None:
        self._told = told

    def seeded(self, **_: object) -> None:
        self._told.append("seeded")

    def batch_done(self, **_: object) -> None:
        self._told.append("batch")

    def shrink_started(self, **_: object) -> None:
        self._told.append("shrinking")

    def refine_started(self, **_: object) -> None:
        self._told.append("refining")

    def refine_pass(self, **_: object) -> None:
        self._told.append("pass")

    def phase_done(self, *, phase: str, **_: object) -> None:
        self._told.append(f"{phase} done")


def on_all_hosts(size: int, work: Callable[[ThreadHosts], T]) -> list[T | BaseException]:
    """Run ``work`` on several hosts at once; return each one's result or error."""
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
