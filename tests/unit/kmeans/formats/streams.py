"""Streams as they come: files that never end, pipes that give a few bytes at a time, and none that can be sought."""

from __future__ import annotations


class Trickle:
    """A stream that gives at most ``most`` bytes at a time, as a pipe does."""

    def __init__(self, content: bytes, most: int) -> None:
        self.taken = 0
        self._content = content
        self._most = most

    def readinto(self, buffer: memoryview, /) -> int:
        part = self._content[self.taken : self.taken + min(self._most, len(buffer))]
        buffer[: len(part)] = part
        self.taken += len(part)
        return len(part)


class Repeated:
    """A stream of the same content many times: as much as any disk has, without a disk."""

    def __init__(self, content: bytes, times: int) -> None:
        self._content = memoryview(content)
        self._left = len(content) * times

    def readinto(self, buffer: memoryview, /) -> int:
        count = 0
        while self._left and count < len(buffer):
            begin = -self._left % len(self._content)
            part = self._content[begin : begin + len(buffer) - count]
            buffer[count : count + len(part)] = part
            count += len(part)
            self._left -= len(part)
        return count
