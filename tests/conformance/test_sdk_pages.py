"""The code of docs/sdk-2.md and docs/sdk-3.md does what the pages say, with the image under test.

Each page is run as it stands, in the SDK's local mode, less the sections that it says need an account; and without the
line of this machine, all sections, as for an account, which `account.py` stands for.
"""

import contextlib
import json
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import docker.errors
import numpy as np
import pytest

from tests.contract.opt_ml import PROJECT
from tests.contract.samples import digits, nearest, read_centers
from tests.contract.server import HOST, accepts_connections, free_port
from tests.contract.waiting import wait_until
from train import hyperparameters
from workflow.local.backend import check as check_request
from workflow.objects import unpack
from workflow.requests import metric_definitions

from .account import CREDENTIALS, Account, open_account
from .amazon import sagemaker
from .laptop import Laptop

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the SDK's own, about its age
    from workflow.sdk2 import KMeans

pytestmark = pytest.mark.image

PAGES = ("sdk-2.md", "sdk-3.md")
# No server listens there.
NOWHERE = "http://127.0.0.1:9"
THIS_MACHINE = "# this machine"
TEST_ROWS = slice(1500, None)
OPT_OUT = """\
SchemaVersion: "1.0"
SageMaker: {PythonSDK: {Modules: {TelemetryOptOut: true}}}
"""


def sections(page: str) -> dict[str, list[str]]:
    """The Python code of a page, by heading."""
    text = (PROJECT / "docs" / page).read_text()
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)[1:]
    blocks = {
        name: re.findall(r"^```python\n(.*?)^```$", part, re.MULTILINE | re.DOTALL) for name, part in pairs(parts)
    }
    return {name: found for name, found in blocks.items() if found}


def pairs(items: Sequence[str]) -> Iterator[tuple[str, str]]:
    yield from zip(items[::2], items[1::2], strict=True)


def whole(page: str, *, without: Sequence[str] = ()) -> str:
    found = sections(page)
    assert set(without) <= found.keys()
    return "\n\n".join(block for name, blocks in found.items() if name not in without for block in blocks)


def as_for_an_account(page: str) -> str:
    lines = whole(page).splitlines()
    kept = [line for line in lines if THIS_MACHINE not in line]
    assert len(kept) == len(lines) - 1
    return "\n".join(kept)


@dataclass(frozen=True)
class Run:
    """What a page's program has left: its log, its variables, and the requests that an account got."""

    log: str
    found: dict[str, Any]
    folder: Path
    account: Account | None
    s3: Any

    @property
    def model(self) -> bytes:
        """Files that local mode of the SDK 3 puts next to the program."""
        return (self.folder / "compressed_artifacts" / "model.tar.gz").read_bytes()

    def centers(self, folder: Path) -> Any:
        bucket, _, key = self.found["model_uri"].removeprefix("s3://").partition("/")
        content = self.s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        unpack(content, folder / "model", self.found["model_uri"])
        return read_centers(folder / "model")


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port, log = free_port(), tmp_path_factory.mktemp("moto") / "log"
    command = [sys.executable, "-m", "moto.server", "-H", HOST, "-p", str(port)]
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT) as process:
        try:
            wait_until(lambda: accepts_connections(port) or process.poll() is not None, "moto's port")
            assert process.poll() is None, log.read_text()
            yield f"http://{HOST}:{port}"
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def s3(moto: str) -> Any:
    """With the bucket of the pages, which say that it has to be there."""
    client = boto3.client("s3", endpoint_url=moto, **CREDENTIALS)
    (bucket,) = {re.findall(r'^BUCKET, NAME = "([^"]+)"', whole(page), re.MULTILINE)[0] for page in PAGES}
    client.create_bucket(Bucket=bucket)
    return client


@pytest.fixture(scope="module")
def pushed(engine: Any, image: Any) -> Iterator[str]:
    """The address of the image that the pages name, on the image under test."""
    (name,) = {re.findall(r'^IMAGE = "(.+)"$', whole(page), re.MULTILINE)[0] for page in PAGES}
    before = None
    with contextlib.suppress(docker.errors.ImageNotFound):
        before = engine.images.get(name)
    image.tag(name)
    yield name
    engine.images.remove(name)
    if before is not None:
        before.tag(name)


