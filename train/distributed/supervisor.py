"""Supervisor of a job on several hosts: a process in each container that trains nothing and watches its rank.

The hosts form a star. The leader, the first by name (:mod:`train.distributed.leader`), listens; the followers
(:mod:`train.distributed.follower`) connect to it, whenever they start. When all are connected, each supervisor starts
its rank of MPI (:mod:`train.distributed.rank`). Then the star ensures that all hosts succeed or all fail, that all
report the same cause, and that every wait has a deadline. MPI can't do that: a rank whose peer died may wait forever.

The leader's rank writes the model before any rank is done, and no host ends before all ranks are.
"""

from __future__ import annotations

import math
import selectors
import signal
import socket
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from kmeans.errors import ResourceError
from train.config import HostNames
from train.distributed.messages import Link, LinkError, Message
from train.failure import Failure, StoppedError

# The leader listens here.
PORT = 10011
# Clocks are looked at this often, in seconds.
TICK = 0.1


@dataclass(frozen=True, slots=True)
class Deadlines:
    """How long is waited for what, in seconds.

    Attributes
    ----------
    arrival
        For all hosts to come to the leader. Machines of one job start minutes apart, and names may resolve late.
    silence
        For the next sign of life of a host, and of a rank.
    heartbeat
        Between two of these.
    start
        For the ranks to be connected, once all hosts are there.
    stop
        For the rank to end by itself after a stop signal. SageMaker kills the containers after 30 s.
    goodbye
        For the other hosts to hear how the job ended, for those that have not come yet to hear why it failed, and for
        processes to end that are done.
    """

    arrival: float = 300.0
    silence: float = 30.0
    heartbeat: float = 1.0
    start: float = 60.0
    stop: float = 20.0
    goodbye: float = 5.0


class Launcher(Protocol):
    """What starts and ends ranks; :class:`train.distributed.launcher.HydraLauncher` is one."""

    def lead(self, names: Sequence[str]) -> int:
        """Get ready for the ranks of the hosts ``names``; return the port at which this waits for them."""

    def join(self, leader: str, port: int, rank: int) -> Link:
        """Start rank number ``rank``, which goes to ``port`` of the address ``leader``; return the link to it."""

    def started(self, process: int) -> None:
        """Remember the rank's process id."""

    def stop(self, number: int) -> bool:
        """Send the signal ``number`` to the rank; return whether there is one."""

    def wait(self, seconds: float) -> None:
        """Wait at most so many ``seconds`` for the end of all processes, then end them."""


