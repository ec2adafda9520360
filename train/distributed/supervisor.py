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
from train.distributed.messages import Message, MessageError, MessageSocket
from train.failure import Failure, StoppedError

# The leader listens at this port.
PORT = 10011
# Longest wait for events, in seconds: deadlines are checked at least this often.
POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Deadlines, in seconds.

    Attributes
    ----------
    arrival
        For all hosts to connect to the leader. Machines of a job start minutes apart, and names may resolve late.
    silence
        For the next message of a host, and of a rank.
    heartbeat
        Between two messages that show that a host or a rank is alive.
    start
        For the ranks to be connected, once all hosts are.
    stop
        For the rank to end by itself after a stop signal. SageMaker kills the containers after 30 s.
    drain
        For the other hosts to receive the outcome, for hosts that have not connected yet to receive the reason of a
        failure, and for processes to exit that are done.
    """

    arrival: float = 300.0
    silence: float = 30.0
    heartbeat: float = 1.0
    start: float = 60.0
    stop: float = 20.0
    drain: float = 5.0


class Launcher(Protocol):
    """Starts and ends ranks; :class:`train.distributed.launcher.HydraLauncher` implements it."""

    def start_mpiexec(self, names: Sequence[str]) -> int:
        """Prepare for a rank on each of the hosts ``names``; return the port at which mpiexec waits for them."""

    def start_rank(self, leader: str, port: int, rank: int) -> MessageSocket:
        """Start rank number ``rank``, which connects to ``port`` of ``leader``; return the socket to it."""

    def set_rank_process(self, process: int) -> None:
        """Set the process id of the rank."""

    def signal_rank(self, number: int) -> bool:
        """Send the signal ``number`` to the rank; return whether there is one."""

    def wait(self, seconds: float) -> None:
        """Wait at most ``seconds`` for the end of all processes, then kill them."""


class Supervisor(ABC):
    """What the leader and the followers have in common: a rank, deadlines, the end of the job.

    One thread calls the methods below for each event. The first that knows the outcome sets it.

    Parameters
    ----------
    hosts
        The machines of the job.
    launcher
        Starts and ends the rank of this host.
    say
        Writes a log line.
    deadlines, port
        The same on all hosts; defaults: those above.
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
        self._rank: MessageSocket | None = None
        self._rank_has_ended = self._model_is_written = self._is_over = False
        self._stop_signal: int | None = None
        self._failure: Failure | None = None
        self._last_heartbeat = self._last_poll = time.monotonic()
        self._expirations: dict[str, float] = {}  # times of the deadlines that run now
        self._prepare()

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Stop the rank by the signal ``number``, as it stops a job on one host; a signal's handler may call this.

        The first signal counts.
        """
        self._stop_signal = self._stop_signal or number

    def run(self) -> Failure | None:
        """Supervise the job until it has ended on all hosts; return why it failed, or None."""
        try:
            self._open()
            while not self._is_over:
                self._poll_once()
        except Exception as error:
            # The other hosts must receive any error of this one.
            failure = self._failure_here(error)
            if failure.is_defect:
                traceback.print_exc()
            self._fail(failure)
        self._close()
        return self._failure

    @abstractmethod
    def _prepare(self) -> None:
        """Set the attributes of a leader or a follower."""

    @abstractmethod
    def _open(self) -> None:
        """Begin to connect to the other hosts."""

    @abstractmethod
    def _sockets(self) -> list[MessageSocket]:
        """Return the open sockets to other hosts of the job."""

    @abstractmethod
    def _drop(self, peer: MessageSocket) -> None:
        """Close the socket to another host."""

    @abstractmethod
    def _on_rank_done(self) -> None:
        """Handle that this host's rank is done."""

    @abstractmethod
    def _fail(self, failure: Failure, *, certain: bool = True) -> None:
        """End the job for ``failure``; if it is not ``certain``, only if no other host knows the cause."""

    @abstractmethod
    def _forward_stop(self, number: int) -> None:
        """Stop the leader's rank too, after this host's: it does some work alone, while the others wait."""

    @abstractmethod
    def _drain(self) -> None:
        """Wait a short time for hosts that must still receive the outcome."""

    def _end(self, failure: Failure | None) -> None:
        """Set the outcome."""
        self._failure, self._is_over = failure, True

    def _failure_here(self, error: Exception) -> Failure:
        return Failure.of(error).at(self._hosts.current)

    def _fail_for_host(self, host: str, why: str) -> None:
        self._fail(Failure.of(ResourceError(why)).at(host))

    def _process_events(self) -> None:
        """Wait for events for a moment, and handle them."""
        was_over = self._is_over
        for key, _ in self._selector.select(POLL_SECONDS):
            # The event before may have closed it, or ended the job.
            callback = self._callbacks.get(key.fileobj)
            if callback is not None and self._is_over == was_over:
                callback()

    def _poll_once(self) -> None:
        """Handle the events of a moment, send heartbeats, and check the deadlines."""
        self._process_events()
        if self._is_over:
            return
        now = time.monotonic()
        was_paused = now >= self._last_poll + self._deadlines.silence / 2
        self._last_poll = now
        if now >= self._last_heartbeat + self._deadlines.heartbeat:
            self._last_heartbeat = now
            for peer in self._sockets():
                peer.send(Message("alive"))
        for peer in self._sockets():
            peer.flush()
        # If this machine itself was paused, messages that arrived meanwhile come first: silence was its own.
        if not was_paused:
            self._check_deadlines(now)
        elif self._rank is not None:
            self._rank.last_received = now  # it was paused too

    def _check_deadlines(self, now: float) -> None:
        if self._stop_signal is not None and "stop" not in self._expirations:
            is_sent = self._launcher.signal_rank(self._stop_signal)
            self._expirations["stop"] = now + self._deadlines.stop if is_sent else now
            if is_sent:
                self._forward_stop(self._stop_signal)
        if self._is_expired("stop", now):
            self._expirations["stop"] = math.inf
            if self._model_is_written:
                self._rank_has_ended = True
                self._on_rank_done()
            else:
                self._fail(self._failure_here(StoppedError(self._stop_signal or signal.SIGTERM)))
        if (
            self._rank is not None
            and "start" not in self._expirations
            and not self._rank_has_ended
            and self._is_silent(self._rank, now)
        ):
            error = ResourceError(
                f"no sign of life came from the training process for {self._deadlines.silence:.0f} s. It stands still: "
                "perhaps its machine has no memory left."
            )
            self._fail(self._failure_here(error))
        if self._is_expired("start", now):
            error = ResourceError(
                f"the training process was not connected to those of the other hosts after {self._deadlines.start:.0f} "
                "s. The containers of a job must reach each other at any port."
            )
            self._fail(self._failure_here(error))

    def _is_expired(self, deadline: str, now: float) -> bool:
        return now >= self._expirations.get(deadline, math.inf)

    def _is_silent(self, peer: MessageSocket, now: float) -> bool:
        return now >= peer.last_received + self._deadlines.silence

    def _silence_reason(self) -> str:
        return (
            f"no sign of life came from it for {self._deadlines.silence:.0f} s. Its machine stands still, or is "
            "cut off from the network."
        )

    def _watch(self, end: MessageSocket | socket.socket, callback: Callable[[], None]) -> None:
        if end not in self._callbacks:
            self._selector.register(end, selectors.EVENT_READ)
        self._callbacks[end] = callback

    def _unwatch(self, end: MessageSocket | socket.socket) -> None:
        if self._callbacks.pop(end, None) is not None:
            self._selector.unregister(end)
        end.close()

    def _start_rank(self, leader: str, port: int) -> None:
        rank = self._launcher.start_rank(leader, port, self._hosts.rank)
        self._expirations["start"] = time.monotonic() + self._deadlines.start
        self._rank = rank
        self._watch(rank, lambda: self._on_rank_message(rank))

    def _on_rank_message(self, rank: MessageSocket) -> None:
        try:
            messages = rank.receive()
        except MessageError:
            self._unwatch(rank)
            self._rank = None
            self._on_rank_exit("ended without giving a reason. The log may say more.")
            return
        for message in messages:
            if message.kind == "started":
                self._launcher.set_rank_process(message.number)
            elif message.kind == "ready":
                self._expirations.pop("start", None)
            elif message.kind == "written":
                self._model_is_written = True
            elif message.kind == "done":
                self._rank_has_ended = True
                self._on_rank_done()
            elif message.kind == "failed":
                self._rank_has_ended = True
                failure = Failure(message.text, message.number).at(self._hosts.current)
                self._fail(failure, certain=message.certain)
            elif message.kind in ("killed", "ended"):
                self._on_exit_report(message)

    def _on_exit_report(self, message: Message) -> None:
        """Handle the exit reporter's message about how the rank ended."""
        if message.kind == "ended":
            self._on_rank_exit(f"ended with exit code {message.number}, without a reason. The log may say more.")
        elif message.number != signal.SIGKILL:
            self._on_rank_exit(f"was ended by {_signal_name(message.number)}. The log may say more.")
        else:
            # The system or a person did that: MPI ends a rank in other ways, and its launcher and this process kill
            # a rank together with its exit reporter.
            self._on_rank_exit(
                "was killed by SIGKILL, perhaps because its machine had no memory left: choose an instance with more.",
                certain=True,
            )

    def _on_rank_exit(self, how: str, *, certain: bool = False) -> None:
        """Fail, unless the rank itself has reported its end; if not ``certain``, MPI may have ended it for another."""
        if self._rank_has_ended:
            return
        self._rank_has_ended = True
        error: Exception = ResourceError(f"the training process {how}")
        if self._stop_signal is not None and not certain:
            error = StoppedError(self._stop_signal)
        self._fail(self._failure_here(error), certain=certain)

    def _close(self) -> None:
        """End the processes of this host, and wait until the others have received the last messages."""
        if self._failure is not None:
            self._launcher.wait(0)
        for peer in self._sockets():
            peer.finish()
        self._drain()
        end = time.monotonic() + self._deadlines.drain
        while self._sockets() and time.monotonic() < end:
            woken = [key.fileobj for key, _ in self._selector.select(POLL_SECONDS)]
            if self._rank is not None and self._rank in woken:
                self._on_rank_message(self._rank)  # ignored; unread, it would wake this loop again
            for peer in self._sockets():
                try:
                    peer.receive()
                except MessageError:
                    self._drop(peer)
        if self._failure is None:
            self._launcher.wait(self._deadlines.drain)
        for watched in list(self._callbacks):
            assert isinstance(watched, MessageSocket | socket.socket)  # noqa: S101 - for the type checker
            self._unwatch(watched)
        self._selector.close()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"