@dataclass(frozen=True)
class Desk:
    """A laptop, what S3 holds, and the Pythons that have the SDKs; runs a page's program."""

    laptop: Laptop
    s3: Any
    pythons: dict[str, str]

    def run(self, page: str, text: str, folder: Path, account: Account | None = None) -> Run:
        """Run it with a separate home, where the SDK finds its settings."""
        settings = folder / "home" / ".sagemaker"
        settings.mkdir(parents=True)
        (folder / "containers").mkdir()
        local = {"local": {"container_root": str(folder / "containers"), "serving_port": free_port()}}
        (settings / "config.yaml").write_text(json.dumps(local))
        (settings / "defaults.yaml").write_text(OPT_OUT)
        (folder / "page.py").write_text(text)
        own = {"HOME": str(settings.parent), "SAGEMAKER_USER_CONFIG_OVERRIDE": str(settings / "defaults.yaml")}
        if account is not None:
            services = ("SAGEMAKER", "SAGEMAKER_RUNTIME", "CLOUDWATCH_LOGS", "IAM")
            own |= {f"AWS_ENDPOINT_URL_{service}": account.address for service in services}
        elif page == "sdk-3.md":
            own["AWS_ENDPOINT_URL"] = NOWHERE  # its local mode needs no S3
        shared = self.laptop.environment
        self.laptop.environment = {**shared, **own}
        try:
            notebook = self.laptop.run(
                [self.pythons[page], "-m", "tests.conformance.run_page", str(folder)],
                folder,
            )
        finally:
            self.laptop.environment = shared
        return Run(notebook.log, json.loads((folder / "found.json").read_text()), folder, account, self.s3)


@pytest.fixture(scope="module")
def desk(engine: Any, compose: Path, moto: str, s3: Any, sdk3_python: str) -> Desk:
    return Desk(Laptop(engine, compose, moto), s3, {"sdk-2.md": sys.executable, "sdk-3.md": sdk3_python})


