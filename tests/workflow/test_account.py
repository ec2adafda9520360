"""The steps in an account, which moto plays; what it doesn't know is played by botocore's own events and stubs."""

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import moto
import numpy as np
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoRegionError
from botocore.stub import Stubber

from kmeans import artifact
from kmeans.formats import recordio
from kmeans.model import KMeansModel
from workflow.clients import Clients
from workflow.errors import JobFailedError, explain
from workflow.ledger import Ledger
from workflow.local.archive import pack
from workflow.logs import TRAINING, LogTail
from workflow.objects import S3Objects
from workflow.waiting import wait_for_endpoint, wait_for_training

from .conftest import Run

REGION = "eu-west-1"
BUCKET = f"sagemaker-{REGION}-123456789012"
PREFIX = f"s3://{BUCKET}/kmeans-digits"
ROLE = "arn:aws:iam::123456789012:role/SageMaker"
ACCOUNT = ("--target", "aws", "--region", REGION, "--role", ROLE)
IMAGE = ("--image", f"123456789012.dkr.ecr.{REGION}.amazonaws.com/kmeans:1")

# Of the operations that the workflow calls, moto lacks these.
NOT_IN_MOTO = ("StopTrainingJob", "DeleteTrainingJob", "StopTransformJob", "StopHyperParameterTuningJob")


@dataclass
class Account:
    """An empty account: moto, and what is said in its place.

    Attributes
    ----------
    called
        Operations that were called and that moto doesn't know: they succeed.
    errors
        What calls of an operation end with.
    """

    called: list[str] = field(default_factory=list)
    errors: dict[str, Exception] = field(default_factory=dict)

    def answer(self, model: Any, **_: Any) -> tuple[Any, dict[str, Any]] | None:
        if model.name in self.errors:
            raise self.errors[model.name]
        if model.name in NOT_IN_MOTO:
            self.called.append(model.name)
            return Ok(), {}
        return None


class Ok:
    """An answer of HTTP, as far as botocore looks at it."""

    status_code = 200


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setattr("workflow.clients.AWS_POLL_SECONDS", 0.01)
    monkeypatch.setattr("workflow.clients.AWS_LOG_DELAY_SECONDS", 0.0)
    account = Account()
    make = boto3.Session.client

    def client(session: Any, service: str, *arguments: Any, **options: Any) -> Any:
        made = make(session, service, *arguments, **options)
        made.meta.events.register(f"before-call.{made.meta.service_model.service_id.hyphenize()}", account.answer)
        return made

    monkeypatch.setattr(boto3.Session, "client", client)
    with moto.mock_aws():
        yield account


def aws(service: str) -> Any:
    return boto3.client(service, REGION)


@pytest.fixture
def trained(account: Account, run: Run) -> KMeansModel:
    """An account with data, and with a training job's model, which moto doesn't make."""
    run("data", *ACCOUNT, "--rows", "100")
    job = run("train", *ACCOUNT, *IMAGE, "--job-name", "digits-1", "--no-wait")
    assert job == "CreateTrainingJob digits-1\n"
    points = recordio.decode(S3Objects(aws("s3")).get(f"{PREFIX}/data/train/part-00000.pbr"))
    model = KMeansModel(points[:10])
    return model


def refused(operation: str, code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "no"}}, operation)


def upload(model: KMeansModel, folder: Path) -> None:
    artifact.save(model, folder / "model")
    content = pack([folder / "model"])
    S3Objects(aws("s3")).put(f"{PREFIX}/models/digits-1/output/model.tar.gz", content, "application/gzip")


def test_data_come_into_the_usual_bucket(account: Account, run: Run) -> None:
    run("data", *ACCOUNT)
    objects = S3Objects(aws("s3"))
    plan = json.loads(run("data", *ACCOUNT, "--dry-run"))["PutObject"]
    assert objects.find(f"{PREFIX}/") == sorted(f"s3://{row['Bucket']}/{row['Key']}" for row in plan)
    parts = [recordio.decode(objects.get(uri)) for uri in objects.find(f"{PREFIX}/data/train/")]
    assert [part.shape for part in parts] == [(375, 64)] * 4
    head = aws("s3").head_object(Bucket=BUCKET, Key="kmeans-digits/data/train/part-00000.pbr")
    assert head["ContentType"] == "application/x-recordio-protobuf"


