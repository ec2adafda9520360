"""The limit of this kind of server: gunicorn's threads, which read the body and answer a constant."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

# By path: /72 is answered with 72 bytes.
ANSWERS = {f"/{length}": b"x" * int(length) for length in os.environ["ANSWER_LENGTHS"].split(",")}


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer a request."""
    environ["wsgi.input"].read()
    answer = ANSWERS.get(environ["PATH_INFO"], b"")
    start_response("200 OK", [("Content-Type", "text/csv"), ("Content-Length", str(len(answer)))])
    return [answer]
