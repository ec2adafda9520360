"""The server as a target: raw bytes of a connection through gunicorn's parser into the application, in this process.

There are three: a server of one model, the same with placeholders for bad rows, and one of many models, to which the
routes under /models belong. They cut bodies into chunks, and answers into chunks, that the fuzzer's short inputs have
several of.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import re
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from flask import Flask
from gunicorn.config import Config
from gunicorn.http import RequestParser, wsgi
from gunicorn.http.errors import NoMoreData, ParseException

from kmeans.errors import SettingError
from kmeans.formats import recordio
from kmeans.formats.media_type import JSON
from kmeans.formats.registry import FORMATS
from kmeans.model import KMeansModel
from serve import exchange, inference, negotiation
from serve.app import create_app
from serve.negotiation import NotAcceptableError, UnsupportedContentTypeError
from serve.settings import Settings

PROJECT = Path(__file__).resolve().parents[2]
CENTERS = np.array([[0, 0], [3, 4], [9, 9]], dtype=np.float32)
REQUEST_TYPES = [form.media_type for form in FORMATS.of_requests()]
ANSWER_TYPES = [form.media_type for form in FORMATS.of_responses()]
ADDRESS = ("127.0.0.1", 50000)

# Bytes of a chunk, and rows from which an answer is sent in chunks.
CHUNK_BYTES, MAX_ROWS_AT_ONCE = 64, 4

# Maximum number of requests on one connection.
MAX_REQUESTS = 4

STATUSES = {200, 400, 404, 405, 406, 413, 415}
# A name can be loaded once.
MODELS_STATUSES = STATUSES | {409}

# What a server of many models may load: a file of centers that MXNet wrote. Its folder has the same name in all
# processes, so that an input found by one means the same to another.
MODELS_FOLDER = PROJECT / "tests" / "data"
URL = str(MODELS_FOLDER / "golden")

# What would tell a stranger how the server is built or where its files lie.
LEAKS = (b"Traceback", b'File "', b"/opt/", b".py", b"site-packages", b"Error:", b"numpy", b"orjson")

HEADERS = {"server", "date", "connection", "content-type", "content-length", "transfer-encoding", "allow"}
HEADERS |= {"x-amzn-sagemaker-custom-attributes", "x-request-id"}


class Connection:
    """The side of a socket to which a server writes."""

    def __init__(self) -> None:
        self.sent = bytearray()

    def sendall(self, content: bytes) -> None:
        self.sent += content

    def send(self, content: bytes) -> int:
        self.sent += content
        return len(content)

    def settimeout(self, _: float | None) -> None:
        """Nothing waits here."""

    def shutdown(self, _: int) -> None:
        """Nothing is open here."""


class _Defects(logging.Handler):
    """Remembers what was logged as a defect, instead of writing it."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: BaseException | None = None

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            self.found = record.exc_info[1]


def _configuration() -> Config:
    """Return gunicorn's settings as the image has them, without what belongs to processes."""
    configuration = Config()
    values: dict[str, Any] = {}
    path = PROJECT / "serve" / "server" / "gunicorn_conf.py"
    exec(compile(path.read_bytes(), path, "exec"), values)  # noqa: S102 - the project's own
    for name, value in values.items():
        if name.startswith(("limit_", "header_", "forward")):
            configuration.set(name, value)
    return configuration


CONFIGURATION = _configuration()
SETTINGS = Settings.from_environment({"SAGEMAKER_MAX_PAYLOAD_IN_MB": "1"}, 1)
APPLICATION = create_app(SETTINGS, KMeansModel(CENTERS))
LENIENT_APPLICATION = create_app(dataclasses.replace(SETTINGS, bad_rows_become_placeholders=True), KMeansModel(CENTERS))
MODELS_APPLICATION = create_app(
    dataclasses.replace(SETTINGS, is_multi_model=True, models_directory=MODELS_FOLDER), None
)
DEFECTS = _Defects()
logging.getLogger("kmeans").addHandler(DEFECTS)
logging.getLogger("kmeans").propagate = False
exchange.write_log_line = lambda record: None  # a line for each request is tested elsewhere


