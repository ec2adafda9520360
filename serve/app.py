"""The routes of the hosting contract: GET /ping and POST /invocations.

Errors are answered with ``{"error": {"code", "message", "details", "request_id"}}``; the message is one sentence that
names the row and column at fault, never a traceback (on SageMaker it is all the caller gets to see).

    400 invalid_payload            the body is not what its type promises, or not as wide as the model
    404 not_found, 405 method_not_allowed
    406 not_acceptable             nothing in Accept can be produced
    413 payload_too_large          the body is longer than SAGEMAKER_MAX_PAYLOAD_IN_MB
    415 unsupported_content_type   no decoder for the Content-Type
    500 internal_error             a defect; the log has the traceback under the request's id
    503 overloaded                 no memory is left for this request now
"""

from __future__ import annotations

import contextlib
import socket
import time
import uuid
from functools import partial
from http import HTTPStatus
from typing import IO, Any

import numpy as np
import orjson
from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from kmeans.errors import DataError
from kmeans.formats.instances import Predictions
from kmeans.model import KMeansModel
from serve.negotiation import ENCODERS, NotAcceptableError, UnsupportedContentTypeError, answer_type, decoder
from serve.settings import Settings

# The built-in image's words, which clients may look for.
INVALID_PAYLOAD = "unable to evaluate payload provided"

# How long the rest of a body that was refused is read and thrown away.
DISCARD_SECONDS = 1.0
DISCARD_CHUNK_BYTES = 1 << 16

REQUEST_ID_HEADERS = ("X-Amzn-SageMaker-Inference-Id", "X-Request-Id")
MAX_REQUEST_ID = 128


def create_app(settings: Settings, model: KMeansModel) -> Flask:
    """Return the WSGI application that serves ``model``."""
    app = Flask("kmeans", static_folder=None)

    @app.get("/ping")
    def ping() -> Response:
        """Tell SageMaker that the model is loaded: a server without one never gets as far as opening its port."""
        return Response(status=HTTPStatus.OK, content_type="text/plain")

    @app.post("/invocations")
    def invocations() -> Response:
        """Answer with the nearest center of each row and the distance to it."""
        # What the request can't change by another body is refused first.
        decode = decoder(request.content_type)
        form = answer_type(request.headers.get("Accept"), settings.default_accept)
        instances = decode(_body(settings.max_payload_bytes), model.features)
        width = instances.points.shape[1]
        if width != model.features:
            raise DataError(f"expected {model.features} columns (those of the model), found {width}", row=1)
        labels, distances = model.predict(instances.points)
        predictions = Predictions(
            # Floats, as the built-in image gives them, unless the client asks for integers.
            labels if form.integer_labels else labels.astype(np.float64),
            distances.astype(np.float64),
            instances.attached,
        )
        # The bare type: a charset parameter has made other containers of a pipeline refuse text/csv.
        return Response(ENCODERS[form.media_type](predictions), content_type=form.media_type)

    _answer_errors(app, settings)
    return app


def _body(limit: int) -> bytes:
    """Return the request's body; refuse one of more than ``limit`` bytes, before it is read if it says so itself.

    Flask's own limit cuts a chunked body off without a word, and a shorter CSV is a valid CSV.
    """
    if request.content_length is not None and request.content_length > limit:
        raise RequestEntityTooLarge
    body: bytes = request.stream.read(limit + 1)
    if len(body) > limit:
        raise RequestEntityTooLarge
    if not body:
        raise DataError("the request's body is empty")
    return body


def _discard_body(stream: IO[bytes], connection: socket.socket | None) -> None:
    """Read on, for a while, what a refused client is still sending: many clients send all before they read the answer.

    Whoever is slow about it is cut off: neither a thread nor gunicorn's main loop shall wait for such a client.
    """
    if connection is None:
        return
    deadline = time.monotonic() + DISCARD_SECONDS
    try:
        connection.settimeout(DISCARD_SECONDS)
        while time.monotonic() < deadline:
            if not stream.read(DISCARD_CHUNK_BYTES):
                return
    except OSError:
        pass
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _answer_errors(app: Flask, settings: Settings) -> None:
    @app.errorhandler(DataError)
    def invalid_payload(error: DataError) -> Response:
        places = {"row": error.row, "column": error.column, "offset": error.offset}
        details = {name: place for name, place in places.items() if place is not None}
        return _error(HTTPStatus.BAD_REQUEST, "invalid_payload", f"{INVALID_PAYLOAD}: {error}", details)

    @app.errorhandler(UnsupportedContentTypeError)
    def unsupported(error: UnsupportedContentTypeError) -> Response:
        return _error(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unsupported_content_type", f"{error}.")

    @app.errorhandler(NotAcceptableError)
    def not_acceptable(error: NotAcceptableError) -> Response:
        return _error(HTTPStatus.NOT_ACCEPTABLE, "not_acceptable", f"{error}.")

    @app.errorhandler(MemoryError)
    def overloaded(_: MemoryError) -> Response:
        return _error(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "overloaded",
            "no memory is left for this request: send fewer rows.",
        )

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> Response:
        status = HTTPStatus(error.code or HTTPStatus.INTERNAL_SERVER_ERROR)
        if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            limit = settings.max_payload_bytes >> 20
            message = f"the request's body is longer than {limit} MiB (SAGEMAKER_MAX_PAYLOAD_IN_MB): send fewer rows."
            refusal = _error(status, "payload_too_large", message)
            refusal.call_on_close(partial(_discard_body, request.stream, request.environ.get("gunicorn.socket")))
            return refusal
        answer = _error(status, status.name.lower(), f"{status.phrase}: {request.method} {request.path}.")
        for name, value in error.get_headers():  # Allow, for one
            if name.lower() not in ("content-type", "content-length"):
                answer.headers[name] = value
        return answer

    @app.errorhandler(Exception)
    def defect(error: Exception) -> Response:
        request_id = _request_id()
        app.logger.error("request %s failed", request_id, exc_info=error)
        message = f"an internal error; the log has more about it under the id {request_id}."
        return _error(HTTPStatus.INTERNAL_SERVER_ERROR, "internal_error", message, request_id=request_id)


def _error(
    status: HTTPStatus, code: str, message: str, details: dict[str, Any] | None = None, request_id: str | None = None
) -> Response:
    error = {"code": code, "message": message, "details": details or {}, "request_id": request_id or _request_id()}
    return Response(orjson.dumps({"error": error}), status, mimetype="application/json")


def _request_id() -> str:
    """Return the caller's own id of the request if it gave a printable one, else a new one."""
    for name in REQUEST_ID_HEADERS:
        given = request.headers.get(name, "")
        if given and len(given) <= MAX_REQUEST_ID and given.isascii() and given.isprintable():
            return given
    return uuid.uuid4().hex
