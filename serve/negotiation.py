"""Content-Type and Accept to a format: one table of requests, one of answers.

Media types are compared without regard to letter case and parameters (``Text/CSV; charset=utf-8`` is ``text/csv``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from kmeans.errors import shown
from kmeans.formats import csv, json, jsonlines, npy, portions, recordio
from kmeans.formats.instances import Instances, Predictions
from kmeans.formats.media_type import CSV, JSON, JSON_LINES, NPY, RECORDIO, MediaType


class Decoder(Protocol):
    """Reads a body."""

    def __call__(self, body: bytes, features: int, /, *, wide: bool = False) -> Instances:
        """Return its points, float32 or, if ``wide``, float64."""


# What reads a body; the number of features is what sparse vectors must have.
DECODERS: dict[str, Decoder] = {
    CSV: lambda body, _, *, wide=False: Instances((csv.decode_wide if wide else csv.decode)(body)),
    JSON: json.decode,
    JSON_LINES: jsonlines.decode,
    RECORDIO: recordio.decode_instances,
    NPY: lambda body, _, *, wide=False: Instances((npy.decode_wide if wide else npy.decode)(body)),
}
# The first is the built-in image's answer to a client that doesn't say what it wants.
ENCODERS: dict[str, Callable[[Predictions], bytes]] = {
    JSON: json.encode,
    JSON_LINES: jsonlines.encode,
    CSV: csv.encode,
    RECORDIO: recordio.encode_predictions,
}
# What cuts a large body into portions, and a portion into rows.
CUTTERS: dict[str, tuple[portions.Cutter, Callable[[bytes], list[bytes] | None]]] = {
    CSV: (portions.of_lines, portions.each_line),
    JSON: (portions.of_instances, portions.each_instance),
    JSON_LINES: (portions.of_lines, portions.each_line),
    RECORDIO: (portions.of_records, portions.each_record),
    NPY: (portions.whole, portions.each_of_nothing),
}
# What an answer begins with, what stands between its rows, and what it ends with.
FRAMES: dict[str, tuple[bytes, bytes, bytes]] = {
    JSON: (b'{"predictions": [', b", ", b"]}"),
    JSON_LINES: (b"", b"\n", b""),
    CSV: (b"", b"\n", b""),
    RECORDIO: (b"", b"", b""),
}
# A parameter of Accept by which a client asks for labels as integers: ``application/json; labels=int``.
LABELS = "labels"

# Headers that are remembered, each of at most 8 KB.
CACHED_HEADERS = 256

# Of a header that can't be met so many characters are repeated in the answer.
MAX_SHOWN = 100


@dataclass(frozen=True, slots=True)
class AnswerType:
    """The form of an answer.

    Attributes
    ----------
    media_type
        One of ``ENCODERS``.
    integer_labels
        Whether labels are written as integers instead of the built-in image's floats.
    """

    media_type: str
    integer_labels: bool


class UnsupportedContentTypeError(Exception):
    """No decoder for the request's Content-Type."""

    def __init__(self, found: str) -> None:
        what = shown(found, MAX_SHOWN) if found else "no Content-Type"
        super().__init__(f"expected a body of type {_listed(DECODERS)}, found {what}")


class NotAcceptableError(Exception):
    """No encoder for anything in the request's Accept."""

    def __init__(self, found: str) -> None:
        what = shown(found, MAX_SHOWN)
        super().__init__(f"answers can be of type {_listed(ENCODERS)}, but the request accepts only {what}")


# Many requests have the same few headers, and reading them takes as long as reading a row.
@lru_cache(CACHED_HEADERS)
def request_type(content_type: str | None) -> str:
    """Return the media type of a body with the header ``content_type``, one of ``DECODERS``.

    Raises
    ------
    UnsupportedContentTypeError
        If nothing does; for HTTP that is 415.
    """
    name = MediaType.parse(content_type).name
    if name not in DECODERS:
        raise UnsupportedContentTypeError(name)
    return name


def decoder(content_type: str | None) -> Decoder:
    """Return what reads a body of ``content_type``; errors are as of :func:`request_type`."""
    return DECODERS[request_type(content_type)]


@lru_cache(CACHED_HEADERS)
def answer_type(accept: str | None, default: str) -> AnswerType:
    """Return the form to answer in: of those the client accepts the one it prefers (RFC 9110, section 12.5.1).

    ``default``, itself such a header, is taken where Accept is missing or allows anything.

    Raises
    ------
    NotAcceptableError
        If none of the accepted types can be produced; for HTTP that is 406.
    """
    wanted = accept if accept and accept.strip() not in ("", "*/*") else default
    ranges = [MediaType.parse(text) for text in wanted.split(",")]
    best: tuple[tuple[float, int, int, bool], AnswerType] | None = None
    for offer in ENCODERS:
        # The most specific range that covers a type says how welcome it is; of equally welcome types the one that was
        # named most precisely wins, then the one named first, then the default.
        covering = [(item.specificity, -place, item) for place, item in enumerate(ranges) if item.covers(offer)]
        if not covering:
            continue
        specificity, place, item = max(covering, key=lambda found: found[:2])
        rank = (item.quality, specificity, place, offer == MediaType.parse(default).name)
        if item.quality > 0 and (best is None or rank > best[0]):
            best = rank, AnswerType(offer, item.parameters.get(LABELS, "").lower() == "int")
    if best is None:
        raise NotAcceptableError(wanted)
    return best[1]


def _listed(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} or {last}"
