"""A host that goes to the leader, and does what the star agrees on."""

from __future__ import annotations

import socket
import threading
import time

import kmeans
from train.distributed.messages import Link, LinkError, Message
from train.distributed.supervisor import Supervisor
from train.failure import Failure

# Time for one attempt to connect to the leader, and between two of them, in seconds.
CONNECT_TIMEOUT, CONNECT_PAUSE = 5.0, 0.2


class Follower(Supervisor):
    """Watches over the job on any host but the first; parameters as of :class:`train.distributed.supervisor.Host`."""

    def _prepare(self) -> None:
        self._leader: Link | None = None
        self._connection: socket.socket | None = None
        self._trouble = "nobody answered"
        self._is_going = False
        self._closing = threading.Event()

    def _open(self) -> None:
        self._ends["arrival"] = time.monotonic() + self._deadlines.arrival
        self._say(f"going to {self._hosts.leader}, port {self._port}")
        # Beside the main thread: to look up a name that isn't known yet may take long, and SIGTERM shall be heard.
        threading.Thread(target=self._connect, daemon=True).start()

    def _connect(self) -> None:
        while not self._closing.is_set():
            try:
                self._connection = socket.create_connection((_address(self._hosts.leader), self._port), CONNECT_TIMEOUT)
                return
            except UnicodeError as error:  # the name can be none of the network's
                self._trouble = str(error)
            except OSError as error:
                self._trouble = str(error.strerror or error)
            self._closing.wait(CONNECT_PAUSE)

    def _links(self) -> list[Link]:
        return [self._leader] if self._leader is not None else []

    def _forget(self, link: Link) -> None:
        self._unwatch(link)
        self._leader = None

    def _on_leader_message(self, link: Link) -> None:
        try:
            messages = link.receive()
        except LinkError as error:
            self._forget(link)
            self._lost(self._hosts.leader, f"it ended without a word, {error} The log of that host may say more.")
            return
        for message in messages:
            if message.kind == "go" and not self._is_going:
                self._is_going = True
                self._start_rank(link.peer(), message.number)
            elif message.kind == "done":
                self._end(None)
            elif message.kind == "failed":
                self._end(Failure(message.text, message.number))

    def _rank_is_done(self) -> None:
        for link in self._links():
            link.send(Message("done"))

    def _pass_on_stop(self, number: int) -> None:
        for link in self._links():
            link.send(Message("stop", number=number))

    def _fail(self, failure: Failure, *, certain: bool = True) -> None:
        if self._is_over:
            return
        for link in self._links():
            link.send(Message("failed", text=failure.reason, number=failure.exit_code, certain=certain))
        # The leader knows better, and says so; if it doesn't, it is lost, and that is the cause.
        if certain or not self._links():
            self._end(failure)

    def _drain(self) -> None:
        """Nobody comes to a worker."""

    def _check_deadlines(self, now: float) -> None:
        super()._check_deadlines(now)
        if self._connection is not None:
            link, self._connection = Link(self._connection), None
            self._leader = link
            self._watch(link, lambda: self._on_leader_message(link))
            self._ends.pop("arrival")
            link.send(Message("hello", host=self._hosts.current, text=kmeans.__version__))
        if self._is_late("arrival", now):
            self._lost(
                self._hosts.leader,
                f"it could not be reached at port {self._port} within {self._deadlines.arrival:.0f} s: "
                f"{self._trouble}. Start `train` on all hosts, each with the same hosts in resourceconfig.json.",
            )
        for leader in self._links():
            if self._is_silent(leader, now):
                self._lost(self._hosts.leader, self._silence())
                self._forget(leader)

    def _close(self) -> None:
        self._closing.set()
        super()._close()
        if self._connection is not None:
            self._connection.close()


def _address(name: str) -> str:
    """Return ``name`` as it is looked up: one of digits alone would be taken for an address, but for a final dot."""
    return f"{name}." if name.isdigit() else name