def answers(data: bytes, application: Flask) -> Iterator[bytes]:
    """Yield the answer to each request in ``data``, as the worker would write it to the connection."""
    client = Connection()
    parser = RequestParser(CONFIGURATION, iter([data[: len(data) // 2], data[len(data) // 2 :]]), ADDRESS)
    for _ in range(MAX_REQUESTS):
        try:
            request = next(parser)
        except (StopIteration, NoMoreData, ParseException):
            return  # gunicorn's own refusal, with a status of 4xx
        client.sent.clear()
        DEFECTS.found = None
        response, environment = wsgi.create(request, client, ADDRESS, ADDRESS, CONFIGURATION)
        body = application(environment, response.start_response)
        try:
            for part in body:
                response.write(part)
            response.close()
        finally:
            if hasattr(body, "close"):
                body.close()
        yield bytes(client.sent).removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
        if response.should_close():
            return


def check_request(data: bytes) -> None:
    """Only 200 or 4xx, no defect in the log, no word of how the server is built, no header of the client's making."""
    _check_answers(data, APPLICATION, STATUSES)


def check_lenient_request(data: bytes) -> None:
    """The same of a server that answers bad rows with placeholders."""
    _check_answers(data, LENIENT_APPLICATION, STATUSES)


def check_models_request(data: bytes) -> None:
    """The same of a server of many models; each input finds none loaded."""
    client = MODELS_APPLICATION.test_client()
    try:
        _check_answers(data, MODELS_APPLICATION, MODELS_STATUSES)
        listed = client.get("/models").json
        assert listed is not None
        for model in listed["models"]:
            assert model["modelUrl"].startswith(str(MODELS_FOLDER)), model
    finally:
        for model in (client.get("/models").json or {})["models"]:
            assert client.delete(f"/models/{urllib.parse.quote(model['modelName'], safe='')}").status_code == 200


@mock.patch.object(inference, "CHUNK_BYTES", CHUNK_BYTES)
@mock.patch.object(inference, "MAX_ROWS_AT_ONCE", MAX_ROWS_AT_ONCE)
def _check_answers(data: bytes, application: Flask, statuses: set[int]) -> None:
    for answer in answers(data, application):
        if DEFECTS.found is not None:
            raise DEFECTS.found
        head, _, body = answer.partition(b"\r\n\r\n")
        first, *lines = head.split(b"\r\n")
        found = re.fullmatch(rb"HTTP/1\.\d (\d{3}) [ -~]*", first)
        assert found, first
        assert int(found[1]) in statuses, answer
        names = {line.partition(b":")[0].decode("latin1").lower() for line in lines}
        assert names <= HEADERS, names
        assert int(found[1]) == 200 or len(body) <= 1200, body
        for leak in LEAKS:
            assert leak not in answer or leak in data, answer


def request(path: bytes, body: bytes = b"", method: bytes = b"POST", **headers: str) -> bytes:
    """Return the bytes of one request; underscores in the names of headers stand for hyphens."""
    lines = [b"%s %s HTTP/1.1" % (method, path), b"Host: x"]
    lines += [f"{name.replace('_', '-')}: {value}".encode() for name, value in headers.items()]
    if body:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join((*lines, b"", body))


def request_seeds() -> list[bytes]:
    """A request of every format, chunked ones, several at once, and what servers stumble over."""
    bodies: dict[str, bytes] = {
        "text/csv": b"1,2\n3,4",
        "application/json": b'{"instances": [{"features": [1, 2]}, {"features": [3, 4], "id": 7}]}',
        "application/jsonlines": b'{"features": [1, 2]}\n[3, 4]',
        "application/x-recordio-protobuf": recordio.encode(CENTERS),
    }
    asked = [request(b"/invocations", body, Content_Type=kind) for kind, body in bodies.items()]
    # Of several chunks each.
    long = {
        "text/csv": b"1,2\n" * 40,
        "application/json": b'[{"features": [1, 2]}, {"features": [3, 4], "id": "]}, {"}%s]' % (b", [5, 6]" * 20),
        "application/jsonlines": b'{"features": [1, 2]}\n' * 10,
        "application/x-recordio-protobuf": recordio.encode(CENTERS) * 3,
    }
    asked += [request(b"/invocations", body, Content_Type=kind) for kind, body in long.items()]
    accepted = [
        request(b"/invocations", b"1,2", Content_Type="Text/CSV; charset=utf-8", Accept=accept)
        for accept in (*ANSWER_TYPES, "*/*;q=0.1, text/csv;labels=int", "text/*", "image/png")
    ]
    head = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\n"
    return [
        request(b"/ping", method=b"GET"),
        request(b"/ping", method=b"HEAD"),
        *(
            request(path, method=b"GET")
            for path in (b"/execution-parameters", b"/health", b"/metrics", b"/openapi.json")
        ),
        request(b"/models/a/invoke", b"1,2", Content_Type="text/csv"),
        *asked,
        *accepted,
        head + b"Transfer-Encoding: chunked\r\n\r\n3\r\n1,2\r\n2\r\n\n3\r\n2\r\n,4\r\n0\r\n\r\n",
        head + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n3\r\n1,2\r\n0\r\n\r\n",
        head + b"Transfer-Encoding: chunked\r\n\r\nffffffff\r\n1,2\r\n",
        head + b"Content-Length: 99999999999\r\n\r\n1,2",
        head + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\n1,2",
        head + b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\n1,2",
        head + b"X-Amzn-SageMaker-Custom-Attributes: a=b\r\nX-Request-Id: 7\r\nContent-Length: 3\r\n\r\n1,2",
        request(b"/invocations", b"1,2", Content_Type="text/csv") + request(b"/ping", method=b"GET"),
        request(b"/%2e%2e/%00?a=%ff#x", method=b"GET"),
        request(b"http://x/ping", method=b"GET"),
        request(b"*", method=b"OPTIONS"),
    ]


def lenient_request_seeds() -> list[bytes]:
    """The same, and rows that can't be read: alone, among others, and too deep to be written again."""
    deep = b"[" * 300 + b"]" * 300
    bodies = [
        ("text/csv", b"1,2\noops\n3,4\n" * 8),
        ("application/json", b'[{"features": [1, 2]}, 7, {"features": [3, 4]}, {"features": ["a"]}]'),
        ("application/json", b'[{"features": [1, 2], "id": %s}]' % deep),
        ("application/json", b'{"instances": [[1, 2], {"x": %s}, 7]}' % deep),
        ("application/jsonlines", b'{"features": [1, 2]}\n{\n[1]\n{"features": [1, 2], "id": %s}' % deep),
        ("application/x-recordio-protobuf", recordio.encode(CENTERS) + recordio.encode(CENTERS[:, :1])),
    ]
    return [*request_seeds(), *(request(b"/invocations", body, Content_Type=kind) for kind, body in bodies)]


def models_request_seeds() -> list[bytes]:
    """The life of a model in one connection, and each route by itself."""

    def load(name: object, url: object, **more: object) -> bytes:
        content = json.dumps({"model_name": name, "url": url, **more}).encode()
        return request(b"/models", content, Content_Type="application/json")

    loaded = load("a", URL)
    row = b"1,-2,3e4" + b",0.5" * 10
    invoked = request(b"/models/a/invoke", row, Content_Type="text/csv", Accept="text/csv")
    described = request(b"/models/a", method=b"GET")
    deleted = request(b"/models/a", method=b"DELETE")
    listed = request(b"/models?limit=1&next_page_token=a", method=b"GET")
    return [
        loaded + invoked + described + deleted,
        loaded + loaded + load("b%2f~", f"{URL}/", later=[1, {}]) + listed,
        loaded + request(b"/models/a/invoke", b"[[%s]]" % row, Content_Type="application/json") + deleted + invoked,
        *(load(name, URL) for name in ("", "a/b", "\u00e4", None, ["a"])),
        *(load("a", url) for url in ("", f"{URL}/../../..", f"{URL}/model_algo-1", f"{URL}\0", "/etc", None)),
        listed,
        request(b"/models", method=b"GET"),
        request(b"/models?limit=0&limit=9999999999", method=b"GET"),
        request(b"/models?limit=\xd9\xa1&next_page_token=%ff", method=b"GET"),
        described,
        deleted,
        invoked,
        request(b"/models/%2e%2e/invoke", b"1", Content_Type="text/csv"),
        request(b"/models/a%2Fb", method=b"GET"),
        request(b"/models/", method=b"PUT"),
        request(b"/models", b"[" * 500),
        request(b"/models", b'{"model_name": "\\ud800", "url": "x"}'),
        request(b"/invocations", b"1,2", Content_Type="text/csv"),
        request(b"/ping", method=b"GET"),
        b"POST /models HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    ]


def check_negotiation(data: bytes) -> None:
    """Three lines, Content-Type, Accept and the default of it: one of our formats, or what it is refused by."""
    content_type, accept, default = (*data.decode("latin1").split("\n", 2), "", "")[:3]
    try:
        assert negotiation.request_format(content_type) in FORMATS.of_requests()
    except UnsupportedContentTypeError as error:
        _assert_sentence(error)
    try:
        assert negotiation.answer_type(accept, JSON).form in FORMATS.of_responses()
    except NotAcceptableError as error:
        _assert_sentence(error)
    try:
        settings = Settings.from_environment({"SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT": default}, 1)
    except SettingError as error:
        _assert_sentence(error)
    else:
        assert negotiation.answer_type("*/*", settings.default_accept).form in FORMATS.of_responses()


def _assert_sentence(error: Exception) -> None:
    assert str(error).isprintable(), str(error)
    assert len(str(error)) < 800, str(error)


def negotiation_seeds() -> list[bytes]:
    """What clients send."""
    kinds: list[Any] = [*REQUEST_TYPES, *ANSWER_TYPES, "Text/CSV; charset=utf-8", "csv"]
    seeds = [f"{kind}\n{kind};q=0.5, */*;q=0.1\n{kind}".encode() for kind in kinds]
    return [*seeds, b"\n*/*\ntext/*", b'text/csv;a="b;c"\n*;q=nan, application/json;q=1e3;labels=int\n*']
