"""The supervisor of the first host: all others connect to it, and it decides how the job ended."""

from __future__ import annotations

import functools
import os
import signal
import socket
import time

import kmeans
from kmeans.errors import ResourceError, shown
from train.distributed.messages import Message, MessageError, MessageSocket
from train.distributed.supervisor import Supervisor
from train.failure import Failure

# Limit of the connections whose peers have not identified themselves yet.
MAX_UNIDENTIFIED = 64


class Leader(Supervisor):
    """Supervises the job on the first host; parameters as of :class:`train.distributed.supervisor.Supervisor`."""

    def _prepare(self) -> None:
        self._listener: socket.socket | None = None
        self._followers: dict[str, MessageSocket] = {}  # connected
        self._ever_connected: set[str] = set()
        self._done: set[str] = set()
        self._unidentified: list[MessageSocket] = []
        self._uncertain_failure: tuple[Failure, float] | None = None  # and since when

    def _open(self) -> None:
        try:
            listener = socket.create_server(("", self._port), backlog=MAX_UNIDENTIFIED)
        except OSError as error:
            why = os.strerror(error.errno) if error.errno else error
            raise ResourceError(f"can't listen at port {self._port}, where the hosts come together: {why}.") from None
        listener.setblocking(False)
        self._listener = listener
        self._watch(listener, self._accept)
        self._expirations["arrival"] = time.monotonic() + self._deadlines.arrival
        self._say(f"waiting for {self._missing()}")

    def _sockets(self) -> list[MessageSocket]:
        # A host that connects while the job fails must receive the reason.
        return [*self._followers.values(), *(self._unidentified if self._is_over else ())]

    def _drop(self, peer: MessageSocket) -> None:
        self._unwatch(peer)
        self._followers = {name: other for name, other in self._followers.items() if other is not peer}
        self._unidentified = [other for other in self._unidentified if other is not peer]

    def _missing(self) -> str:
        return ", ".join(name for name in self._hosts.names[1:] if name not in self._followers)

    def _accept(self) -> None:
        """Accept all connections that wait at the port."""
        while self._listener is not None:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return  # no connection waits, or it was closed meanwhile
            if len(self._unidentified) >= MAX_UNIDENTIFIED:
                connection.close()
            else:
                peer = MessageSocket(connection)
                self._unidentified.append(peer)
                self._watch(peer, functools.partial(self._on_first_message, peer))

    def _on_first_message(self, peer: MessageSocket) -> None:
        try:
            messages = peer.receive()
        except MessageError as error:
            self._refuse(peer, str(error))
            return
        if not messages:
            return
        hello = messages[0]
        if hello.kind != "hello" or hello.host not in self._hosts.names[1:]:
            self._refuse(peer, f"expected one of the job's hosts, found {shown(hello.host)}.")
            return
        self._ever_connected.add(hello.host)
        if hello.host in self._followers:
            self._refuse(peer, f"host {hello.host} is there already.")
        elif hello.text != kmeans.__version__:
            why = f"it runs version {shown(hello.text)} of the image, and {self._hosts.current} {kmeans.__version__}."
            self._refuse(peer, why)
            self._fail_for_host(hello.host, why)
        else:
            self._admit(hello.host, peer)

    def _refuse(self, peer: MessageSocket, why: str) -> None:
        self._say(f"a connection to port {self._port} was refused: {why}")
        self._send_failure(peer, Failure.of(ResourceError(f"refused a connection: {why}")).at(self._hosts.current))
        self._unidentified.remove(peer)
        self._unwatch(peer)

    def _admit(self, name: str, peer: MessageSocket) -> None:
        self._unidentified.remove(peer)
        self._followers[name] = peer
        self._watch(peer, lambda: self._on_follower_message(name, peer))
        if self._failure is not None:
            self._send_failure(peer, self._failure)
            peer.finish()
            return
        self._say(f"host {name} is there")
        if len(self._followers) < len(self._hosts.names) - 1:
            return
        self._expirations.pop("arrival")
        port = self._launcher.start_mpiexec(self._hosts.names)
        for follower in self._sockets():
            follower.send(Message("go", number=port))
        self._start_rank("127.0.0.1", port)

    def _on_follower_message(self, name: str, peer: MessageSocket) -> None:
        try:
            messages = peer.receive()
        except MessageError as error:
            self._drop(peer)
            if name not in self._done:
                self._fail_for_host(name, f"it ended without a word, {error} The log of that host may say more.")
            return
        for message in messages:
            if message.kind == "done":
                self._done.add(name)
                self._end_if_all_are_done()
            elif message.kind == "stop":
                # Whatever number came over the network: no other signal is sent.
                self._launcher.signal_rank(signal.SIGINT if message.number == signal.SIGINT else signal.SIGTERM)
            elif message.kind == "failed":
                self._fail(Failure(message.text, message.number), certain=message.certain)

    def _on_rank_done(self) -> None:
        self._done.add(self._hosts.current)
        self._end_if_all_are_done()

    def _end_if_all_are_done(self) -> None:
        if len(self._done) == len(self._hosts.names) and not self._is_over:
            for peer in self._sockets():
                peer.send(Message("done"))
            self._end(None)

    def _forward_stop(self, number: int) -> None:
        """No-op: the leader's rank has received the signal."""

    def _fail(self, failure: Failure, *, certain: bool = True) -> None:
        if self._is_over:
            return
        if not certain:
            self._uncertain_failure = self._uncertain_failure or (failure, time.monotonic())
            return
        self._end(failure)
        self._accept()
        for peer in self._sockets():
            self._send_failure(peer, failure)

    def _send_failure(self, peer: MessageSocket, failure: Failure) -> None:
        peer.send(Message("failed", text=failure.reason, number=failure.exit_code))

    def _drain(self) -> None:
        # A host that finds the port closed waits as long as for a leader that hasn't started. No drain for hosts that
        # did not connect before the deadline, or after a stop, which the others receive too.
        end = min(time.monotonic() + self._deadlines.drain, self._expirations.get("arrival", 0.0))
        while {*self._hosts.names[1:]} - self._ever_connected and time.monotonic() < end and self._stop_signal is None:
            self._process_events()

    def _check_deadlines(self, now: float) -> None:
        super()._check_deadlines(now)
        if self._is_expired("arrival", now):
            self._fail(
                Failure.of(
                    ResourceError(
                        f"not there {self._deadlines.arrival:.0f} s after {self._hosts.current} started. Start `train` "
                        f"on all hosts; each must reach {self._hosts.current} by that name, at port {self._port}."
                    )
                ).at(self._missing())
            )
        for unidentified in [peer for peer in self._unidentified if self._is_silent(peer, now)]:
            self._refuse(unidentified, "it didn't say who it is.")
        for name, peer in list(self._followers.items()):
            if self._is_silent(peer, now) and name not in self._done:
                self._fail_for_host(name, self._silence_reason())
                self._drop(peer)  # the failure was sent; the host reads it if it continues
        # A rank may have ended without a reason because another host is lost. Every live host sends heartbeats.
        if self._uncertain_failure is not None:
            failure, since = self._uncertain_failure
            if all(peer.last_received > since + self._deadlines.heartbeat for peer in self._sockets()):
                self._fail(failure)
