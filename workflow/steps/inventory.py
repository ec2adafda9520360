"""The things that steps created: listed with their status, and deleted, the last first."""

from __future__ import annotations

import contextlib
from argparse import ArgumentParser, Namespace
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from workflow.errors import JobFailedError, WorkflowError, code_of, explain, is_not_found, one_line
from workflow.ledger import Entry
from workflow.requests import NOUNS
from workflow.waiting import wait_for_endpoint, wait_for_training, wait_for_transform, wait_for_tuning
from workflow.workspace import Workspace

OBJECTS = ("data", "objects")

# Later steps use the image, and it costs next to nothing.
STAYING = ("image",)

# Kind of a thing: the operations that end it, in order. A test compares them with the person's policy.
ENDINGS = {
    "endpoint": ("DeleteEndpoint",),
    "endpoint-config": ("DeleteEndpointConfig",),
    "model": ("DeleteModel",),
    "transform-job": ("StopTransformJob",),
    "tuning-job": ("StopHyperParameterTuningJob", "DeleteHyperParameterTuningJob"),
    "training-job": ("StopTrainingJob", "DeleteTrainingJob"),
    "algorithm": ("DeleteAlgorithm",),
}

# SageMaker refuses to delete an endpoint in these states, and gives up on a failing one within an hour.
CHANGING = ("Creating", "Updating", "SystemUpdating", "RollingBack")
LONGEST_CHANGE_SECONDS = 3600
WAITS = {"training-job": wait_for_training, "transform-job": wait_for_transform, "tuning-job": wait_for_tuning}


def endings(kind: str, name: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the operations that stop and delete a thing, each with its request."""
    return [(operation, {f"{NOUNS[kind]}Name": name}) for operation in ENDINGS[kind]]


class List:
    """Lists the things that were created, with their status."""

    help = "list what was created, and how it is"

    def configure(self, parser: ArgumentParser) -> None:
        """Add no options."""

    def plan(self, work: Workspace, options: Namespace) -> dict[str, Any]:
        """Return the requests that describe each thing."""
        requests: dict[str, Any] = {}
        for entry in work.ledger.entries():
            if _is_described(entry):
                noun = NOUNS[entry.kind]
                requests.setdefault(f"Describe{noun}", []).append({f"{noun}Name": entry.name})
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


class Delete:
    """Stops and deletes everything that was created, the last first."""

    help = "stop and delete all that was created"

    def configure(self, parser: ArgumentParser) -> None:
        """Add an option that keeps objects."""
        parser.add_argument("--keep-data", action="store_true", help="leave data, models and answers where they are")

    def plan(self, work: Workspace, options: Namespace) -> dict[str, Any]:
        """Return the requests that stop and delete, and the prefixes whose objects are deleted."""
        requests: dict[str, Any] = {}
        for entry in _in_order(work):
            if entry.kind in ENDINGS:
                for operation, request in endings(entry.kind, entry.name):
                    requests.setdefault(operation, []).append(request)
            elif entry.kind in OBJECTS and not options.keep_data:
                requests.setdefault("DeleteObjects", []).append(f"{entry.name}/")
        return requests

    def carry_out(self, work: Workspace, plan: dict[str, Any], options: Namespace) -> None:
        """Delete one thing after the other; after a failure continue with things that it doesn't need.

        Raises WorkflowError if anything could not be deleted (it names the first), or if things exist only elsewhere.
        """
        entries = _in_order(work)
        work.say_what_is_elsewhere()
        if not entries and work.ledger.elsewhere():
            raise WorkflowError(f"Nothing was created in {work.account.region}: name the region with --region.")
        left = _delete_all(work, entries, keep_data=options.keep_data)
        if left:
            more = f" ({len(left) - 1} more)" if len(left) > 1 else ""
            raise WorkflowError(f"Not all could be deleted; run the step again. {left[0]}{more}")
        has_image = any(entry.kind in STAYING for entry in entries)
        stays = [what for what, does in (("image", has_image), ("objects", options.keep_data)) if does]
        work.say(f"all but the {' and the '.join(stays)} is deleted" if stays else "all is deleted")
        work.say(
            f"The logs stay in {work.settings.folder / work.settings.target / 'logs'}."
            if work.settings.is_local
            else "The logs stay in CloudWatch, the image in ECR, and the bucket, empty or not, in S3."
        )


def _is_described(entry: Entry) -> bool:
    return entry.kind in NOUNS and entry.kind != "algorithm"


def _state(work: Workspace, entry: Entry) -> tuple[str, str]:
    """Return the status of a thing, and why it failed."""
    if entry.kind in OBJECTS:
        return f"{len(work.clients.objects.find(f'{entry.name}/'))} object(s)", ""
    if not _is_described(entry):
        return "-", ""
    noun = NOUNS[entry.kind]
    try:
        found = work.call(f"Describe{noun}", {f"{noun}Name": entry.name})
    except ClientError as error:
        if is_not_found(error):
            return "missing", ""
        raise
    return str(found.get(f"{noun}Status", "there")), one_line(found.get("FailureReason", ""))


def _in_order(work: Workspace) -> list[Entry]:
    """Return the entries, the last first; endpoints, which cost by the hour, before all others, objects after them."""
    entries = work.ledger.entries()[::-1]
    return sorted(entries, key=lambda entry: (entry.kind in OBJECTS, entry.kind != "endpoint"))


def _delete_all(work: Workspace, entries: list[Entry], *, keep_data: bool) -> list[str]:
    """Delete things; return a sentence for each that could not be deleted."""
    left = []
    living: list[Entry] = []
    for entry in entries:
        if (entry.kind in OBJECTS and keep_data) or any(_needs(endpoint, entry) for endpoint in living):
            continue
        if entry.kind in STAYING:
            work.say(f"{entry.kind} {entry.name} stays: delete it by hand if nobody needs it")
            continue
        try:
            _delete(work, entry)
        except (ClientError, BotoCoreError, WorkflowError) as error:
            reason = str(error) if isinstance(error, WorkflowError) else explain(error)
            left.append(f"{entry.kind} {entry.name}: {reason}")
            if entry.kind == "endpoint":
                living.append(entry)
        else:
            work.ledger.forget(entry.kind, entry.name)
    return left


def _delete(work: Workspace, entry: Entry) -> None:
    if entry.kind in OBJECTS:
        work.say(f"{entry.name}: {work.clients.objects.delete(f'{entry.name}/')} object(s) deleted")
        return
    for operation, request in endings(entry.kind, entry.name):
        try:
            _send(work, operation, request)
        except ClientError as error:
            has_ended = operation.startswith("Stop") and code_of(error) == "ValidationException"
            if not has_ended and not is_not_found(error):
                raise
        else:
            work.say(f"{operation} {entry.name}")
            if operation.startswith("Stop"):
                with contextlib.suppress(JobFailedError):
                    WAITS[entry.kind](work.clients, entry.name, lambda line: None)


def _send(work: Workspace, operation: str, request: dict[str, Any]) -> None:
    """Send a request that deletes something; wait for an endpoint that is changing."""
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
    """Return True if an endpoint needs a thing: its configuration, its model, or the model's objects."""
    if entry.kind in OBJECTS:
        return endpoint.details.get("model", "").startswith(f"{entry.name}/")
    return entry.kind in ("endpoint-config", "model") and entry.name == endpoint.name
