"""Multi-model endpoints in the strictest container: no model at first, and then as many as memory holds."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kmeans import artifact
from kmeans.model import KMeansModel

from .containers import HARDENED, Answer, Containers, Endpoint, wait_until
from .samples import csv

pytestmark = [pytest.mark.image, pytest.mark.slow]

INSIDE = "/opt/ml/models"


@contextlib.contextmanager
def serve_many(containers: Containers, models: Path, **options: Any) -> Iterator[Endpoint]:
    """Start a server with the folder `models`, read-only, and wait until it is ready."""
    with containers.start(
        ["serve"],
        volumes={str(models): {"bind": INSIDE, "mode": "ro"}},
        ports={"8080/tcp": ("127.0.0.1", None)},
        environment={"SAGEMAKER_MULTI_MODEL": "true"},
        **{**HARDENED, **options},
    ) as running:
        endpoint = Endpoint(running, running.port(8080))
        wait_until(lambda: endpoint.ready, "GET /ping to answer 200")
        yield endpoint


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three models as SageMaker unpacks them, the last one of 24 MB."""
    folder = tmp_path_factory.mktemp("models")
    random = np.random.default_rng(0)
    for name, shape in {"small": (3, 4), "other": (5, 4), "large": (3000, 2000)}.items():
        (folder / name / "model").mkdir(parents=True)
        artifact.save(KMeansModel(random.normal(size=shape)), folder / name / "model")
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder


@pytest.fixture(scope="module")
def many(containers: Containers, models: Path) -> Iterator[Endpoint]:
    with serve_many(containers, models) as endpoint:
        yield endpoint


def load(endpoint: Endpoint, name: str, url: str) -> Answer:
    body = json.dumps({"model_name": name, "url": url}).encode()
    return endpoint.ask("POST", "/models", body, Content_Type="application/json")


def listed(endpoint: Endpoint) -> list[str]:
    answer = endpoint.ask("GET", "/models")
    assert answer.status == 200
    return [model["modelName"] for model in json.loads(answer.body)["models"]]


def test_it_is_healthy_without_a_model_and_without_their_folder(containers: Containers) -> None:
    environment = {"SAGEMAKER_MULTI_MODEL": "true"}
    ports = {"8080/tcp": ("127.0.0.1", None)}
    with containers.start(["serve"], ports=ports, environment=environment, **HARDENED) as running:
        endpoint = Endpoint(running, running.port(8080))
        wait_until(lambda: endpoint.ready, "GET /ping to answer 200")
        assert endpoint.ask("GET", "/ping").body == b""
        assert json.loads(endpoint.ask("GET", "/models").body) == {"models": []}
        assert load(endpoint, "x", f"{INSIDE}/x/model").status == 400


def test_a_model_is_loaded_asked_and_unloaded(many: Endpoint, models: Path) -> None:
    centers = artifact.load(models / "small" / "model").centers
    assert load(many, "abc", f"{INSIDE}/small/model").status == 200
    assert load(many, "abc", f"{INSIDE}/small/model").status == 409
    assert listed(many) == ["abc"]
    headers = {"Content_Type": "text/csv", "Accept": "text/csv"}
    answer = many.ask("POST", "/models/abc/invoke", csv(centers), **headers)
    assert answer.status == 200, answer.body
    assert [float(line.split(b",")[0]) for line in answer.body.split()] == [0, 1, 2]
    assert many.ask("DELETE", "/models/abc").status == 200
    assert many.ask("POST", "/models/abc/invoke", csv(centers), **headers).status == 404
    assert listed(many) == []


@pytest.mark.parametrize("url", ["/etc", "/opt/kmeans", f"{INSIDE}/../../../etc", INSIDE, f"{INSIDE}/absent"])
def test_other_places_are_not_read(many: Endpoint, url: str) -> None:
    answer = load(many, "x", url)
    assert answer.status == 400, answer.body
    assert json.loads(answer.body)["error"]["message"].startswith("url: ")
    assert listed(many) == []


def test_the_containers_memory_is_the_budget(containers: Containers, models: Path) -> None:
    """256 MB are too little to read a model of 24 MB, and enough for small ones; the server continues."""
    with serve_many(containers, models, mem_limit="256m", memswap_limit="256m") as endpoint:
        assert load(endpoint, "small", f"{INSIDE}/small/model").status == 200
        answer = load(endpoint, "large", f"{INSIDE}/large/model")
        assert answer.status == 507, answer.body
        assert "of the 51 MB for models are free" in json.loads(answer.body)["error"]["message"]
        assert load(endpoint, "other", f"{INSIDE}/other/model").status == 200
        assert listed(endpoint) == ["other", "small"]
    with serve_many(containers, models, mem_limit="512m", memswap_limit="512m") as endpoint:
        assert load(endpoint, "large", f"{INSIDE}/large/model").status == 200


def test_a_worker_keeps_one_table_of_models(many: Endpoint) -> None:
    """However many CPUs there are: each request finds what any other one has loaded."""
    assert load(many, "abc", f"{INSIDE}/small/model").status == 200
    assert {many.ask("GET", "/models/abc").status for _ in range(20)} == {200}
    assert many.ask("DELETE", "/models/abc").status == 200
