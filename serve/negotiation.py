"""Content-Type and Accept headers to formats.

Media types are compared without regard to letter case and parameters (``Text/CSV; charset=utf-8`` is ``text/csv``).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import isfinite

from werkzeug.http import parse_list_header, parse_options_header

from kmeans.errors import shown
from kmeans.formats.format import Format
from kmeans.formats.registry import FORMATS

# A parameter of Accept by which a client asks for labels as integers: ``application/json; labels=int``.
LABELS = "labels"

# Headers that are remembered, each of at most 8 KB.
CACHED_HEADERS = 256

# A weight without a number, which werkzeug leaves out.
_EMPTY_WEIGHT = re.compile(r";\s*q\s*=\s*(;|$)", re.IGNORECASE)

# An error message repeats at most this many characters of a header.
MAX_SHOWN = 100


@dataclass(frozen=True, slots=True)
class AnswerType:
    """The form of an answer.

    Attributes
    ----------
    form
        Its format.
    integer_labels
        Whether labels are written as integers instead of the built-in image's floats.
    """

    form: Format
    integer_labels: bool


@dataclass(frozen=True, slots=True)
class AcceptedRange:
    """One item of an Accept header: a media type or a range of them, such as ``text/*``.

    Attributes
    ----------
    name
        In lower case, the usual name of a format instead of an alias.
    quality
        How welcome it is, from 0 (not at all) to 1 (the default).
    integer_labels
        Whether labels are to be integers.
    """

    name: str
    quality: float
    integer_labels: bool

    @classmethod
    def parse(cls, text: str) -> AcceptedRange:
        """Return the item that ``text`` describes; a weight that isn't a number is 0."""
        name, parameters = parse_options_header(text)
        weight = parameters.get("q", "" if _EMPTY_WEIGHT.search(text) else "1")
        integer_labels = parameters.get(LABELS, "").lower() == "int"
        return cls("*/*" if name == "*" else _usual_name(name), _quality(weight), integer_labels)

    @property
    def specificity(self) -> int:
        """How precise it is: 2 for a media type, 1 for a range of subtypes, 0 for all."""
        return 2 - self.name.count("*")

    def covers(self, name: str) -> bool:
        """Return True if it includes the media type ``name``."""
        own, _, subtype = self.name.partition("/")
        return self.name in (name, "*/*") or (subtype == "*" and name.startswith(f"{own}/"))


class UnsupportedContentTypeError(Exception):
    """No format of requests has the request's Content-Type."""

    def __init__(self, found: str) -> None:
        what = shown(found, MAX_SHOWN) if found else "no Content-Type"
        super().__init__(f"expected a body of type {_listed(FORMATS.of_requests())}, found {what}")


class NotAcceptableError(Exception):
    """No format of responses is in the request's Accept."""

    def __init__(self, found: str) -> None:
        what = shown(found, MAX_SHOWN)
        super().__init__(
            f"answers can be of type {_listed(FORMATS.of_responses())}, but the request accepts only {what}"
        )


# Many requests have the same few headers, and reading them takes as long as reading a row.
@lru_cache(CACHED_HEADERS)
def request_format(content_type: str | None) -> Format:
    """Return the format of a body with the header ``content_type``.

    Raises
    ------
    UnsupportedContentTypeError
        If requests can't be of that type; for HTTP that is 415.
    """
    name = _usual_name(parse_options_header(content_type)[0])
    form = FORMATS.find(name)
    if form is None or not form.is_of_requests:
        raise UnsupportedContentTypeError(name)
    return form


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
    ranges = [AcceptedRange.parse(text) for text in parse_list_header(wanted)]
    usual = _usual_name(parse_options_header(default)[0])
    best: tuple[tuple[float, int, int, bool], AnswerType] | None = None
    for offer in FORMATS.of_responses():
        # The most specific range that covers a type says how welcome it is; of equally welcome types the one that was
        # named most precisely wins, then the one named first, then the default.
        covering = [
            (item.specificity, -place, item) for place, item in enumerate(ranges) if item.covers(offer.media_type)
        ]
        if not covering:
            continue
        specificity, place, item = max(covering, key=lambda found: found[:2])
        rank = (item.quality, specificity, place, offer.media_type == usual)
        if item.quality > 0 and (best is None or rank > best[0]):
            best = rank, AnswerType(offer, item.integer_labels)
    if best is None:
        raise NotAcceptableError(wanted)
    return best[1]


def _usual_name(name: str) -> str:
    """Return the media type of a format for any of its names, else ``name``, in lower case."""
    name = name.strip().lower()
    form = FORMATS.find(name)
    return name if form is None else form.media_type


def _quality(text: str) -> float:
    try:
        quality = float(text)
    except ValueError:
        return 0.0
    return min(max(quality, 0.0), 1.0) if isfinite(quality) else 0.0


def _listed(formats: Sequence[Format]) -> str:
    *first, last = (form.media_type for form in formats)
    return f"{', '.join(first)} or {last}"
