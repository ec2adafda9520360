"""Waiting for a job or an endpoint: reports status changes and log lines, and raises its failure."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

from botocore import xform_name
from botocore.exceptions import ClientError

from workflow.errors import JobFailedError, WorkflowError, is_not_found
from workflow.requests import NOUNS
from workflow.workspace import Clients

Say = Callable[[str], None]

TRAINING, TRANSFORM = "/aws/sagemaker/TrainingJobs", "/aws/sagemaker/TransformJobs"
ENDPOINTS = "/aws/sagemaker/Endpoints"

GOOD_ENDS = ("Completed", "Stopped", "InService")

# Long lines for programs, which the built-in image also writes: they stay in the log.
MACHINE_LINES = "#metrics {"


def describe_log_streams(group: str, prefix: str) -> dict[str, Any]:
    """Return the request that lists the streams of a job; CloudWatch accepts no empty prefix."""
    named = {"logStreamNamePrefix": prefix} if prefix else {}
    return {"logGroupName": group, **named}


def get_log_events(group: str, stream: str, token: str | None) -> dict[str, Any]:
    """Return the request of a stream's lines after those of the answer that gave ``token``."""
    following = {} if token is None else {"nextToken": token}
    return {"logGroupName": group, "logStreamName": stream, "startFromHead": True, **following}


class LogTail:
    """The new log lines of a job since the previous call.

    Parameters
    ----------
    client
        boto3's client ``logs``, or its local replacement.
    group
        Log group.
    prefix
        Start of the names of the job's streams.
    names_hosts
        Whether each line begins with its host.
    """

    def __init__(self, client: Any, group: str, prefix: str, *, names_hosts: bool = False) -> None:
        self._client = client
        self._group = group
        self._prefix = prefix
        self._names_hosts = names_hosts
        self._tokens: dict[str, str | None] = {}

    def new_lines(self) -> Iterator[str]:
        """Return new lines; none if the group doesn't exist yet."""
        try:
            streams = self._client.describe_log_streams(**describe_log_streams(self._group, self._prefix))
        except ClientError as error:
            if is_not_found(error):
                return
            raise
        names = sorted(row["logStreamName"] for row in streams["logStreams"])
        for name in names:
            # SageMaker's streams are called JOB/algo-1-1700000000.
            host = "-".join(name.rpartition("/")[2].split("-")[:2])
            for message in self._events(name):
                yield f"{host}: {message}" if self._names_hosts else message

    def _events(self, stream: str) -> Iterator[str]:
        while True:
            token = self._tokens.get(stream)
            answer = self._client.get_log_events(**get_log_events(self._group, stream, token))
            for event in answer["events"]:
                yield str(event["message"]).rstrip("\r\n")
            self._tokens[stream] = answer["nextForwardToken"]
            # At the end the answer has the token that was sent; a first page without lines may have it, too.
            if answer["nextForwardToken"] == token or not answer["events"]:
                return


def wait_for_training(clients: Clients, name: str, say: Say) -> dict[str, Any]:
    """Wait until a training job has ended, and return its description; raise JobFailedError if it failed."""
    hosts = _describe(clients, "training-job", name)["ResourceConfig"]["InstanceCount"]
    tail = LogTail(clients.logs, TRAINING, f"{name}/", names_hosts=hosts > 1)
    return _wait(clients, "training-job", name, say, tail)


def wait_for_transform(clients: Clients, name: str, say: Say) -> dict[str, Any]:
    """Wait until a batch transform has ended, and return its description; errors are as of a training job."""
    return _wait(clients, "transform-job", name, say, LogTail(clients.logs, TRANSFORM, f"{name}/"))


def wait_for_tuning(clients: Clients, name: str, say: Say) -> dict[str, Any]:
    """Wait until a tuning job has ended, and return its description; errors are as of a training job."""
    return _wait(clients, "tuning-job", name, say)


def wait_for_endpoint(clients: Clients, name: str, say: Say, *, seconds: float = math.inf) -> dict[str, Any]:
    """Wait at most ``seconds`` until an endpoint is in service, and return its description.

    Raises JobFailedError if it can't be started, and WorkflowError if it isn't in service in time.
    """
    tail = LogTail(clients.logs, f"{ENDPOINTS}/{name}", "")
    return _wait(clients, "endpoint", name, say, tail, seconds=seconds)


# boto3's waiters raise for a job that fails, but report neither status changes nor log lines while they wait.
def _wait(
    clients: Clients, kind: str, name: str, say: Say, tail: LogTail | None = None, *, seconds: float = math.inf
) -> dict[str, Any]:
    started = time.monotonic()
    what = f"The {kind.replace('-', ' ')} {name}"
    news: list[str] = []
    while True:
        # The status comes before the lines: those of a job that has ended are complete.
        found = _describe(clients, kind, name)
        status = found[f"{NOUNS[kind]}Status"]
        before, news = news, _news(kind, found, status)
        is_over = status in (*GOOD_ENDS, "Failed")
        if is_over:
            time.sleep(clients.log_delay_seconds)
        for line in tail.new_lines() if tail else ():
            if MACHINE_LINES not in line:
                say(f"   | {line}")
        # The history of a training job grows; other things have a current status.
        fresh = news[len(before) :] if kind == "training-job" else [text for text in news if text not in before]
        for text in fresh:
            say(f"   {time.monotonic() - started:6.1f} s  {text}")
        if status == "Failed":
            raise JobFailedError(f"{what} failed: {found.get('FailureReason', 'no reason was given')}")
        if is_over:
            return found
        if time.monotonic() - started > seconds:
            raise WorkflowError(f"{what} is still {status} after {seconds:g} s: try again later.")
        time.sleep(clients.poll_seconds)


def _describe(clients: Clients, kind: str, name: str) -> dict[str, Any]:
    method = getattr(clients.sagemaker, xform_name(f"Describe{NOUNS[kind]}"))
    found: dict[str, Any] = method(**{f"{NOUNS[kind]}Name": name})
    return found


def _news(kind: str, found: dict[str, Any], status: str) -> list[str]:
    """Return the lines about a status: a training job's whole history, else the current one."""
    if kind == "training-job":
        rows = found.get("SecondaryStatusTransitions", [])
        return [f"{row['Status']}: {row.get('StatusMessage', '')}".rstrip(": ") for row in rows]
    return [f"{status}: {_counts(found)}" if kind == "tuning-job" else status]


def _counts(tuning_job: dict[str, Any]) -> str:
    """Return the numbers of a tuning job's training jobs by status."""
    counts = tuning_job.get("TrainingJobStatusCounters", {})
    failed = counts.get("RetryableError", 0) + counts.get("NonRetryableError", 0)
    limit = tuning_job["HyperParameterTuningJobConfig"]["ResourceLimits"].get("MaxNumberOfTrainingJobs", "any number")
    done, running, stopped = (counts.get(name, 0) for name in ("Completed", "InProgress", "Stopped"))
    return f"of {limit} training jobs {done} completed, {running} in progress, {stopped} stopped, {failed} failed"
