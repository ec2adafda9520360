"""What the server tells of itself: health, metrics, log lines, its description; and what it gives back of headers."""

import contextlib
import http.client
import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from .opt_ml import OptMl
from .samples import csv, digits, nearest, read_centers
from .server import Server, serving
from .waiting import wait_until

POINTS = digits()[:40]
TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"


@pytest.fixture
def fresh(trained: OptMl, tmp_path: Path) -> Iterator[Server]:
    """A server of its own, whose counters and log have seen nothing but its first ping."""
    with serving(trained.base, tmp_path / "output", SAGEMAKER_MODEL_SERVER_WORKERS="2") as server:
        yield server


def log_lines(server: Server) -> list[dict[str, Any]]:
    return [json.loads(line) for line in server.output.read_text().splitlines() if line.startswith("{")]


def samples(server: Server) -> dict[str, float]:
    """Return the metrics as {name{labels}: value}."""
    answer = server.ask("GET", "/metrics")
    assert answer.status == 200
    assert answer.content_type.startswith("text/plain")
    found = {}
    for family in text_string_to_metric_families(answer.body.decode()):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}"] = sample.value
    return found


def test_health_reports_model_workers_and_memory_but_no_path(server: Server, trained: OptMl) -> None:
    wait_until(lambda: json.loads(server.ask("GET", "/health").body)["workers"]["alive"] == 2, "both workers")
    answer = server.ask("GET", "/health")
    assert answer.status == 200
    report = json.loads(answer.body)
    assert report["status"] == "ready"
    assert report["model"]["clusters"] == 10
    assert report["model"]["features"] == 64
    assert report["model"]["file"] == "model_algo-1"
    assert report["model"]["training_metrics"] == trained.card["training"]["metrics"]
    assert report["workers"] == {"expected": 2, "alive": 2, "threads": 4}
    assert 1 << 20 < report["memory_bytes"]["used"] < report["memory_bytes"]["usable"]
    assert report["uptime_seconds"] > 0
    assert str(trained.base).encode() not in answer.body


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_batch_execution_parameters_use_every_worker(trained: OptMl, tmp_path: Path, workers: int) -> None:
    variables = {"SAGEMAKER_MODEL_SERVER_WORKERS": str(workers), "SAGEMAKER_BATCH": "true"}
    with serving(trained.base, tmp_path / "output", **variables) as server:
        parameters = json.loads(server.ask("GET", "/execution-parameters").body)
    assert parameters == {"MaxConcurrentTransforms": workers, "MaxPayloadInMB": 100 // workers}


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"SAGEMAKER_MODEL_SERVER_WORKERS": "1"},
        {"SAGEMAKER_MAX_PAYLOAD_IN_MB": "6"},
        {"SAGEMAKER_BATCH": "true", "SAGEMAKER_MAX_PAYLOAD_IN_MB": "60"},
        {"SAGEMAKER_BATCH": "true", "SAGEMAKER_MODEL_SERVER_WORKERS": "1"},
    ],
    ids=lambda variables: " ".join(variables) or "defaults",
)
def test_execution_parameters_report_the_enforced_limit(
    trained: OptMl, tmp_path: Path, variables: dict[str, str]
) -> None:
    with serving(trained.base, tmp_path / "output", **variables) as server:
        limit = json.loads(server.ask("GET", "/execution-parameters").body)["MaxPayloadInMB"] << 20
        with server.upload(limit) as upload:
            assert upload.is_wanted
        with server.upload(limit + 1) as upload:
            assert not upload.is_wanted
            assert upload.answer().status == 413


def test_custom_attributes_are_returned(server: Server) -> None:
    given = "trace=1; tenant=" + "a" * 1008
    for body, status in ((csv(POINTS), 200), (b"x", 400)):
        answer = server.invoke(body, X_Amzn_SageMaker_Custom_Attributes=given)
        assert (answer.status, answer.headers["X-Amzn-SageMaker-Custom-Attributes"]) == (status, given)


@pytest.mark.parametrize("given", ["a" * 1025, "\u00e9", "a\tb"])
def test_invalid_custom_attributes_are_not_returned(server: Server, given: str) -> None:
    answer = server.invoke(csv(POINTS), X_Amzn_SageMaker_Custom_Attributes=given)
    assert answer.status == 200
    assert answer.headers["X-Amzn-SageMaker-Custom-Attributes"] is None


