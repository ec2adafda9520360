"""Requests at times that are set in advance; the response time is measured from these times.

A client that waits for an answer before its next request sends fewer requests when the server is slow, and so omits
those that would have waited ("coordinated omission"). Here the time of a late request starts when it was due, no matter
why it is late. See https://github.com/giltene/wrk2.
"""

from __future__ import annotations

import asyncio
import gc
import re
import time
from collections.abc import Sequence
from typing import cast

from benchmarks.servers import HOST, Question

# asyncio sleeps whole milliseconds: for the rest of the time until a request is due the client polls its sockets.
SPIN_SECONDS = 0.003

LIMIT_SECONDS = 60.0

HEAD_END = b"\r\n\r\n"
# A status line with 200, and header lines that include the length of the body.
HEAD = re.compile(rb"\S+ 200 [^\r]*\r\n(?:[^\r]+\r\n)*?content-length: *(\d+)\r\n(?:[^\r]+\r\n)*\r\n", re.IGNORECASE)


class OverloadError(Exception):
    """The server was too slow, or did not answer with 200."""


def measure(port: int, question: Question, times: Sequence[float]) -> list[float]:
    """Send a request at each of ``times`` (seconds from now, ascending) and return the seconds to each answer.

    Raises OverloadError if an answer is not 200, or a connection ends too early.
    """
    collected = gc.isenabled()
    gc.disable()
    try:
        return asyncio.run(_measure(port, question, times))
    finally:
        if collected:
            gc.enable()


async def _measure(port: int, question: Question, times: Sequence[float]) -> list[float]:
    client = _Client(port, _request(question))
    try:
        # The first connection and the server's first request are not counted.
        await client.ask(time.perf_counter())
        began = time.perf_counter()
        waiting = []
        for due in times:
            await _sleep_until(began + due)
            waiting.append(asyncio.ensure_future(client.ask(began + due)))
        return list(await asyncio.wait_for(asyncio.gather(*waiting), LIMIT_SECONDS))
    except TimeoutError:
        raise OverloadError(f"no answer within {LIMIT_SECONDS:g} s") from None
    finally:
        client.close()


async def _sleep_until(moment: float) -> None:
    left = moment - time.perf_counter()
    if left > SPIN_SECONDS:
        await asyncio.sleep(left - SPIN_SECONDS)
    # Yield at least once, so that answers are read even if requests are late.
    await asyncio.sleep(0)
    while time.perf_counter() < moment:
        await asyncio.sleep(0)


def _request(question: Question) -> bytes:
    lines = (
        f"POST {question.path} HTTP/1.1",
        f"Host: {HOST}",
        f"Content-Type: {question.content_type}",
        f"Accept: {question.accept}",
        f"Content-Length: {len(question.body)}",
    )
    return "\r\n".join((*lines, "", "")).encode() + question.body


class _Client:
    """A pool with one connection per pending request; idle connections are reused, the last one first."""

    def __init__(self, port: int, request: bytes) -> None:
        self._port = port
        self._request = request
        self._idle: list[_Connection] = []
        self._all: list[_Connection] = []

    async def ask(self, due: float) -> float:
        """Send the request and return the seconds from ``due`` to the end of its answer."""
        if self._idle:
            connection = self._idle.pop()
        else:
            loop = asyncio.get_running_loop()
            _, connection = await loop.create_connection(_Connection, HOST, self._port)
            self._all.append(connection)
        ended = await connection.ask(self._request)
        self._idle.append(connection)
        return ended - due

    def close(self) -> None:
        for connection in self._all:
            connection.transport.abort()


class _Connection(asyncio.Protocol):
    """One connection; answers must have a Content-Length."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self._answer: asyncio.Future[float] | None = None
        self._received = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def ask(self, request: bytes) -> asyncio.Future[float]:
        """Send a request and return a future of the time at which its answer is complete."""
        self._answer = asyncio.get_running_loop().create_future()
        self._received.clear()
        if self.transport.is_closing():
            self._fail("the server has closed the connection")
        else:
            self.transport.write(request)
        return self._answer

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        self._received += data
        head = HEAD.match(self._received)
        if head is None:
            if HEAD_END in self._received:
                self._fail(f"expected 200 and a Content-Length, found {bytes(self._received[:200])!r}")
        elif len(self._received) >= head.end() + int(head[1]) and self._answer is not None and not self._answer.done():
            self._answer.set_result(now)

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(f"the connection ended before the answer did: {error}")

    def _fail(self, text: str) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(OverloadError(text))
