"""What was created, and how it is."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

from botocore.exceptions import ClientError

from workflow.errors import is_not_found
from workflow.ledger import Entry
from workflow.workspace import Workspace

HELP = "list what was created, and how it is"

# Kind of a thing: the operation that tells its state, the member that names it, and the one that tells.
STATES = {
    "training-job": ("DescribeTrainingJob", "TrainingJobName", "TrainingJobStatus"),
    "tuning-job": ("DescribeHyperParameterTuningJob", "HyperParameterTuningJobName", "HyperParameterTuningJobStatus"),
    "transform-job": ("DescribeTransformJob", "TransformJobName", "TransformJobStatus"),
    "endpoint": ("DescribeEndpoint", "EndpointName", "EndpointStatus"),
    "endpoint-config": ("DescribeEndpointConfig", "EndpointConfigName", ""),
    "model": ("DescribeModel", "ModelName", ""),
}


def configure(parser: ArgumentParser) -> None:
    """Add nothing."""


def plan(work: Workspace, options: Namespace) -> dict[str, Any]:
    """Return the requests that ask for the state of each thing."""
    requests: dict[str, Any] = {}
    for entry in work.ledger.entries():
        if entry.kind in STATES:
            operation, member, _ = STATES[entry.kind]
            requests.setdefault(operation, []).append({member: entry.name})
    return requests


def carry_out(work: Workspace, plan: dict[str, Any], options: Namespace) -> None:
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