def test_each_request_has_one_line_of_json_in_the_log(fresh: Server) -> None:
    body = csv(POINTS)
    answer = fresh.invoke(
        body, X_Amzn_SageMaker_Inference_Id="order-66", Traceparent=f"00-{TRACE}-{SPAN}-01", Accept="text/csv"
    )
    assert fresh.invoke(b"1,2").status == 400
    assert fresh.ask("GET", "/nowhere").status == 404
    wait_until(lambda: len(log_lines(fresh)) >= 3, "three lines")
    first, second, third = log_lines(fresh)
    assert (first["event"], first["method"], first["path"], first["status"]) == ("request", "POST", "/invocations", 200)
    assert (first["request_id"], first["trace_id"], first["span_id"]) == ("order-66", TRACE, SPAN)
    assert (first["rows"], first["bytes_in"], first["bytes_out"]) == (len(POINTS), len(body), len(answer.body))
    assert list(first["ms"]) == ["read", "decode", "predict", "encode", "total"]
    assert 0 < sum(first["ms"].values()) - first["ms"]["total"] <= first["ms"]["total"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", first["time"])
    assert (second["status"], second["code"], second["rows"]) == (400, "invalid_payload", 0)
    assert (third["status"], third["code"], third["path"]) == (404, "not_found", "/nowhere")


def test_healthy_pings_are_not_logged(fresh: Server) -> None:
    for method in ("GET", "HEAD", "GET"):
        assert fresh.ask(method, "/ping").status == 200
    assert fresh.ask("DELETE", "/ping").status == 405
    wait_until(lambda: bool(log_lines(fresh)), "a line")
    assert [line["status"] for line in log_lines(fresh)] == [405]


@pytest.mark.parametrize("given", ["", "nonsense", f"00-{TRACE}", f"00-{TRACE.upper()}-{SPAN}-01", "x" * 5000])
def test_invalid_traceparent_is_not_logged(fresh: Server, given: str) -> None:
    assert fresh.invoke(csv(POINTS), Traceparent=given).status == 200
    wait_until(lambda: bool(log_lines(fresh)), "a line")
    assert "trace_id" not in log_lines(fresh)[0]


def test_log_line_of_a_hostile_request_is_one_line(fresh: Server) -> None:
    assert fresh.ask("GET", "/a%0a%0d%22%7b%c3%28" + "b" * 3000).status == 404
    wait_until(lambda: bool(log_lines(fresh)), "a line")
    (line,) = log_lines(fresh)
    assert len(line["path"]) <= 200


def test_metrics_sum_over_several_workers(fresh: Server, trained: OptMl) -> None:
    wait_until(lambda: samples(fresh)["kmeans_workers{}"] == 2, "both workers")
    before = samples(fresh)
    bodies = [csv(POINTS[: 1 + number % 3]) for number in range(30)]
    answers = [fresh.invoke(body) for body in bodies]
    assert fresh.invoke(b"x").status == 400
    after = samples(fresh)
    grown = {name: value - before.get(name, 0) for name, value in after.items()}
    assert grown["kmeans_requests_total{route=/invocations,status=200}"] == 30
    assert grown["kmeans_requests_total{route=/invocations,status=400}"] == 1
    assert grown["kmeans_rows_total{}"] == 60
    assert grown["kmeans_received_bytes_total{}"] == sum(map(len, bodies)) + 1
    assert grown["kmeans_sent_bytes_total{}"] >= sum(len(answer.body) for answer in answers)
    assert grown["kmeans_invocation_duration_seconds_count{}"] == 31
    assert grown["kmeans_distance_count{}"] == 60
    _, distances = nearest(POINTS[:3], read_centers(trained.model))
    expected = [distances[row] for number in range(30) for row in range(1 + number % 3)]
    assert grown["kmeans_distance_sum{}"] == pytest.approx(sum(expected), rel=1e-5)
    buckets = {
        float(name.partition("le=")[2].rstrip("}")): value
        for name, value in grown.items()
        if name.startswith("kmeans_distance_bucket")
    }
    assert len(buckets) == 13
    for bound, count in buckets.items():
        assert count == sum(distance <= bound for distance in expected)
    root = trained.card["training"]["metrics"]["train:mean_squared_distance"] ** 0.5
    assert any(bound == pytest.approx(root, rel=1e-4) for bound in buckets)
    assert after["kmeans_workers{}"] == 2
    assert after["kmeans_info{clusters=10,features=64,version=0.1.0}"] == 1


def test_counters_survive_the_replacement_of_workers(fresh: Server) -> None:
    assert fresh.invoke(csv(POINTS)).status == 200
    wait_until(lambda: len(fresh.workers()) == 2, "both workers")
    before = fresh.workers()
    for victim in before:
        os.kill(victim, 9)
    wait_until(lambda: len(fresh.workers()) == 2 and not fresh.workers() & before, "two new workers")
    assert fresh.invoke(csv(POINTS)).status == 200
    wait_until(lambda: samples(fresh)["kmeans_workers{}"] == 2, "two workers in the metrics")
    found = samples(fresh)
    assert found["kmeans_rows_total{}"] == 2 * len(POINTS)
    assert found["kmeans_requests_in_progress{}"] == 1  # the question itself


def test_ipv6_and_ipv4_are_answered_on_one_port(server: Server) -> None:
    if not os.path.exists("/proc/net/if_inet6"):
        pytest.skip("this system has no IPv6")
    for host in ("::1", "127.0.0.1"):
        with contextlib.closing(http.client.HTTPConnection(host, server.port, timeout=30)) as connection:
            connection.request("GET", "/ping")
            assert connection.getresponse().status == 200


def test_invalid_http_is_answered_in_json(server: Server) -> None:
    for head, status in (
        (b"GARBAGE\r\n\r\n", 400),
        (b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: 1\r\n" % i for i in range(200)) + b"\r\n", 431),
        (b"POST /invocations HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, zip\r\n\r\n", 501),
        (b"POST /invocations HTTP/1.1\r\nHost: x\r\nExpect: a miracle\r\n\r\n", 417),
    ):
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
            connection.sendall(head)
            response = http.client.HTTPResponse(connection)
            response.begin()
            error = json.loads(response.read())["error"]
            assert (response.status, response.headers["Server"], error["code"]) == (status, "kmeans", "invalid_request")


@pytest.mark.slow
@pytest.mark.parametrize("full", [False, True], ids=["JSON alone", "all types"])
def test_openapi_description_matches_the_server(server: Server, tmp_path: Path, full: bool) -> None:
    description = json.loads(server.ask("GET", "/openapi.json").body)
    content = description["paths"]["/invocations"]["post"]["requestBody"]["content"]
    assert len(content) == 5
    if not full:
        description["paths"]["/invocations"]["post"]["requestBody"]["content"] = {
            "application/json": content["application/json"]
        }
    # Formats that have no schema can't be made so that they have to be accepted.
    check_description(server, description, tmp_path, 7, accepted=not full)


@pytest.mark.slow
def test_openapi_description_matches_a_multi_model_server(trained: OptMl, tmp_path: Path) -> None:
    models = tmp_path / "ml" / "models"
    models.mkdir(parents=True)
    shutil.copytree(trained.model, models / "a")
    with serving(models.parent, tmp_path / "output", SAGEMAKER_MULTI_MODEL="true") as server:
        loaded = server.ask("POST", "/models", json.dumps({"model_name": "a", "url": str(models / "a")}).encode())
        assert loaded.status == 200
        description = json.loads(server.ask("GET", "/openapi.json").body)
        assert {path for path in description["paths"] if "models" in path} == {
            "/models",
            "/models/{name}",
            "/models/{name}/invoke",
        }
        assert "/invocations" not in description["paths"]
        # Which urls have a model, and which names one that is loaded, no schema tells.
        check_description(server, description, tmp_path, 11, accepted=False)


def check_description(server: Server, description: Any, folder: Path, operations: int, *, accepted: bool) -> None:
    """schemathesis makes requests of the description and looks whether the answers are as described."""
    if importlib.util.find_spec("schemathesis") is None:
        assert os.environ.get("CI") != "true", "schemathesis is not installed"
        pytest.skip("schemathesis is not installed")
    (folder / "openapi.json").write_text(json.dumps(description))
    command = [sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()", "run"]
    command += [str(folder / "openapi.json"), "--url", f"http://127.0.0.1:{server.port}", "--checks", "all"]
    command += [] if accepted else ["--exclude-checks", "positive_data_acceptance"]
    command += ["--max-examples", "20", "--generation-deterministic"]
    done = subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=os.environ | {"PYTHONUTF8": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{operations} selected" in done.stdout, done.stdout
    assert "Traceback" not in server.output.read_text()


def test_head_on_any_route_logs_no_warning(fresh: Server) -> None:
    """An answer to HEAD has no body, and gunicorn complains of an application that gives it one."""
    for path in ("/ping", "/invocations", "/health", "/metrics", "/nowhere"):
        assert fresh.ask("HEAD", path).body == b""
    assert fresh.ask("HEAD", "/invocations").status == 405
    assert fresh.stop() == 0
    others = [line for line in fresh.output.read_text().splitlines() if not line.startswith("{")]
    assert not [line for line in others if "WARNING" in line or "HEAD" in line], others
