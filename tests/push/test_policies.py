"""The IAM policies of docs/permissions.md: AWS's list of actions knows all they say, and they allow this and no more.

moto judges them: it refuses what isn't the policy language, and it decides as IAM does from actions and resources. It
decides nothing from conditions, so these tests read them.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore.exceptions import ClientError
from moto.core.authorization import enable_iam_authentication
from moto.iam.access_control import IAMPolicy, PermissionResult
from policy_sentry.querying.actions import get_action_data

from .conftest import missing
from .person import PROJECT, Person

FOLDER = PROJECT / "workflow" / "policies"
NAMES = ("person-permissions.json", "role-permissions.json", "role-trust.json")
PERMISSIONS = NAMES[:2]
PAGE = PROJECT / "docs" / "permissions.md"
ACCOUNT, REGION = "123456789012", "eu-west-1"
SAGEMAKER = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}"
REPOSITORY = f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/kmeans"
LOGS = f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group"
BUCKET = f"arn:aws:s3:::sagemaker-{REGION}-{ACCOUNT}"
OURS = f"{BUCKET}/kmeans-digits/data/train"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/KMeansWorkflow"


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The policies as the page's own command fills them in."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copytree(FOLDER, folder / "workflow" / "policies")
    (command,) = re.findall(r"```\n(mkdir .*?sed .*?)```", PAGE.read_text(), re.DOTALL)
    subprocess.run(["bash", "-euc", command], cwd=folder, check=True, timeout=60)
    return folder / "build" / "policies"


def statements(policy: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(policy.read_text())["Statement"]
    return found


def as_list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


# ---- the page --------------------------------------------------------------------------------------------------------


def test_the_page_names_every_file_placeholder_and_statement() -> None:
    page = PAGE.read_text()
    for name in NAMES:
        text = (FOLDER / name).read_text()
        assert name in page
        for placeholder in re.findall(r"\b[A-Z]{4,}\b", text):
            assert f"`{placeholder}`" in page
        for statement in statements(FOLDER / name):
            assert f"`{statement['Sid']}`" in page
    assert sorted(path.name for path in FOLDER.iterdir()) == list(NAMES)


def test_the_command_of_the_page_leaves_no_placeholder(filled: Path) -> None:
    for name in NAMES:
        assert re.findall(r"\b(ACCOUNT|REGION|BUCKET|NAME|REPOSITORY|ROLE)\b", (filled / name).read_text()) == []


def test_what_the_pages_write_leaves_the_tree_as_it_is(tmp_path: Path) -> None:
    """With changes in it build_and_push.sh leaves out the tags of version and revision."""
    pages = [PAGE, *(PROJECT / "docs").glob("sdk-*.md")]
    (tmp_path / ".gitignore").write_bytes((PROJECT / ".gitignore").read_bytes())
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    subprocess.run(["git", "add", ".gitignore"], cwd=tmp_path, check=True)
    written = (
        "build/policies/role-trust.json",
        "digits.csv",
        "data/train/digits.pbr",
        "compressed_artifacts/model.tar.gz",
    )
    for name in written:
        assert any(name.split("/")[0] in page.read_text() for page in pages), name
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    command = ["git", "status", "--porcelain", "--untracked-files=all"]
    status = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    assert status.splitlines() == ["A  .gitignore"]


# ---- what they say ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_is_the_policy_language(filled: Path, iam: Any, name: str) -> None:
    text = (filled / name).read_text()
    if name == "role-trust.json":
        iam.create_role(RoleName="KMeansWorkflow", AssumeRolePolicyDocument=text)
    else:
        assert len(re.sub(r"\s", "", text)) <= 6144, "IAM takes no longer ones"
        iam.create_policy(PolicyName=name.removesuffix(".json"), PolicyDocument=text)
        with pytest.raises(ClientError, match="MalformedPolicyDocument"):
            iam.create_policy(PolicyName="x", PolicyDocument=text.replace('"Effect"', '"Affect"'))


def covers(arn: str, kind: str) -> bool:
    """Tell whether some resource of a kind, as AWS writes it, is within an ARN that may end with a star."""
    literals = re.split(r"\$\{[^}]+\}", kind)
    form = "[^:]+".join(re.escape(literal) for literal in literals)
    ends = ["", *("x".join(literals[first:]) for first in range(len(literals)) if arn.endswith("*"))]
    return any(re.fullmatch(form, arn.removesuffix("*") + "x" * arn.endswith("*") + end) for end in ends)


@pytest.mark.parametrize("name", NAMES)
def test_says_nothing_that_aws_does_not_know(filled: Path, name: str) -> None:
    for statement in statements(filled / name):
        resources = as_list(statement.get("Resource", []))
        needed = dict.fromkeys(resources, False)
        for action in as_list(statement["Action"]):
            service, _, operation = action.partition(":")
            rows = get_action_data(service, operation)
            assert rows, f"AWS has no action {action}"
            rows = rows[service]
            assert {row["action"] for row in rows} == {action}, "spelled as AWS does"
            kinds = {row["resource_arn_format"] for row in rows} - {"*"}
            matching = [arn for arn in resources if any(covers(arn, kind) for kind in kinds)]
            if resources == ["*"]:
                assert not kinds, f"{action} can be bound to {kinds}"
                needed["*"] = True
            elif resources:
                assert matching, f"{action} does nothing to {resources}"
            for arn in matching:
                needed[arn] = True
            known = {key for row in rows for key in row["condition_keys"]} | {"aws:SourceAccount"}
            for keys in statement.get("Condition", {}).values():
                assert set(keys) <= known, action
        assert all(needed.values()), "a resource that none of the actions is about"


def test_person_may_do_the_requests_of_workflow_and_sdks(filled: Path) -> None:
    session = botocore.session.get_session()
    known = {
        operation
        for service in ("sagemaker", "sagemaker-runtime")
        for operation in session.get_service_model(service).operation_names
    }
    words = {
        node.value
        for file in (PROJECT / "workflow").rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    (may,) = [part["Action"] for part in statements(filled / "person-permissions.json") if "Jobs" in part["Sid"]]
    of_the_sdks = {"DescribeAlgorithm", "ListTrainingJobsForHyperParameterTuningJob"}
    assert words & known, "the workflow names its operations"
    assert {action.removeprefix("sagemaker:") for action in may} == words & known | of_the_sdks


@pytest.mark.parametrize("name", NAMES)
def test_allows_nothing_by_the_dozen(filled: Path, name: str) -> None:
    sids = [statement["Sid"] for statement in statements(filled / name)]
    assert len(set(sids)) == len(sids)
    for statement in statements(filled / name):
        assert statement["Effect"] == "Allow"
        assert not {"NotAction", "NotResource", "NotPrincipal"} & set(statement)
        assert not any("*" in action for action in as_list(statement["Action"]))
        for arn in as_list(statement.get("Resource", [])):
            # A star only at the end of a name, and alone where AWS knows no resource: see above.
            assert arn == "*" or "*" not in arn[:-1]


def test_only_sagemaker_of_this_account_gets_the_role(filled: Path) -> None:
    (trust,) = statements(filled / "role-trust.json")
    assert trust["Principal"] == {"Service": "sagemaker.amazonaws.com"}
    assert trust["Condition"] == {"StringEquals": {"aws:SourceAccount": ACCOUNT}}
    (gives,) = [part for part in statements(filled / "person-permissions.json") if part["Action"] == "iam:PassRole"]
    assert gives["Resource"] == ROLE
    assert gives["Condition"] == {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}}


# ---- what they allow -------------------------------------------------------------------------------------------------


def allowed(policy: Path, action: str, resource: str) -> bool:
    """Tell what IAM says if all conditions are met."""
    document = json.loads(policy.read_text())
    for statement in document["Statement"]:
        statement.pop("Condition", None)
    return IAMPolicy(json.dumps(document)).is_action_permitted(action, resource) is PermissionResult.PERMITTED


@pytest.mark.parametrize(
    ("name", "action", "resource"),
    [
        ("role", "s3:GetObject", OURS),
        ("role", "s3:PutObject", f"{BUCKET}/kmeans-digits/output/job/output/model.tar.gz"),
        ("role", "s3:ListBucket", BUCKET),
        ("role", "ecr:BatchGetImage", REPOSITORY),
        ("role", "logs:PutLogEvents", f"{LOGS}:/aws/sagemaker/TrainingJobs:log-stream:kmeans-digits-1/algo-1-17"),
        ("role", "logs:CreateLogGroup", f"{LOGS}:/aws/sagemaker/Endpoints/kmeans-digits"),
        ("role", "cloudwatch:PutMetricData", "*"),
        ("person", "sagemaker:CreateTrainingJob", f"{SAGEMAKER}:training-job/kmeans-digits-20260102-030405"),
        ("person", "sagemaker:InvokeEndpoint", f"{SAGEMAKER}:endpoint/kmeans-digits-20260102-030405"),
        ("person", "sagemaker:CreateTransformJob", f"{SAGEMAKER}:transform-job/kmeans-digits-1"),
        (
            "person",
            "sagemaker:CreateHyperParameterTuningJob",
            f"{SAGEMAKER}:hyper-parameter-tuning-job/kmeans-digits-1",
        ),
        ("person", "sagemaker:DeleteEndpointConfig", f"{SAGEMAKER}:endpoint-config/kmeans-digits-1"),
        ("person", "iam:PassRole", ROLE),
        ("person", "ecr:PutImage", REPOSITORY),
        ("person", "ecr:CreateRepository", REPOSITORY),
        ("person", "s3:DeleteObject", OURS),
        ("person", "logs:GetLogEvents", f"{LOGS}:/aws/sagemaker/TrainingJobs:log-stream:kmeans-digits-1/algo-1-17"),
    ],
)
def test_allows(filled: Path, name: str, action: str, resource: str) -> None:
    assert allowed(filled / f"{name}-permissions.json", action, resource)


# A kind of a thing, as the operations that create it name it: as ARNs name it.
KINDS = {
    "TrainingJob": "training-job",
    "HyperParameterTuningJob": "hyper-parameter-tuning-job",
    "TransformJob": "transform-job",
    "Model": "model",
    "EndpointConfig": "endpoint-config",
    "Endpoint": "endpoint",
    "Algorithm": "algorithm",
}


@pytest.mark.parametrize("step", ["data", "train", "tune", "deploy", "transform", "algorithm"])
def test_allows_what_every_step_does_by_default(filled: Path, step: str, tmp_path: Path) -> None:
    if "KMEANS_WORKFLOW_PYTHON" not in os.environ:
        missing("no KMEANS_WORKFLOW_PYTHON, the Python of `make workflow-ready`: run `make push-test`")
    python = os.environ["KMEANS_WORKFLOW_PYTHON"]
    command = [python, "-m", "workflow", step, "--target", "aws", "--region", REGION, "--dry-run"]
    environment = {name: text for name, text in os.environ.items() if not name.startswith(("AWS_", "KMEANS_"))}
    printed = subprocess.run(
        [*command, "--folder", str(tmp_path)], cwd=PROJECT, env=environment, check=True, capture_output=True, timeout=60
    )
    for operation, request in json.loads(printed.stdout).items():
        if operation == "PutObject":
            resources = [f"arn:aws:s3:::{part['Bucket']}/{part['Key']}" for part in request]
        else:
            kind = operation.removeprefix("Create")
            resources = [f"{SAGEMAKER}:{KINDS[kind]}/{request[f'{kind}Name']}"]
        action = f"{'s3' if operation == 'PutObject' else 'sagemaker'}:{operation}"
        assert all(allowed(filled / "person-permissions.json", action, resource) for resource in resources), operation


def test_allows_what_the_notebook_does_by_default(filled: Path) -> None:
    notebook = json.loads((PROJECT / "workflow" / "mnist_kmeans.ipynb").read_text())
    (parameters,) = ["".join(cell["source"]) for cell in notebook["cells"] if cell["id"] == "parameters"]
    (name,) = re.findall(r'^NAME = "(.+?)"', parameters, re.MULTILINE)
    job = f"{SAGEMAKER}:training-job/{name}-260102-030405"
    assert allowed(filled / "person-permissions.json", "sagemaker:CreateTrainingJob", job)
    assert allowed(filled / "role-permissions.json", "s3:GetObject", f"{BUCKET}/{name}/data/train/part-00000.pbr")


@pytest.mark.parametrize(
    ("name", "action", "resource"),
    [
        ("role", "s3:GetObject", f"{BUCKET}/payroll/2026.csv"),
        ("role", "s3:GetObject", "arn:aws:s3:::another/kmeans-digits/data"),
        ("role", "s3:DeleteObject", OURS),
        ("role", "ecr:PutImage", REPOSITORY),
        ("role", "ecr:BatchGetImage", f"{REPOSITORY}-other"),
        ("role", "logs:PutLogEvents", f"{LOGS}:/aws/lambda/x:log-stream:y"),
        ("role", "sagemaker:CreateTrainingJob", f"{SAGEMAKER}:training-job/kmeans-digits-1"),
        ("role", "iam:PassRole", ROLE),
        ("person", "sagemaker:DeleteEndpoint", f"{SAGEMAKER}:endpoint/shop-window"),
        (
            "person",
            "sagemaker:CreateTrainingJob",
            f"arn:aws:sagemaker:us-east-1:{ACCOUNT}:training-job/kmeans-digits-1",
        ),
        ("person", "sagemaker:CreateNotebookInstance", f"{SAGEMAKER}:notebook-instance/kmeans-digits"),
        ("person", "iam:PassRole", f"arn:aws:iam::{ACCOUNT}:role/Admin"),
        ("person", "iam:CreateRole", ROLE),
        ("person", "ecr:DeleteRepository", REPOSITORY),
        ("person", "ecr:PutImage", f"{REPOSITORY}-other"),
        ("person", "s3:GetObject", f"{BUCKET}/payroll/2026.csv"),
        ("person", "s3:DeleteBucket", BUCKET),
        ("person", "logs:DeleteLogGroup", f"{LOGS}:/aws/sagemaker/TrainingJobs"),
    ],
)
def test_does_not_allow(filled: Path, name: str, action: str, resource: str) -> None:
    assert not allowed(filled / f"{name}-permissions.json", action, resource)


def test_the_person_can_push_with_this_and_no_less(filled: Path, iam: Any, person: Person) -> None:
    """AWS asks for each call's permission. moto doesn't know what ECR's calls are about: resources are left aside."""
    name = person.repository
    iam.create_user(UserName=name)
    key = iam.create_access_key(UserName=name)["AccessKey"]
    person.environment["AWS_ACCESS_KEY_ID"] = key["AccessKeyId"]
    person.environment["AWS_SECRET_ACCESS_KEY"] = key["SecretAccessKey"]
    person.docker(
        "build",
        "--quiet",
        "--file",
        f"{person.project}/container/Dockerfile",
        "--tag",
        person.image,
        f"{person.project}",
    )

    for withdrawn in ("ecr:DescribeRepositories", "ecr:CreateRepository", "ecr:GetAuthorizationToken", None):
        document = json.loads((filled / "person-permissions.json").read_text())
        for statement in document["Statement"]:
            statement["Resource"] = "*"
            statement["Action"] = [action for action in as_list(statement["Action"]) if action != withdrawn]
        document["Statement"] = [statement for statement in document["Statement"] if statement["Action"]]
        iam.put_user_policy(UserName=name, PolicyName="person", PolicyDocument=json.dumps(document))
        with enable_iam_authentication():
            outcome = person.push("--skip-build", "--tag", "blue")
        if withdrawn:
            outcome.assert_failed("is not authorized", withdrawn)
    assert [uri.rpartition(":")[2] for uri in outcome.uris[:2]] == ["blue", "latest"]
