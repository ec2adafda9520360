"""The steps on this machine: real containers of the image, from the data to the last deletion."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kmeans import artifact
from kmeans.formats import recordio
from kmeans.formats.media_type import CSV, JSON_LINES, RECORDIO
from tests.contract.opt_ml import PROJECT
from tests.contract.samples import nearest
from workflow.__main__ import main
from workflow.errors import JobFailedError, WorkflowError
from workflow.local.engine import Engine
from workflow.local.service import open_service
from workflow.objects import pack, unpack
from workflow.requests.inference import (
    Join,
    TransformData,
    create_endpoint,
    create_endpoint_config,
    create_model,
    create_transform_job,
    instance_variant,
    invoke_endpoint,
)
from workflow.requests.training import Channel, Instances, Limits, TrainingDefinition, create_training_job
from workflow.waiting import wait_for_endpoint, wait_for_training, wait_for_transform
from workflow.workspace import Clients

from .conftest import Run, leftovers, remove_leftovers

pytestmark = [pytest.mark.image, pytest.mark.slow]

ROLE = "arn:aws:iam::123456789012:role/SageMaker"
# A fit that goes on until it is ended.
ENDLESS = ("--hyperparameter", "epochs=1000000")


@pytest.fixture
def here(image: Any) -> tuple[str, ...]:
    """The options that name the image under test."""
    return ("--image", image.id)


def rows_of(out: str, kind: str) -> list[list[str]]:
    return [line.split() for line in out.splitlines() if line.split()[1] == kind]


def test_the_five_steps_from_the_data_to_the_last_deletion(
    engine: Any, here: tuple[str, ...], run: Run, folder: Path
) -> None:
    assert "1500 digits to train on and 297 to validate" in run("data")
    out = run("train", *here, "--instances", "2", "--network-isolation", "--job-name", "two-hosts")
    states = [line.split("s  ")[1].split(":")[0] for line in out.splitlines() if " s  " in line and "|" not in line]
    assert states == ["Starting", "Downloading", "Training", "Uploading", "Completed"]
    assert "algo-1: " in out
    assert "algo-2: " in out
    assert out.count("read channel train: 750 rows") == 2, "each host has half of the objects"
    metrics = dict(line.split(" = ") for line in out.splitlines() if " = " in line and "|" not in line and ":" in line)
    # scikit-learn's best of 20 starts reaches 2.53 in these units; all in one cluster is 4.7.
    assert 2 < float(metrics["train:mean_squared_distance"]) < 2.8
    assert "InService" in run("deploy", *here, "--endpoint-name", "digits")
    of_endpoint = run("validate")
    assert "297 answers of the endpoint digits" in of_endpoint
    assert "all clusters and distances are those of the model" in of_endpoint
    assert f"mean squared distance           {float(metrics['test:msd']):.6g}" in of_endpoint
    run("transform", *here, "--job-name", "joined", "--max-payload", "1")
    of_transform = run("validate", "--of", "transform")
    assert of_transform.splitlines()[1:] == of_endpoint.splitlines()[1:]
    run("transform", *here, "--job-name", "records", "--format", "recordio", "--strategy", "SingleRecord")
    assert run("validate", "--of", "transform").splitlines()[1:] == of_endpoint.splitlines()[1:]

    listed = run("list")
    assert rows_of(listed, "training-job")[0][2:] == ["Completed", "two-hosts"]
    assert rows_of(listed, "endpoint")[0][2:] == ["InService", "digits"]
    assert leftovers(engine, folder), "the endpoint goes on when the program ends"
    run("delete")
    assert run("list") == "nothing was created\n"
    assert leftovers(engine, folder) == []
    assert not [path for path in (folder / "local" / "s3").rglob("*") if path.is_file()]


def test_an_answer_that_is_not_the_models_fails_the_validation(
    engine: Any, here: tuple[str, ...], run: Run, folder: Path
) -> None:
    run("data", "--rows", "200")
    run("train", *here, "--job-name", "first")
    run("transform", *here, "--job-name", "answers")
    run("validate")
    (answers,) = list((folder / "local" / "s3").rglob("answers/part-00001.csv.out"))
    lines = answers.read_text().splitlines()
    digit, label, distance = lines[3].split(",")
    for changed, problem in (
        (f"{digit},{(float(label) + 1) % 10},{distance}", "1 clusters and 0 distances of 200 differ"),
        (f"{digit},{label},{float(distance) * 1.01}", "0 clusters and 1 distances of 200 differ"),
        (f"{(int(digit) + 1) % 10},{label},{distance}", "aren't those of the rows"),
    ):
        answers.write_text("\n".join([*lines[:3], changed, *lines[4:]]) + "\n")
        assert problem in run("validate", fails=True)
    answers.write_text("\n".join(lines[:-1]) + "\n")
    assert "run the step before again" in run("validate", fails=True) or "aren't those" in run("validate", fails=True)


def test_an_endpoint_without_instances_and_data_that_are_kept(
    engine: Any, here: tuple[str, ...], run: Run, folder: Path
) -> None:
    run("data", "--rows", "200")
    run("train", *here, "--job-name", "digits-1", "--input-mode", "FastFile")
    run("deploy", *here, "--endpoint-name", "digits", "--serverless", "1024")
    (container,) = leftovers(engine, folder)
    assert engine.containers.get(container).attrs["HostConfig"]["Memory"] == 1024 << 20
    assert "are those of the model" in run("validate")
    run("delete", "--keep-data")
    assert leftovers(engine, folder) == []
    left = {line.split()[1] for line in run("list").splitlines()}
    assert left == {"data", "objects"}
    kept = [path.name for path in (folder / "local" / "s3").rglob("*") if path.is_file()]
    assert "model.tar.gz" in kept
    assert "description.json" in kept
    run("train", *here, "--job-name", "digits-2")
    run("delete")
    assert run("list") == "nothing was created\n"


def test_validate_multi_model_endpoint_invokes_last_model(
    engine: Any, here: tuple[str, ...], run: Run, folder: Path
) -> None:
    run("data", "--rows", "200")
    for job, k in (("digits-1", "10"), ("digits-2", "5")):
        run("train", *here, "--job-name", job, "--k", k)
    run("deploy", *here, "--endpoint-name", "all", "--multi-model")
    assert json.loads(run("validate", "--dry-run"))["InvokeEndpoint"]["TargetModel"] == "digits-2/output/model.tar.gz"
    assert "are those of the model" in run("validate")
    run("deploy", *here, "--endpoint-name", "first", "--multi-model", "--training-job", "digits-1")
    assert "200 answers of the endpoint first" in run("validate")


def test_an_endpoint_in_a_closed_network_answers(engine: Any, here: tuple[str, ...], run: Run, folder: Path) -> None:
    run("data", "--rows", "100")
    run("train", *here, "--network-isolation")
    run("deploy", *here, "--endpoint-name", "digits", "--network-isolation")
    registered = json.loads((folder / "local" / "sagemaker" / "model" / "digits.json").read_text())
    assert registered["EnableNetworkIsolation"] is True
    assert "are those of the model" in run("validate")


def test_a_transform_that_was_killed_leaves_nothing(engine: Any, here: tuple[str, ...], run: Run, folder: Path) -> None:
    run("data")
    run("train", *here)
    slow = ("--job-name", "long", "--strategy", "SingleRecord", "--max-payload", "1")
    with start(folder, here, "transform", *slow) as process:
        wait_for_line(process, "Listening at")
        process.kill()
        process.communicate(timeout=60)
    assert leftovers(engine, folder), "nobody could stop it"
    assert (folder / "local" / "jobs" / "long").is_dir()
    run("delete")
    assert leftovers(engine, folder) == []
    assert not (folder / "local" / "jobs" / "long").exists()
    assert run("list") == "nothing was created\n"


def test_deploy_interrupted_reports_running_endpoint(
    here: tuple[str, ...], run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    run("data", "--rows", "100")
    run("train", *here)
    monkeypatch.setattr("workflow.steps.deploy.wait_for_endpoint", interrupted)
    assert main(["deploy", *here, "--folder", str(folder)]) == 130
    assert "an endpoint lives on: `python -m workflow list` shows it, `delete` ends it" in capsys.readouterr().err
    assert rows_of(run("list"), "endpoint")[0][2] in ("Creating", "InService")


def test_pipes_and_checkpoints(here: tuple[str, ...], run: Run, folder: Path) -> None:
    run("data")
    out = run("train", *here, "--input-mode", "Pipe", "--job-name", "piped", "--hyperparameter", "epochs=2")
    assert "train_1" in out or out.count("processed a total of 1500 examples") == 2
    checkpoints = folder / "local" / "s3" / "kmeans-local" / "kmeans-digits" / "checkpoints" / "kept"
    run("train", *here, "--spot", "--job-name", "kept", "--hyperparameter", "checkpoint_interval=0")
    assert any(checkpoints.iterdir()), "the bucket has the state of the fit"


def test_train_failed_job_reports_reason_and_keeps_last_model(
    engine: Any, here: tuple[str, ...], run: Run, folder: Path
) -> None:
    run("data", "--rows", "100")
    run("train", *here, "--job-name", "good")
    error = run("train", *here, "--k", "300", "--instances", "2", "--job-name", "bad", fails=True)
    assert error.startswith("workflow: The training job bad failed: ClientError: ")
    assert "k=300 clusters were asked for, but there are only 100 rows" in error
    assert rows_of(run("list"), "training-job")[-1][2:5] == ["Failed", "bad", "ClientError:"]
    assert leftovers(engine, folder) == []
    plan = json.loads(run("deploy", *here, "--dry-run"))
    assert "/good/" in plan["CreateModel"]["PrimaryContainer"]["ModelDataUrl"]
    assert "bad has left no model" in run("deploy", *here, "--training-job", "bad", fails=True)
    run("delete")
    assert run("list") == "nothing was created\n"


def test_a_wrong_hyperparameter_is_said_before_anything_starts(here: tuple[str, ...], run: Run, folder: Path) -> None:
    run("data", "--rows", "100")
    error = run("train", *here, "--hyperparameter", "epoch=2", fails=True)
    assert error.startswith("workflow: 'epoch' is not a hyperparameter: did you mean ")
    assert "epochs" in error
    assert not rows_of(run("list"), "training-job")


def test_out_of_time_a_job_is_stopped_with_the_model_it_has(here: tuple[str, ...], run: Run, folder: Path) -> None:
    run("data", "--rows", "100")
    out = run("train", *here, "--max-runtime", "2", "--job-name", "long", *ENDLESS)
    assert "MaxRuntimeExceeded" in out
    assert "model: s3://kmeans-local/kmeans-digits/models/long/output/model.tar.gz" in out
    run("transform", *here)
    assert "are those of the model" in run("validate")


def start(folder: Path, here: tuple[str, ...], *arguments: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "workflow", *arguments, *here, "--folder", str(folder)]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    # A shell that runs the tests in its background has them ignore SIGINT, and what they start would do so too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return subprocess.Popen(
        command, cwd=PROJECT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def wait_for_line(process: "subprocess.Popen[str]", text: str) -> None:
    assert process.stdout is not None
    seen = ""
    for line in process.stdout:
        seen += line
        if text in line:
            return
    raise AssertionError(seen)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_train_interrupted_leaves_nothing_after_delete(
    engine: Any, here: tuple[str, ...], run: Run, folder: Path, number: signal.Signals
) -> None:
    run("data", "--rows", "100")
    with start(folder, here, "train", "--job-name", "long", *ENDLESS) as process:
        wait_for_line(process, "streaming onto")
        process.send_signal(number)
        rest = process.communicate(timeout=60)[0]
    if number == signal.SIGKILL:
        assert leftovers(engine, folder), "nobody could stop it"
    else:
        assert process.returncode == (130 if number == signal.SIGINT else 143), rest
        assert leftovers(engine, folder) == []
    assert rows_of(run("list"), "training-job")[0][2] == ("InProgress" if number == signal.SIGKILL else "Stopped")
    run("delete")
    assert leftovers(engine, folder) == []
    assert run("list") == "nothing was created\n"


def test_no_image_and_no_engine_are_said(run: Run, folder: Path, engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run("data", "--rows", "100")
    error = run("train", "--image", "kmeans:no-such-tag", fails=True)
    assert error.startswith("workflow: There is no image kmeans:no-such-tag on this machine: run `python -m workflow ")
    assert not rows_of(run("list"), "training-job")
    monkeypatch.setenv("DOCKER_HOST", "unix:///no/such/socket")
    error = run("train", fails=True)
    assert error.startswith("workflow: No Docker engine answers: start Docker")


@pytest.mark.parametrize(
    ("step", "before"), [("train", "data"), ("deploy", "train"), ("transform", "data"), ("validate", "deploy")]
)
def test_steps_in_the_wrong_order_say_what_comes_first(
    engine: Any, run: Run, folder: Path, step: str, before: str
) -> None:
    assert f"run `python -m workflow {before} --target local` first" in run(step, fails=True)


def test_what_the_local_target_lacks_is_said(engine: Any, run: Run, folder: Path) -> None:
    run("data", "--rows", "100")
    assert "The local target has no tuning jobs" in run("tune", fails=True)
    assert "Could not find 'search': they are in an account" in run("tune", "--follow", "search", fails=True)
    assert "Could not find training-job 'none'" in run("train", "--follow", "none", fails=True)
    assert "The local target keeps no algorithms" in run("algorithm", fails=True)
    assert "--no-wait needs --target aws" in run("train", "--no-wait", fails=True)
    assert "There is no /no/such/folder/train-images" in run("data", "--mnist", "/no/such/folder", fails=True)


# What follows asks the local clients as boto3's are asked.


@pytest.fixture(scope="module")
def service(engine: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clients]:
    folder = tmp_path_factory.mktemp("service")
    with open_service(folder / "local", "eu-west-1") as service:
        service.objects.require_bucket("bucket-1", create=True)
        yield service
    remove_leftovers(engine, folder)


@pytest.fixture(scope="module")
def trained(service: Clients, image: Any) -> dict[str, Any]:
    """A training job that several tests use, and change nothing of."""
    return train(service, image, "near", POINTS, environment={"SOME": "thing"}, checkpoints_uri="s3://bucket-1/c")


def define(image: Any, uri: str, content_type: str = RECORDIO, **changes: Any) -> TrainingDefinition:
    values: dict[str, Any] = {
        "image": image.id,
        "role": ROLE,
        "channels": [Channel("train", uri, content_type)],
        "output_uri": "s3://bucket-1/models",
        "instances": Instances("ml.m5.large"),
        "limits": Limits(600),
    }
    return TrainingDefinition(**{**values, **changes})


def train(service: Clients, image: Any, name: str, points: Any, **changes: Any) -> dict[str, Any]:
    for number, part in enumerate(np.array_split(points, 2) if len(points) else ()):
        service.objects.put(f"s3://bucket-1/{name}/data/{number}.pbr", recordio.encode(part), "")
    values = {"k": 2, **changes.pop("hyperparameters", {})}
    outside = {key: changes.pop(key) for key in ("environment", "checkpoints_uri") if key in changes}
    definition = define(image, f"s3://bucket-1/{name}/data/", **changes)
    request = create_training_job(name, definition, hyperparameters=values, **outside)
    service.sagemaker.create_training_job(**request)
    return wait_for_training(service, name, print)


def model_of(service: Clients, job: dict[str, Any], folder: Path) -> Any:
    uri = job["ModelArtifacts"]["S3ModelArtifacts"]
    unpack(service.objects.get(uri), folder / "model", uri)
    return artifact.load(folder / "model")


POINTS = np.array([[0, 0], [0, 1], [9, 9], [9, 8]] * 5, dtype=np.float32)


def test_a_job_is_described_as_sagemaker_does(
    service: Clients, image: Any, trained: dict[str, Any], tmp_path: Path
) -> None:
    job = trained
    assert job["TrainingJobStatus"] == job["SecondaryStatus"] == "Completed"
    assert job["TrainingJobArn"].endswith(":training-job/near")
    centers = model_of(service, job, tmp_path).centers
    assert sorted(centers.tolist()) == [[0.0, 0.5], [9.0, 8.5]]
    assert {row["MetricName"]: row["Value"] for row in job["FinalMetricDataList"]}[
        "train:mean_squared_distance"
    ] == pytest.approx(0.25)
    with pytest.raises(Exception, match="ResourceInUse"):
        train(service, image, "near", POINTS)


def data(**source: str) -> dict[str, Any]:
    place = {"S3DataType": "S3Prefix", "S3Uri": "s3://bucket-1/none/", **source}
    return {"ChannelName": "train", "DataSource": {"S3DataSource": place}}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"TrainingJobName": "a_b"}, "expected a name of at most 63"),
        ({"RoleArn": "short"}, "Invalid length for parameter RoleArn"),
        ({"Unknown": 1}, 'Unknown parameter in input: "Unknown"'),
        ({"HyperParameters": {"k": 2}}, "Invalid type for parameter HyperParameters.k"),
        ({"InputDataConfig": [data(S3DataType="AugmentedManifestFile")]}, "S3Prefix or ManifestFile, not Augm"),
        ({"InputDataConfig": [data() | {"CompressionType": "Gzip"}]}, "CompressionType None, not Gzip"),
    ],
)
def test_what_boto3_or_sagemaker_would_refuse_is_refused(
    service: Clients, image: Any, change: dict[str, Any], problem: str
) -> None:
    definition = define(image, "s3://bucket-1/none/", "")
    request = create_training_job("refused", definition, hyperparameters={"k": 2})
    with pytest.raises(Exception, match=problem):
        service.sagemaker.create_training_job(**{**request, **change})


def train_by_manifest(service: Clients, image: Any, name: str, manifest: bytes) -> dict[str, Any]:
    """Train on what a manifest lists; of three objects below the prefix it should be the first two."""
    for number in range(3):
        part = recordio.encode(POINTS[:4] + 100 * (number // 2))
        service.objects.put(f"s3://bucket-1/{name}/data/{number}.pbr", part, "")
    service.objects.put(f"s3://bucket-1/{name}/list", manifest, "")
    definition = define(image, f"s3://bucket-1/{name}/list")
    request = create_training_job(name, definition, hyperparameters={"k": 2})
    request["InputDataConfig"][0]["DataSource"]["S3DataSource"]["S3DataType"] = "ManifestFile"
    service.sagemaker.create_training_job(**request)
    return wait_for_training(service, name, print)


def test_a_manifest_says_which_objects_are_read(service: Clients, image: Any, tmp_path: Path) -> None:
    manifest = b'[{"prefix": "s3://bucket-1/listed/data/"}, "0.pbr", "1.pbr"]'
    centers = model_of(service, train_by_manifest(service, image, "listed", manifest), tmp_path).centers
    assert sorted(centers.tolist()) == [[0.0, 0.5], [9.0, 8.5]]


NO_MANIFESTS = (
    b"0.pbr",
    b"[]",
    b"{}",
    b'["0.pbr"]',
    b'[{"prefix": "s3://bucket-1/x/"}]',
    b'[{"prefix": 1}, "0.pbr"]',
    b'[{"prefix": "s3://bucket-1/x/"}, 7]',
    b'[{"prefix": "s3://bucket-1/x/"}, "../0.pbr"]',
)


@pytest.mark.parametrize("number", range(len(NO_MANIFESTS)))
def test_what_is_no_manifest_fails_the_job(service: Clients, image: Any, number: int) -> None:
    name = f"bad-{number}"
    with pytest.raises(JobFailedError, match=f"ClientError: s3://bucket-1/{name}/list is no manifest"):
        train_by_manifest(service, image, name, NO_MANIFESTS[number])


def test_a_channel_without_objects_fails_the_job(service: Clients, image: Any) -> None:
    with pytest.raises(
        JobFailedError, match="ClientError: No S3 objects found under S3 URL 's3://bucket-1/empty/data/'"
    ):
        train(service, image, "empty", POINTS[:0])


def host(service: Clients, name: str, **model: Any) -> None:
    service.sagemaker.create_model(**create_model(name, role=ROLE, **model))
    variant = instance_variant(name, "ml.t2.medium")
    service.sagemaker.create_endpoint_config(**create_endpoint_config(name, variant=variant))
    service.sagemaker.create_endpoint(**create_endpoint(name, name))


def test_one_endpoint_serves_many_models(service: Clients, image: Any, trained: dict[str, Any]) -> None:
    train(service, image, "far", POINTS + 100)
    host(service, "all", image=image.id, model_uri="s3://bucket-1/models/", multi_model=True)
    wait_for_endpoint(service, "all", print)

    def ask(target: str | None) -> list[float]:
        request = invoke_endpoint("all", "100,100\n", content_type=CSV, accept=CSV, target_model=target)
        answer = service.runtime.invoke_endpoint(**request)
        return [float(text) for text in answer["Body"].read().split(b",")]

    assert ask("far/output/model.tar.gz")[1] == pytest.approx(0.5)
    assert ask("near/output/model.tar.gz")[1] == pytest.approx(np.hypot(91, 91.5))
    assert ask("far/output/model.tar.gz")[1] == pytest.approx(0.5)
    with pytest.raises(Exception, match="TargetModel is missing"):
        ask(None)
    with pytest.raises(Exception, match="Failed to download model data: There is no object s3://bucket-1/models/none"):
        ask("none/output/model.tar.gz")


def test_an_endpoint_tells_what_is_wrong_with_a_request(service: Clients, image: Any, trained: dict[str, Any]) -> None:
    host(service, "asked", image=image.id, model_uri=trained["ModelArtifacts"]["S3ModelArtifacts"])
    wait_for_endpoint(service, "asked", print)
    with pytest.raises(Exception, match=r"ModelError.*Received client error \(400\).*expected a number, found 'x'"):
        service.runtime.invoke_endpoint(**invoke_endpoint("asked", "1,x\n", content_type=CSV, accept=CSV))
    service.sagemaker.delete_endpoint(EndpointName="asked")
    with pytest.raises(Exception, match="Could not find endpoint 'asked'"):
        service.sagemaker.describe_endpoint(EndpointName="asked")


def test_endpoint_with_bad_model_fails_with_server_log(service: Clients, image: Any, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "readme").write_text("no model")
    service.objects.put("s3://bucket-1/bad.tar.gz", pack([tmp_path / "none"]), "")
    host(service, "bad", image=image.id, model_uri="s3://bucket-1/bad.tar.gz")
    with pytest.raises(JobFailedError, match=r"The endpoint bad failed: The server ended: .*There is no model in"):
        wait_for_endpoint(service, "bad", print)
    service.objects.put("s3://bucket-1/worse.tar.gz", b"no archive", "")
    host(service, "worse", image=image.id, model_uri="s3://bucket-1/worse.tar.gz")
    with pytest.raises(JobFailedError, match=r"worse.tar.gz is no model.tar.gz that can be unpacked"):
        wait_for_endpoint(service, "worse", print)


@pytest.mark.parametrize("strategy", ["MultiRecord", "SingleRecord"])
def test_json_lines_are_joined_with_their_answers(
    service: Clients, image: Any, trained: dict[str, Any], strategy: str, tmp_path: Path
) -> None:
    centers = model_of(service, trained, tmp_path).centers
    lines = [json.dumps({"id": number, "features": row}) for number, row in enumerate(POINTS.tolist())]
    name = f"lines-{strategy}"
    service.objects.put(f"s3://bucket-1/{name}/a/rows.jsonl", "\n".join(lines).encode(), "")
    uri = trained["ModelArtifacts"]["S3ModelArtifacts"]
    service.sagemaker.create_model(**create_model(name, image=image.id, role=ROLE, model_uri=uri))
    join = Join("$['features']", "$['id','SageMakerOutput']")
    data = TransformData(f"s3://bucket-1/{name}/", f"s3://bucket-1/out/{name}", JSON_LINES, JSON_LINES, join)
    request = create_transform_job(name, data, model=name, strategy=strategy)
    service.sagemaker.create_transform_job(**request)
    wait_for_transform(service, name, print)
    written = service.objects.get(f"s3://bucket-1/out/{name}/a/rows.jsonl.out").splitlines()
    rows = [json.loads(line) for line in written]
    assert [row["id"] for row in rows] == list(range(len(POINTS)))
    labels, distances = nearest(POINTS, centers)
    assert [row["SageMakerOutput"]["closest_cluster"] for row in rows] == labels.tolist()
    assert [row["SageMakerOutput"]["distance_to_cluster"] for row in rows] == pytest.approx(distances.tolist())


def test_transform_bad_record_fails_with_object_and_row(service: Clients, image: Any, trained: dict[str, Any]) -> None:
    job = trained
    service.objects.put("s3://bucket-1/broken/rows.csv", b"1,2\n3,x\n", "")
    uri = job["ModelArtifacts"]["S3ModelArtifacts"]
    service.sagemaker.create_model(**create_model("broken", image=image.id, role=ROLE, model_uri=uri))
    data = TransformData("s3://bucket-1/broken/", "s3://bucket-1/out/broken")
    request = create_transform_job("broken", data, model="broken")
    service.sagemaker.create_transform_job(**request)
    with pytest.raises(JobFailedError, match=r"broken/rows.csv: the model answered with 400: .*row 2, column 2"):
        wait_for_transform(service, "broken", print)
    assert service.objects.find("s3://bucket-1/out/broken") == []


def test_no_engine_is_said_before_anything_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    with pytest.raises(WorkflowError, match="No Docker engine answers"):
        Engine("nobody")
