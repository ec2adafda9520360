"""The SDK 2 in local mode, unmodified, trains, deploys and predicts with the image under test.

It runs Docker by its compose plugin, and keeps data and models in S3, which moto plays on the loopback interface: there
is no AWS account, and nothing leaves the machine.
"""

import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker.errors
import numpy as np
import numpy.typing as npt
import pytest

from tests.contract.opt_ml import PROJECT
from tests.contract.samples import csv, digits, nearest
from tests.contract.server import HOST, accepts_connections, free_port
from tests.contract.waiting import wait_until

from .amazon import sagemaker
from .laptop import REGION, Laptop, Notebook

pytestmark = pytest.mark.image


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
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a simulated S3."""
    port, log = free_port(), tmp_path_factory.mktemp("s3") / "log"
    command = [sys.executable, "-m", "moto.server", "-H", HOST, "-p", str(port)]
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT) as process:
        try:
            wait_until(lambda: accepts_connections(port) or process.poll() is not None, "moto's port")
            assert process.poll() is None, log.read_text()
            yield f"http://{HOST}:{port}"
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def laptop(engine: Any, compose: Path, s3: str) -> Laptop:
    return Laptop(engine, compose, s3)


def run(part: str, laptop: Laptop, folder: Path, image: str) -> Notebook:
    command = [sys.executable, "-m", "tests.conformance.sdk_user", part, str(folder), str(free_port()), image]
    return laptop.run(command, folder)


@pytest.fixture(scope="module")
def points() -> npt.NDArray[np.float32]:
    return digits()


@pytest.fixture(scope="module")
def kmeans(
    laptop: Laptop, builtin_name: str, points: npt.NDArray[np.float32], tmp_path_factory: pytest.TempPathFactory
) -> Notebook:
    folder = tmp_path_factory.mktemp("kmeans")
    np.save(folder / "points.npy", points)
    return run("kmeans", laptop, folder, builtin_name)


@pytest.fixture(scope="module")
def estimator(
    laptop: Laptop, builtin_name: str, points: npt.NDArray[np.float32], tmp_path_factory: pytest.TempPathFactory
) -> Notebook:
    folder = tmp_path_factory.mktemp("estimator")
    for channel, rows in (("train", points[:1500]), ("test", points[1500:])):
        (folder / channel).mkdir()
        (folder / channel / "digits.csv").write_bytes(csv(rows))
    np.save(folder / "points.npy", points)
    return run("estimator", laptop, folder, builtin_name)


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


def test_metrics_of_the_training_page_are_found_in_the_log(estimator: Notebook) -> None:
    page = (PROJECT / "docs" / "training.md").read_text()
    definitions = dict(re.findall(r'"Name": "([^"]+)",\s+"Regex": r"([^"]+)"', page))
    assert {"train:msd", "test:msd", "test:ssd"} <= definitions.keys()
    found = {name: re.findall(regex, estimator.log) for name, regex in definitions.items()}
    assert {name for name, texts in found.items() if not texts} == set()
    assert all(float(text) > 0 for texts in found.values() for text in texts), found


def test_two_hosts_train_one_model(
    laptop: Laptop, builtin_name: str, points: npt.NDArray[np.float32], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The first container that ends takes the other one down, and both have one folder for the model."""
    folder = tmp_path_factory.mktemp("hosts")
    (folder / "train").mkdir()
    (folder / "train" / "digits.csv").write_bytes(csv(points))
    notebook = run("hosts", laptop, folder, builtin_name)
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
