"""The engine, AWS on the loopback interface, a registry, and a person who pushes; `make push-test` has the packages."""

from __future__ import annotations

import base64
import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import boto3
import docker
import docker.errors
import pytest
from moto.server import ThreadedMotoServer

from .person import REGION, Person
from .registry import Registry


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
def cloud() -> Iterator[str]:
    """The address of an AWS that moto plays."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def client(cloud: str, service: str) -> Any:
    return boto3.client(
        service,
        region_name=REGION,
        endpoint_url=cloud,
        aws_access_key_id="testing",
        aws_secret_access_key="testing",  # noqa: S106
    )


@pytest.fixture(scope="session")
def ecr(cloud: str) -> Any:
    return client(cloud, "ecr")


@pytest.fixture(scope="session")
def iam(cloud: str) -> Any:
    return client(cloud, "iam")


@pytest.fixture(scope="session")
def registry(engine: Any, ecr: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry that takes the password that this AWS gives."""
    (granted,) = ecr.get_authorization_token()["authorizationData"]
    user, _, password = base64.b64decode(granted["authorizationToken"]).decode().partition(":")
    with Registry(engine, tmp_path_factory.mktemp("registry"), user, password) as registry:
        yield registry


@pytest.fixture
def person(engine: Any, cloud: str, registry: Registry, tmp_path: Path) -> Iterator[Person]:
    """A user with docker, aws and a small project, before the first push."""
    person = Person(tmp_path, cloud, registry.host, f"kmeans-{uuid.uuid4().hex[:8]}")
    yield person
    person.forget(engine)
