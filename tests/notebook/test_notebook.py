"""The notebook from start to end on this machine, and whether the outputs in the file are those of today's code."""

import ast
import base64
import gzip
import hashlib
import http.server
import io
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import boto3
import matplotlib.image
import nbformat
import numpy as np
import pytest
from moto.server import ThreadedMotoServer
from nbclient.exceptions import CellExecutionError
from numpy.typing import NDArray

from tests.image.conftest import engine, image, missing  # noqa: F401 - fixtures
from tests.workflow.conftest import leftovers, remove_leftovers
from workflow.ledger import Ledger

from . import execution

LONGEST_SECONDS = 300
LARGEST_FILE = 1 << 20
PICTURES = ("digits", "centers", "invoke-records", "nearest-furthest", "contingency", "distances")

NUMBER = re.compile(r"(?<![\w.-])\d[\d,]*(?:\.\d+)?(?!\w)")
JOB_TIME = re.compile(r"\b\d{6}-\d{6}\b")
# What a container has is the same everywhere.
PATH = re.compile(r"(?<![\w:/.<])/(?!opt/ml\b)(?:[\w.-]+/)*(?:home|root|work|tmp|Users|usr|var|mnt|private|opt)/\S*")


class Run(NamedTuple):
    notebook: Any
    seconds: float
    folder: Path


