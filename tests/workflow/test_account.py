"""The steps in an account, which moto plays; what it doesn't know is played by botocore's own events and stubs."""

import io
import json
from argparse import Namespace
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
from workflow.__main__ import main
from workflow.errors import JobFailedError, WorkflowError, explain
from workflow.ledger import Ledger
from workflow.objects import S3Objects, pack
from workflow.settings import Settings
from workflow.steps.train import Tune
from workflow.waiting import TRAINING, LogTail, wait_for_endpoint, wait_for_training
from workflow.workspace import Clients, open_workspace

from .conftest import Run

pytestmark = pytest.mark.slow

REGION = "eu-west-1"
BUCKET = f"sagemaker-{REGION}-123456789012"
PREFIX = f"s3://{BUCKET}/kmeans-digits"
ROLE = "arn:aws:iam::123456789012:role/SageMaker"
ACCOUNT = ("--target", "aws", "--region", REGION, "--role", ROLE)
IMAGE = ("--image", f"123456789012.dkr.ecr.{REGION}.amazonaws.com/kmeans:1")

# Of the operations that the workflow calls, moto lacks these.
NOT_IN_MOTO = (
    "StopTrainingJob",
    "DeleteTrainingJob",
    "StopTransformJob",
    "StopHyperParameterTuningJob",
    "CreateAlgorithm",
    "DeleteAlgorithm",
)


@dataclass
class Account:
    """An empty account: moto, and what is said in its place.

    Attributes
    ----------
    called
        Operations that were called and that moto doesn't know: they succeed.
    errors
        What calls of an operation end with.
    answers
        What calls of an operation are told one after the other, or end with, before moto is asked.
    """

    called: list[str] = field(default_factory=list)
    errors: dict[str, Exception] = field(default_factory=dict)
    answers: dict[str, list[dict[str, Any] | Exception]] = field(default_factory=dict)

    def answer(self, model: Any, **_: Any) -> tuple[Any, dict[str, Any]] | None:
        if model.name in self.errors:
            raise self.errors[model.name]
        if self.answers.get(model.name):
            answer = self.answers[model.name].pop(0)
            if isinstance(answer, Exception):
                raise answer
            return Ok(), answer
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
    monkeypatch.setattr("workflow.workspace.AWS_POLL_SECONDS", 0.01)
    monkeypatch.setattr("workflow.workspace.AWS_LOG_DELAY_SECONDS", 0.0)
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


