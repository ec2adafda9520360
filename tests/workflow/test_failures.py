"""Whatever goes wrong outside of the workflow is said in one sentence, never in a traceback."""

import http.server
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker.errors
import pytest
import requests
from botocore.exceptions import ClientError

from tests.contract.opt_ml import PROJECT
from workflow.__main__ import main
from workflow.errors import WorkflowError
from workflow.local import hosting, service
from workflow.local.backend import Backend
from workflow.local.engine import host_port
from workflow.local.hosting import Hosting
from workflow.local.service import open_service
from workflow.local.training import TrainingJob
from workflow.objects import FolderObjects


def step(*arguments: str, python: tuple[str, ...] = (sys.executable,), **environment: str) -> str:
    """Run a step that must fail, as a program; return what it says."""
    command = [*python, "-m", "workflow", *arguments]
    ended = subprocess.run(
        command, cwd=PROJECT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 1, ended.stderr
    (sentence,) = ended.stderr.splitlines()
    return sentence


@pytest.fixture
def engine_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Docker isn't what these tests are about."""
    monkeypatch.setattr(service, "Engine", lambda scope: Silent())


class Silent:
    def close(self) -> None:
        pass


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_folder_in_a_place_that_has_none(
    engine_answers: None, tmp_path: Path, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("no folder")
    for arguments in (["data"], ["list"], ["delete"]):
        assert main([*arguments, "--folder", str(tmp_path / place)]) == 1
        said = capsys.readouterr().err
        assert "Not a directory" in said or "File exists" in said
        assert len(said.splitlines()) == 1


def test_a_package_that_is_missing() -> None:
    """What `make run` sets up has no boto3; here no package of anyone is found."""
    assert step("list", python=(sys.executable, "-S", "-I", "-c", BARE)) == (
        "workflow: The package botocore isn't installed here: run `make workflow-ready`, then `.venv/bin/python -m "
        "workflow`."
    )


# Python's `-m` of a folder that `-I` leaves out; the arguments begin with `-m workflow`.
BARE = """
import os, runpy, sys
sys.path.insert(0, os.getcwd())
sys.argv[:] = sys.argv[2:]
runpy.run_module("workflow", run_name="__main__")
"""


@pytest.mark.parametrize("error", [docker.errors.APIError("gone"), requests.ConnectionError("refused")])
def test_an_engine_that_ends_in_the_middle(engine_answers: None, tmp_path: Path, error: Exception) -> None:
    with pytest.raises(WorkflowError, match="Docker failed: see whether it still runs"), open_service(tmp_path, "r"):
        raise error


class Gone:
    """An engine that answered once, and does no more."""

    def network(self, owner: str, *, is_isolated: bool) -> Any:
        raise requests.ConnectionError("Connection\nrefused")


def test_a_job_whose_engine_ends_fails_with_a_reason(tmp_path: Path) -> None:
    request = {
        "TrainingJobName": "digits-1",
        "ResourceConfig": {"InstanceCount": 1},
        "AlgorithmSpecification": {"TrainingImage": "some", "TrainingInputMode": "File"},
        "StoppingCondition": {},
    }
    backend = Backend(tmp_path, "r", FolderObjects(tmp_path / "s3"), Gone())  # type: ignore[arg-type]
    backend.registry.add("CreateTrainingJob", "training-job", "digits-1", {"TrainingJobStatus": "InProgress"})
    TrainingJob(request, backend).run()
    job = backend.registry.get("DescribeTrainingJob", "training-job", "digits-1")
    assert (job["TrainingJobStatus"], job["FailureReason"]) == ("Failed", "InternalServerError: Connection refused")
    assert not backend.job_folder("digits-1").exists()


class Container:
    """A container that has ended, as Docker describes it."""

    name = "some"

    def __init__(self) -> None:
        self.attrs: dict[str, Any] = {"NetworkSettings": {"Ports": {}}}

    def reload(self) -> None:
        pass


def test_a_container_that_has_ended_has_no_port() -> None:
    with pytest.raises(WorkflowError, match="The server of some has ended"):
        host_port(Container())


class Docker:
    """An engine with one container, which runs whatever happens to its server."""

    def find(self, owner: str) -> list[Any]:
        return [self]

    def reload(self) -> None:
        pass

    status = "running"


class HangsUp(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.server.started.set()  # type: ignore[attr-defined]
        if self.headers["Content-Type"] == "text/slow":
            self.server.finished.wait(60)  # type: ignore[attr-defined]
        self.close_connection = True


@pytest.fixture
def endpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Hosting, Any]]:
    """An endpoint in service, and its server, which takes requests and answers none."""
    unused: Any = None
    backend = Backend(tmp_path, "r", unused, Docker())  # type: ignore[arg-type]
    description = {"EndpointStatus": "InService", "VariantName": "v", "MultiModelUri": None}
    backend.registry.add("CreateEndpoint", hosting.KIND, "digits", description)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), HangsUp) as server:
        server.started, server.finished = threading.Event(), threading.Event()  # type: ignore[attr-defined]
        monkeypatch.setattr("workflow.local.engine.host_port", lambda container: server.server_port)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield Hosting(backend), server
        finally:
            server.finished.set()  # type: ignore[attr-defined]
            server.shutdown()
            thread.join()


def test_a_container_that_dies_during_a_request(endpoint: tuple[Hosting, Any]) -> None:
    with pytest.raises(ClientError, match=r"\(ModelError\).*The container gave no answer: Remote end closed"):
        endpoint[0].invoke_endpoint(EndpointName="digits", Body=b"1,2", ContentType="text/csv")


def test_a_container_that_takes_too_long(endpoint: tuple[Hosting, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosting, "ANSWER_SECONDS", 0.05)
    with pytest.raises(ClientError, match=r"The container gave no answer: it took longer than 0.05 s"):
        endpoint[0].invoke_endpoint(EndpointName="digits", Body=b"1,2", ContentType="text/slow")
    assert endpoint[1].started.is_set()


def test_invoke_ended_container_reports_no_answer(
    endpoint: tuple[Hosting, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended(container: Any) -> int:
        raise WorkflowError("ended")

    monkeypatch.setattr("workflow.local.engine.host_port", ended)
    with pytest.raises(ClientError, match=r"The container gave no answer: its container has ended"):
        endpoint[0].invoke_endpoint(EndpointName="digits", Body=b"1,2", ContentType="text/csv")
