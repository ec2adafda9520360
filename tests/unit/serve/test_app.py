"""What real requests can't bring about: defects and exhausted memory within the application."""

import dataclasses
import logging
import re
from functools import partial

import pytest
from flask import Flask
from flask.testing import FlaskClient

from kmeans.model import KMeansModel
from serve import exchange, inference
from serve.app import create_app
from serve.settings import Settings

SETTINGS = dataclasses.replace(Settings.from_environment({}, cpus=1), max_payload_bytes=1000)
ASK = {"path": "/invocations", "data": b"1,2", "content_type": "text/csv"}


@pytest.fixture
def model() -> KMeansModel:
    return KMeansModel([[0.0, 0.0], [3.0, 4.0]])


@pytest.fixture
def app(model: KMeansModel) -> Flask:
    return create_app(SETTINGS, model)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


def test_json_answer_has_exact_bytes(client: FlaskClient) -> None:
    answer = client.post("/invocations", data=b"0,1\n3,4", content_type="text/csv")
    assert answer.data == (
        b'{"predictions": [{"closest_cluster": 0.0, "distance_to_cluster": 1.0}, '
        b'{"closest_cluster": 1.0, "distance_to_cluster": 0.0}]}'
    )
    assert answer.headers["Content-Type"] == "application/json"


def test_csv_answer_has_exact_bytes(client: FlaskClient) -> None:
    answer = client.post("/invocations", data=b"0,1\n3,4", content_type="text/csv", headers={"Accept": "text/csv"})
    assert answer.data == b"0.0,1.0\n1.0,0.0"
    assert answer.headers["Content-Type"] == "text/csv"


def test_defect_is_500_and_only_the_log_has_its_cause(
    client: FlaskClient, model: KMeansModel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(model, "predict", fail)
    with caplog.at_level(logging.ERROR):
        answer = client.post(**ASK, headers={"X-Request-Id": "order-66"})
    assert answer.status_code == 500
    assert b"secret" not in answer.data
    assert answer.json is not None
    error = answer.json["error"]
    assert (error["code"], error["details"], error["request_id"]) == ("internal_error", {}, "order-66")
    assert "order-66" in error["message"]
    assert "order-66" in caplog.text
    assert "RuntimeError: secret" in caplog.text


def test_defect_has_one_id_in_answer_and_log(
    client: FlaskClient, model: KMeansModel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(model, "predict", None)
    answer = client.post(**ASK)
    assert answer.json is not None
    assert answer.json["error"]["request_id"] in caplog.text


def counted(client: FlaskClient, name: str) -> float:
    found = re.search(rf"^{re.escape(name)} (\S+)$", client.get("/metrics").text, re.MULTILINE)
    assert found, name
    return float(found[1])


def test_rows_of_a_refused_body_are_not_counted(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many of its portions were read and asked for before."""
    monkeypatch.setattr(inference, "CHUNK_BYTES", 10)
    ask = partial(client.post, "/invocations", content_type="text/csv")
    answer = ask(data=b"1,2\n" * 50 + b"oops")
    assert answer.json is not None
    assert (answer.status_code, answer.json["error"]["details"]["row"]) == (400, 51)
    assert counted(client, "kmeans_rows_total") == counted(client, "kmeans_distance_count") == 0
    assert ask(data=b"1,2\n" * 50).status_code == 200
    assert counted(client, "kmeans_rows_total") == counted(client, "kmeans_distance_count") == 50


def test_only_large_bodies_wait_for_each_other(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    waited = []
    monkeypatch.setattr(exchange, "write_log_line", lambda record: waited.append("wait" in record.seconds))
    monkeypatch.setattr(inference, "CHUNK_BYTES", 10)
    for rows in (1, 50):
        assert client.post("/invocations", data=b"1,2\n" * rows, content_type="text/csv").status_code == 200
    assert waited == [False, True]


@pytest.mark.parametrize("accept", ["application/json", "text/csv"])
def test_chunked_answer_is_counted_after_it_is_sent(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch, accept: str
) -> None:
    monkeypatch.setattr(inference, "CHUNK_BYTES", 10)
    monkeypatch.setattr(inference, "MAX_ROWS_AT_ONCE", 20)
    answer = client.post(
        "/invocations", data=b"1,2\n" * 50, content_type="text/csv", headers={"Accept": accept}, buffered=True
    )
    assert "Content-Length" not in answer.headers
    assert counted(client, "kmeans_sent_bytes_total") == len(answer.data) > 50
    assert counted(client, 'kmeans_stage_seconds_total{stage="encode"}') > 0


def test_exhausted_memory_is_503(client: FlaskClient, model: KMeansModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(model, "predict", fail)
    answer = client.post(**ASK)
    assert answer.status_code == 503
    assert answer.json is not None
    assert answer.json["error"]["code"] == "overloaded"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"X-Request-Id": "a"}, "a"),
        ({"X-Amzn-SageMaker-Inference-Id": "b"}, "b"),
        ({"X-Amzn-SageMaker-Inference-Id": "b", "X-Request-Id": "a"}, "b"),
        ({"X-Amzn-SageMaker-Inference-Id": "", "X-Request-Id": "a"}, "a"),
        ({"X-Request-Id": "x" * 128}, "x" * 128),
    ],
)
def test_request_id_of_the_caller_is_used(client: FlaskClient, headers: dict[str, str], expected: str) -> None:
    answer = client.get("/nowhere", headers=headers)
    assert answer.json is not None
    assert answer.json["error"]["request_id"] == expected


def test_wrong_types_are_refused_before_the_body_is_read(client: FlaskClient) -> None:
    """An unknown type is told even where the body is wrong or too long too."""
    body = b"x" * 5000
    assert client.post("/invocations", data=body, content_type="image/png").status_code == 415
    headers = {"Accept": "image/png"}
    assert client.post("/invocations", data=body, content_type="text/csv", headers=headers).status_code == 406
    assert client.post("/invocations", data=body, content_type="text/csv").status_code == 413