@pytest.fixture(scope="module")
def run(engine: Any, image: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:  # noqa: F811
    """The notebook, executed once in a separate folder."""
    if "KMEANS_MNIST_DIR" not in os.environ:
        missing("no KMEANS_MNIST_DIR, the folder with the four files of MNIST: run `make notebook MNIST=DIR`")
    folder = tmp_path_factory.mktemp("notebook")
    notebook = execution.read()
    mnist = str(Path(os.environ["KMEANS_MNIST_DIR"]).resolve())
    parameters = {"IMAGE": os.environ.get("KMEANS_IMAGE"), "MNIST_DIR": mnist, "FOLDER": str(folder)}
    started = time.monotonic()
    try:
        execution.execute(notebook, parameters)
        yield Run(notebook, time.monotonic() - started, folder)
    finally:
        remove_leftovers(engine, folder)


@pytest.fixture(scope="module")
def committed() -> Any:
    return execution.read()


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def cells_named(*names: str) -> list[Any]:
    cells = {cell.id: cell for cell in execution.read().cells}
    return [cells[name] for name in names]


def text_of(cell: Any) -> str:
    return "".join(output.text for output in cell.outputs if output.output_type == "stream" and output.name == "stdout")


def pictures_of(notebook: Any) -> dict[str, bytes]:
    return {
        cell.id: base64.b64decode(output.data["image/png"])
        for cell in code_cells(notebook)
        for output in cell.outputs
        if "image/png" in output.get("data", {})
    }


def results_of(notebook: Any) -> dict[str, float]:
    (cell,) = execution.tagged(notebook, "results")
    results: dict[str, float] = ast.literal_eval(text_of(cell))
    return results


def test_all_cells_run_within_five_minutes(run: Run) -> None:
    assert all(cell.execution_count for cell in code_cells(run.notebook))
    assert run.seconds < LONGEST_SECONDS


def test_without_mnist_a_check_of_everything_fails_and_says_so() -> None:
    """Skipped in silence, the whole run was missing from what looked like a check of it."""
    command = [sys.executable, "-m", "pytest", f"{__file__}::test_the_pictures_show_something"]
    environment = {name: text for name, text in os.environ.items() if name != "KMEANS_MNIST_DIR"}
    ended = subprocess.run(
        command, env={**environment, "CI": "true"}, capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 1
    assert "no KMEANS_MNIST_DIR, the folder with the four files of MNIST" in ended.stdout


def test_the_pictures_show_something(run: Run) -> None:
    pictures = pictures_of(run.notebook)
    assert tuple(pictures) == PICTURES
    for name, content in pictures.items():
        pixels = matplotlib.image.imread(io.BytesIO(content), format="png")[..., :3]
        assert min(pixels.shape[:2]) >= 150, name
        assert (pixels < 0.5).mean() > 0.01, name  # not only paper


def test_the_answers_are_right_and_the_centers_are_good(run: Run) -> None:
    results = results_of(run.notebook)
    assert results["wrong answers"] == 0
    said = results["mean squared distance, as the job says"]
    # Of MNIST and ten clusters scikit-learn finds from 39.3 to 39.6, as it starts.
    assert 39.2 < said < 39.7
    assert results["mean squared distance, as scikit-learn says"] == pytest.approx(said, abs=0.011)
    assert said < 1.01 * results["mean squared distance of scikit-learn's best"]
    assert 0.5 < results["purity"] < 0.7
    assert 0.42 < results["normalized mutual information"] < 0.56


def test_the_training_ran_on_two_hosts_that_shared_the_rows(run: Run) -> None:
    log = next(text_of(cell) for cell in run.notebook.cells if cell.id == "training-run")
    for host in ("algo-1", "algo-2"):
        assert re.search(rf"{host}: .*read channel train: 25000 rows x 784 columns from 2 file", log)


def test_the_last_cell_deletes_everything(run: Run, engine: Any) -> None:  # noqa: F811
    assert leftovers(engine, run.folder) == []
    assert Ledger(run.folder / "local" / "created.json").entries() == []
    assert [path for path in (run.folder / "local" / "s3").rglob("*") if path.is_file()] == []


def test_the_outputs_in_the_file_are_those_of_a_run_of_today(run: Run, committed: Any) -> None:
    assert pictures_of(committed).keys() == pictures_of(run.notebook).keys()
    logs = [cell.id for cell in execution.tagged(committed, "log")]
    for kept, fresh in zip(code_cells(committed), code_cells(run.notebook), strict=True):
        if kept.id in logs:  # times, ports, and lines of two hosts in any order
            assert bool(text_of(kept)) == bool(text_of(fresh)), kept.id
            continue
        before, now = (JOB_TIME.sub("TIME", text_of(cell)) for cell in (kept, fresh))
        now = now.replace(os.environ.get("KMEANS_IMAGE", "kmeans:latest"), "kmeans:latest")
        assert NUMBER.sub("N", before).split() == NUMBER.sub("N", now).split(), f"{kept.id}: {hint()}"
        numbers = ([float(number.replace(",", "")) for number in NUMBER.findall(text)] for text in (before, now))
        assert next(numbers) == pytest.approx(next(numbers), rel=0.03), f"{kept.id}: {hint()}"


def hint() -> str:
    return "the outputs are of older code; run `make notebook-outputs`"


def test_the_file_was_executed_in_order_and_without_a_complaint(committed: Any) -> None:
    nbformat.validate(committed)
    cells = code_cells(committed)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"] == []
    assert execution.NOTEBOOK.stat().st_size < LARGEST_FILE


def test_file_contains_nothing_about_the_machine(committed: Any) -> None:
    texts = {cell.id: text_of(cell) for cell in code_cells(committed)}
    for name, text in texts.items():
        assert PATH.findall(text) == [], name
        assert "site-packages" not in text, name
        assert not re.search(rf"\b{re.escape(socket.gethostname())}\b", text), name
        assert str(Path.home()) not in text, name
    assert all("execution" not in cell.metadata for cell in committed.cells)
    assert committed.metadata.language_info == {"name": "python"}
    assert committed.metadata.kernelspec.name == "python3"


@pytest.mark.parametrize("text", ["/root/x", "in /home/jo/k", "'/tmp/a'", "(/usr/lib/python3", "/opt/conda/bin"])
def test_a_path_of_a_machine_would_be_found(text: str) -> None:
    assert PATH.search(text)


def test_it_is_for_this_machine_unless_the_switch_is_turned(committed: Any) -> None:
    (cell,) = execution.tagged(committed, "parameters")
    assert re.search(r'^TARGET = "local"', cell.source, re.MULTILINE)


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """An empty account on this machine, and what a client of it needs; the kernel finds it in the environment."""
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    keys = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
    nowhere = {"AWS_CONFIG_FILE": str(tmp_path / "none"), "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none")}
    address = f"http://{host}:{port}"
    for name, value in {"AWS_ENDPOINT_URL": address, **keys, **nowhere}.items():
        monkeypatch.setenv(name, value)
    try:
        yield {"endpoint_url": address, "region_name": "eu-west-1"}
    finally:
        server.stop()


def write_idx(file: Path, values: NDArray[np.uint8]) -> None:
    sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
    file.write_bytes(bytes([0, 0, 8, values.ndim]) + sizes + values.tobytes())


def test_cells_work_in_an_account_with_the_switch_turned(account: dict[str, Any], tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    write_idx(tmp_path / "train-images-idx3-ubyte", random.integers(0, 256, (80, 28, 28), np.uint8))
    write_idx(tmp_path / "t10k-images-idx3-ubyte", random.integers(0, 256, (40, 28, 28), np.uint8))
    write_idx(tmp_path / "t10k-labels-idx1-ubyte", np.tile(np.arange(10, dtype=np.uint8), 4))
    role, uri = "arn:aws:iam::123456789012:role/K", "123456789012.dkr.ecr.eu-west-1.amazonaws.com/kmeans:1"
    names = ("parameters", "project", "imports", "workspace", "digits", "write", "recordio", "training-request")
    notebook = nbformat.v4.new_notebook(cells=cells_named(*names, "training-run"))
    parameters = {
        "TARGET": "aws",
        "ROLE": role,
        "IMAGE": uri,
        "MNIST_DIR": str(tmp_path),
        "FOLDER": str(tmp_path / "w"),
    }
    execution.execute(notebook, parameters)

    sagemaker = boto3.client("sagemaker", **account)
    (summary,) = sagemaker.list_training_jobs()["TrainingJobSummaries"]
    job = sagemaker.describe_training_job(TrainingJobName=summary["TrainingJobName"])
    bucket = "sagemaker-eu-west-1-123456789012"
    assert job["RoleArn"] == role
    assert job["AlgorithmSpecification"]["TrainingImage"] == uri
    assert job["ResourceConfig"]["InstanceCount"] == 2
    assert job["HyperParameters"] == {"k": "10", "feature_dim": "784"}
    train = job["InputDataConfig"][0]["DataSource"]["S3DataSource"]
    assert train["S3Uri"] == f"s3://{bucket}/kmeans-digits/data/train/"
    found = boto3.client("s3", **account).list_objects_v2(Bucket=bucket, Prefix="kmeans-digits/data/train/")
    assert [row["Key"].rpartition("/")[2] for row in found["Contents"]] == [f"part-0000{n}.pbr" for n in range(4)]
    assert "they are the pixels" in text_of(notebook.cells[6])
    # Written down, so that the last cell finds them.
    kinds = [entry.kind for entry in Ledger(tmp_path / "w" / "aws" / "created.json").entries()]
    assert kinds == ["data", "objects", "training-job"]


class Mirror(NamedTuple):
    """A server of files on this machine, and the notebook's cells that download from it."""

    files: Path
    url: str
    cells: list[Any]

    def download(self, folder: Path, checksums: dict[str, str]) -> str:
        """Run the cells; return what they print."""
        addresses = f"MNIST_URL = {self.url!r}\nMNIST_SHA256 = {checksums!r}\nMNIST_DIR = {str(folder)!r}"
        source, download = self.cells[-2:]
        cells = [*self.cells[:-2], source, nbformat.v4.new_code_cell(addresses), download]
        notebook = nbformat.v4.new_notebook(cells=cells)
        execution.execute(notebook)
        return text_of(download)


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[Mirror]:
    files = tmp_path / "mirror"
    files.mkdir()
    handler = partial(Quiet, directory=str(files))
    cells = cells_named("parameters", "project", "imports", "source", "download")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield Mirror(files, f"http://127.0.0.1:{server.server_port}", cells)
        finally:
            server.shutdown()
            thread.join()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


def test_what_is_not_in_the_folder_is_downloaded_and_checked(mirror: Mirror, tmp_path: Path) -> None:
    folder = tmp_path / "mnist"
    folder.mkdir()
    contents = {"train-images": b"pictures", "train-labels": b"labels"}
    checksums = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    (mirror.files / "train-images.gz").write_bytes(gzip.compress(contents["train-images"]))
    (folder / "train-labels").write_bytes(contents["train-labels"])  # the mirror hasn't got it
    printed = mirror.download(folder, checksums)
    assert printed.splitlines() == [
        "train-images: 8 bytes, as they should be",
        "train-labels: 6 bytes, as they should be",
    ]
    assert gzip.decompress((folder / "train-images.gz").read_bytes()) == b"pictures"
    assert sorted(path.name for path in folder.iterdir()) == ["train-images.gz", "train-labels"]


PACKED = gzip.compress(b"pictures")


@pytest.mark.parametrize(
    "content", [gzip.compress(b"others"), PACKED[:9], b"<html>not found</html>"], ids=["another", "cut", "html"]
)
def test_what_is_not_mnist_is_refused_and_not_kept(mirror: Mirror, tmp_path: Path, content: bytes) -> None:
    (mirror.files / "train-images.gz").write_bytes(content)
    with pytest.raises(CellExecutionError, match="isn't the file of MNIST"):
        mirror.download(tmp_path / "mnist", {"train-images": hashlib.sha256(b"pictures").hexdigest()})
    assert not (tmp_path / "mnist").exists()
