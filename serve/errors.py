"""From errors to answers: ``{"error": {"code", "message", "details", "request_id"}}``.

The message is one sentence that names the row and column of the error, never a traceback or a path. On SageMaker the
caller sees nothing else.

    400 invalid_payload            the body does not match its type, or the model's width
    404 not_found, 405 method_not_allowed
    406 not_acceptable             nothing in Accept can be produced
    408 request_timeout            the client stopped sending within its body
    413 payload_too_large          the body is longer than SAGEMAKER_MAX_PAYLOAD_IN_MB
    415 unsupported_content_type   no decoder for the Content-Type
    500 internal_error             a defect; the log has the traceback under the request's id
    503 overloaded                 no memory is left for this request now
"""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any

from werkzeug.exceptions import HTTPException

from kmeans.errors import DataError, shown
from serve.exchange import Answer, Record
from serve.negotiation import NotAcceptableError, UnsupportedContentTypeError

# The message of the built-in image, which clients may search for.
INVALID_PAYLOAD = "unable to evaluate payload provided"

# Characters of an unknown path that are repeated in the answer.
MAX_SHOWN = 100

LOG = logging.getLogger("kmeans.serve")


class PayloadTooLargeError(Exception):
    """The body is longer than the limit."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(
            f"the request's body is longer than {limit_bytes >> 20} MiB (SAGEMAKER_MAX_PAYLOAD_IN_MB): send fewer rows"
        )


class BodyTimeoutError(Exception):
    """The client stopped sending within its body."""

    def __init__(self) -> None:
        super().__init__("the rest of the request's body did not arrive in time: send it again")


# Errors of a client other than bad data: status and code of the answer. The error's text is the message.
REFUSALS: dict[type[Exception], tuple[HTTPStatus, str]] = {
    NotAcceptableError: (HTTPStatus.NOT_ACCEPTABLE, "not_acceptable"),
    BodyTimeoutError: (HTTPStatus.REQUEST_TIMEOUT, "request_timeout"),
    PayloadTooLargeError: (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "payload_too_large"),
    UnsupportedContentTypeError: (HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unsupported_content_type"),
}


def answer_to(error: Exception, record: Record) -> Answer:
    """Return the answer to a request that failed with ``error``; log a defect with its traceback."""
    if isinstance(error, DataError):
        places = {"row": error.row, "column": error.column, "offset": error.offset}
        details = {name: place for name, place in places.items() if place is not None}
        return error_answer(
            HTTPStatus.BAD_REQUEST, "invalid_payload", f"{INVALID_PAYLOAD}: {error}", record, details=details
        )
    if type(error) in REFUSALS:
        status, code = REFUSALS[type(error)]
        return error_answer(status, code, f"{error}.", record)
    if isinstance(error, MemoryError):
        message = "no memory is left for this request: send fewer rows."
        return error_answer(HTTPStatus.SERVICE_UNAVAILABLE, "overloaded", message, record)
    if isinstance(error, HTTPException):
        return _http_error(error, record)
    LOG.error("request %s failed", record.request_id, exc_info=error)
    message = f"an internal error; the log has more about it under the id {record.request_id}."
    return error_answer(HTTPStatus.INTERNAL_SERVER_ERROR, "internal_error", message, record)


def error_answer(
    status: HTTPStatus,
    code: str,
    message: str,
    record: Record,
    *,
    details: dict[str, Any] | None = None,
    headers: tuple[tuple[str, str], ...] = (),
) -> Answer:
    """Return the answer to an error, in the shape of all errors, and record its code for the log."""
    record.code = code
    error = {"code": code, "message": message, "details": details or {}, "request_id": record.request_id}
    answer = Answer.of_json({"error": error}, status)
    return Answer(answer.status, answer.media_type, answer.body, headers)


def _http_error(error: HTTPException, record: Record) -> Answer:
    """Return the answer to a request that Flask refuses: an unknown path or a wrong method."""
    status = HTTPStatus(error.code or HTTPStatus.INTERNAL_SERVER_ERROR)
    kept = [
        (name, value) for name, value in error.get_headers() if name.lower() not in ("content-type", "content-length")
    ]
    message = f"{status.phrase}: {record.method} {shown(record.path, MAX_SHOWN)}."
    return error_answer(status, status.name.lower(), message, record, headers=tuple(kept))
