"""Answers to requests that fail before the application: malformed HTTP, or more of it than the limits allow."""

from __future__ import annotations

import contextlib
import socket
from http import HTTPStatus
from typing import Any

from gunicorn.http import errors

from serve import exchange
from serve.errors import answer_to, error_answer
from serve.exchange import STATUS_LINES, Record, new_id
from serve.metrics import Metrics
from serve.server.connection import SERVER

# HTTP status of each error of gunicorn's parser that is not a 400.
STATUSES: dict[type[Exception], HTTPStatus] = {
    errors.LimitRequestLine: HTTPStatus.REQUEST_URI_TOO_LONG,
    errors.LimitRequestHeaders: HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    errors.ExpectationFailed: HTTPStatus.EXPECTATION_FAILED,
    errors.UnsupportedTransferCoding: HTTPStatus.NOT_IMPLEMENTED,
}


def answer(error: Exception, request: Any, client: socket.socket, telemetry: Metrics) -> None:
    """Send the answer to ``error``, log it and count it.

    Parameters
    ----------
    error
        Raised by gunicorn's parser, or while the request was answered.
    request
        gunicorn's request, None if its head could not be parsed.
    client
        The client's socket; a client that has closed it is ignored.
    telemetry
        Counts the request.
    """
    record = Record(new_id(), None, None, getattr(request, "method", None) or "-", getattr(request, "path", "-"))
    telemetry.begin()
    if isinstance(error, errors.ParseException):
        status = STATUSES.get(type(error), HTTPStatus.BAD_REQUEST)
        answer = error_answer(status, "invalid_request", "the request is no valid HTTP of this server's kind.", record)
    else:
        answer = answer_to(error, record)
    record.status = answer.status
    telemetry.end(record)
    exchange.write_log_line(record)
    headers = [("Server", SERVER), ("Connection", "close"), *answer.header_list()]
    head = "".join(f"{name}: {value}\r\n" for name, value in headers)
    with contextlib.suppress(OSError):
        client.sendall(f"HTTP/1.1 {STATUS_LINES[answer.status]}\r\n{head}\r\n".encode() + b"".join(answer.body))