@pytest.fixture(scope="module")
def sdk2_here(desk: Desk, image: Any, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return desk.run("sdk-2.md", whole("sdk-2.md", without=["Tune"]), tmp_path_factory.mktemp("sdk2"))


@pytest.fixture(scope="module")
def sdk2_account(desk: Desk, pushed: str, moto: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    folder = tmp_path_factory.mktemp("sdk2-account")
    with open_account(folder / "account", moto) as account:
        yield desk.run("sdk-2.md", as_for_an_account("sdk-2.md"), folder, account)


@pytest.fixture(scope="module")
def sdk3_here(desk: Desk, image: Any, tmp_path_factory: pytest.TempPathFactory) -> Run:
    text = whole("sdk-3.md", without=["Deploy and predict", "Transform", "Tune"])
    return desk.run("sdk-3.md", text, tmp_path_factory.mktemp("sdk3"))


@pytest.fixture(scope="module")
def sdk3_account(desk: Desk, pushed: str, moto: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    folder = tmp_path_factory.mktemp("sdk3-account")
    with open_account(folder / "account", moto) as account:
        yield desk.run("sdk-3.md", as_for_an_account("sdk-3.md"), folder, account)


def check(found: Run, folder: Path) -> None:
    """Predictions and transformed rows are those of the model that was trained."""
    labels, distances = nearest(digits()[TEST_ROWS], found.centers(folder))
    assert found.found["clusters"] == labels.tolist()
    assert np.allclose(found.found["distances"], distances, rtol=1e-6, atol=0)
    transformed = np.array(found.found["transformed"])
    assert transformed[:, 0].tolist() == labels.tolist()
    assert np.allclose(transformed[:, 1], distances, rtol=1e-6, atol=0)
    # scikit-learn's best of 20 starts reaches 648; all in one cluster is 1201.
    assert float((distances**2).mean()) < 750


def check_requests(found: Run, image: str) -> None:
    """Names and addresses are those that the permissions of workflow/policies allow; nothing is left that costs."""
    assert found.account is not None
    bucket, name = found.found["BUCKET"], found.found["NAME"]
    for operation, request in found.account.requests:
        if operation.startswith("Create"):
            check_request("sagemaker", operation, request)
            assert request[f"{operation.removeprefix('Create')}Name"].startswith(f"{name}-"), operation
        text = json.dumps(request, default=repr)
        for address in re.findall(r's3://[^"]+', text):
            assert address.startswith(f"s3://{bucket}/{name}/"), (operation, address)
    for kind in ("Model", "EndpointConfig", "Endpoint"):
        created, deleted = (
            {request[f"{kind}Name"] for request in found.account.sent(f"{verb}{kind}")} for verb in ("Create", "Delete")
        )
        assert created, kind
        assert created == deleted
    (training,) = found.account.sent("CreateTrainingJob")
    (tuning,) = found.account.sent("CreateHyperParameterTuningJob")
    for request in (training, tuning["TrainingJobDefinition"]):
        assert request["AlgorithmSpecification"]["TrainingImage"] == image
        assert request["AlgorithmSpecification"]["MetricDefinitions"] == metric_definitions()
        assert {channel["ChannelName"] for channel in request["InputDataConfig"]} == {"train", "test"}
    logs = "".join(path.read_text() for path in (found.folder / "account" / "logs").rglob("*") if path.is_file())
    assert tuning["HyperParameterTuningJobConfig"]["HyperParameterTuningJobObjective"]["MetricName"] in {
        row["Name"] for row in metric_definitions() if re.search(row["Regex"], logs)
    }
    fixed = tuning["TrainingJobDefinition"]["StaticHyperParameters"]
    assert fixed["k"] == "10"
    ranges = tuning["HyperParameterTuningJobConfig"]["ParameterRanges"]
    tuned = {row["Name"] for rows in ranges.values() for row in rows}
    assert tuned == {"init_method", "mini_batch_size"}
    # What a job of the search gets is what the image takes.
    hyperparameters.parse({**fixed, "init_method": "random", "mini_batch_size": "500", "_tuning_objective_metric": "x"})


def test_the_page_of_the_sdk_2_runs_in_local_mode(sdk2_here: Run, tmp_path: Path) -> None:
    check(sdk2_here, tmp_path)


def test_the_page_of_the_sdk_2_runs_as_for_an_account(sdk2_account: Run, tmp_path: Path) -> None:
    check(sdk2_account, tmp_path)


def test_the_requests_of_the_page_of_the_sdk_2(sdk2_account: Run, pushed: str) -> None:
    check_requests(sdk2_account, pushed)


def test_each_instance_gets_a_share_of_a_record_set(sdk2_account: Run) -> None:
    """In an account, other than in local mode, which can't do it."""
    assert sdk2_account.account is not None
    (training,) = sdk2_account.account.sent("CreateTrainingJob")
    sources = [channel["DataSource"]["S3DataSource"] for channel in training["InputDataConfig"]]
    assert {source["S3DataType"] for source in sources} == {"ManifestFile"}
    assert {source["S3DataDistributionType"] for source in sources} == {"ShardedByS3Key"}


@pytest.mark.filterwarnings("ignore:.*SageMaker Python SDK v2")
def test_an_estimator_of_a_job_is_like_the_one_that_started_it(
    sdk2_account: Run, pushed: str, moto: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it is when a tuner gives the estimator of its best job."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto)
    assert sdk2_account.account is not None
    (training,) = sdk2_account.account.sent("CreateTrainingJob")
    client = boto3.client("sagemaker", endpoint_url=sdk2_account.account.address, **CREDENTIALS)
    session = sagemaker.Session(
        boto3.Session(**CREDENTIALS), sagemaker_client=client, default_bucket=sdk2_account.found["BUCKET"]
    )
    attached = KMeans.attach(training["TrainingJobName"], sagemaker_session=session)
    assert attached.training_image_uri() == attached.create_model().image_uri == pushed
    assert attached.model_data == sdk2_account.found["model_uri"]
    attached.feature_dim = 64
    assert attached.hyperparameters() == training["HyperParameters"]


@pytest.mark.filterwarnings("ignore:.*SageMaker Python SDK v2")
def test_the_class_takes_what_the_image_takes(moto: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto)
    session = sagemaker.LocalSession(boto3.Session(**CREDENTIALS), default_bucket="any-bucket")
    kmeans = KMeans("image", "role", 1, "local", 3, seed=7, refine_max_iter=0, sagemaker_session=session)
    assert (kmeans.training_image_uri(), kmeans.role, kmeans.instance_type) == ("image", "role", "local")
    assert kmeans.hyperparameters() == {"force_dense": "True", "k": "3", "seed": "7", "refine_max_iter": "0"}
    assert hyperparameters.parse(kmeans.hyperparameters()).values["seed"] == 7
    with pytest.raises(ValueError, match="Invalid hyperparameter value -1 for seed"):
        kmeans.seed = -1


def test_the_page_of_the_sdk_3_trains_in_local_mode(sdk3_here: Run, tmp_path: Path) -> None:
    unpack(sdk3_here.model, tmp_path / "model", "the model in compressed_artifacts")
    _, distances = nearest(digits()[TEST_ROWS], read_centers(tmp_path / "model"))
    (told,) = re.findall(r"#quality_metric: host=algo-1, test msd <loss>=(\S+)", sdk3_here.log)
    assert np.isclose(float(told), float((distances**2).mean()), rtol=1e-5)


def test_the_page_of_the_sdk_3_runs_as_for_an_account(sdk3_account: Run, tmp_path: Path) -> None:
    check(sdk3_account, tmp_path)


def test_the_requests_of_the_page_of_the_sdk_3(sdk3_account: Run, pushed: str) -> None:
    check_requests(sdk3_account, pushed)
