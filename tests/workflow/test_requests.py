"""Every request is one that SageMaker takes, by botocore's model of the service, and says what was asked for."""

import ast
import io
import json
import re
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from kmeans.formats.media_type import CSV, JSON_LINES, RECORDIO
from kmeans.formats.registry import FORMATS
from train import hyperparameters
from train.metrics import JobLog
from workflow.examples import EXAMPLES, markdown, printed
from workflow.ledger import Ledger
from workflow.requests import METRIC_DEFINITIONS, NOUNS
from workflow.requests.inference import (
    DIGIT_AND_ANSWER,
    TransformData,
    create_endpoint,
    create_endpoint_config,
    create_model,
    create_transform_job,
    instance_variant,
    invoke_endpoint,
    serverless_variant,
)
from workflow.requests.training import (
    Channel,
    Instances,
    Limits,
    TrainingDefinition,
    create_algorithm,
    create_training_job,
    create_tuning_job,
)
from workflow.settings import DEFAULT_NAME
from workflow.steps.inventory import endings
from workflow.waiting import describe_log_streams, get_log_events

from .conftest import Run
from .service_model import OPERATIONS, faults

PROJECT = Path(__file__).resolve().parents[2]
IMAGE = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/kmeans:0.1.0"
ROLE = "arn:aws:iam::123456789012:role/SageMaker"


def training(**changes: Any) -> TrainingDefinition:
    values: dict[str, Any] = {
        "image": IMAGE,
        "role": ROLE,
        "channels": [Channel("train", "s3://bucket/train/", RECORDIO), Channel("test", "s3://bucket/test/")],
        "output_uri": "s3://bucket/models",
        "instances": Instances("ml.c5.xlarge"),
        "limits": Limits(600),
    }
    return TrainingDefinition(**{**values, **changes})


@pytest.mark.parametrize(
    ("mode", "count", "wait", "checkpoints", "isolated"),
    [*product(["File", "FastFile", "Pipe"], [1, 8], [None, 1200], [None, "s3://bucket/checkpoints"], [True, False])],
)
def test_every_variant_of_a_training_job_is_valid(
    mode: str, count: int, wait: int | None, checkpoints: str | None, isolated: bool
) -> None:
    request = create_training_job(
        "digits-1",
        training(
            instances=Instances("ml.m5.large", count),
            limits=Limits(600, wait),
            input_mode=mode,
            network_isolation=isolated,
        ),
        hyperparameters={"k": 10, "eval_metrics": ["msd", "ssd"]},
        checkpoints_uri=checkpoints,
        environment={"KMEANS_HOSTS_TIMEOUT_SECONDS": "600"},
    )
    assert faults("CreateTrainingJob", request) == []
    assert request["AlgorithmSpecification"]["TrainingInputMode"] == mode
    assert request["ResourceConfig"]["InstanceCount"] == count
    assert request["EnableManagedSpotTraining"] == (wait is not None)
    assert request["StoppingCondition"].get("MaxWaitTimeInSeconds") == wait
    assert request.get("CheckpointConfig", {}).get("S3Uri") == checkpoints
    assert request["EnableNetworkIsolation"] == isolated
    assert request["HyperParameters"]["k"] == "10"


def test_a_tuning_job_is_valid_and_tunes_what_the_image_knows() -> None:
    request = create_tuning_job(
        "tuning",
        training(limits=Limits(600, 1200)),
        hyperparameters={"k": "10", "mini_batch_size": "500"},
        jobs=8,
        at_a_time=2,
    )
    assert faults("CreateHyperParameterTuningJob", request) == []
    ranges = request["HyperParameterTuningJobConfig"]["ParameterRanges"]
    tuned = {row["Name"]: row for rows in ranges.values() for row in rows}
    static = request["TrainingJobDefinition"]["StaticHyperParameters"]
    assert not tuned.keys() & static.keys(), "SageMaker refuses a value that is tuned too"
    for name, row in tuned.items():
        for text in row.get("Values") or (row["MinValue"], row["MaxValue"]):
            hyperparameters.parse({**static, name: text})
    objective = request["HyperParameterTuningJobConfig"]["HyperParameterTuningJobObjective"]["MetricName"]
    metrics = request["TrainingJobDefinition"]["AlgorithmSpecification"]["MetricDefinitions"]
    assert objective in {metric["Name"] for metric in metrics}


@pytest.mark.parametrize("multi_model", [True, False])
@pytest.mark.parametrize("environment", [None, {"SAGEMAKER_MODEL_SERVER_WORKERS": "1"}])
def test_every_variant_of_a_model_is_valid(multi_model: bool, environment: dict[str, str] | None) -> None:
    uri = "s3://bucket/models/" if multi_model else "s3://bucket/models/digits-1/output/model.tar.gz"
    request = create_model(
        "digits", image=IMAGE, role=ROLE, model_uri=uri, multi_model=multi_model, environment=environment
    )
    assert faults("CreateModel", request) == []
    assert request["PrimaryContainer"]["Mode"] == ("MultiModel" if multi_model else "SingleModel")