def test_delete_refused_thing_stays_listed_and_others_go(
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


def test_deploy_refused_config_keeps_record_of_model(
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


def endpoint_is(status: str) -> dict[str, Any]:
    return {"EndpointName": "digits", "EndpointStatus": status}


def test_delete_keeps_endpoint_of_other_region(
    account: Account, run: Run, trained: KMeansModel, tmp_path: Path
) -> None:
    """SageMaker says "could not find" of it in any other region: it went on costing, and nothing remembered it."""
    upload(trained, tmp_path)
    run("deploy", *ACCOUNT, *IMAGE, "--endpoint-name", "digits")
    elsewhere = ("--target", "aws", "--region", "us-east-1")
    error = run("delete", *elsewhere, fails=True)
    assert error == "workflow: Nothing was created in us-east-1: name the region with --region.\n"
    assert json.loads(run("delete", *elsewhere, "--dry-run")) == {}
    listed = run("list", *elsewhere)
    assert "nothing was created" in listed
    assert "6 more in eu-west-1, account 123456789012: `--region eu-west-1`" in listed
    run("data", *elsewhere, "--rows", "100")
    assert "6 more in eu-west-1" in run("delete", *elsewhere)
    assert [row["EndpointName"] for row in aws("sagemaker").list_endpoints()["Endpoints"]] == ["digits"]
    run("delete", *ACCOUNT)
    assert aws("sagemaker").list_endpoints()["Endpoints"] == []
    assert run("list", *ACCOUNT) == "nothing was created\n"


def test_data_and_models_of_another_region_are_not_taken(
    account: Account, run: Run, trained: KMeansModel, tmp_path: Path
) -> None:
    upload(trained, tmp_path)
    elsewhere = ("--target", "aws", "--region", "us-east-1", "--role", ROLE, *IMAGE)
    assert "There is no data yet" in run("train", *elsewhere, fails=True)
    assert "There is no training job yet" in run("deploy", *elsewhere, fails=True)


def test_create_taken_name_keeps_recorded_entry(
    account: Account, run: Run, trained: KMeansModel, tmp_path: Path
) -> None:
    upload(trained, tmp_path)
    run("deploy", *ACCOUNT, *IMAGE, "--endpoint-name", "digits")
    before = sorted(run("list", *ACCOUNT).splitlines())
    for operation, *command in (
        ("CreateModel", "deploy", "--endpoint-name", "digits"),
        ("CreateTrainingJob", "train", "--job-name", "digits-1"),
    ):
        account.errors[operation] = refused(operation, "ResourceInUse")
        assert f"{operation} was refused" in run(command[0], *ACCOUNT, *IMAGE, *command[1:], fails=True)
        assert sorted(run("list", *ACCOUNT).splitlines()) == before
    account.errors.clear()
    plan = json.loads(run("deploy", *ACCOUNT, *IMAGE, "--dry-run"))
    assert "/digits-1/" in plan["CreateModel"]["PrimaryContainer"]["ModelDataUrl"]
    run("delete", *ACCOUNT)
    assert aws("sagemaker").list_models()["Models"] == []


def test_an_endpoint_that_is_still_creating_is_waited_for(
    account: Account, run: Run, trained: KMeansModel, tmp_path: Path
) -> None:
    upload(trained, tmp_path)
    run("deploy", *ACCOUNT, *IMAGE, "--endpoint-name", "digits")
    account.answers["DeleteEndpoint"] = [refused("DeleteEndpoint", "ValidationException")]
    account.answers["DescribeEndpoint"] = [endpoint_is(status) for status in ("Creating", "Creating", "Failed")]
    assert "endpoint digits is Creating" in run("delete", *ACCOUNT)
    assert aws("sagemaker").list_endpoints()["Endpoints"] == []
    assert run("list", *ACCOUNT) == "nothing was created\n"


def test_delete_endpoint_stuck_in_creating_stops_waiting(
    account: Account, run: Run, trained: KMeansModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(trained, tmp_path)
    run("deploy", *ACCOUNT, *IMAGE, "--endpoint-name", "digits")
    monkeypatch.setattr("workflow.steps.inventory.LONGEST_CHANGE_SECONDS", 0)
    account.answers["DeleteEndpoint"] = [refused("DeleteEndpoint", "ValidationException")]
    account.answers["DescribeEndpoint"] = [endpoint_is("Creating")] * 3
    assert "The endpoint digits is still Creating after 0 s: try again later" in run("delete", *ACCOUNT, fails=True)
    account.answers.clear()
    kinds = [line.split()[1] for line in run("list", *ACCOUNT).splitlines()]
    assert kinds == ["objects", "model", "endpoint-config", "endpoint"]


def test_what_an_endpoint_needs_stays_as_long_as_it_does(
    account: Account, run: Run, trained: KMeansModel, tmp_path: Path
) -> None:
    upload(trained, tmp_path)
    run("deploy", *ACCOUNT, *IMAGE, "--endpoint-name", "digits")
    account.errors["DeleteEndpoint"] = refused("DeleteEndpoint", "AccessDeniedException")
    assert "endpoint digits: DeleteEndpoint was refused" in run("delete", *ACCOUNT, fails=True)
    sagemaker = aws("sagemaker")
    assert len(sagemaker.list_models()["Models"]) == len(sagemaker.list_endpoint_configs()["EndpointConfigs"]) == 1
    assert S3Objects(aws("s3")).find(f"{PREFIX}/") == [f"{PREFIX}/models/digits-1/output/model.tar.gz"]
    account.errors.clear()
    run("delete", *ACCOUNT)
    assert run("list", *ACCOUNT) == "nothing was created\n"


def test_the_image_stays_known_as_it_stays_in_ecr(account: Account, run: Run, tmp_path: Path) -> None:
    run("data", *ACCOUNT, "--rows", "100")
    Ledger(tmp_path / "workflow" / "aws" / "created.json", REGION, "123456789012").record("image", IMAGE[1])
    for keep in (("--keep-data",), ()):
        out = run("delete", *ACCOUNT, *keep)
        assert f"image {IMAGE[1]} stays" in out
        assert f"all but the image{' and the objects' if keep else ''} is deleted" in out
    run("data", *ACCOUNT, "--rows", "100")
    plan = json.loads(run("train", *ACCOUNT, "--dry-run"))
    assert plan["CreateTrainingJob"]["AlgorithmSpecification"]["TrainingImage"] == IMAGE[1]


def test_data_that_were_cut_off_in_the_middle_are_not_trained_on(
    account: Account, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("data", *ACCOUNT)
    put = S3Objects.put

    def cut_off(self: S3Objects, uri: str, content: bytes, content_type: str) -> None:
        if uri.endswith("test/part-00001.pbr"):
            raise KeyboardInterrupt
        put(self, uri, content, content_type)

    with monkeypatch.context() as patch:
        patch.setattr(S3Objects, "put", cut_off)
        assert main(["data", *ACCOUNT, "--rows", "100", "--folder", str(tmp_path / "workflow")]) == 130
    for step in ("train", "tune"):
        assert "are not whole, description.json is missing" in run(step, *ACCOUNT, *IMAGE, fails=True)
    assert aws("sagemaker").list_training_jobs()["TrainingJobSummaries"] == []
    run("data", *ACCOUNT)
    run("train", *ACCOUNT, *IMAGE, "--no-wait")


def test_validation_data_that_are_none_are_said_with_their_row(
    account: Account, run: Run, trained: KMeansModel, tmp_path: Path
) -> None:
    upload(trained, tmp_path)
    run("deploy", *ACCOUNT, *IMAGE)
    for content, problem in ((b"1,2\n3,x\n", "row 2, column 2: expected a number"), (b"1\n2\n", "found one column")):
        for part in ("part-00000.csv", "part-00001.csv"):
            S3Objects(aws("s3")).put(f"{PREFIX}/data/validation/{part}", content, "text/csv")
        error = run("validate", *ACCOUNT, fails=True)
        assert error.startswith(f"workflow: {PREFIX}/data/validation/")
        assert problem in error
        assert "Run `python -m workflow data` again." in error


def test_a_transform_of_an_account_is_made_and_listed(
    account: Account, run: Run, trained: KMeansModel, tmp_path: Path
) -> None:
    assert "There is no model at" in run("transform", *ACCOUNT, *IMAGE, fails=True)
    upload(trained, tmp_path)
    command = ("transform", *ACCOUNT, *IMAGE, "--job-name", "digits-t")
    plan = json.loads(run(*command, "--dry-run"))
    assert "Completed" in run(*command)
    made = aws("sagemaker").describe_transform_job(TransformJobName="digits-t")
    assert {name: made[name] for name in plan["CreateTransformJob"]} == plan["CreateTransformJob"]
    model = aws("sagemaker").describe_model(ModelName="digits-t")
    assert model["PrimaryContainer"] == plan["CreateModel"]["PrimaryContainer"]
    assert ["transform-job", "Completed", "digits-t"] in [
        line.split()[1:4] for line in run("list", *ACCOUNT).splitlines()
    ]
    run("delete", *ACCOUNT)
    assert "StopTransformJob" in account.called
    assert aws("sagemaker").list_models()["Models"] == []


def test_the_algorithm_of_an_account_is_made_and_deleted(account: Account, run: Run) -> None:
    run("algorithm", *ACCOUNT, *IMAGE)
    assert [line.split()[1:] for line in run("list", *ACCOUNT).splitlines()] == [["algorithm", "-", "kmeans-digits"]]
    run("delete", *ACCOUNT)
    assert account.called == ["CreateAlgorithm", "DeleteAlgorithm"]


def test_a_job_that_nobody_waited_for_can_be_followed(
    account: Account, run: Run, trained: KMeansModel, tmp_path: Path
) -> None:
    upload(trained, tmp_path)
    out = run("train", "--follow", "digits-1", *ACCOUNT)
    assert "Starting: " in out
    assert f"model: {PREFIX}/models/digits-1/output/model.tar.gz" in out
    assert "CreateTrainingJob" not in out
    failed = job("Failed", "Failed", FailureReason="ClientError: k is too\nlarge, exit code: 1")
    account.answers["DescribeTrainingJob"] = [failed] * 2
    assert "The training job digits-1 failed: ClientError: k is too" in run(
        "train", "--follow", "digits-1", *ACCOUNT, fails=True
    )
    assert "has left no model" in run("deploy", *ACCOUNT, *IMAGE, fails=True)
    account.answers["DescribeTrainingJob"] = [failed]
    (line,) = [line for line in run("list", *ACCOUNT).splitlines() if "training-job" in line]
    assert line.endswith("Failed       digits-1  ClientError: k is too large, exit code: 1")


def test_train_followed_foreign_job_is_not_deleted(account: Account, run: Run) -> None:
    account.answers["DescribeTrainingJob"] = [job("Failed", "Failed", FailureReason="no")] * 2
    assert "digits-1 failed: no" in run("train", "--follow", "digits-1", *ACCOUNT, fails=True)
    assert run("list", *ACCOUNT) == "nothing was created\n"


def tuning(status: str, **counts: int) -> dict[str, Any]:
    limits = {"ResourceLimits": {"MaxNumberOfTrainingJobs": 8, "MaxParallelTrainingJobs": 2}}
    return {
        "HyperParameterTuningJobName": "search",
        "HyperParameterTuningJobConfig": limits,
        "HyperParameterTuningJobStatus": status,
        "TrainingJobStatusCounters": counts,
    }


def test_tune_reports_progress_and_fails_without_best_job(account: Account, tmp_path: Path) -> None:
    said: list[str] = []
    account.answers["DescribeHyperParameterTuningJob"] = [
        tuning("InProgress", InProgress=2),
        tuning("InProgress", InProgress=2),
        tuning("InProgress", Completed=1, InProgress=1, NonRetryableError=1),
        tuning("Completed", Completed=1, RetryableError=1, NonRetryableError=6),
    ]
    with (
        open_workspace(Settings("aws", tmp_path / "workflow", region=REGION), said.append) as work,
        pytest.raises(WorkflowError, match="None of the training jobs of the tuning job search has come to a good end"),
    ):
        Tune().carry_out(work, {}, Namespace(follow="search"))
    assert [line.split("s  ")[1] for line in said] == [
        "InProgress: of 8 training jobs 0 completed, 2 in progress, 0 stopped, 0 failed",
        "InProgress: of 8 training jobs 1 completed, 1 in progress, 0 stopped, 1 failed",
        "Completed: of 8 training jobs 1 completed, 0 in progress, 0 stopped, 7 failed",
    ]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("train", "--job-name", "../x"), "--job-name: expected at most 63 letters, digits and hyphens"),
        (("train", "--follow", "../x"), "--follow: expected at most 63"),
        (("transform", "--job-name", "a_b"), "--job-name: expected at most 63"),
        (("deploy", "--endpoint-name", "x" * 64), "--endpoint-name: expected at most 63"),
        (("algorithm", "--algorithm-name", "x-"), "--algorithm-name: expected at most 63"),
        (("tune", "--job-name", "x" * 33), "--job-name: expected at most 32"),
        (("deploy", "--serverless", "2048", "--multi-model"), "--multi-model needs instances"),
        (("deploy", "--serverless", "2048", "--network-isolation"), "--network-isolation needs instances"),
        (("train", "--instances", "9"), "9 hosts can't share the 4 objects of the channel train"),
        (("tune", "--instances", "5"), "5 hosts can't share the 4 objects"),
    ],
)
def test_what_sagemaker_would_refuse_is_said_by_the_plan(
    account: Account, run: Run, tmp_path: Path, arguments: tuple[str, ...], problem: str
) -> None:
    ledger = Ledger(tmp_path / "workflow" / "aws" / "created.json", REGION, "123456789012")
    for kind in ("data", "training-job"):
        ledger.record(kind, f"s3://{BUCKET}/x", model=f"s3://{BUCKET}/x")
    before = ledger.entries()
    for dry in (("--dry-run",), ()):
        assert run(*arguments, *ACCOUNT, *IMAGE, *dry, fails=True).startswith(f"workflow: {problem}")
    assert ledger.entries() == before


def test_more_hosts_than_objects_may_all_read_all(run: Run) -> None:
    command = ("train", "--target", "aws", "--instances", "9", "--distribution", "FullyReplicated", "--dry-run")
    assert json.loads(run(*command))["CreateTrainingJob"]["ResourceConfig"]["InstanceCount"] == 9


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
        "OutputDataConfig": {"S3OutputPath": "s3://b/models"},
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
