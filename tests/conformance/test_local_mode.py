"""The SDK 2 in local mode, unmodified, trains, deploys and predicts with the image under test.

It runs Docker by its compose plugin, and keeps data and models in S3, which moto plays on the loopback interface: there
is no AWS account, and nothing leaves the machine.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import docker
import docker.errors
import numpy as np
import numpy.typing as npt
import pytest

from tests.contract.opt_ml import PROJECT
from tests.contract.samples import csv, digits, nearest, read_centers
from tests.contract.server import HOST, accepts_connections, free_port
from tests.contract.waiting import wait_until

from .amazon import sagemaker

pytestmark = pytest.mark.image

REGION = "us-east-1"
# A part of sdk_user takes 15 s on two CPUs.
DEADLINE = 300
# Compose writes the folder of its file onto each container that it starts.
WORKING_DIRECTORY = "com.docker.compose.project.working_dir"
NETWORK = "sagemaker-local"


def missing(what: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(what, pytrace=False)
    pytest.skip(what)


@pytest.fixture(scope="module")
def engine() -> Iterator[Any]:
    try:
        client = docker.from_env()
        client.ping()
    except docker.errors.DockerException as error:
        missing(f"no Docker engine answers: {error}")
    with contextlib.closing(client):
        yield client


@pytest.fixture(scope="module")
def image(engine: Any) -> Any:
    """The image under test: KMEANS_IMAGE, or kmeans:latest."""
    name = os.environ.get("KMEANS_IMAGE", "kmeans:latest")
    with contextlib.suppress(docker.errors.ImageNotFound):
        return engine.images.get(name)
    missing(f"no image {name}: build it, or name another one with KMEANS_IMAGE")


@pytest.fixture(scope="module")
def builtin_name(engine: Any, image: Any) -> Iterator[str]:
    """The name of Amazon's image, on the image under test: `sagemaker.KMeans` asks for no other.

    The SDK pulls nothing if there is an image of that name.
    """
    kmeans = sagemaker.KMeans
    name: str = sagemaker.image_uris.retrieve(kmeans.repo_name, REGION, version=kmeans.repo_version)
    before = None
    with contextlib.suppress(docker.errors.ImageNotFound):
        before = engine.images.get(name)
    image.tag(name)
    yield name
    engine.images.remove(name)
    if before is not None:
        before.tag(name)


@pytest.fixture(scope="module")
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


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an S3 of our own."""
    port, log = free_port(), tmp_path_factory.mktemp("s3") / "log"
    command = [sys.executable, "-m", "moto.server", "-H", HOST, "-p", str(port)]
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT) as process:
        try:
            wait_until(lambda: accepts_connections(port) or process.poll() is not None, "moto's port")
            assert process.poll() is None, log.read_text()
            yield f"http://{HOST}:{port}"
        finally:
            process.terminate()


def clean_up(engine: Any, folder: Path, *, network_too: bool) -> None:
    """Remove what compose leaves behind: stopped containers, and the network, whose name is the same for all jobs."""
    for container in engine.containers.list(all=True, filters={"label": WORKING_DIRECTORY}):
        if Path(container.labels[WORKING_DIRECTORY]).is_relative_to(folder):
            container.remove(force=True, v=True)
    if network_too:
        # Not found if the job never got so far; in use if somebody else runs local mode just now.
        with contextlib.suppress(docker.errors.APIError):
            engine.networks.get(NETWORK).remove()


@dataclass(frozen=True)
class Notebook:
    """What a part of `sdk_user` has left."""

    folder: Path
    log: str

    @property
    def centers(self) -> npt.NDArray[np.float32]:
        """The centers that the SDK finds in S3."""
        with tarfile.open(self.folder / "model.tar.gz") as archive:
            archive.extract("model_algo-1", self.folder, filter="data")
        return read_centers(self.folder)

    @property
    def predictions(self) -> npt.NDArray[np.float64]:
        predictions: npt.NDArray[np.float64] = np.load(self.folder / "predictions.npy", allow_pickle=False)
        return predictions


