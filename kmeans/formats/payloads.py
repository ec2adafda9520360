"""Request bodies cut into chunks of whole rows, which are decoded one after the other; and into single rows.

Numbers as Python objects take ten times the memory of their text, which a body of 100 MB must not take all at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

BYTE_ORDER_MARK = b"\xef\xbb\xbf"

# Bytes of a chunk.
PAYLOAD_CHUNK_BYTES = 1 << 20

# How the list of instances begins, and where one may end and the next begin.
_JSON_HEAD = re.compile(rb'\s*(?:\{\s*"instances"\s*:\s*)?\[')
_JSON_CUT = re.compile(rb"[}\]](\s*,\s*)(?=[{\[])")
_NO_MARKS = bytes(set(range(256)) - set(b'[]{}"'))


@dataclass(frozen=True, slots=True)
class Chunk:
    """Whole rows of a body, as a body that a decoder accepts.

    Attributes
    ----------
    content
        The body.
    offset
        Offset of the rows in the whole body.
    """

    content: bytes
    offset: int = 0


Body = bytes | bytearray


def whole(body: Body, size: int = PAYLOAD_CHUNK_BYTES) -> Iterator[Chunk]:
    """Yield the body as one chunk, for formats that take no more memory than their bytes."""
    del size
    yield Chunk(bytes(body))


def split_lines(body: Body, size: int = PAYLOAD_CHUNK_BYTES) -> Iterator[Chunk]:
    """Yield chunks of about ``size`` bytes of whole lines; blank ones only if there are no others."""
    start = count = 0
    while start < len(body):
        stop = body.find(b"\n", start + size - 1) + 1 or len(body)
        content = bytes(memoryview(body)[start:stop])
        text = content.removeprefix(BYTE_ORDER_MARK)
        # Not strip(), which would copy a megabyte to find that it isn't blank.
        is_blank = not text or text.isspace()
        if not is_blank or (stop == len(body) and not count):
            yield Chunk(content, start)
            count += 1
        start = stop


def split_instances(body: Body, size: int = PAYLOAD_CHUNK_BYTES) -> Iterator[Chunk]:
    """Yield chunks of about ``size`` bytes of a JSON request, each a request with some of its instances.

    A request that doesn't begin with its instances is one chunk, and so is the rest after the last place to cut.
    """
    head = _JSON_HEAD.match(body)
    if len(body) <= size or head is None:
        yield Chunk(bytes(body))
        return
    start, wanted = head.end(), size
    while start + wanted < len(body):
        cut = _JSON_CUT.search(body, start + wanted - 1)
        if cut is None:
            break
        content = memoryview(body)[start : cut.start(1)]
        if _is_complete(content):
            yield Chunk(b"".join((b"[", content, b"]")), start)
            start, wanted = cut.end(), size
        else:  # in a nested list, or in a string that looks like one
            wanted = max(2 * wanted, cut.end() - start)
    yield Chunk(b"".join((head[0], memoryview(body)[start:])), start)


def each_line(content: bytes) -> list[bytes]:
    """Return each line that isn't blank as a body."""
    return [line for line in content.split(b"\n") if line.strip()]


def each_instance(content: bytes) -> list[bytes] | None:
    """Return each instance of a JSON request as a request; None if it isn't JSON or has no list of instances.

    An instance that is nested too deeply to be written again becomes ``[null]``, which isn't an instance either.
    """
    try:
        request = orjson.loads(content)
    except orjson.JSONDecodeError:
        return None
    instances = request.get("instances") if isinstance(request, dict) else request
    return [_alone(instance) for instance in instances] if isinstance(instances, list) else None


def _alone(instance: Any) -> bytes:
    try:
        return orjson.dumps([instance])
    except orjson.JSONEncodeError:
        return b"[null]"


def _is_complete(content: memoryview) -> bool:
    """Return True if ``content``, which begins outside of strings, ends outside of all strings, lists and objects.

    A pattern would take time that grows with the square of a string's length, or a hundred times its memory.
    """
    depth, is_in_text, escape = 0, False, b""
    for start in range(0, len(content), PAYLOAD_CHUNK_BYTES):  # as arrays, marks take many times their bytes
        bare = (escape + content[start : start + PAYLOAD_CHUNK_BYTES]).replace(b"\\\\", b"")
        escape = b"\\" if bare.endswith(b"\\") else b""  # half of one
        marks = np.frombuffer(bare.replace(b'\\"', b"").translate(None, _NO_MARKS), np.uint8)
        is_quote = marks == ord('"')
        # A string follows an odd number of quotes; of their number the last bits are enough.
        quotes = np.cumsum(is_quote, dtype=np.uint8) + np.uint8(is_in_text)
        is_in_text = bool(quotes[-1] & 1) if len(quotes) else is_in_text
        brackets = marks[(quotes & 1 == 0) & ~is_quote]
        depths = depth + np.cumsum(np.where(np.isin(brackets, list(b"[{")), 1, -1), dtype=np.int32)
        if depths.size:
            # Below 0 the list of instances has ended, and what follows are other keys of the request.
            if depths.min() < 0:
                return False
            depth = int(depths[-1])
    return depth == 0 and not is_in_text
