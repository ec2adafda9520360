"""What every request passes first: it is timed, counted and logged, and an invocation is answered without Flask.

Flask's routing and its request and response objects cost as much time as a row of 784 numbers takes to be read and
answered. So POST /invocations is answered here; all other routes are Flask's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from werkzeug.exceptions import MethodNotAllowed

from kmeans.model import KMeansModel
from serve import access_log, request_body
from serve.access_log import RECORD, Record
from serve.errors import answer_to
from serve.inference import Inference
from serve.metrics import Metrics
from serve.response import STATUS_LINES, Answer

INVOCATIONS = "/invocations"

# Opaque to us and given back as it came: visible ASCII, as SageMaker defines it.
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
        Answers what isn't an invocation.
    inference, model
        Answer invocations; without a model they are left to ``inner`` too.
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
                return self._pass_on(environ, start_response, record)
            answer = self._invoke(environ, self._model, record)
        except ConnectionError:  # there is nobody left to answer
            record.status = 0
            self._over(record)
            raise
        headers = answer.header_list()
        _echo_attributes(environ, headers)
        start_response(STATUS_LINES[answer.status], headers)
        record.status, record.bytes_out = answer.status, answer.length or 0
        self._over(record)
        # An answer to HEAD has the headers alone.
        pieces = () if environ["REQUEST_METHOD"] == "HEAD" else answer.body
        return pieces if answer.status < 400 else _Refusal(pieces, environ)

    def _invoke(self, environ: Environ, model: KMeansModel, record: Record) -> Answer:
        try:
            if environ["REQUEST_METHOD"] != "POST":
                raise MethodNotAllowed(valid_methods=["POST"])
            return self._inference.answer(environ, model)
        except ConnectionError:
            raise
        except Exception as error:
            return answer_to(error, record)

    def _pass_on(self, environ: Environ, start_response: StartResponse, record: Record) -> Iterable[bytes]:
        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            record.status = int(status[:3])
            lengths = [value for name, value in headers if name.lower() == "content-length"]
            record.bytes_out = int(lengths[0]) if lengths else 0
            _echo_attributes(environ, headers)
            return start_response(status, headers, *rest)

        pieces = self._inner(environ, start)
        self._over(record)
        return pieces if record.status < 400 else _Refusal(pieces, environ)

    def _over(self, record: Record) -> None:
        record.total_seconds = time.perf_counter() - record.began
        self._telemetry.end(record)
        access_log.write(record)


class _Refusal:
    """The body of an error's answer; when it has been sent, what the client still sends is thrown away."""

    def __init__(self, pieces: Iterable[bytes], environ: Environ) -> None:
        self._pieces = pieces
        self._environ = environ

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._pieces)

    def close(self) -> None:
        close = getattr(self._pieces, "close", None)
        if close is not None:
            close()
        request_body.discard(self._environ)


def _echo_attributes(environ: Environ, headers: list[tuple[str, str]]) -> None:
    given: str | None = environ.get(_ATTRIBUTES_KEY)
    if given and len(given) <= MAX_ATTRIBUTES and given.isascii() and given.isprintable():
        headers.append((ATTRIBUTES, given))
