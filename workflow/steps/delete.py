"""The end: everything that was created is deleted, the last first."""

from __future__ import annotations

import contextlib
from argparse import ArgumentParser, Namespace
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from workflow.errors import JobFailedError, WorkflowError, code_of, explain, is_not_found
from workflow.ledger import Entry
from workflow.requests.removal import ENDINGS, endings
from workflow.waiting import wait_for_training, wait_for_transform, wait_for_tuning
from workflow.workspace import Workspace

HELP = "stop and delete all that was created"

OBJECTS = ("data", "objects")
WAITS = {"training-job": wait_for_training, "transform-job": wait_for_transform, "tuning-job": wait_for_tuning}


def configure(parser: ArgumentParser) -> None:
    """Add what may stay."""
    parser.add_argument("--keep-data", action="store_true", help="leave data, models and answers where they are")


def plan(work: Workspace, options: Namespace) -> dict[str, Any]:
    """Return the requests that stop and delete, and the prefixes whose objects go."""
    requests: dict[str, Any] = {}
    for entry in _in_order(work):
        if entry.kind in ENDINGS:
            for operation, request in endings(entry.kind, entry.name):
                requests.setdefault(operation, []).append(request)
        elif entry.kind in OBJECTS and not options.keep_data:
            requests.setdefault("DeleteObjects", []).append(f"{entry.name}/")
    return requests


def carry_out(work: Workspace, plan: dict[str, Any], options: Namespace) -> None:
    """Delete thing by thing; what can't be deleted stays in the record, and doesn't keep the rest.

    Raises
    ------
    WorkflowError
        If anything is left that could not be deleted; it names the first.
    """
    left = []
    for entry in _in_order(work):
        if entry.kind in OBJECTS and options.keep_data:
            continue
        try:
            _delete(work, entry)
        except (ClientError, BotoCoreError) as error:
            left.append(f"{entry.kind} {entry.name}: {explain(error)}")
        except WorkflowError as error:
            left.append(f"{entry.kind} {entry.name}: {error}")
        else:
            work.ledger.forget(entry.kind, entry.name)
    if left:
        more = f" ({len(left) - 1} more)" if len(left) > 1 else ""
        raise WorkflowError(f"Not all could be deleted; run the step again. {left[0]}{more}")
    work.say("all is deleted" if not options.keep_data else "all but the objects is deleted")
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
    if entry.kind not in ENDINGS:
        work.say(f"{entry.kind} {entry.name} stays: delete it by hand if nobody needs it")
        return
    for operation, request in endings(entry.kind, entry.name):
        try:
            work.call(operation, request)
        except ClientError as error:
            is_over = operation.startswith("Stop") and code_of(error) == "ValidationException"
            if not is_over and not is_not_found(error):
                raise
        else:
            work.say(f"{operation} {entry.name}")
            if operation.startswith("Stop"):
                with contextlib.suppress(JobFailedError):
                    WAITS[entry.kind](work.clients, entry.name, lambda line: None)