def test_a_bucket_that_was_named_is_not_made(account: Account, run: Run) -> None:
    error = run("data", *ACCOUNT, "--bucket", "no-such-bucket", fails=True)
    assert error.startswith("workflow: There is no bucket no-such-bucket")
    assert aws("s3").list_buckets()["Buckets"] == []
    assert "There is no data yet" in run("train", *ACCOUNT, *IMAGE, fails=True)


def test_a_training_job_is_what_the_dry_run_printed(account: Account, run: Run) -> None:
    run("data", *ACCOUNT)
    command = ("train", *ACCOUNT, *IMAGE, "--job-name", "digits-1", "--instances", "2", "--spot")
    printed = json.loads(run(*command, "--dry-run"))["CreateTrainingJob"]
    run(*command, "--no-wait")
    job = aws("sagemaker").describe_training_job(TrainingJobName="digits-1")
    for specification in (job["AlgorithmSpecification"], printed["AlgorithmSpecification"]):
        del specification["MetricDefinitions"]  # moto makes up its own
    assert {name: job[name] for name in printed} == printed
    assert printed["HyperParameters"] == {"k": "10", "feature_dim": "64"}
    assert printed["CheckpointConfig"]["S3Uri"] == f"{PREFIX}/checkpoints/digits-1"


def test_a_job_that_is_over_without_a_model_is_no_success(account: Account, run: Run) -> None:
    run("data", *ACCOUNT)
    error = run("train", *ACCOUNT, *IMAGE, "--job-name", "digits-1", fails=True)
    assert error == "workflow: The training job digits-1 was stopped before it had a model.\n"
    assert "has left no model" in run("deploy", *ACCOUNT, *IMAGE, fails=True)


def test_steps_in_the_wrong_order_say_what_comes_first(account: Account, run: Run) -> None:
    first = {"train": "data", "tune": "data", "transform": "data", "validate": "deploy", "deploy": "train"}
    for step, before in first.items():
        assert f"run `python -m workflow {before} --target aws` first" in run(step, *ACCOUNT, *IMAGE, fails=True)
    assert "run `python -m workflow image`" in run("algorithm", *ACCOUNT, fails=True)


