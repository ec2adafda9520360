"""The supervisor of every host but the first: it connects to the leader."""

from __future__ import annotations

import socket
import threading
import time

import kmeans
from train.distributed.messages import Message, MessageError, MessageSocket
from train.distributed.supervisor import Supervisor
from train.failure import Failure

# Time for one attempt to connect to the leader, and between two of them, in seconds.
CONNECT_TIMEOUT, CONNECT_PAUSE = 5.0, 0.2


class Follower(Supervisor):
    """Supervises the job on a follower; parameters as of :class:`train.distributed.supervisor.Supervisor`."""

    def _prepare(self) -> None:
        self._leader: MessageSocket | None = None
        self._connection: socket.socket | None = None
        self._last_error = "nobody answered"
        self._is_started = False
        self._closing = threading.Event()

    def _open(self) -> None:
        self._expirations["arrival"] = time.monotonic() + self._deadlines.arrival
        self._say(f"going to {self._hosts.leader}, port {self._port}")
        # In another thread: looking up a name that isn't known yet may take long, and a stop must not wait for that.
        threading.Thread(target=self._connect, daemon=True).start()

    def _connect(self) -> None:
        while not self._closing.is_set():
            try:
                self._connection = socket.create_connection((_address(self._hosts.leader), self._port), CONNECT_TIMEOUT)
                return
            except UnicodeError as error:  # not a valid host name
                self._last_error = str(error)
            except OSError as error:
                self._last_error = str(error.strerror or error)
            self._closing.wait(CONNECT_PAUSE)

    def _sockets(self) -> list[MessageSocket]:
        return [self._leader] if self._leader is not None else []

    def _drop(self, peer: MessageSocket) -> None:
        self._unwatch(peer)
        self._leader = None

    def _on_leader_message(self, leader: MessageSocket) -> None:
        try:
            messages = leader.receive()
        except MessageError as error:
            self._drop(leader)
            self._fail_for_host(
                self._hosts.leader, f"it ended without a word, {error} The log of that host may say more."
            )
            return
        for message in messages:
            if message.kind == "go" and not self._is_started:
                self._is_started = True
                self._start_rank(leader.peer(), message.number)
            elif message.kind == "done":
                self._end(None)
            elif message.kind == "failed":
                self._end(Failure(message.text, message.number))

    def _on_rank_done(self) -> None:
        for leader in self._sockets():
            leader.send(Message("done"))

    def _forward_stop(self, number: int) -> None:
        for leader in self._sockets():
            leader.send(Message("stop", number=number))

    def _fail(self, failure: Failure, *, certain: bool = True) -> None:
        if self._is_over:
            return
        for leader in self._sockets():
            leader.send(Message("failed", text=failure.reason, number=failure.exit_code, certain=certain))
        # The leader knows the cause and sends it; if it does not, it is lost, and that is the cause.
        if certain or not self._sockets():
            self._end(failure)

    def _drain(self) -> None:
        """No-op: followers accept no connections."""

    def _check_deadlines(self, now: float) -> None:
        super()._check_deadlines(now)
        if self._connection is not None:
            connected, self._connection = MessageSocket(self._connection), None
            self._leader = connected
            self._watch(connected, lambda: self._on_leader_message(connected))
            self._expirations.pop("arrival")
            connected.send(Message("hello", host=self._hosts.current, text=kmeans.__version__))
        if self._is_expired("arrival", now):
            self._fail_for_host(
                self._hosts.leader,
                f"it could not be reached at port {self._port} within {self._deadlines.arrival:.0f} s: "
                f"{self._last_error}. Start `train` on all hosts, each with the same hosts in resourceconfig.json.",
            )
        for leader in self._sockets():
            if self._is_silent(leader, now):
                self._fail_for_host(self._hosts.leader, self._silence_reason())
                self._drop(leader)

    def _close(self) -> None:
        self._closing.set()
        super()._close()
        if self._connection is not None:
            self._connection.close()


def _address(name: str) -> str:
    """Return ``name`` for a look-up; a name of digits only gets a final dot, without which it would be an address."""
    return f"{name}." if name.isdigit() else name