@pytest.mark.parametrize("variant", [instance_variant("m", "ml.t2.medium", 2), serverless_variant("m", 2048, 5)])
@pytest.mark.parametrize("capture", [None, "s3://bucket/capture"])
def test_every_variant_of_an_endpoint_is_valid(variant: dict[str, Any], capture: str | None) -> None:
    assert faults("CreateEndpointConfig", create_endpoint_config("c", variant=variant, capture_uri=capture)) == []
    assert faults("CreateEndpoint", create_endpoint("digits", "c")) == []


@pytest.mark.parametrize("target", [None, "digits-1/output/model.tar.gz"])
@pytest.mark.parametrize("body", [b"\x00", "1,2"])
def test_an_invocation_is_valid(target: str | None, body: bytes | str) -> None:
    request = invoke_endpoint("digits", body, content_type=CSV, accept=CSV, target_model=target)
    assert faults("InvokeEndpoint", request) == []


@pytest.mark.parametrize(
    ("content_type", "accept", "strategy", "join"),
    [
        (content_type, accept, strategy, join)
        for content_type, accept in [(CSV, CSV), (JSON_LINES, JSON_LINES), (RECORDIO, RECORDIO), (RECORDIO, JSON_LINES)]
        for strategy in ("MultiRecord", "SingleRecord")
        for join in (None, DIGIT_AND_ANSWER)
        if join is None or RECORDIO not in (content_type, accept)
    ],
)
def test_every_variant_of_a_transform_is_valid(content_type: str, accept: str, strategy: str, join: Any) -> None:
    request = create_transform_job(
        "t",
        TransformData("s3://bucket/in/", "s3://bucket/out", content_type, accept, join),
        model="m",
        strategy=strategy,
    )
    assert faults("CreateTransformJob", request) == []
    if join is not None:  # SageMaker joins lines only
        assert request["TransformInput"]["SplitType"] == request["TransformOutput"]["AssembleWith"] == "Line"


def test_the_algorithm_says_what_the_image_says() -> None:
    request = create_algorithm("kmeans", image=IMAGE)
    assert faults("CreateAlgorithm", request) == []
    rows = {row["Name"]: row for row in request["TrainingSpecification"]["SupportedHyperParameters"]}
    assert list(rows) == [row.name for row in hyperparameters.TABLE]
    assert [name for name, row in rows.items() if row["IsRequired"]] == ["k"]
    for row in rows.values():
        kinds = {"Integer": int, "Continuous": float}
        if row["Type"] in kinds and "DefaultValue" in row:
            kinds[row["Type"]](row["DefaultValue"])
        if row["Type"] == "Categorical":
            assert row["DefaultValue"] in row["Range"]["CategoricalParameterRangeSpecification"]["Values"]
        assert not (row["Type"] == "FreeText" and row["IsTunable"]), "SageMaker tunes no free text"
    inference, training = request["InferenceSpecification"], request["TrainingSpecification"]
    assert inference["SupportedContentTypes"] == [form.media_type for form in FORMATS.of_requests()]
    assert inference["SupportedResponseMIMETypes"] == [form.media_type for form in FORMATS.of_responses()]
    channels = {channel["Name"]: channel["SupportedContentTypes"] for channel in training["TrainingChannels"]}
    assert channels["train"] == [form.media_type for form in FORMATS.of_training()]


@pytest.mark.parametrize("kind", NOUNS)
def test_what_stops_and_deletes_is_valid(kind: str) -> None:
    for operation, request in endings(kind, "digits-1"):
        assert faults(operation, request) == []


def test_what_reads_logs_is_valid() -> None:
    for prefix in ("", "digits-1/"):
        assert faults("DescribeLogStreams", describe_log_streams("/aws/sagemaker/TrainingJobs", prefix)) == []
    for token in (None, "f/1"):
        assert faults("GetLogEvents", get_log_events("/aws/sagemaker/TrainingJobs", "digits-1/algo-1-1", token)) == []


@pytest.mark.parametrize(
    ("operation", "request_", "fault"),
    [
        ("CreateEndpoint", {"EndpointName": "digits"}, "Missing required parameter"),
        ("CreateEndpoint", {"EndpointName": "a_b", "EndpointConfigName": "c"}, "doesn't match"),
        ("StopTransformJob", {"TransformJobName": "x" * 64}, ", at most 63"),
    ],
)
def test_faults_reports_invalid_requests(operation: str, request_: dict[str, Any], fault: str) -> None:
    assert fault in "".join(faults(operation, request_))


def test_faults_reports_unknown_choice() -> None:
    variant = serverless_variant("m", 2048, 5)
    request = create_endpoint_config("c", variant={**variant, "InstanceType": "ml.c99.huge"})
    assert "ml.c99.huge" in "".join(faults("CreateEndpointConfig", request))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.title)
