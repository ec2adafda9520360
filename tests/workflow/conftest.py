"""A folder for what a workflow leaves; for the local target the engine and the image of the image's own tests."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import botocore.loaders
import pytest

from tests.image.conftest import engine, image  # noqa: F401 - fixtures
from workflow.__main__ import main
from workflow.local.engine import LABEL

Run = Callable[..., str]


@pytest.fixture(autouse=True)
def no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test finds the account of whoever runs it."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "SAGEMAKER_", "KMEANS_TARGET")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-credentials"))


@pytest.fixture(scope="session", autouse=True)
def one_loader() -> Iterator[None]:
    """Read the models of AWS's services, some megabytes of JSON, once and not for each client."""
    loader = botocore.loaders.create_loader()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("botocore.loaders.create_loader", lambda *_: loader)
        yield


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run a step in a folder of the test's own, and return what it printed; `fails` expects an error and returns it."""

    def run(*arguments: str, fails: bool = False) -> str:
        exit_code = main([*arguments, "--folder", str(tmp_path / "workflow")])
        printed = capsys.readouterr()
        assert exit_code == int(fails), printed.err
        return printed.err if fails else printed.out

    return run


@pytest.fixture
def folder(engine: Any, tmp_path: Path) -> Iterator[Path]:  # noqa: F811
    """The folder of `run`; containers and networks that a test has left are removed, those of others are not seen."""
    folder = tmp_path / "workflow"
    yield folder
    remove_leftovers(engine, folder)


def remove_leftovers(engine: Any, folder: Path) -> None:  # noqa: F811
    """Remove the containers and networks that a workflow's folder still has."""
    for thing in _marked(engine, folder):
        if hasattr(thing, "exec_run"):
            thing.remove(force=True)
        else:
            thing.remove()


def leftovers(engine: Any, folder: Path) -> list[str]:  # noqa: F811
    """Return the names of containers and networks that a workflow's folder still has."""
    return [thing.name for thing in _marked(engine, folder)]


def _marked(engine: Any, folder: Path) -> list[Any]:  # noqa: F811
    """Return containers, then networks: those of others aren't seen."""
    scope = f"{(folder / 'local').resolve()}:"
    containers = engine.containers.list(all=True, ignore_removed=True, filters={"label": LABEL})
    networks = engine.networks.list(filters={"label": LABEL})
    return [
        *(thing for thing in containers if thing.labels[LABEL].startswith(scope)),
        *(thing for thing in networks if thing.attrs["Labels"][LABEL].startswith(scope)),
    ]
