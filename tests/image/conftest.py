"""The engine, the image, and a fresh job for each test. A missing engine or image is named, and is a failure in CI."""

import contextlib
import gc
import os
import secrets
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import docker
import docker.errors
import pytest

from .cluster import Cluster
from .containers import Containers, Endpoint, Job, serve
from .samples import csv, digits


def missing(what: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(what, pytrace=False)
    pytest.skip(what)


@pytest.fixture(scope="session")
def engine() -> Iterator[Any]:
    client, reason = None, ""
    with warnings.catch_warnings():
        # The SDK doesn't close a socket without an answer, and warnings are errors here.
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            client = docker.from_env()
            client.ping()
        except docker.errors.DockerException as error:
            client, reason = None, str(error)
        gc.collect()
    if client is None:
        missing(f"no Docker engine answers: {reason}")
    yield client
    client.close()


@pytest.fixture(scope="session")
def image(engine: Any) -> Any:
    """The image under test: KMEANS_IMAGE, or kmeans:latest."""
    name = os.environ.get("KMEANS_IMAGE", "kmeans:latest")
    with contextlib.suppress(docker.errors.ImageNotFound):
        return engine.images.get(name)
    missing(f"no image {name}: build it, or name another one with KMEANS_IMAGE")


@pytest.fixture(scope="session")
def containers(engine: Any, image: Any) -> Containers:
    return Containers(engine, image)


@pytest.fixture
def job(tmp_path: Path, containers: Containers) -> Iterator[Job]:
    """A job without data and without hyperparameters."""
    job = Job(tmp_path / "ml", containers)
    yield job
    job.hand_over()


@pytest.fixture
def digits_job(job: Job) -> Job:
    """A job that is ready to train ten centers on scikit-learn's digits."""
    job.data_file("digits.csv").write_bytes(csv(digits()))
    job.set_hyperparameters(k="10", feature_dim="64")
    return job


@pytest.fixture(scope="session")
def digits_model(tmp_path_factory: pytest.TempPathFactory, containers: Containers) -> Iterator[Path]:
    """The model folder of a finished job."""
    job = Job(tmp_path_factory.mktemp("digits") / "ml", containers)
    job.data_file("digits.csv").write_bytes(csv(digits()))
    job.set_hyperparameters(k="10", feature_dim="64")
    finished = job.run()
    assert finished.exit_code == 0, finished.log
    yield job.model
    job.hand_over()


@pytest.fixture(scope="session")
def endpoint(digits_model: Path, containers: Containers) -> Iterator[Endpoint]:
    """A server of the digits' model that all tests share, so none of them stops it."""
    with serve(containers, digits_model) as endpoint:
        yield endpoint


@pytest.fixture
def network(engine: Any) -> Iterator[str]:
    network = engine.networks.create(f"kmeans-{secrets.token_hex(4)}", driver="bridge")
    yield network.name
    network.remove()


@pytest.fixture
def cluster(
    request: pytest.FixtureRequest, tmp_path: Path, containers: Containers, engine: Any, network: str
) -> Iterator[Cluster]:
    """A job on two hosts, or on those of which the test's parameter gives the number, or the names."""
    cluster = Cluster(tmp_path, containers, engine, network, getattr(request, "param", 2))
    yield cluster
    cluster.close()