class Laptop:
    """Where notebooks run: with compose, an S3, and no other settings of AWS than ours."""

    def __init__(self, engine: Any, compose: Path, s3: str, image: str) -> None:
        self.engine = engine
        self.image = image
        # The SDK and boto3 read settings from the home; docker, from which we got compose, from its own folder.
        home = compose.parent
        own = {name: text for name, text in os.environ.items() if not name.startswith(("AWS_", "SAGEMAKER_"))}
        self.environment = {
            "DOCKER_CONFIG": str(Path.home() / ".docker"),
            **own,
            "HOME": str(home),
            "PATH": f"{compose}{os.pathsep}{os.environ['PATH']}",
            "AWS_ENDPOINT_URL": s3,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_EC2_METADATA_DISABLED": "true",
            "PYTHONUNBUFFERED": "1",
        }

    def run(self, part: str, folder: Path) -> Notebook:
        log = folder / "log"
        command = [sys.executable, "-m", "tests.conformance.sdk_user", part, str(folder), str(free_port()), self.image]
        network_is_ours = not self.engine.networks.list(names=[NETWORK])
        try:
            with (
                log.open("wb") as out,
                subprocess.Popen(
                    command,
                    cwd=PROJECT,
                    env=self.environment,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                ) as process,
            ):
                try:
                    exit_code = process.wait(DEADLINE)
                finally:
                    # The SDK's children, compose for one, outlive it if it is killed.
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
        finally:
            clean_up(self.engine, folder, network_too=network_is_ours)
        text = log.read_text(errors="replace").replace("\r", "")
        assert exit_code == 0, text
        return Notebook(folder, text)


@pytest.fixture(scope="module")
def laptop(engine: Any, compose: Path, s3: str, builtin_name: str) -> Laptop:
    return Laptop(engine, compose, s3, builtin_name)


@pytest.fixture(scope="module")
def points() -> npt.NDArray[np.float32]:
    return digits()


@pytest.fixture(scope="module")
def kmeans(laptop: Laptop, points: npt.NDArray[np.float32], tmp_path_factory: pytest.TempPathFactory) -> Notebook:
    folder = tmp_path_factory.mktemp("kmeans")
    np.save(folder / "points.npy", points)
    return laptop.run("kmeans", folder)


@pytest.fixture(scope="module")
def estimator(laptop: Laptop, points: npt.NDArray[np.float32], tmp_path_factory: pytest.TempPathFactory) -> Notebook:
    folder = tmp_path_factory.mktemp("estimator")
    for channel, rows in (("train", points[:1500]), ("test", points[1500:])):
        (folder / channel).mkdir()
        (folder / channel / "digits.csv").write_bytes(csv(rows))
    np.save(folder / "points.npy", points)
    return laptop.run("estimator", folder)


def check_predictions(notebook: Notebook, points: npt.NDArray[np.float32]) -> None:
    assert notebook.centers.shape == (10, 64)
    labels, distances = nearest(points, notebook.centers)
    assert np.array_equal(notebook.predictions[:, 0], labels)
    assert np.allclose(notebook.predictions[:, 1], distances, rtol=1e-6, atol=0)


def test_the_class_for_kmeans_trains_deploys_and_predicts(kmeans: Notebook, points: npt.NDArray[np.float32]) -> None:
    check_predictions(kmeans, points)


def test_the_class_for_kmeans_got_our_image_for_amazons(kmeans: Notebook, builtin_name: str) -> None:
    assert (kmeans.folder / "image").read_text() == builtin_name
    assert "===== Job Complete =====" in kmeans.log


def test_the_class_for_any_image_trains_deploys_and_predicts(
    estimator: Notebook, points: npt.NDArray[np.float32]
) -> None:
    check_predictions(estimator, points)


def test_the_metrics_of_the_readme_are_found_in_the_log(estimator: Notebook) -> None:
    readme = (PROJECT / "README.md").read_text()
    definitions = dict(re.findall(r'"Name": "([^"]+)",\s+"Regex": r"([^"]+)"', readme))
    assert {"train:msd", "test:msd", "test:ssd"} <= definitions.keys()
    found = {name: re.findall(regex, estimator.log) for name, regex in definitions.items()}
    assert {name for name, texts in found.items() if not texts} == set()
    assert all(float(text) > 0 for texts in found.values() for text in texts), found


def test_two_hosts_train_one_model(
    laptop: Laptop, points: npt.NDArray[np.float32], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The first container that ends takes the other one down, and both have one folder for the model."""
    folder = tmp_path_factory.mktemp("hosts")
    (folder / "train").mkdir()
    (folder / "train" / "digits.csv").write_bytes(csv(points))
    notebook = laptop.run("hosts", folder)
    assert notebook.centers.shape == (10, 64)
    _, distances = nearest(points, notebook.centers)
    # scikit-learn's best of 20 starts reaches 648; all in one cluster is 1201.
    assert float((distances**2).mean()) < 700
    assert notebook.log.count("read channel train: 89") == 2, "each host has half of the 1797 rows"
    assert notebook.log.count("wrote the model to") == 1


def test_no_container_is_left(kmeans: Notebook, estimator: Notebook, engine: Any) -> None:
    """All containers of local mode have folders of the notebook's, by which they are known here."""
    left = [
        container.name
        for container in engine.containers.list(all=True, ignore_removed=True)
        for mount in container.attrs["Mounts"]
        for notebook in (kmeans, estimator)
        if Path(mount.get("Source", "/")).is_relative_to(notebook.folder)
    ]
    assert left == []
