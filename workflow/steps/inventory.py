"""What was created: listed, and deleted, the last first."""

from __future__ import annotations

import contextlib
from argparse import ArgumentParser, Namespace
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from workflow.errors import JobFailedError, WorkflowError, code_of, explain, is_not_found
from workflow.ledger import Entry
from workflow.waiting import wait_for_endpoint, wait_for_training, wait_for_transform, wait_for_tuning
from workflow.workspace import Workspace

# Kind of a thing: the operations that end it, in order, and the member that names it.
ENDINGS: dict[str, tuple[tuple[str, ...], str]] = {
    "endpoint": (("DeleteEndpoint",), "EndpointName"),
    "endpoint-config": (("DeleteEndpointConfig",), "EndpointConfigName"),
    "model": (("DeleteModel",), "ModelName"),
    "transform-job": (("StopTransformJob",), "TransformJobName"),
    "tuning-job": (("StopHyperParameterTuningJob", "DeleteHyperParameterTuningJob"), "HyperParameterTuningJobName"),
    "training-job": (("StopTrainingJob", "DeleteTrainingJob"), "TrainingJobName"),
    "algorithm": (("DeleteAlgorithm",), "AlgorithmName"),
}


def endings(kind: str, name: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the operations, each with its request, that stop and delete the thing ``name``."""
    operations, member = ENDINGS[kind]
    return [(operation, {member: name}) for operation in operations]


# Kind of a thing: the operation that tells its state, the member that names it, and the one that tells.
STATES = {
    "training-job": ("DescribeTrainingJob", "TrainingJobName", "TrainingJobStatus"),
    "tuning-job": ("DescribeHyperParameterTuningJob", "HyperParameterTuningJobName", "HyperParameterTuningJobStatus"),
    "transform-job": ("DescribeTransformJob", "TransformJobName", "TransformJobStatus"),
    "endpoint": ("DescribeEndpoint", "EndpointName", "EndpointStatus"),
    "endpoint-config": ("DescribeEndpointConfig", "EndpointConfigName", ""),
    "model": ("DescribeModel", "ModelName", ""),
}


class List:
    """What was created, and how it is."""

    HELP = "list what was created, and how it is"

    def configure(self, parser: ArgumentParser) -> None:
        """Add nothing."""

    def plan(self, work: Workspace, options: Namespace) -> dict[str, Any]:
        """Return the requests that ask for the state of each thing."""
        requests: dict[str, Any] = {}
        for entry in work.ledger.entries():
            if entry.kind in STATES:
                operation, member, _ = STATES[entry.kind]
                requests.setdefault(operation, []).append({member: entry.name})
        return requests

    def carry_out(self, work: Workspace, plan: dict[str, Any], options: Namespace) -> None:
        """Say a line for each thing."""
        entries = work.ledger.entries()
        for entry in entries:
            state, reason = _state(work, entry)
            work.say(f"{entry.created}  {entry.kind:<16} {state:<12} {entry.name}{f'  {reason}' if reason else ''}")
        if not entries:
            work.say("nothing was created")
        work.say_what_is_elsewhere()


def _state(work: Workspace, entry: Entry) -> tuple[str, str]:
    """Return how a thing is, and why it failed, if it did."""
    if entry.kind in ("data", "objects"):
        return f"{len(work.clients.objects.find(f'{entry.name}/'))} object(s)", ""
    if entry.kind not in STATES:
        return "-", ""
    operation, member, state = STATES[entry.kind]
    try:
        found = work.call(operation, {member: entry.name})
    except ClientError as error:
        if is_not_found(error):
            return "missing", ""
        raise
    # A reason is free text; here it is the end of a line.
    return str(found[state]) if state else "there", " ".join(found.get("FailureReason", "").split())


OBJECTS = ("data", "objects")

# Later steps take it, and it costs next to nothing: whoever wants it deleted does so in ECR.
STAYING = ("image",)

# SageMaker deletes no endpoint while it changes, and gives up on one that doesn't come up long before.
CHANGING = ("Creating", "Updating", "SystemUpdating", "RollingBack")
LONGEST_CHANGE_SECONDS = 3600
WAITS = {"training-job": wait_for_training, "transform-job": wait_for_transform, "tuning-job": wait_for_tuning}


class Delete:
    """The end: everything that was created is deleted, the last first."""

    HELP = "stop and delete all that was created"

    def configure(self, parser: ArgumentParser) -> None:
        """Add what may stay."""
        parser.add_argument("--keep-data", action="store_true", help="leave data, models and answers where they are")

    def plan(self, work: Workspace, options: Namespace) -> dict[str, Any]:
        """Return the requests that stop and delete, and the prefixes whose objects go."""
        requests: dict[str, Any] = {}
        for entry in _in_order(work):
            if entry.kind in ENDINGS:
                for operation, request in endings(entry.kind, entry.name):
                    requests.setdefault(operation, []).append(request)
            elif entry.kind in OBJECTS and not options.keep_data:
                requests.setdefault("DeleteObjects", []).append(f"{entry.name}/")
        return requests

    def carry_out(self, work: Workspace, plan: dict[str, Any], options: Namespace) -> None:
        """Delete thing by thing; what can't be deleted stays in the record, and keeps only what it needs.

        Raises
        ------
        WorkflowError
            If anything is left that could not be deleted; it names the first. If there is nothing here, but elsewhere.
        """
        left = []
        living: list[Entry] = []
        entries = _in_order(work)
        is_image_known = any(entry.kind in STAYING for entry in entries)
        work.say_what_is_elsewhere()
        if not entries and work.ledger.elsewhere():
            raise WorkflowError(f"Nothing was created in {work.account.region}: name the region with --region.")
        for entry in entries:
            if (entry.kind in OBJECTS and options.keep_data) or any(_needs(endpoint, entry) for endpoint in living):
                continue
            if entry.kind in STAYING:
                work.say(f"{entry.kind} {entry.name} stays: delete it by hand if nobody needs it")
                continue
            try:
                _delete(work, entry)
            except (ClientError, BotoCoreError) as error:
                left.append(f"{entry.kind} {entry.name}: {explain(error)}")
            except WorkflowError as error:
                left.append(f"{entry.kind} {entry.name}: {error}")
            else:
                work.ledger.forget(entry.kind, entry.name)
                continue
            if entry.kind == "endpoint":
                living.append(entry)
        if left:
            more = f" ({len(left) - 1} more)" if len(left) > 1 else ""
            raise WorkflowError(f"Not all could be deleted; run the step again. {left[0]}{more}")
        stays = [what for what, does in (("image", is_image_known), ("objects", options.keep_data)) if does]
        work.say(f"all but the {' and the '.join(stays)} is deleted" if stays else "all is deleted")
        work.say(
            f"The logs stay in {work.settings.folder / work.settings.target / 'logs'}."
            if work.settings.is_local
            else "The logs stay in CloudWatch, the image in ECR, and the bucket, empty or not, in S3."
        )


def _in_order(work: Workspace) -> list[Entry]:
    """Return first what costs by the hour, then the last before the first."""
    entries = work.ledger.entries()[::-1]
    return sorted(entries, key=lambda entry: (entry.kind in OBJECTS, entry.kind != "endpoint"))


def _delete(work: Workspace, entry: Entry) -> None:
    if entry.kind in OBJECTS:
        work.say(f"{entry.name}: {work.clients.objects.delete(f'{entry.name}/')} object(s) deleted")
        return
    for operation, request in endings(entry.kind, entry.name):
        try:
            _send(work, operation, request)
        except ClientError as error:
            is_over = operation.startswith("Stop") and code_of(error) == "ValidationException"
            if not is_over and not is_not_found(error):
                raise
        else:
            work.say(f"{operation} {entry.name}")
            if operation.startswith("Stop"):
                with contextlib.suppress(JobFailedError):
                    WAITS[entry.kind](work.clients, entry.name, lambda line: None)


def _send(work: Workspace, operation: str, request: dict[str, Any]) -> None:
    """Send a request that deletes something; an endpoint that changes is waited for."""
    try:
        work.call(operation, request)
    except ClientError as error:
        if operation != "DeleteEndpoint" or is_not_found(error) or code_of(error) != "ValidationException":
            raise
        name = request["EndpointName"]
        status = work.call("DescribeEndpoint", request)["EndpointStatus"]
        if status not in CHANGING:
            raise
        work.say(f"endpoint {name} is {status}: it can be deleted when that is over")
        with contextlib.suppress(JobFailedError):
            wait_for_endpoint(work.clients, name, work.say, seconds=LONGEST_CHANGE_SECONDS)
        work.call(operation, request)


def _needs(endpoint: Entry, entry: Entry) -> bool:
    """Tell whether an endpoint wouldn't work without a thing: its configuration, its model, the model's objects."""
    if entry.kind in OBJECTS:
        return endpoint.details.get("model", "").startswith(f"{entry.name}/")
    return entry.kind in ("endpoint-config", "model") and entry.name == endpoint.name
