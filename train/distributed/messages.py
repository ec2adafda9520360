"""Messages between the processes of a job on several hosts: one JSON object a line, over a connected socket.

Between the supervisors of a follower and of the leader (:mod:`train.distributed.supervisor`):

    hello    follower -> leader   I am ``host``, and run version ``text`` of this image
    go       leader -> follower   all hosts are connected; start your rank with port ``number`` of the leader
    alive    both ways            heartbeat
    failed   both ways            the job fails for ``text`` with exit code ``number``;
                                  if not ``certain``, only if no other host knows a cause
    stop     follower -> leader   I was stopped by signal ``number``
    done     follower -> leader   my rank is done
    done     leader -> follower   all ranks are done, and the model is written

From a rank (:mod:`train.distributed.rank`) to the supervisor in its container:

    started  I am process ``number``
    ready    I am connected to all other ranks
    written  the model is written
    alive, done, failed  as above

From the rank's exit reporter (:mod:`train.distributed.exit_reporter`), the last message of the same connection:

    killed   the rank was ended by signal ``number``
    ended    the rank ended with exit code ``number``

No part of a message is run or evaluated, and each has a limit.
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
# Descriptors of a rank: its socket to the supervisor, and the container's streams. Other descriptors are far smaller.
RANK_SOCKET, RANK_OUT, RANK_ERR = 197, 198, 199


class MessageError(ResourceError):
    """The bytes received are not a message, or the connection has ended."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message; its ``kind`` determines which fields are used (see the module's docstring)."""

    kind: str
    host: str = ""
    text: str = ""
    number: int = 0
    certain: bool = True


def encode(message: Message) -> bytes:
    """Return ``message`` as a line; replace what UTF-8 can't encode, as in some file names."""
    text = message.text.encode("utf-8", "replace").decode()
    return orjson.dumps(asdict(message) | {"text": text}) + b"\n"


def decode(line: bytes) -> Message:
    """Return the message in ``line``; raise a MessageError if it is not one."""
    try:
        content = orjson.loads(line)
    except orjson.JSONDecodeError:
        raise MessageError(f"expected a message in JSON, found {shown(line)}.") from None
    if not isinstance(content, dict) or content.get("kind") not in KINDS:
        raise MessageError(f"expected a message of a known kind, found {shown(line)}.")
    types = {"kind": str, "host": str, "text": str, "number": int, "certain": bool}
    if content.keys() - {field.name for field in fields(Message)} or any(
        type(value) is not types[name] for name, value in content.items()
    ):
        raise MessageError(f"expected a message's fields only, found {shown(line)}.")
    message = Message(**content)
    if len(message.text) > MAX_TEXT or len(message.host) > MAX_HOST or not 0 <= message.number < MAX_NUMBER:
        raise MessageError(f"expected a message within its limits, found {shown(line)}.")
    return message


class MessageSocket:
    """A non-blocking socket that sends and receives messages.

    Attributes
    ----------
    last_received
        Time of the last bytes received, by the monotonic clock; at first, when this object was made.
    """

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self.last_received = time.monotonic()
        self._connection = connection
        self._received, self._unsent = bytearray(), bytearray()

    def fileno(self) -> int:
        """Return the file descriptor, for a selector."""
        return self._connection.fileno()

    def peer(self) -> str:
        """Return the peer's address."""
        return str(self._connection.getpeername()[0])

    def send(self, message: Message) -> None:
        """Send as much of ``message`` as possible without blocking; :meth:`flush` sends the rest."""
        self._unsent += encode(message)
        self.flush()

    def flush(self) -> None:
        """Send what could not be sent before. A broken connection is detected by :meth:`receive`."""
        try:
            while self._unsent:
                del self._unsent[: self._connection.send(self._unsent)]
        except BlockingIOError:
            pass
        except OSError:
            self._unsent.clear()

    def receive(self) -> list[Message]:
        """Return the messages that have arrived.

        Raises
        ------
        MessageError
            If the connection has ended, or the bytes received are not a message.
        """
        try:
            content = self._connection.recv(65536)
        except BlockingIOError:
            return []
        except OSError as error:
            raise MessageError(f"the connection broke: {error.strerror or error}.") from None
        if not content:
            raise MessageError("the connection was closed.")
        self.last_received = time.monotonic()
        self._received += content
        *lines, rest = self._received.split(b"\n")
        if max(map(len, [*lines, rest])) > MAX_LINE:
            raise MessageError(f"expected a message of at most {MAX_LINE} bytes, found a longer one.")
        self._received = bytearray(rest)
        return [decode(bytes(line)) for line in lines]

    def finish(self) -> None:
        """End sending. The peer can still read what was sent, which ``close`` does not ensure."""
        self.flush()
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