def test_an_endpoint_is_made_asked_and_validated(
    account: Account, run: Run, trained: KMeansModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "There is no model at" in run("deploy", *ACCOUNT, *IMAGE, fails=True)
    assert aws("sagemaker").list_models()["Models"] == []
    upload(trained, tmp_path)
    out = run("deploy", *ACCOUNT, *IMAGE, "--endpoint-name", "digits", "--data-capture", "10")
    assert "InService" in out
    assert "costs by the hour" in out
    config = aws("sagemaker").describe_endpoint_config(EndpointConfigName="digits")
    assert config["ProductionVariants"][0]["InstanceType"] == "ml.t2.medium"
    asked: list[dict[str, Any]] = []
    off_by = 0.0

    def invoke(client: Any, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        assert operation == "InvokeEndpoint"
        asked.append(request)
        points = np.loadtxt(io.BytesIO(request["Body"]), delimiter=",", ndmin=2, dtype=np.float32)
        labels, distances = trained.predict(points)
        rows = zip(labels, distances + off_by, strict=True)
        return {"Body": io.BytesIO("".join(f"{label},{distance}\n" for label, distance in rows).encode())}

    real = boto3.Session.client

    def client(session: Any, service: str, *arguments: Any, **options: Any) -> Any:
        made = real(session, service, *arguments, **options)
        if service == "sagemaker-runtime":
            made._make_api_call = lambda operation, request: invoke(made, operation, request)
        return made

    monkeypatch.setattr(boto3.Session, "client", client)
    monkeypatch.setattr("workflow.steps.validate.MOST_BYTES", 5000)
    out = run("validate", *ACCOUNT)
    assert "100 answers of the endpoint digits" in out
    assert "all clusters and distances are those of the model" in out
    assert len(asked) > 1
    assert all(len(request["Body"]) <= 5000 for request in asked)
    off_by = 0.5
    error = run("validate", *ACCOUNT, fails=True)
    assert "0 clusters and 100 distances of 100 differ" in error


def test_everything_is_listed_and_deleted(account: Account, run: Run, trained: KMeansModel, tmp_path: Path) -> None:
    upload(trained, tmp_path)
    run("deploy", *ACCOUNT, *IMAGE, "--endpoint-name", "digits")
    listed = run("list", *ACCOUNT)
    assert [line.split()[1:3] for line in listed.splitlines()] == [
        ["data", "9"],
        ["objects", "1"],
        ["training-job", "Completed"],
        ["model", "there"],
        ["endpoint-config", "there"],
        ["endpoint", "InService"],
    ]
    S3Objects(aws("s3")).put(f"s3://{BUCKET}/others/file", b"", "text/plain")
    run("delete", *ACCOUNT)
    sagemaker = aws("sagemaker")
    assert sagemaker.list_models()["Models"] == []
    assert sagemaker.list_endpoint_configs()["EndpointConfigs"] == []
    assert sagemaker.list_endpoints()["Endpoints"] == []
    assert account.called == ["StopTrainingJob", "DeleteTrainingJob"]
    assert S3Objects(aws("s3")).find(f"s3://{BUCKET}/") == [f"s3://{BUCKET}/others/file"]
    assert run("list", *ACCOUNT) == "nothing was created\n"


def test_what_cannot_be_deleted_stays_listed_and_keeps_nothing_else(
    account: Account, run: Run, trained: KMeansModel, tmp_path: Path
) -> None:
    upload(trained, tmp_path)
    run("deploy", *ACCOUNT, *IMAGE, "--endpoint-name", "digits")
    account.errors["DeleteModel"] = refused("DeleteModel", "AccessDeniedException")
    error = run("delete", *ACCOUNT, fails=True)
    assert "Not all could be deleted" in error
    assert "model digits: DeleteModel was refused (AccessDeniedException): no" in error
    assert [line.split()[1] for line in run("list", *ACCOUNT).splitlines()] == ["model"]
    account.errors.clear()
    run("delete", *ACCOUNT)
    assert run("list", *ACCOUNT) == "nothing was created\n"


def test_a_deployment_that_breaks_off_leaves_a_record_of_what_is_there(
    account: Account, run: Run, trained: KMeansModel, tmp_path: Path
) -> None:
    upload(trained, tmp_path)
    account.errors["CreateEndpointConfig"] = refused("CreateEndpointConfig", "ResourceLimitExceeded")
    error = run("deploy", *ACCOUNT, *IMAGE, "--endpoint-name", "digits", fails=True)
    assert "CreateEndpointConfig was refused" in error
    assert "The account's quota doesn't allow it" in error
    assert [line.split()[1] for line in run("list", *ACCOUNT).splitlines()][-1] == "model"
    run("delete", *ACCOUNT)
    assert aws("sagemaker").list_models()["Models"] == []


def test_a_deleted_thing_is_missing_and_no_error(
    account: Account, run: Run, trained: KMeansModel, tmp_path: Path
) -> None:
    upload(trained, tmp_path)
    run("deploy", *ACCOUNT, *IMAGE, "--endpoint-name", "digits")
    aws("sagemaker").delete_endpoint(EndpointName="digits")
    aws("sagemaker").delete_model(ModelName="digits")
    states = {line.split()[1]: line.split()[2] for line in run("list", *ACCOUNT).splitlines()}
    assert (states["endpoint"], states["model"]) == ("missing", "missing")
    run("delete", *ACCOUNT)
    assert run("list", *ACCOUNT) == "nothing was created\n"


def test_without_credentials_or_region_one_sentence_says_so(run: Run) -> None:
    assert run("train", *ACCOUNT, fails=True).startswith("workflow: There are no AWS credentials: run `aws configure`")
    error = run("train", *ACCOUNT, "--profile", "nobody", fails=True)
    assert error.startswith("workflow: The config profile (nobody) could not be found")
    error = run("list", "--target", "aws", "--role", ROLE, "--bucket", "b-1", fails=True)
    assert error == "workflow: No AWS region is set: name one with --region or AWS_REGION.\n"


def test_only_what_needs_a_role_asks_for_it(account: Account, run: Run) -> None:
    without = ("--target", "aws", "--region", REGION)
    run("data", *without)
    error = run("train", *without, *IMAGE, fails=True)
    assert error.startswith("workflow: There is no role under which SageMaker could work: name its ARN with --role")
    run("list", *without)
    run("delete", *without)


def test_a_tuning_job_gives_its_best_model_to_the_next_step(account: Account, run: Run) -> None:
    run("data", *ACCOUNT, "--rows", "100")
    out = run("tune", *ACCOUNT, *IMAGE, "--job-name", "search", "--jobs", "3")
    assert "CreateHyperParameterTuningJob search" in out
    best = aws("sagemaker").describe_hyper_parameter_tuning_job(HyperParameterTuningJobName="search")
    job_name = best["BestTrainingJob"]["TrainingJobName"]
    model = f"{PREFIX}/models/search/{job_name}/output/model.tar.gz"
    S3Objects(aws("s3")).put(model, b"", "application/gzip")
    plan = json.loads(run("deploy", *ACCOUNT, *IMAGE, "--dry-run"))
    assert plan["CreateModel"]["PrimaryContainer"]["ModelDataUrl"] == model
    for operation in ("StopTrainingJob", "DeleteTrainingJob"):  # moto makes no training jobs for it
        account.errors[operation] = refused(operation, "ResourceNotFound")
    run("delete", *ACCOUNT)
    assert S3Objects(aws("s3")).find(f"s3://{BUCKET}/") == []
    assert aws("sagemaker").list_hyper_parameter_tuning_jobs()["HyperParameterTuningJobSummaries"] == []


def test_a_dry_run_asks_and_writes_nothing(run: Run, tmp_path: Path) -> None:
    for step in ("data", "train", "tune", "deploy", "transform", "validate", "list", "delete", "algorithm"):
        json.loads(run(step, "--target", "aws", "--dry-run"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (NoRegionError(), "No AWS region is set: name one with --region or AWS_REGION."),
        (EndpointConnectionError(endpoint_url="https://x"), "AWS can't be reached: "),
        (ClientError({"Error": {"Code": "NoSuchBucket", "Message": "m"}}, "PutObject"), "The bucket doesn't exist: "),
        (ClientError({"Error": {"Code": "Unheard", "Message": "of\nit"}}, "X"), "X was refused (Unheard): of it"),
        (ClientError({"Error": {"Code": "ExpiredToken", "Message": "m"}}, "X"), "The credentials have expired: "),
    ],
)
def test_what_boto3_says_becomes_a_sentence(error: Any, sentence: str) -> None:
    assert explain(error).startswith(sentence)
    assert "\n" not in explain(error)


@pytest.fixture
def stubs() -> Iterator[tuple[Stubber, Clients]]:
    """A SageMaker that says what a test has it say, and no logs."""
    keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
    sagemaker = boto3.client("sagemaker", REGION, **keys)
    logs = boto3.client("logs", REGION, **keys)
    with Stubber(sagemaker) as stub, moto.mock_aws():
        yield stub, Clients(sagemaker, None, logs, S3Objects(None), 0.0, 0.0)
        stub.assert_no_pending_responses()


def job(status: str, *transitions: str, **members: Any) -> dict[str, Any]:
    steps = [{"Status": name, "StartTime": 0, "StatusMessage": f"{name} it"} for name in transitions]
    return {
        "TrainingJobName": "digits-1",
        "TrainingJobArn": "arn:aws:sagemaker:eu-west-1:123456789012:training-job/digits-1",
        "ModelArtifacts": {"S3ModelArtifacts": "s3://b/m"},
        "AlgorithmSpecification": {"TrainingInputMode": "File"},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 2, "VolumeSizeInGB": 1},
        "StoppingCondition": {"MaxRuntimeInSeconds": 1},
        "CreationTime": 0,
        "TrainingJobStatus": status,
        "SecondaryStatus": transitions[-1] if transitions else "Starting",
        "SecondaryStatusTransitions": steps,
        **members,
    }


def test_a_failed_job_shows_its_states_its_lines_and_its_reason(stubs: tuple[Stubber, Clients]) -> None:
    stub, clients = stubs
    clients.logs.create_log_group(logGroupName=TRAINING)
    for host in ("algo-1", "algo-2"):
        stream = f"digits-1/{host}-1700000000"
        clients.logs.create_log_stream(logGroupName=TRAINING, logStreamName=stream)
        lines = [f"{host} reads", '#metrics {"a": 1}', f"{host} fails"]
        events = [{"timestamp": 1_795_000_000_000 + n, "message": line} for n, line in enumerate(lines)]
        clients.logs.put_log_events(logGroupName=TRAINING, logStreamName=stream, logEvents=events)
    for answer in (
        job("InProgress"),
        job("InProgress", "Starting"),
        job("InProgress", "Starting", "Training"),
        job("InProgress", "Starting", "Training"),
        job("Failed", "Starting", "Training", "Failed", FailureReason="ClientError: k is too large, exit code: 1"),
    ):
        stub.add_response("describe_training_job", answer, {"TrainingJobName": "digits-1"})
    said: list[str] = []
    with pytest.raises(JobFailedError) as caught:
        wait_for_training(clients, "digits-1", said.append)
    assert str(caught.value) == "The training job digits-1 failed: ClientError: k is too large, exit code: 1"
    states = [line.split("s  ")[1] for line in said if "|" not in line]
    assert states == ["Starting: Starting it", "Training: Training it", "Failed: Failed it"], "each once"
    lines = [line.strip(" |") for line in said if "|" in line]
    assert lines == [f"algo-{n}: algo-{n} {what}" for n in (1, 2) for what in ("reads", "fails")]


def test_a_failed_endpoint_shows_its_reason(stubs: tuple[Stubber, Clients]) -> None:
    stub, clients = stubs
    endpoint = {"EndpointName": "digits", "EndpointArn": "a" * 20, "CreationTime": 0, "LastModifiedTime": 0}
    for status, members in (("Creating", {}), ("Failed", {"FailureReason": "no ping"})):
        stub.add_response("describe_endpoint", {**endpoint, "EndpointStatus": status, **members})
    said: list[str] = []
    with pytest.raises(JobFailedError, match="The endpoint digits failed: no ping"):
        wait_for_endpoint(clients, "digits", said.append)
    assert [line.split()[-1] for line in said] == ["Creating", "Failed"]


@moto.mock_aws()
def test_lines_are_read_once_as_they_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    client = aws("logs")
    tail = LogTail(client, TRAINING, "digits-1/")
    assert list(tail.new_lines()) == [], "the group isn't there yet"
    client.create_log_group(logGroupName=TRAINING)
    for stream in ("digits-1/algo-1-17", "digits-10/algo-1-17"):
        client.create_log_stream(logGroupName=TRAINING, logStreamName=stream)
    assert list(tail.new_lines()) == []
    for first in (0, 2):
        for stream in ("digits-1/algo-1-17", "digits-10/algo-1-17"):
            events = [{"timestamp": 1_795_000_000_000 + n, "message": f"{stream} {n}\n"} for n in (first, first + 1)]
            client.put_log_events(logGroupName=TRAINING, logStreamName=stream, logEvents=events)
        assert list(tail.new_lines()) == [f"digits-1/algo-1-17 {n}" for n in (first, first + 1)]
        assert list(tail.new_lines()) == []


def test_a_request_that_may_have_arrived_stays_recorded(account: Account, run: Run, tmp_path: Path) -> None:
    """A time-out tells nothing of whether the job was made; one that was refused wasn't."""
    run("data", *ACCOUNT)
    account.errors["CreateTrainingJob"] = EndpointConnectionError(endpoint_url="https://sagemaker")
    assert "AWS can't be reached" in run("train", *ACCOUNT, *IMAGE, "--job-name", "digits-1", fails=True)
    ledger = Ledger(tmp_path / "workflow" / "aws" / "created.json")
    assert [entry.name for entry in ledger.entries() if entry.kind == "training-job"] == ["digits-1"]