def test_every_printed_request_is_valid(example: Any) -> None:
    plan = json.loads(printed(example.command))
    assert plan
    for operation, requests in plan.items():
        for request in requests if isinstance(requests, list) else [requests]:
            assert faults(operation, request) == []


def test_every_kind_of_job_is_among_the_examples() -> None:
    operations = {operation for example in EXAMPLES for operation in json.loads(printed(example.command))}
    assert operations >= {
        name
        for name in OPERATIONS
        if re.fullmatch(
            "Create(TrainingJob|HyperParameterTuningJob|Model|EndpointConfig|Endpoint|TransformJob|Algorithm)", name
        )
    } | {"InvokeEndpoint", "PutObject"}


def test_the_page_of_requests_is_what_is_printed() -> None:
    page = (PROJECT / "docs" / "requests.md").read_text()
    assert page == markdown(), "run `python -m workflow.examples > docs/requests.md`"


def test_delete_and_list_dry_run_cover_all_entries(run: Run, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "workflow" / "local" / "created.json")
    ledger.record("data", "s3://bucket/data")
    for kind in NOUNS:
        ledger.record(kind, f"the-{kind}")
    ledger.record("image", "kmeans:latest")
    plan = json.loads(run("delete", "--dry-run"))
    assert plan.pop("DeleteObjects") == ["s3://bucket/data/"]
    assert set(plan) == {operation for kind in NOUNS for operation, _ in endings(kind, "any")}
    assert next(iter(plan)) == "DeleteEndpoint", "first what costs by the hour"
    for operation, requests in (plan | json.loads(run("list", "--dry-run"))).items():
        for request in requests:
            assert faults(operation, request) == []
    assert "DeleteObjects" not in json.loads(run("delete", "--dry-run", "--keep-data"))


def test_the_metrics_are_found_in_what_the_job_logs() -> None:
    out = io.StringIO()
    log = JobLog("algo-1", out)
    log.shrink_done(mean_squared_distance=1.5e-07)
    for channel, metric in (("train", "mean_squared_distance"), ("test", "msd"), ("test", "ssd")):
        log.quality(channel, metric, 2.25)
    log.epoch_done(epoch=0, epochs=4, rows=100, batches=2, seconds=0.5)
    found = {row["Name"]: re.findall(row["Regex"], out.getvalue()) for row in METRIC_DEFINITIONS}
    assert {name: [float(text) for text in texts] for name, texts in found.items()} == {
        "train:msd": [1.5e-07],
        "train:mean_squared_distance": [2.25],
        "test:msd": [2.25],
        "test:ssd": [2.25],
        "train:progress": [25.0],
        "train:throughput": [200.0],
    }


def test_training_page_has_the_same_metrics() -> None:
    nodes = ast.walk(ast.parse(snippet("docs/training.md", "Estimator(")))
    (call,) = [node for node in nodes if isinstance(node, ast.Call) and ast.unparse(node.func) == "Estimator"]
    given = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
    assert given["metric_definitions"] == list(METRIC_DEFINITIONS)
    hyperparameters.parse({name: str(value) for name, value in given["hyperparameters"].items()})
    assert given["base_job_name"] == DEFAULT_NAME


def snippet(page: str, text: str) -> str:
    """Return the Python code of a page that has ``text`` in it."""
    blocks = re.findall(r"^```python\n(.*?)^```$", (PROJECT / page).read_text(), re.MULTILINE | re.DOTALL)
    (code,) = [block for block in blocks if text in block]
    return str(code)


def test_workflow_page_python_creates_valid_job(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[dict[str, Any]] = []

    class Client:
        def create_training_job(self, **request: Any) -> None:
            sent.append(request)

    monkeypatch.setattr("boto3.client", lambda service: {"sagemaker": Client()}[service])
    code = compile(snippet("docs/workflow.md", "create_training_job"), "workflow.md", "exec")
    exec(code, {})  # noqa: S102 - code of our own docs
    (request,) = sent
    assert faults("CreateTrainingJob", request) == []
    hyperparameters.parse(request["HyperParameters"])
    assert request["TrainingJobName"].startswith(f"{DEFAULT_NAME}-"), "what docs/permissions.md allows"
    for channel in request["InputDataConfig"]:
        assert f"/{DEFAULT_NAME}/" in channel["DataSource"]["S3DataSource"]["S3Uri"]
    assert f"/{DEFAULT_NAME}/" in request["OutputDataConfig"]["S3OutputPath"]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.title)
def test_every_printed_name_is_one_that_the_policies_allow(example: Any) -> None:
    for operation, requests in json.loads(printed(example.command)).items():
        for request in requests if isinstance(requests, list) else [requests]:
            names = {member: name for member, name in request.items() if member.endswith(("Name", "Key"))}
            assert names, operation
            assert all(name.startswith(DEFAULT_NAME) for name in names.values()), names
