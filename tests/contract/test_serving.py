"""GET /ping and POST /invocations: what is answered to requests that are right."""

import http.client
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from kmeans.formats import recordio

from .opt_ml import OptMl
from .samples import Points, csv, digits, instances, json_lines, nearest, npy, predictions, read_centers
from .server import Answer, Server

POINTS = digits()[:100]
WRITERS = {
    "text/csv": csv,
    "application/json": instances,
    "application/jsonlines": json_lines,
    "application/x-recordio-protobuf": recordio.encode,
    "application/x-npy": npy,
}
ANSWERS = ("application/json", "application/jsonlines", "text/csv", "application/x-recordio-protobuf")


def assert_right(answer: Answer, model: OptMl, points: Points, content_type: str = "application/json") -> None:
    """Assert that ``answer`` has the labels and distances of ``points`` by NumPy in float64."""
    assert answer.status == 200, answer.body
    assert answer.content_type == content_type
    assert int(answer.headers["Content-Length"]) == len(answer.body)
    found = predictions(content_type, answer.body)
    labels, distances = nearest(points, read_centers(model.model))
    np.testing.assert_array_equal(found[:, 0], labels)
    np.testing.assert_allclose(found[:, 1], distances, rtol=1e-5)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_ping_is_200_without_a_body(server: Server, method: str) -> None:
    answer = server.ask(method, "/ping")
    assert (answer.status, answer.body) == (200, b"")


def test_server_header_does_not_name_the_software(server: Server) -> None:
    assert server.ask("GET", "/ping").headers["Server"] == "kmeans"


@pytest.mark.parametrize("accept", ANSWERS)
@pytest.mark.parametrize("content_type", WRITERS)
@pytest.mark.parametrize("rows", [1, 100])
def test_predictions_equal_brute_force(
    server: Server, trained: OptMl, rows: int, content_type: str, accept: str
) -> None:
    answer = server.invoke(WRITERS[content_type](POINTS[:rows]), content_type, Accept=accept)
    assert_right(answer, trained, POINTS[:rows], accept)


def test_predictions_of_signed_fractions_equal_brute_force(server: Server, trained: OptMl) -> None:
    points = np.random.default_rng(0).normal(scale=20, size=(50, 64)).astype(np.float32)
    assert_right(server.invoke(instances(points), "application/json"), trained, points)


def test_centers_are_predicted_as_themselves_at_distance_0(server: Server, trained: OptMl) -> None:
    answer = server.invoke(instances(read_centers(trained.model)), "application/json")
    found = predictions("application/json", answer.body)
    np.testing.assert_array_equal(found[:, 0], range(10))
    np.testing.assert_allclose(found[:, 1], 0, atol=1e-5)


ROW = ",".join(f"{value:g}" for value in POINTS[0].tolist())


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(f"{ROW}", id="no final line break"),
        pytest.param(f"{ROW}\n", id="a final line break"),
        pytest.param(f"{ROW}\r\n", id="a final CRLF"),
        pytest.param(f"\n\n{ROW}\n\n", id="blank lines"),
        pytest.param("\ufeff" + ROW, id="a byte order mark"),
        pytest.param(ROW.replace(",", " , "), id="spaces around the numbers"),
        pytest.param(ROW.replace(",13,", ",+1.3E+1,"), id="an exponent and a plus sign"),
    ],
)
def test_csv_variants_are_predicted_equally(server: Server, trained: OptMl, body: str) -> None:
    assert_right(server.invoke(body.encode(), "text/csv"), trained, POINTS[:1])


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(f'{{"instances": [{{"features": [{ROW}]}}]}}', id="features"),
        pytest.param(f'{{"instances": [{{"data": {{"features": {{"values": [{ROW}]}}}}}}]}}', id="nested"),
        pytest.param(f'{{"instances": [{{"features": [{ROW}]}}], "configuration": {{}}}}', id="a configuration"),
        pytest.param(f' {{\n"instances":[\n{{"features":[{ROW}]}}\n]\n}}\n', id="white space"),
    ],
)
def test_json_shapes_of_the_built_in_image_are_accepted(server: Server, trained: OptMl, body: str) -> None:
    assert_right(server.invoke(body.encode(), "application/json"), trained, POINTS[:1])


