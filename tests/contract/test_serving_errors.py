"""What is answered to requests that are wrong: a status, and one sentence that says what and where."""

import contextlib
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .opt_ml import OptMl
from .samples import csv, digits
from .server import Answer, Server, serving

POINTS = digits()[:3]
CSV = csv(POINTS)
ROW = CSV.splitlines()[0]
WIDTH = POINTS.shape[1]
CODES = {
    400: "invalid_payload",
    404: "not_found",
    405: "method_not_allowed",
    406: "not_acceptable",
    413: "payload_too_large",
    415: "unsupported_content_type",
}


def assert_error(
    answer: Answer, status: int, *words: str, details: dict[str, int] | None = None, request_id: str | None = None
) -> None:
    """Assert the one shape that all errors have."""
    assert answer.status == status, answer.body
    assert answer.content_type == "application/json"
    error = answer.error
    assert sorted(error) == ["code", "details", "message", "request_id"]
    assert error["code"] == CODES[status]
    missing = [word for word in words if word not in error["message"]]
    assert not missing, error["message"]
    assert error["details"] == (details or {})
    assert error["request_id"] == request_id if request_id else re.fullmatch(r"\S+", error["request_id"])
    assert len(answer.body) <= 1024
    for leak in (b"Traceback", b'File "', b"/opt/ml", b".py", b"model_algo-1", b"site-packages"):
        assert leak not in answer.body


@pytest.mark.parametrize(
    ("body", "details", "words"),
    [
        pytest.param(b"", {}, ["empty"], id="nothing"),
        pytest.param(b"\n\n", {}, ["rows of numbers", "none"], id="blank lines"),
        pytest.param(ROW + b",1", {"row": 1}, ["expected 64 columns", "found 65"], id="a column too many"),
        pytest.param(b"1,2,3", {"row": 1}, ["expected 64 columns", "found 3"], id="too few columns"),
        pytest.param(CSV + b"1,2", {"row": 4}, ["expected 64 columns", "found 2"], id="a short last row"),
        pytest.param(
            CSV + b"7,seven" + b",0" * 62, {"row": 4, "column": 2}, ["a number", "'seven'"], id="a word in row 4"
        ),
        pytest.param(b"\n" + b"1," * 63, {"row": 2, "column": 64}, ["empty cell"], id="an empty cell"),
        pytest.param(
            ",".join(f"pixel_{i}" for i in range(64)).encode() + b"\n" + CSV,
            {"row": 1, "column": 1},
            ["'pixel_0'", "header"],
            id="a header",
        ),
        pytest.param(b"\xff" + ROW, {"row": 1, "column": 1}, ["a number"], id="bytes that are no UTF-8"),
        pytest.param(ROW.replace(b",13,", b",nan,", 1), {"row": 1, "column": 4}, ["finite", "NaN"], id="NaN"),
        pytest.param(ROW.replace(b",13,", b",1e99,", 1), {"row": 1, "column": 4}, ["float32"], id="beyond float32"),
        pytest.param(ROW.replace(b",", b";"), {"row": 1, "column": 1}, ["a number"], id="semicolons"),
        pytest.param(b"x" * 100_000, {"row": 1, "column": 1}, ["a number", "xxx..."], id="a very long word"),
        pytest.param(b"\0" * 64, {"row": 1, "column": 1}, ["a number"], id="zero bytes"),
    ],
)
def test_invalid_csv_error_names_row_and_column(
    server: Server, body: bytes, details: dict[str, int], words: list[str]
) -> None:
    answer = server.invoke(body, "text/csv")
    assert_error(answer, 400, "unable to evaluate payload provided", *words, details=details)


def _vectors(*vectors: str) -> bytes:
    return f'{{"instances": [{", ".join(f"""{{"features": {vector}}}""" for vector in vectors)}]}}'.encode()


GOOD = f"[{ROW.decode()}]"


