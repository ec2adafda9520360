"""Short messages between the processes of a job: JSON, one message a line, over a connected socket.

Two links speak so. From a worker's container to the leader's (``train.distributed.supervisor``):

    hello    worker -> leader   I am ``host``, and run version ``text`` of this image
    go       leader -> worker   all are here; the leader waits for you at port ``number``
    alive    both ways          nothing but that
    failed   both ways          the job fails for ``text`` with exit code ``number``;
                                if not ``certain``, only if no other host knows a cause
    stop     worker -> leader   I was stopped by signal ``number``
    done     worker -> leader   my part is done
    done     leader -> worker   all parts are done, the model is written

And from the process that trains to the one that watches over it, in one container (``train.distributed.rank``):

    started  I am process ``number``
    ready    I am connected to all others
    written  the model is written
    alive, done, failed  as above

Over the same link its parent (``train.distributed.exit_reporter``) says last how it ended:

    killed   by signal ``number``
    ended    with exit code ``number``

Nothing that comes over a link is run or evaluated, and everything has a limit.
"""

from __future__ import annotations

import contextlib
import socket
import time
from dataclasses import asdict, dataclass, fields

import orjson

from kmeans.errors import ResourceError, shown

KINDS = ("hello", "go", "alive", "stop", "failed", "done", "started", "ready", "written", "killed", "ended")
# A failure's reason has at most 1,024 characters, of at most six bytes each; a host's name at most 253.
MAX_TEXT, MAX_HOST, MAX_NUMBER, MAX_LINE = 1024, 253, 2**31, 8192
# Descriptors of the process that trains: its link, and the container's streams. Nothing else comes near these numbers.
RANK_LINK, RANK_OUT, RANK_ERR = 197, 198, 199


class LinkError(ResourceError):
    """What came over a link is no message, or nothing comes any more."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message; which fields mean something depends on its ``kind``, see above."""

    kind: str
    host: str = ""
    text: str = ""
    number: int = 0
    certain: bool = True


def encode(message: Message) -> bytes:
    """Return ``message`` as a line; a file name in its text need not be a text."""
    text = message.text.encode("utf-8", "replace").decode()
    return orjson.dumps(asdict(message) | {"text": text}) + b"\n"


def decode(line: bytes) -> Message:
    """Return the message in ``line``; raise a LinkError if it is none."""
    try:
        content = orjson.loads(line)
    except orjson.JSONDecodeError:
        raise LinkError(f"expected a message in JSON, found {shown(line)}.") from None
    if not isinstance(content, dict) or content.get("kind") not in KINDS:
        raise LinkError(f"expected a message of a known kind, found {shown(line)}.")
    types = {"kind": str, "host": str, "text": str, "number": int, "certain": bool}
    if content.keys() - {field.name for field in fields(Message)} or any(
        type(value) is not types[name] for name, value in content.items()
    ):
        raise LinkError(f"expected a message's fields only, found {shown(line)}.")
    message = Message(**content)
    if len(message.text) > MAX_TEXT or len(message.host) > MAX_HOST or not 0 <= message.number < MAX_NUMBER:
        raise LinkError(f"expected a message within its limits, found {shown(line)}.")
    return message


class Link:
    """One end of a connection; nothing here waits.

    Attributes
    ----------
    heard
        When something came last, by the monotonic clock; when the link was made, if nothing did.
    """

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self.heard = time.monotonic()
        self._connection = connection
        self._received, self._unsent = bytearray(), bytearray()

    def fileno(self) -> int:
        """Return the descriptor, for a selector."""
        return self._connection.fileno()

    def peer(self) -> str:
        """Return the other end's address."""
        return str(self._connection.getpeername()[0])

    def send(self, message: Message) -> None:
        """Send ``message``, as much of it as goes now; :meth:`flush` sends the rest."""
        self._unsent += encode(message)
        self.flush()

    def flush(self) -> None:
        """Send what could not be sent before. A broken connection shows when it is read from."""
        try:
            while self._unsent:
                del self._unsent[: self._connection.send(self._unsent)]
        except BlockingIOError:
            pass
        except OSError:
            self._unsent.clear()

    def receive(self) -> list[Message]:
        """Return the messages that are there.

        Raises
        ------
        LinkError
            If there are none and will be none, or what is there is not a message.
        """
        try:
            content = self._connection.recv(65536)
        except BlockingIOError:
            return []
        except OSError as error:
            raise LinkError(f"the connection broke: {error.strerror or error}.") from None
        if not content:
            raise LinkError("the connection was closed.")
        self.heard = time.monotonic()
        self._received += content
        *lines, rest = self._received.split(b"\n")
        if max(map(len, [*lines, rest])) > MAX_LINE:
            raise LinkError(f"expected a message of at most {MAX_LINE} bytes, found a longer one.")
        self._received = bytearray(rest)
        return [decode(bytes(line)) for line in lines]

    def finish(self) -> None:
        """Say that nothing more will be sent. The other end still reads what was, which after ``close`` isn't sure."""
        self.flush()
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
