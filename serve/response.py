"""An answer to a request, before any web framework has seen it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus

import orjson
from flask import Response

JSON_TYPE = "application/json"


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, headers and body of an answer.

    Attributes
    ----------
    status
        HTTP status.
    media_type
        Content-Type, without parameters.
    body
        The bytes in pieces. A list has a known length; anything else is sent in chunks, as it is made.
    headers
        Further headers, as (name, value).
    """

    status: int
    media_type: str
    body: Iterable[bytes] = ()
    headers: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of_json(cls, content: object, status: int = HTTPStatus.OK) -> Answer:
        """Return an answer that holds ``content`` as JSON."""
        return cls(status, JSON_TYPE, [orjson.dumps(content)])

    @property
    def length(self) -> int | None:
        """Bytes of the body, None if they are made while they are sent."""
        return sum(map(len, self.body)) if isinstance(self.body, list | tuple) else None

    def header_list(self) -> list[tuple[str, str]]:
        """Return all headers as WSGI wants them."""
        headers = [("Content-Type", self.media_type), *self.headers]
        length = self.length
        return headers if length is None else [*headers, ("Content-Length", str(length))]

    def to_flask(self) -> Response:
        """Return the same as Flask's response."""
        return Response(self.body, self.status, self.header_list())


STATUS_LINES = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}