@pytest.mark.parametrize(
    ("body", "details", "words"),
    [
        pytest.param(b"", {}, ["empty"], id="nothing"),
        pytest.param(b'{"instances": [', {}, ["expected JSON"], id="half of a text"),
        pytest.param(b"\xff\xfe{}", {}, ["expected JSON"], id="bytes that are no UTF-8"),
        pytest.param(b"null", {}, ["instances", "found null"], id="null"),
        pytest.param(b"[1, 2]", {"row": 1}, ["features", "found 1"], id="a list of numbers"),
        pytest.param(b"{}", {}, ["instances", "an object with no keys"], id="an empty object"),
        pytest.param(b'{"inputs": []}', {}, ["instances", "'inputs'"], id="another key"),
        pytest.param(b'{"instances": {"a": 1}}', {}, ["instances"], id="instances that are no list"),
        pytest.param(b'{"instances": []}', {}, ["at least one instance"], id="no instances"),
        pytest.param(b'{"instances": [7]}', {"row": 1}, ["features", "found 7"], id="a number as instance"),
        pytest.param(b'{"instances": [{"x": [1]}]}', {"row": 1}, ["features", "'x'"], id="another key in it"),
        pytest.param(_vectors(GOOD, "null"), {"row": 2}, ["features"], id="no vector"),
        pytest.param(_vectors(GOOD, GOOD, "[1, 2]"), {"row": 3}, ["expected 64 numbers", "found 2"], id="two widths"),
        pytest.param(_vectors("[1, 2]"), {"row": 1}, ["expected 64 columns", "found 2"], id="another width"),
        pytest.param(
            _vectors(GOOD, GOOD.replace(",13,", ',"13",', 1)),
            {"row": 2, "column": 4},
            ["a number", "the text '13'"],
            id="a text",
        ),
        pytest.param(
            _vectors(GOOD.replace(",13,", ",null,", 1)), {"row": 1, "column": 4}, ["a number", "null"], id="null in it"
        ),
        pytest.param(
            _vectors(GOOD.replace(",13,", ",true,", 1)), {"row": 1, "column": 4}, ["a number", "true"], id="true in it"
        ),
        pytest.param(
            _vectors(GOOD.replace(",13,", ",[13],", 1)),
            {"row": 1, "column": 4},
            ["a number", "list"],
            id="a list in it",
        ),
        pytest.param(
            _vectors(GOOD.replace(",13,", ",1e99,", 1)), {"row": 1, "column": 4}, ["float32"], id="beyond float32"
        ),
        pytest.param(b"[" * 100_000, {}, ["expected JSON"], id="a hundred thousand brackets"),
    ],
)
def test_invalid_json_error_names_its_place(
    server: Server, body: bytes, details: dict[str, int], words: list[str]
) -> None:
    answer = server.invoke(body, "application/json")
    assert_error(answer, 400, "unable to evaluate payload provided", *words, details=details)


def test_empty_vector_is_refused(server: Server) -> None:
    answer = server.invoke(_vectors("[]"), "application/json")
    assert answer.status == 400
    assert answer.error["code"] == "invalid_payload"


def test_number_beyond_float64_is_refused(server: Server) -> None:
    answer = server.invoke(_vectors(GOOD.replace(",13,", ",1e999,", 1)), "application/json")
    assert answer.status == 400
    assert answer.error["code"] == "invalid_payload"


@pytest.mark.parametrize(
    "content_type",
    [None, "image/png", "csvx", "text/csvx", "application/x-www-form-urlencoded", "multipart/form-data", "x" * 4000],
)
def test_unknown_content_type_is_415(server: Server, content_type: str | None) -> None:
    assert_error(server.invoke(CSV, content_type), 415, "text/csv", "application/json")


@pytest.mark.parametrize(
    "accept",
    [
        "image/png",
        "image/*, audio/*;q=0.5",
        "text/csv;q=0",
        "*/*;q=0",
        "nonsense",
        pytest.param("a/b," * 1500, id="a long list"),
    ],
)
def test_unsupported_accept_is_406(server: Server, accept: str) -> None:
    assert_error(server.invoke(CSV, Accept=accept), 406, "text/csv", "application/json")


def test_accept_that_declines_all_types_is_406(server: Server) -> None:
    declined = ("application/json", "application/jsonlines", "text/csv", "application/x-recordio-protobuf")
    assert_error(server.invoke(CSV, Accept=", ".join(f"{name};q=0" for name in declined) + ", */*"), 406)


@pytest.mark.parametrize(
    "path", ["/", "/pings", "/invocations/", "/models", "/%ff", "/..%2f..%2fetc/passwd", "/a" * 400]
)
def test_unknown_path_is_404(server: Server, path: str) -> None:
    assert_error(server.ask("GET", path), 404)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/invocations", "POST"),
        ("PUT", "/invocations", "POST"),
        ("DELETE", "/invocations", "POST"),
        ("DELETE", "/ping", "GET"),
        ("BREW", "/ping", "GET"),
    ],
)
def test_wrong_method_is_405_and_allow_names_the_right_one(
    server: Server, method: str, path: str, allowed: str
) -> None:
    answer = server.ask(method, path)
    assert_error(answer, 405, method)
    assert allowed in answer.headers["Allow"]


@pytest.mark.parametrize("header", ["X-Amzn-SageMaker-Inference-Id", "X-Request-Id"])
def test_request_id_of_the_caller_is_returned(server: Server, header: str) -> None:
    answer = server.ask("POST", "/invocations", b"", {"Content-Type": "text/csv", header: "order-66"})
    assert_error(answer, 400, request_id="order-66")


