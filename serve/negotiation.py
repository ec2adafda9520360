"""Content-Type and Accept to a format: one table of requests, one of answers.

Media types are compared without regard to letter case and parameters (``Text/CSV; charset=utf-8`` is ``text/csv``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from kmeans.formats import csv, json, jsonlines, npy, recordio
from kmeans.formats.instances import Instances, Predictions
from kmeans.formats.media_type import CSV, JSON, JSON_LINES, NPY, RECORDIO, MediaType

# What reads a body; the number of features is what sparse vectors must have.
DECODERS: dict[str, Callable[[bytes, int], Instances]] = {
    CSV: lambda body, _: Instances(csv.decode(body)),
    JSON: json.decode,
    JSON_LINES: jsonlines.decode,
    RECORDIO: recordio.decode_instances,
    NPY: lambda body, _: Instances(npy.decode(body)),
}
# The first is the built-in image's answer to a client that doesn't say what it wants.
ENCODERS: dict[str, Callable[[Predictions], bytes]] = {
    JSON: json.encode,
    JSON_LINES: jsonlines.encode,
    CSV: csv.encode,
    RECORDIO: recordio.encode_predictions,
}
# A parameter of Accept by which a client asks for labels as integers: ``application/json; labels=int``.
LABELS = "labels"


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
        super().__init__(f"expected a body of type {_listed(DECODERS)}, found {found or 'no Content-Type'}")


class NotAcceptableError(Exception):
    """No encoder for anything in the request's Accept."""

    def __init__(self, found: str) -> None:
        super().__init__(f"answers can be of type {_listed(ENCODERS)}, but the request accepts only {found}")


def decoder(content_type: str | None) -> Callable[[bytes, int], Instances]:
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


def answer_type(accept: str | None, default: str) -> AnswerType:
    """Return the form to answer in: of those the client accepts the one it prefers (RFC 9110, section 12.5.1).

    ``default``, itself such a header, is taken where Accept is missing or allows anything.

    Raises
    ------
    NotAcceptableError
        If none of the accepted types can be produced; for HTTP that is 406.
    """
    wanted = accept if accept and accept.strip() not in ("", "*/*") else default
    ranges = sorted(map(MediaType.parse, wanted.split(",")), key=lambda item: item.quality, reverse=True)
    refused = {item.name for item in ranges if item.quality == 0}
    for item in ranges:
        # Of the types that a range covers the default comes first, then the order of the table.
        offers = sorted(ENCODERS, key=lambda offer: offer != MediaType.parse(default).name)
        covered = [offer for offer in offers if item.covers(offer) and offer not in refused]
        if covered and item.quality > 0:
            return AnswerType(covered[0], item.parameters.get(LABELS, "").lower() == "int")
    raise NotAcceptableError(wanted)


def _listed(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} or {last}"
