"""What real requests can't bring about at a multi-model server: exhausted memory, and invocations that don't end."""

from pathlib import Path

import pytest
from flask.testing import FlaskClient

from kmeans import artifact
from kmeans.model import KMeansModel
from serve.app import create_app
from serve.multi_model import registry
from serve.settings import Settings


@pytest.fixture
def client(tmp_path: Path) -> FlaskClient:
    environment = {"SAGEMAKER_BASE_DIR": str(tmp_path), "SAGEMAKER_MULTI_MODEL": "true"}
    client = create_app(Settings.from_environment(environment, cpus=1), None).test_client()
    (tmp_path / "models" / "x").mkdir(parents=True)
    artifact.save(KMeansModel([[1.0, 2.0]]), tmp_path / "models" / "x")
    assert client.post("/models", json={"model_name": "x", "url": str(tmp_path / "models" / "x")}).status_code == 200
    return client


def test_exhausted_memory_is_507(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not 503 as with one model: by 507 SageMaker unloads others and asks again."""

    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(KMeansModel, "predict", fail)
    answer = client.post("/models/x/invoke", data=b"1,2", content_type="text/csv")
    assert answer.status_code == 507
    assert answer.json is not None
    assert answer.json["error"]["code"] == "no_room"
    assert "no memory is left for this request" in answer.json["error"]["message"]
    monkeypatch.undo()
    assert client.post("/models/x/invoke", data=b"1,2", content_type="text/csv").status_code == 200


def test_unload_of_a_model_in_use_is_503_and_removes_it(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    in_use = []
    get = registry.Registry.get

    def keep(self: registry.Registry, name: str) -> KMeansModel:
        in_use.append(get(self, name))
        return in_use[-1]

    monkeypatch.setattr(registry.Registry, "get", keep)
    monkeypatch.setattr(registry.Registry.unload, "__defaults__", (0.0,))
    assert client.post("/models/x/invoke", data=b"1,2", content_type="text/csv").status_code == 200
    answer = client.delete("/models/x")
    assert answer.status_code == 503
    assert answer.json is not None
    assert answer.json["error"]["code"] == "still_in_use"
    assert client.get("/models/x").status_code == 404


@pytest.mark.parametrize("path", ["/models/x//invoke", "/models//x/invoke", "//models/x/invoke", "/models/x/invoke/"])
def test_path_with_repeated_slashes_is_404(client: FlaskClient, path: str) -> None:
    """A redirect would repeat the header Host of whoever asks."""
    answer = client.post(path, data=b"1,2", content_type="text/csv", headers={"Host": "evil.example"})
    assert answer.status_code == 404
    assert answer.json is not None
    assert answer.json["error"]["code"] == "not_found"
    assert b"evil" not in answer.data
    assert "Location" not in answer.headers
    assert client.delete("/models//x").status_code == 404
    assert client.get("/models/x").status_code == 200