class Supervisor(ABC):
    """What the leader and the workers have in common: a rank, the clocks, the end.

    All that happens is told to one of the methods below, in one thread. The first that knows the outcome sets it.

    Parameters
    ----------
    hosts
        The machines of the job.
    launcher
        Starts and ends this one's rank.
    say
        Writes a line into the log.
    deadlines, port
        As above; the same on all hosts.
    """

    def __init__(
        self,
        hosts: HostNames,
        launcher: Launcher,
        say: Callable[[str], None],
        deadlines: Deadlines | None = None,
        port: int = PORT,
    ) -> None:
        self._hosts, self._launcher, self._say = hosts, launcher, say
        self._deadlines, self._port = deadlines or Deadlines(), port
        self._selector = selectors.DefaultSelector()
        self._callbacks: dict[object, Callable[[], None]] = {}
        self._rank: Link | None = None
        self._rank_has_ended = self._model_is_written = self._is_over = False
        self._stop_signal: int | None = None
        self._failure: Failure | None = None
        self._last_heartbeat = self._last_turn = time.monotonic()
        self._ends: dict[str, float] = {}  # of the deadlines that run now
        self._prepare()

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Stop the rank by the signal ``number``, as it stops a job on one host; a signal's handler may call this.

        The first signal counts.
        """
        self._stop_signal = self._stop_signal or number

    def run(self) -> Failure | None:
        """Take part in the job until it has ended on all hosts; return why it failed, or None."""
        try:
            self._open()
            while not self._is_over:
                self._poll_once()
        except Exception as error:
            # Whatever goes wrong here, the other hosts shall hear of it.
            failure = self._failure_of(error)
            if failure.is_defect:
                traceback.print_exc()
            self._fail(failure)
        self._close()
        return self._failure

    @abstractmethod
    def _prepare(self) -> None:
        """Set the attributes of a leader or a worker."""

    @abstractmethod
    def _open(self) -> None:
        """Begin to meet the other hosts."""

    @abstractmethod
    def _links(self) -> list[Link]:
        """Return the open links to other hosts of the job."""

    @abstractmethod
    def _forget(self, link: Link) -> None:
        """Close the link to another host."""

    @abstractmethod
    def _rank_is_done(self) -> None:
        """Go on when this host's rank has done its part."""

    @abstractmethod
    def _fail(self, failure: Failure, *, certain: bool = True) -> None:
        """End the job for ``failure``; if it is not ``certain``, only if no better cause is known to another host."""

    @abstractmethod
    def _pass_on_stop(self, number: int) -> None:
        """Let the leader's rank stop too, when this host's was told to: some things it does alone."""

    @abstractmethod
    def _drain(self) -> None:
        """Wait a short time for hosts that shall still hear how the job ended."""

    def _end(self, failure: Failure | None) -> None:
        """Set the outcome."""
        self._failure, self._is_over = failure, True

    def _failure_of(self, error: Exception) -> Failure:
        return Failure.of(error).at(self._hosts.current)

    def _lost(self, host: str, why: str) -> None:
        self._fail(Failure.of(ResourceError(why)).at(host))

    def _listen(self) -> None:
        """Hear what comes within a moment."""
        was_over = self._is_over
        for key, _ in self._selector.select(TICK):
            # What was told just before may have closed it, or ended the job.
            callback = self._callbacks.get(key.fileobj)
            if callback is not None and self._is_over == was_over:
                callback()

    def _poll_once(self) -> None:
        """Listen for a moment, then look at the clock."""
        self._listen()
        if self._is_over:
            return
        now = time.monotonic()
        stood_still = now >= self._last_turn + self._deadlines.silence / 2
        self._last_turn = now
        if now >= self._last_heartbeat + self._deadlines.heartbeat:
            self._last_heartbeat = now
            for link in self._links():
                link.send(Message("alive"))
        for link in self._links():
            link.flush()
        # After a pause of this machine itself, what came meanwhile is heard first: it knows better who was silent.
        if not stood_still:
            self._check_deadlines(now)
        elif self._rank is not None:
            self._rank.heard = now  # it stood still too

    def _check_deadlines(self, now: float) -> None:
        if self._stop_signal is not None and "stop" not in self._ends:
            is_told = self._launcher.stop(self._stop_signal)
            self._ends["stop"] = now + self._deadlines.stop if is_told else now
            if is_told:
                self._pass_on_stop(self._stop_signal)
        if self._is_late("stop", now):
            self._ends["stop"] = math.inf
            if self._model_is_written:
                self._rank_has_ended = True
                self._rank_is_done()
            else:
                self._fail(self._failure_of(StoppedError(self._stop_signal or signal.SIGTERM)))
        if (
            self._rank is not None
            and "start" not in self._ends
            and not self._rank_has_ended
            and self._is_silent(self._rank, now)
        ):
            error = ResourceError(
                f"no sign of life came from the training process for {self._deadlines.silence:.0f} s. It stands still: "
                "perhaps its machine has no memory left."
            )
            self._fail(self._failure_of(error))
        if self._is_late("start", now):
            error = ResourceError(
                f"the training process was not connected to those of the other hosts after {self._deadlines.start:.0f} "
                "s. The containers of a job must reach each other at any port."
            )
            self._fail(self._failure_of(error))

    def _is_late(self, deadline: str, now: float) -> bool:
        return now >= self._ends.get(deadline, math.inf)

    def _is_silent(self, link: Link, now: float) -> bool:
        return now >= link.heard + self._deadlines.silence

    def _silence(self) -> str:
        return (
            f"no sign of life came from it for {self._deadlines.silence:.0f} s. Its machine stands still, or is "
            "cut off from the network."
        )

    def _watch(self, end: Link | socket.socket, callback: Callable[[], None]) -> None:
        if end not in self._callbacks:
            self._selector.register(end, selectors.EVENT_READ)
        self._callbacks[end] = callback

    def _unwatch(self, end: Link | socket.socket) -> None:
        if self._callbacks.pop(end, None) is not None:
            self._selector.unregister(end)
        end.close()

    def _start_rank(self, leader: str, port: int) -> None:
        rank = self._launcher.join(leader, port, self._hosts.rank)
        self._ends["start"] = time.monotonic() + self._deadlines.start
        self._rank = rank
        self._watch(rank, lambda: self._on_rank_message(rank))

    def _on_rank_message(self, rank: Link) -> None:
        try:
            messages = rank.receive()
        except LinkError:
            self._unwatch(rank)
            self._rank = None
            self._rank_is_gone("ended without giving a reason. The log may say more.")
            return
        for message in messages:
            if message.kind == "started":
                self._launcher.started(message.number)
            elif message.kind == "ready":
                self._ends.pop("start", None)
            elif message.kind == "written":
                self._model_is_written = True
            elif message.kind == "done":
                self._rank_has_ended = True
                self._rank_is_done()
            elif message.kind == "failed":
                self._rank_has_ended = True
                failure = Failure(message.text, message.number).at(self._hosts.current)
                self._fail(failure, certain=message.certain)
            elif message.kind in ("killed", "ended"):
                self._on_exit_report(message)

    def _on_exit_report(self, message: Message) -> None:
        """Hear how the rank's process ended, from its parent."""
        if message.kind == "ended":
            self._rank_is_gone(f"ended with exit code {message.number}, without a reason. The log may say more.")
        elif message.number != signal.SIGKILL:
            self._rank_is_gone(f"was ended by {_signal_name(message.number)}. The log may say more.")
        else:
            # Only the system or a person does that: MPI ends a rank in other ways, its launcher a rank and its witness
            # together, and so does this process, when all is over.
            self._rank_is_gone(
                "was killed by SIGKILL, perhaps because its machine had no memory left: choose an instance with more.",
                certain=True,
            )

    def _rank_is_gone(self, how: str, *, certain: bool = False) -> None:
        """Fail, unless the rank has said itself how it ended; if not ``certain``, MPI may have ended it for another."""
        if self._rank_has_ended:
            return
        self._rank_has_ended = True
        error: Exception = ResourceError(f"the training process {how}")
        if self._stop_signal is not None and not certain:
            error = StoppedError(self._stop_signal)
        self._fail(self._failure_of(error), certain=certain)

    def _close(self) -> None:
        """End the processes of this host, and let the others hear what was said last."""
        if self._failure is not None:
            self._launcher.wait(0)
        for link in self._links():
            link.finish()
        self._drain()
        end = time.monotonic() + self._deadlines.goodbye
        while self._links() and time.monotonic() < end:
            woken = [key.fileobj for key, _ in self._selector.select(TICK)]
            if self._rank is not None and self._rank in woken:
                self._on_rank_message(self._rank)  # ignored, but unread it would wake this loop again
            for link in self._links():
                try:
                    link.receive()
                except LinkError:
                    self._forget(link)
        if self._failure is None:
            self._launcher.wait(self._deadlines.goodbye)
        for watched in list(self._callbacks):
            assert isinstance(watched, Link | socket.socket)  # noqa: S101 - for the type checker
            self._unwatch(watched)
        self._selector.close()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"
