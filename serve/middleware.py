"""The first code of every request: times, counts and logs it, and answers POST /invocations without Flask.

Flask's routing and its request and response objects take as much time as decoding and answering a row of 784 numbers.
Flask answers all other routes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from werkzeug.exceptions import MethodNotAllowed

from kmeans.model import KMeansModel
from serve import exchange
from serve.errors import answer_to
from serve.exchange import RECORD, STATUS_LINES, Answer, Record
from serve.inference import Inference
from serve.metrics import Metrics
from serve.server.connection import discard_body

INVOCATIONS = "/invocations"

# Returned unchanged to the client: visible ASCII, as SageMaker defines it.
ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"
MAX_ATTRIBUTES = 1024
_ATTRIBUTES_KEY = f"HTTP_{ATTRIBUTES.upper().replace('-', '_')}"

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]


class Middleware:
    """WSGI middleware around Flask's application.

    Parameters
    ----------
    inner
        Answers all requests except invocations.
    inference
        Answers invocations.
    model
        Model of the invocations; None on a multi-model endpoint, where ``inner`` answers them too.
    telemetry
        Counts requests.
    """

    def __init__(self, inner: Application, inference: Inference, model: KMeansModel | None, telemetry: Metrics) -> None:
        self._inner = inner
        self._inference = inference
        self._model = model
        self._telemetry = telemetry

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request."""
        record = environ[RECORD] = Record.of(environ)
        self._telemetry.begin()
        try:
            if self._model is None or environ["PATH_INFO"] != INVOCATIONS:
                return self._answer_by_flask(environ, start_response, record)
            answer = self._invoke(environ, self._model, record)
        except ConnectionError:  # the client is gone
            record.status = 0
            self._finish(record)
            raise
        headers = answer.header_list()
        _echo_attributes(environ, headers)
        start_response(STATUS_LINES[answer.status], headers)
        record.status, record.bytes_out = answer.status, answer.length or 0
        self._finish(record)
        # The response to HEAD has headers only.
        body = () if environ["REQUEST_METHOD"] == "HEAD" else answer.body
        return body if answer.status < 400 else _ErrorBody(body, environ)

    def _invoke(self, environ: Environ, model: KMeansModel, record: Record) -> Answer:
        try:
            if environ["REQUEST_METHOD"] != "POST":
                raise MethodNotAllowed(valid_methods=["POST"])
            return self._inference.answer(environ, model)
        except ConnectionError:
            raise
        except Exception as error:
            return answer_to(error, record)

    def _answer_by_flask(self, environ: Environ, start_response: StartResponse, record: Record) -> Iterable[bytes]:
        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            record.status = int(status[:3])
            lengths = [value for name, value in headers if name.lower() == "content-length"]
            record.bytes_out = int(lengths[0]) if lengths else 0
            _echo_attributes(environ, headers)
            return start_response(status, headers, *rest)

        body = self._inner(environ, start)
        self._finish(record)
        return body if record.status < 400 else _ErrorBody(body, environ)

    def _finish(self, record: Record) -> None:
        record.total_seconds = time.perf_counter() - record.began
        self._telemetry.end(record)
        exchange.write_log_line(record)


class _ErrorBody:
    """The body of an error response; once it has been sent, the rest of the request's body is discarded."""

    def __init__(self, body: Iterable[bytes], environ: Environ) -> None:
        self._body = body
        self._environ = environ

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._body)

    def close(self) -> None:
        close = getattr(self._body, "close", None)
        if close is not None:
            close()
        discard_body(self._environ)


def _echo_attributes(environ: Environ, headers: list[tuple[str, str]]) -> None:
    given: str | None = environ.get(_ATTRIBUTES_KEY)
    if given and len(given) <= MAX_ATTRIBUTES and given.isascii() and given.isprintable():
        headers.append((ATTRIBUTES, given))
