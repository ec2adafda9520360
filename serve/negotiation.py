"""Content-Type and Accept to a format: one table of requests, one of answers.

Media types are compared without regard to letter case and parameters (``Text/CSV; charset=utf-8`` is ``text/csv``).
"""

from __future__ import annotations

from collections.abc import Callable

from werkzeug.datastructures import MIMEAccept
from werkzeug.http import parse_accept_header

from kmeans.arrays import Float32, Float64
from kmeans.formats import csv, json
from kmeans.formats.media_type import MediaType

CSV, JSON = "text/csv", "application/json"

DECODERS: dict[str, Callable[[bytes], Float32]] = {CSV: csv.decode, JSON: json.decode}
# The first is the built-in image's answer to a client that doesn't say what it wants.
ENCODERS: dict[str, Callable[[Float64, Float64], bytes]] = {JSON: json.encode, CSV: csv.encode}


class UnsupportedContentTypeError(Exception):
    """No decoder for the request's Content-Type."""

    def __init__(self, found: str) -> None:
        super().__init__(f"expected a body of type {' or '.join(DECODERS)}, found {found or 'no Content-Type'}")


class NotAcceptableError(Exception):
    """No encoder for anything in the request's Accept."""

    def __init__(self, found: str) -> None:
        super().__init__(f"answers can be of type {' or '.join(ENCODERS)}, but the request accepts only {found}")


def decoder(content_type: str | None) -> Callable[[bytes], Float32]:
    """Return what reads a body of ``content_type``.

    Raises
    ------
    UnsupportedContentTypeError
        If nothing does; for HTTP that is 415.
    """
    name = MediaType.parse(content_type).name
    if name not in DECODERS:
        raise UnsupportedContentTypeError(name)
    return DECODERS[name]


def answer_type(accept: str | None, default: str) -> str:
    """Return the media type to answer with: of those the client accepts the one it prefers.

    ``default`` is taken where Accept is missing or allows anything.

    Raises
    ------
    NotAcceptableError
        If none of the accepted types can be produced; for HTTP that is 406.
    """
    wanted = accept if accept and accept.strip() != "*/*" else default
    # Of equally welcome types the first offer wins, and that shall be the default.
    offers = sorted(ENCODERS, key=lambda name: name != MediaType.parse(default).name)
    best = parse_accept_header(wanted, MIMEAccept).best_match(offers)
    if best is None:
        raise NotAcceptableError(wanted)
    return best
