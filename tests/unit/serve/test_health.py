"""/ping before and after the self-test, and what batch transforms are told."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from kmeans import artifact
from kmeans.errors import ModelError
from kmeans.model import KMeansModel
from serve.app import create_app
from serve.health import Readiness, best_execution
from serve.metrics import Metrics
from serve.settings import Settings

SETTINGS = Settings.from_environment({}, cpus=2)


@pytest.fixture
def model() -> KMeansModel:
    return KMeansModel([[0.0, 0.0], [3.0, 4.0], [3.0, 4.0]])


def test_ping_is_503_until_the_self_test_has_passed(model: KMeansModel) -> None:
    readiness = Readiness(model)
    client = create_app(SETTINGS, model, Metrics(1, model), readiness).test_client()
    for method in (client.get, client.head):
        assert (method("/ping").status_code, method("/ping").data) == (503, b"")
    health = client.get("/health").json
    assert health is not None
    assert health["status"] == "starting"
    readiness.test()
    assert (client.get("/ping").status_code, client.get("/ping").data) == (200, b"")


@pytest.mark.parametrize(
    ("labels", "distances"), [([1, 0, 0], [0, 0, 0]), ([0, 1, 1], [0, 0, 0.1]), ([0, 1, 1], [0, 0, np.nan])]
)
def test_model_with_wrong_predictions_is_never_ready(
    model: KMeansModel, monkeypatch: pytest.MonkeyPatch, labels: list[int], distances: list[float]
) -> None:
    monkeypatch.setattr(model, "predict", lambda _: (np.array(labels), np.array(distances, dtype=np.float32)))
    readiness = Readiness(model)
    with pytest.raises(ModelError, match="own centers"):
        readiness.test()
    assert not readiness.is_ready


def test_model_with_equal_centers_becomes_ready(model: KMeansModel) -> None:
    readiness = Readiness(model)
    readiness.test()
    assert readiness.is_ready


def test_model_with_close_and_distant_centers_becomes_ready() -> None:
    """To float32 the first two are equally near to each other's place: the machine doesn't compute wrongly."""
    readiness = Readiness(KMeansModel([[100.0, 100.0], [100.01, 100.0], [0.0, 0.0]]))
    readiness.test()
    assert readiness.is_ready


def test_multi_model_server_is_ready_without_models() -> None:
    client = create_app(dataclasses.replace(SETTINGS, is_multi_model=True), None).test_client()
    assert client.get("/ping").status_code == 200
    answer = client.post("/invocations", data=b"1,2", content_type="text/csv")
    assert answer.status_code == 404
    assert answer.json is not None
    assert "/models/NAME/invoke" in answer.json["error"]["message"]


@pytest.mark.parametrize(
    ("workers", "environment", "expected"),
    [
        (1, {}, (1, 100)),
        (2, {}, (2, 50)),
        (3, {}, (3, 33)),
        (128, {}, (100, 1)),
        (4, {"SAGEMAKER_MAX_PAYLOAD_IN_MB": "6"}, (4, 6)),
        (4, {"SAGEMAKER_MAX_PAYLOAD_IN_MB": "50"}, (2, 50)),
        (4, {"SAGEMAKER_MAX_PAYLOAD_IN_MB": "100"}, (1, 100)),
        (4, {"SAGEMAKER_MAX_PAYLOAD_IN_MB": "1000"}, (1, 100)),
        (4, {"SAGEMAKER_MAX_PAYLOAD_IN_MB": "0"}, (4, 25)),
        (1, {"SAGEMAKER_MAX_CONCURRENT_TRANSFORMS": "8"}, (8, 12)),
    ],
)
def test_execution_parameters_are_at_most_100_mb_in_total(
    workers: int, environment: dict[str, str], expected: tuple[int, int]
) -> None:
    found = best_execution(Settings.from_environment({"SAGEMAKER_BATCH": "true"} | environment, cpus=workers))
    assert tuple(found) == ("MaxConcurrentTransforms", "MaxPayloadInMB")
    assert tuple(found.values()) == expected
    assert found["MaxConcurrentTransforms"] * found["MaxPayloadInMB"] <= 100


@pytest.mark.parametrize(("workers", "expected"), [(1, (1, 25)), (2, (2, 25)), (4, (4, 25)), (8, (4, 25))])
def test_execution_parameters_of_an_endpoint_report_its_limit(workers: int, expected: tuple[int, int]) -> None:
    found = best_execution(Settings.from_environment({}, cpus=workers))
    assert (found["MaxConcurrentTransforms"], found["MaxPayloadInMB"]) == expected


@pytest.mark.parametrize(("name", "told"), [("centers.npy", "centers.npy"), ("a\nb\udcff", r"'a\nb\udcff'")])
def test_health_reports_the_centers_file_without_folder(tmp_path: Path, name: str, told: str) -> None:
    np.save(tmp_path / "centers.npy", np.ones((2, 3)))
    (tmp_path / "centers.npy").rename(tmp_path / name)
    report = create_app(SETTINGS, artifact.load(tmp_path)).test_client().get("/health")
    assert report.json is not None
    assert report.json["model"]["file"] == told
    assert str(tmp_path).encode() not in report.data
