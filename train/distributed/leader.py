"""The host that the others come to: it hears from all of them, and says how the job ended."""

from __future__ import annotations

import functools
import os
import signal
import socket
import time

import kmeans
from kmeans.errors import ResourceError, shown
from train.distributed.messages import Link, LinkError, Message
from train.distributed.supervisor import Supervisor
from train.failure import Failure

# As many connections are held that have not said yet who they are.
MAX_STRANGERS = 64


class Leader(Supervisor):
    """Watches over the job on the first host; parameters as of :class:`train.distributed.supervisor.Host`."""

    def _prepare(self) -> None:
        self._listener: socket.socket | None = None
        self._followers: dict[str, Link] = {}  # those that are there
        self._came: set[str] = set()  # those that ever were
        self._done: set[str] = set()
        self._strangers: list[Link] = []
        self._suspicion: tuple[Failure, float] | None = None  # and since when

    def _open(self) -> None:
        try:
            listener = socket.create_server(("", self._port), backlog=MAX_STRANGERS)
        except OSError as error:
            why = os.strerror(error.errno) if error.errno else error
            raise ResourceError(f"can't listen at port {self._port}, where the hosts come together: {why}.") from None
        listener.setblocking(False)
        self._listener = listener
        self._watch(listener, self._accept)
        self._ends["arrival"] = time.monotonic() + self._deadlines.arrival
        self._say(f"waiting for {self._missing()}")

    def _links(self) -> list[Link]:
        # Who comes just when the job fails shall hear why.
        return [*self._followers.values(), *(self._strangers if self._is_over else ())]

    def _forget(self, link: Link) -> None:
        self._unwatch(link)
        self._followers = {name: other for name, other in self._followers.items() if other is not link}
        self._strangers = [other for other in self._strangers if other is not link]

    def _missing(self) -> str:
        return ", ".join(name for name in self._hosts.names[1:] if name not in self._followers)

    def _accept(self) -> None:
        """Let in all who wait at the port."""
        while self._listener is not None:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return  # nobody, or nobody any more
            if len(self._strangers) >= MAX_STRANGERS:
                connection.close()
            else:
                link = Link(connection)
                self._strangers.append(link)
                self._watch(link, functools.partial(self._on_first_message, link))

    def _on_first_message(self, link: Link) -> None:
        try:
            messages = link.receive()
        except LinkError as error:
            self._send_away(link, str(error))
            return
        if not messages:
            return
        hello = messages[0]
        if hello.kind != "hello" or hello.host not in self._hosts.names[1:]:
            self._send_away(link, f"expected one of the job's hosts, found {shown(hello.host)}.")
            return
        self._came.add(hello.host)
        if hello.host in self._followers:
            self._send_away(link, f"host {hello.host} is there already.")
        elif hello.text != kmeans.__version__:
            why = f"it runs version {shown(hello.text)} of the image, and {self._hosts.current} {kmeans.__version__}."
            self._send_away(link, why)
            self._lost(hello.host, why)
        else:
            self._welcome(hello.host, link)

    def _send_away(self, link: Link, why: str) -> None:
        self._say(f"a connection to port {self._port} was refused: {why}")
        self._tell(link, Failure.of(ResourceError(f"refused a connection: {why}")).at(self._hosts.current))
        self._strangers.remove(link)
        self._unwatch(link)

    def _welcome(self, name: str, link: Link) -> None:
        self._strangers.remove(link)
        self._followers[name] = link
        self._watch(link, lambda: self._on_follower_message(name, link))
        if self._failure is not None:
            self._tell(link, self._failure)
            link.finish()
            return
        self._say(f"host {name} is there")
        if len(self._followers) < len(self._hosts.names) - 1:
            return
        self._ends.pop("arrival")
        port = self._launcher.lead(self._hosts.names)
        for worker in self._links():
            worker.send(Message("go", number=port))
        self._start_rank("127.0.0.1", port)

    def _on_follower_message(self, name: str, link: Link) -> None:
        try:
            messages = link.receive()
        except LinkError as error:
            self._forget(link)
            if name not in self._done:
                self._lost(name, f"it ended without a word, {error} The log of that host may say more.")
            return
        for message in messages:
            if message.kind == "done":
                self._done.add(name)
                self._end_if_all_are_done()
            elif message.kind == "stop":
                # Whatever number came over the network: no other signal is sent.
                self._launcher.stop(signal.SIGINT if message.number == signal.SIGINT else signal.SIGTERM)
            elif message.kind == "failed":
                self._fail(Failure(message.text, message.number), certain=message.certain)

    def _rank_is_done(self) -> None:
        self._done.add(self._hosts.current)
        self._end_if_all_are_done()

    def _end_if_all_are_done(self) -> None:
        if len(self._done) == len(self._hosts.names) and not self._is_over:
            for link in self._links():
                link.send(Message("done"))
            self._end(None)

    def _pass_on_stop(self, number: int) -> None:
        """Do nothing: the leader's rank has been told."""

    def _fail(self, failure: Failure, *, certain: bool = True) -> None:
        if self._is_over:
            return
        if not certain:
            self._suspicion = self._suspicion or (failure, time.monotonic())
            return
        self._end(failure)
        self._accept()
        for link in self._links():
            self._tell(link, failure)

    def _tell(self, link: Link, failure: Failure) -> None:
        link.send(Message("failed", text=failure.reason, number=failure.exit_code))

    def _drain(self) -> None:
        # A host that comes when the port is closed would wait for its leader as long as for one that hasn't started.
        # Who was waited for in vain, or is told to stop as this one is, isn't waited for again.
        end = min(time.monotonic() + self._deadlines.goodbye, self._ends.get("arrival", 0.0))
        while {*self._hosts.names[1:]} - self._came and time.monotonic() < end and self._stop_signal is None:
            self._listen()

    def _check_deadlines(self, now: float) -> None:
        super()._check_deadlines(now)
        if self._is_late("arrival", now):
            self._fail(
                Failure.of(
                    ResourceError(
                        f"not there {self._deadlines.arrival:.0f} s after {self._hosts.current} started. Start `train` "
                        f"on all hosts; each must reach {self._hosts.current} by that name, at port {self._port}."
                    )
                ).at(self._missing())
            )
        for stranger in [link for link in self._strangers if self._is_silent(link, now)]:
            self._send_away(stranger, "it didn't say who it is.")
        for name, link in list(self._followers.items()):
            if self._is_silent(link, now) and name not in self._done:
                self._lost(name, self._silence())
                self._forget(link)  # it has been told, and reads it if it wakes up
        # A rank that ends without a reason may do so because another host is lost. All that are alive speak in time.
        if self._suspicion is not None:
            failure, since = self._suspicion
            if all(link.heard > since + self._deadlines.heartbeat for link in self._links()):
                self._fail(failure)
