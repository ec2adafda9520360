"""A large body cut between its rows, so that it is decoded piece by piece in bounded memory; and a body cut into rows.

Numbers as Python's objects take ten times the memory of their text. A body of 100 MB must not do that all at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from kmeans.formats.csv import BYTE_ORDER_MARK
from kmeans.formats.recordio.framing import find_records

# Text that is decoded at once.
PORTION_BYTES = 1 << 20

# How the list of instances begins, and where one may end and the next begin.
_JSON_HEAD = re.compile(rb'\s*(?:\{\s*"instances"\s*:\s*)?\[')
_JSON_CUT = re.compile(rb"[}\]](\s*,\s*)(?=[{\[])")
_NO_MARKS = bytes(set(range(256)) - set(b'[]{}"'))


@dataclass(frozen=True, slots=True)
class Portion:
    """Whole rows of a body, as a body of their own.

    Attributes
    ----------
    content
        What a decoder reads.
    offset
        Where they lie in the whole.
    """

    content: bytes
    offset: int = 0


Body = bytes | bytearray
Cutter = Callable[[Body, int], Iterator[Portion]]


def whole(body: Body, size: int = PORTION_BYTES) -> Iterator[Portion]:
    """Yield the body itself; for formats that take no more memory than their bytes."""
    del size
    yield Portion(bytes(body))


def of_lines(body: Body, size: int = PORTION_BYTES) -> Iterator[Portion]:
    """Yield portions of about ``size`` bytes that end with a line's end; blank ones only if there are no others."""
    start = count = 0
    while start < len(body):
        stop = body.find(b"\n", start + size - 1) + 1 or len(body)
        content = bytes(memoryview(body)[start:stop])
        text = content.removeprefix(BYTE_ORDER_MARK)
        # Not strip(): it would copy a megabyte to tell that it isn't blank.
        is_blank = not text or text.isspace()
        if not is_blank or (stop == len(body) and not count):
            yield Portion(content, start)
            count += 1
        start = stop


def of_instances(body: Body, size: int = PORTION_BYTES) -> Iterator[Portion]:
    """Yield portions of about ``size`` bytes of a JSON request, each a request with some of its instances.

    A request that doesn't begin with its instances comes whole, and so does what follows the last place to cut.
    """
    head = _JSON_HEAD.match(body)
    if len(body) <= size or head is None:
        yield Portion(bytes(body))
        return
    start, wanted = head.end(), size
    while start + wanted < len(body):
        cut = _JSON_CUT.search(body, start + wanted - 1)
        if cut is None:
            break
        content = memoryview(body)[start : cut.start(1)]
        if _is_complete(content):
            yield Portion(b"".join((b"[", content, b"]")), start)
            start, wanted = cut.end(), size
        else:  # within a nested list, or within a text that looks like one
            wanted = max(2 * wanted, cut.end() - start)
    yield Portion(b"".join((head[0], memoryview(body)[start:])), start)


def of_records(body: Body, size: int = PORTION_BYTES) -> Iterator[Portion]:
    """Yield portions of about ``size`` bytes of whole RecordIO records; what is no record comes with the last."""
    start = 0
    for begin, _ in find_records(body):
        if begin - start >= size:
            yield Portion(bytes(memoryview(body)[start:begin]), start)
            start = begin
    yield Portion(bytes(memoryview(body)[start:]), start)


def each_line(content: bytes) -> list[bytes] | None:
    """Return each line that isn't blank as a body of its own."""
    return [line for line in content.split(b"\n") if line.strip()]


def each_instance(content: bytes) -> list[bytes] | None:
    """Return each instance of a JSON request as a request of its own, None if it is no JSON or no such list.

    One that is nested deeper than JSON can be written again becomes ``[null]``, which is no instance either.
    """
    try:
        request = orjson.loads(content)
    except orjson.JSONDecodeError:
        return None
    instances = request.get("instances") if isinstance(request, dict) else request
    return [_alone(instance) for instance in instances] if isinstance(instances, list) else None


def each_record(content: bytes) -> list[bytes] | None:
    """Return each RecordIO record as a body of its own, None if the records don't follow one another to the end."""
    found = list(find_records(content))
    is_sound = bool(found) and found[-1][1] == len(content)
    return [content[begin:end] for begin, end in found] if is_sound else None


def each_of_nothing(content: bytes) -> list[bytes] | None:
    """Return None: for formats whose rows can't be told apart where they are wrong."""
    del content
    return None


def _alone(instance: Any) -> bytes:
    try:
        return orjson.dumps([instance])
    except orjson.JSONEncodeError:
        return b"[null]"


def _is_complete(content: memoryview) -> bool:
    """Tell whether ``content``, which begins outside of a text, ends outside of all texts, lists and objects.

    A pattern would do, but takes time that grows with the square of a text's length, or a hundred times its memory.
    """
    depth, is_in_text, escape = 0, False, b""
    for start in range(0, len(content), PORTION_BYTES):  # as arrays, marks take many times their bytes
        bare = (escape + content[start : start + PORTION_BYTES]).replace(b"\\\\", b"")
        escape = b"\\" if bare.endswith(b"\\") else b""  # the half of one
        marks = np.frombuffer(bare.replace(b'\\"', b"").translate(None, _NO_MARKS), np.uint8)
        is_quote = marks == ord('"')
        # Text lies behind an odd number of quotes; of their number the last bits are enough.
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
