"""The hosting contract: answers, refusals, start and stop."""

import json
import time
from pathlib import Path

import numpy as np
import pytest

from .containers import HARDENED, STRANGER, Containers, Endpoint, serve
from .samples import csv, digits, nearest, read_centers

pytestmark = pytest.mark.image

POINTS = digits()[:100]


def test_ping_has_no_body(endpoint: Endpoint) -> None:
    answer = endpoint.ask("GET", "/ping")
    assert (answer.status, answer.body) == (200, b"")


@pytest.mark.parametrize("accept", ["application/json", "text/csv"])
@pytest.mark.parametrize("content_type", ["application/json", "text/csv"])
def test_predictions_equal_brute_force(endpoint: Endpoint, digits_model: Path, content_type: str, accept: str) -> None:
    body = {
        "text/csv": csv(POINTS),
        "application/json": json.dumps({"instances": [{"features": row} for row in POINTS.tolist()]}).encode(),
    }[content_type]
    answer = endpoint.ask("POST", "/invocations", body, Content_Type=content_type, Accept=accept)
    assert answer.status == 200, answer.body
    assert answer.content_type.partition(";")[0] == accept
    if accept == "text/csv":
        predictions = [[float(text) for text in line.split(",")] for line in answer.body.decode().splitlines()]
    else:
        predictions = [
            [row["closest_cluster"], row["distance_to_cluster"]] for row in json.loads(answer.body)["predictions"]
        ]
    labels, distances = nearest(POINTS, read_centers(digits_model / "model_algo-1"))
    np.testing.assert_array_equal([label for label, _ in predictions], labels)
    np.testing.assert_allclose([distance for _, distance in predictions], distances, rtol=1e-5)


@pytest.mark.parametrize(
    ("status", "content_type", "accept", "body"),
    [
        pytest.param(415, "image/png", "application/json", b"\x89PNG", id="unknown content type"),
        pytest.param(406, "text/csv", "image/png", csv(POINTS), id="unknown accept"),
        pytest.param(400, "text/csv", "application/json", b"1,2,seven\n", id="text among the numbers"),
        pytest.param(400, "text/csv", "application/json", b"1,2,3\n", id="too few columns"),
        pytest.param(400, "application/json", "application/json", b'{"instances": [', id="half of a JSON text"),
    ],
)
def test_refusals_are_json(endpoint: Endpoint, status: int, content_type: str, accept: str, body: bytes) -> None:
    answer = endpoint.ask("POST", "/invocations", body, Content_Type=content_type, Accept=accept)
    assert answer.status == status, answer.body
    assert answer.content_type.partition(";")[0] == "application/json"
    assert json.loads(answer.body)["error"]
    assert b"Traceback" not in answer.body


def test_does_not_name_its_server_software(endpoint: Endpoint) -> None:
    assert endpoint.ask("GET", "/ping").server == "kmeans"


def test_the_first_process_is_the_server_itself(endpoint: Endpoint) -> None:
    program = Path(endpoint.running.command_line(1)[0]).name
    assert program.startswith(("python", "gunicorn"))


def test_sigterm_ends_it_in_time_and_without_an_error(containers: Containers, digits_model: Path) -> None:
    with serve(containers, digits_model) as endpoint:
        start = time.monotonic()
        endpoint.running.stop()
        assert time.monotonic() - start < 30
        finished = endpoint.running.finish()
    assert finished.exit_code == 0, finished.log


def test_listens_on_the_port_that_sagemaker_names(containers: Containers, digits_model: Path) -> None:
    with serve(containers, digits_model, port=9090, environment={"SAGEMAKER_BIND_TO_PORT": "9090"}) as endpoint:
        assert endpoint.ask("POST", "/invocations", csv(POINTS), Content_Type="text/csv").status == 200


def test_has_a_worker_for_each_cpu_that_docker_grants(containers: Containers, digits_model: Path) -> None:
    with serve(containers, digits_model, nano_cpus=10**9) as endpoint:
        assert json.loads(endpoint.ask("GET", "/health").body)["workers"]["expected"] == 1


def test_serves_with_nothing_to_write_to_but_tmp(endpoint: Endpoint) -> None:
    """All servers of these tests are started so; here it is shown what that means."""
    places = ("/", "/opt/ml", "/opt/ml/model", "/root", "/tmp")  # noqa: S108 - the container's own
    writable = [
        place for place in places if endpoint.running.container.exec_run(["touch", f"{place}/x"]).exit_code == 0
    ]
    assert writable == ["/tmp"]  # noqa: S108 - the container's own
    assert endpoint.running.container.exec_run(["id", "-u"]).output == f"{STRANGER}\n".encode()
    assert endpoint.ask("POST", "/invocations", csv(POINTS), Content_Type="text/csv").status == 200


def test_without_a_model_it_says_so_and_ends(containers: Containers, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    finished = containers.run(["serve"], volumes={str(tmp_path): {"bind": "/opt/ml/model", "mode": "ro"}}, **HARDENED)
    assert finished.exit_code != 0
    assert "model_algo-1" in finished.log
    assert "Traceback" not in finished.log
