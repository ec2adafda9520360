"""The engine, the image and compose; skips these tests where Amazon's packages are missing, as in the project's own
environment.

`make conformance` has them and says so by KMEANS_CONFORMANCE=1; then a package that is missing is a failure.
"""

import contextlib
import importlib.util
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import docker
import docker.errors
import pytest

PACKAGES = ("sagemaker", "sagemaker_training", "sagemaker_inference", "moto", "boto3")
MISSING = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
REQUIRED = os.environ.get("KMEANS_CONFORMANCE") == "1"


class NotInstalled(pytest.Module):
    """A test module that is not imported, because it could not be."""

    def collect(self) -> list[pytest.Item | pytest.Collector]:
        pytest.skip(f"not installed: {', '.join(MISSING)} (`make conformance` has them)", allow_module_level=True)


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    if not MISSING or REQUIRED:
        return None
    module: pytest.Module = NotInstalled.from_parent(parent, path=module_path)
    return module


def missing(what: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(what, pytrace=False)
    pytest.skip(what)


@pytest.fixture(scope="session")
def engine() -> Iterator[Any]:
    try:
        client = docker.from_env()
        client.ping()
    except docker.errors.DockerException as error:
        missing(f"no Docker engine answers: {error}")
    with contextlib.closing(client):
        yield client


@pytest.fixture(scope="session")
def image(engine: Any) -> Any:
    """The image under test: KMEANS_IMAGE, or kmeans:latest."""
    name = os.environ.get("KMEANS_IMAGE", "kmeans:latest")
    with contextlib.suppress(docker.errors.ImageNotFound):
        return engine.images.get(name)
    missing(f"no image {name}: build it, or name another one with KMEANS_IMAGE")


@pytest.fixture(scope="session")
def compose(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `docker-compose`, as the SDK wants it if the plugin's version has no "v" in front."""
    asked = subprocess.run(
        ["docker", "info", "--format", "{{json .ClientInfo.Plugins}}"], capture_output=True, timeout=60, check=True
    )
    plugins = {plugin["Name"]: plugin["Path"] for plugin in json.loads(asked.stdout) or ()}
    if "compose" not in plugins:
        missing("Docker has no compose plugin (`docker compose version`), without which the SDK has no local mode")
    folder = tmp_path_factory.mktemp("bin")
    (folder / "docker-compose").symlink_to(plugins["compose"])
    return folder


@pytest.fixture(scope="session")
def sdk3_python() -> str:
    """The Python that has the SDK 3."""
    found = shutil.which(os.environ.get("KMEANS_SDK3_PYTHON", ""))
    if found is None:
        what = "no Python with the SDK 3: KMEANS_SDK3_PYTHON must name one (`make conformance` has it)"
        if REQUIRED:
            pytest.fail(what, pytrace=False)
        missing(what)
    return found