@pytest.mark.parametrize("written", ["upper case", "a parameter", "spaces and parameters", "an empty parameter"])
@pytest.mark.parametrize("content_type", WRITERS)
def test_content_type_with_parameters_or_capitals_is_accepted(
    server: Server, trained: OptMl, content_type: str, written: str
) -> None:
    forms = {
        "upper case": content_type.upper(),
        "a parameter": f"{content_type.title()}; charset=utf-8",
        "spaces and parameters": f"{content_type} ; Header=absent;label_size=0",
        "an empty parameter": f"{content_type};",
    }
    assert_right(server.invoke(WRITERS[content_type](POINTS), forms[written]), trained, POINTS)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("*/*", "application/json"),
        ("text/csv", "text/csv"),
        ("TEXT/CSV", "text/csv"),
        ("text/*", "text/csv"),
        ("text/csv, application/json", "text/csv"),
        ("text/csv, application/json;q=0.9", "text/csv"),
        ("text/csv;q=0.1, application/json;q=0.9", "application/json"),
        ("application/json;q=0, application/jsonlines;q=0, */*", "text/csv"),
        ("image/png, */*;q=0.1", "application/json"),
        ("image/png, text/csv;q=0.1", "text/csv"),
        ("text/csv; charset=utf-8", "text/csv"),
        ("application/json;charset=UTF-8", "application/json"),
    ],
)
def test_accept_header_selects_the_answer_type(server: Server, trained: OptMl, accept: str, expected: str) -> None:
    assert_right(server.invoke(csv(POINTS), Accept=accept), trained, POINTS, expected)


@pytest.mark.parametrize("headers", [{}, {"Accept": ""}])
def test_answer_without_accept_is_json(server: Server, trained: OptMl, headers: dict[str, str]) -> None:
    assert_right(server.invoke(csv(POINTS), **headers), trained, POINTS)


def test_unknown_headers_are_ignored(server: Server, trained: OptMl) -> None:
    answer = server.invoke(
        csv(POINTS),
        X_Amzn_SageMaker_Custom_Attributes="a" * 1024,
        X_Amzn_SageMaker_Target_Variant="blue",
        X_Amzn_SageMaker_Session_Id="NEW_SESSION",
        X_Forwarded_For="169.254.255.130",
        User_Agent="Go-http-client/1.1",
    )
    assert_right(answer, trained, POINTS)


def _in_pieces(content: bytes, size: int) -> Iterator[bytes]:
    for first in range(0, len(content), size):
        yield content[first : first + size]


@pytest.mark.parametrize("size", [7, 1000, 1 << 20])
def test_chunked_body_without_length_is_predicted(server: Server, trained: OptMl, size: int) -> None:
    body: Iterable[bytes] = _in_pieces(csv(POINTS), size)
    assert_right(server.invoke(body), trained, POINTS)


def test_expect_100_continue_is_answered(server: Server, trained: OptMl) -> None:
    body = csv(POINTS)
    with server.upload(len(body)) as upload:
        assert upload.is_wanted
        upload.connection.sendall(body)
        assert_right(upload.answer(), trained, POINTS)


def test_connection_answers_many_requests(server: Server, trained: OptMl) -> None:
    with server.connection() as connection:
        connection.connect()
        first = connection.sock
        for rows in (1, 50, 100):
            connection.request("GET", "/ping")
            with connection.getresponse() as response:
                assert Answer.of(response).status == 200
            connection.request("POST", "/invocations", csv(POINTS[:rows]), {"Content-Type": "text/csv"})
            with connection.getresponse() as response:
                assert_right(Answer.of(response), trained, POINTS[:rows])
        assert connection.sock is first


def test_connection_is_usable_after_an_error(server: Server, trained: OptMl) -> None:
    with server.connection() as connection:
        for content_type, status in (("image/png", 415), ("text/csv", 200)):
            connection.request("POST", "/invocations", csv(POINTS), {"Content-Type": content_type})
            with connection.getresponse() as response:
                answer = Answer.of(response)
            assert answer.status == status
        assert_right(answer, trained, POINTS)


def test_concurrent_clients_get_their_own_answers(server: Server, trained: OptMl) -> None:
    batches = [digits()[10 * i : 10 * i + 10 + i] for i in range(20)]

    def converse(points: Points) -> list[Answer]:
        return [server.invoke(csv(points)) for _ in range(5)]

    with ThreadPoolExecutor(20) as clients:
        for points, answers in zip(batches, clients.map(converse, batches), strict=True):
            for answer in answers:
                assert_right(answer, trained, points)


def test_large_body_is_answered_row_by_row(server: Server, trained: OptMl) -> None:
    points = np.tile(digits(), (10, 1))
    assert_right(server.invoke(csv(points), Accept="text/csv"), trained, points, "text/csv")


def test_http_1_0_request_is_answered(server: Server, trained: OptMl) -> None:
    with server.connection() as connection:
        connection._http_vsn, connection._http_vsn_str = 10, "HTTP/1.0"  # type: ignore[attr-defined]
        connection.request("POST", "/invocations", csv(POINTS), {"Content-Type": "text/csv"})
        with connection.getresponse() as response:
            assert isinstance(response, http.client.HTTPResponse)
            assert_right(Answer.of(response), trained, POINTS)