@pytest.mark.parametrize("given", ["x" * 129, "\u00e9", "a\tb"])
def test_invalid_request_id_is_replaced(server: Server, given: str) -> None:
    answer = server.ask("POST", "/invocations", b"", {"Content-Type": "text/csv", "X-Request-Id": given})
    assert_error(answer, 400)
    assert answer.error["request_id"] != given


def test_each_error_has_a_unique_request_id(server: Server) -> None:
    ids = {server.invoke(b"").error["request_id"] for _ in range(3)}
    assert len(ids) == 3


def test_client_errors_are_not_logged_as_defects(server: Server) -> None:
    assert "Traceback" not in server.output.read_text()


MIB = 1 << 20


@pytest.fixture(scope="module")
def small(trained: OptMl, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that takes no more than 1 MiB."""
    output: Path = tmp_path_factory.mktemp("small") / "output"
    settings = {"SAGEMAKER_MAX_PAYLOAD_IN_MB": "1", "SAGEMAKER_MODEL_SERVER_WORKERS": "1"}
    with serving(trained.base, output, **settings) as server:
        yield server


def _padded(length: int) -> bytes:
    """Return a CSV body of one row and blank lines, ``length`` bytes long."""
    return ROW + b"\n" * (length - len(ROW))


def _pieces(content: bytes) -> Iterator[bytes]:
    for first in range(0, len(content), 10_000):
        yield content[first : first + 10_000]


@pytest.mark.parametrize("chunked", [False, True], ids=["with its length", "in chunks"])
def test_body_of_exactly_the_limit_is_accepted(small: Server, chunked: bool) -> None:
    body = _padded(MIB)
    assert small.invoke(_pieces(body) if chunked else body).status == 200


@pytest.mark.parametrize("chunked", [False, True], ids=["with its length", "in chunks"])
def test_body_one_byte_above_the_limit_is_413(small: Server, chunked: bool) -> None:
    body = _padded(MIB + 1)
    answer = small.invoke(_pieces(body) if chunked else body)
    assert_error(answer, 413, "1 MiB", "SAGEMAKER_MAX_PAYLOAD_IN_MB")


def test_endpoint_body_limit_is_25_mib_by_default(server: Server) -> None:
    body = _padded(25 * MIB)
    assert server.invoke(body).status == 200
    assert_error(server.invoke(body + b"\n"), 413, "25 MiB")


def test_body_with_too_large_length_is_refused_before_it_is_sent(small: Server) -> None:
    with small.upload(MIB + 1) as upload:
        assert not upload.is_wanted
        assert_error(upload.answer(), 413)


@pytest.mark.parametrize("chunked", [False, True], ids=["with its length", "in chunks"])
def test_client_that_sends_far_too_much_gets_the_413(small: Server, chunked: bool) -> None:
    body = _padded(8 * MIB)
    assert_error(small.invoke(_pieces(body) if chunked else body), 413)


def test_endless_chunked_body_is_413_and_server_continues(small: Server) -> None:
    with socket.create_connection(("127.0.0.1", small.port), timeout=30) as connection:
        connection.sendall(
            b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        chunk = b"10000\r\n" + bytes(0x10000) + b"\r\n"
        with contextlib.suppress(ConnectionError):  # the server may hang up once it has had enough
            for _ in range(64):
                connection.sendall(chunk)
            connection.sendall(b"0\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            assert connection.recv(12) == b"HTTP/1.1 413"
    assert small.ask("GET", "/ping").status == 200


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(b"GARBAGE\r\n\r\n", id="no HTTP at all"),
        pytest.param(b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", id="a line that is too long"),
        pytest.param(b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", id="a negative length"),
        pytest.param(
            b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
            id="a length and chunks",
        ),
    ],
)
def test_invalid_http_is_400_and_server_continues(small: Server, head: bytes) -> None:
    with socket.create_connection(("127.0.0.1", small.port), timeout=30) as connection:
        connection.sendall(head)
        assert connection.recv(10)[:10] == b"HTTP/1.1 4"
    assert small.ask("GET", "/ping").status == 200


def test_client_that_disconnects_in_its_body_affects_no_other(small: Server) -> None:
    with small.upload(1000) as upload:
        assert upload.is_wanted
        upload.connection.sendall(ROW)
    assert small.invoke(ROW).status == 200


def test_pings_are_answered_during_slow_uploads(small: Server) -> None:
    """One worker, three of its four threads busy."""
    with contextlib.ExitStack() as uploads:
        waiting: list[Any] = [uploads.enter_context(small.upload(len(ROW))) for _ in range(3)]
        assert all(upload.is_wanted for upload in waiting)
        assert small.ask("GET", "/ping").status == 200
        for upload in waiting:
            upload.connection.sendall(ROW)
            assert upload.answer().status == 200
