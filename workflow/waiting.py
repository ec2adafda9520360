"""Waiting for a job or an endpoint: what state it is in, what it logs, and why it failed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

from botocore.exceptions import ClientError

from workflow.errors import JobFailedError, WorkflowError, is_not_found
from workflow.workspace import Clients

TRAINING, TRANSFORM = "/aws/sagemaker/TrainingJobs", "/aws/sagemaker/TransformJobs"
ENDPOINTS = "/aws/sagemaker/Endpoints"


def describe_log_streams(group: str, prefix: str) -> dict[str, Any]:
    """Return the request that lists the streams of a job; CloudWatch takes no empty prefix."""
    named = {"logStreamNamePrefix": prefix} if prefix else {}
    return {"logGroupName": group, **named}


def get_log_events(group: str, stream: str, token: str | None) -> dict[str, Any]:
    """Return the request of the lines of a stream that follow those of the answer that gave ``token``."""
    following = {} if token is None else {"nextToken": token}
    return {"logGroupName": group, "logStreamName": stream, "startFromHead": True, **following}


class LogTail:
    """The lines of a job that have come since they were last asked for.

    Parameters
    ----------
    client
        boto3's client ``logs``, or one that does the same.
    group
        Log group.
    prefix
        What the names of the job's streams begin with.
    names_hosts
        Whether each line has its host in front.
    """

    def __init__(self, client: Any, group: str, prefix: str, *, names_hosts: bool = False) -> None:
        self._client = client
        self._group = group
        self._prefix = prefix
        self._names_hosts = names_hosts
        self._tokens: dict[str, str | None] = {}

    def new_lines(self) -> Iterator[str]:
        """Return lines; a group that isn't there has none."""
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
            # The end of what there is gives the token that was sent; a first page without lines may, too.
            if answer["nextForwardToken"] == token or not answer["events"]:
                return


Say = Callable[[str], None]

GOOD_ENDS = ("Completed", "Stopped")
BAD_ENDS = ("Failed",)

# Long lines for programs, which the built-in image has too: they stay in the log.
MACHINE_LINES = "#metrics {"


def wait_for_training(clients: Clients, name: str, say: Say) -> dict[str, Any]:
    """Wait until a training job has ended, and return its description.

    Raises
    ------
    JobFailedError
        If it failed.
    """
    known = 0
    hosts = clients.sagemaker.describe_training_job(TrainingJobName=name)["ResourceConfig"]["InstanceCount"]
    tail = LogTail(clients.logs, TRAINING, f"{name}/", names_hosts=hosts > 1)

    def describe() -> tuple[dict[str, Any], str, list[str]]:
        nonlocal known
        job = clients.sagemaker.describe_training_job(TrainingJobName=name)
        transitions = job.get("SecondaryStatusTransitions", [])
        fresh = [f"{row['Status']}: {row.get('StatusMessage', '')}".rstrip(": ") for row in transitions[known:]]
        known = len(transitions)
        return job, job["TrainingJobStatus"], fresh

    return _wait(clients, f"The training job {name}", describe, tail, say)


def wait_for_transform(clients: Clients, name: str, say: Say) -> dict[str, Any]:
    """Wait until a batch transform has ended, and return its description; errors are as of a training job."""

    def describe() -> tuple[dict[str, Any], str]:
        job = clients.sagemaker.describe_transform_job(TransformJobName=name)
        return job, job["TransformJobStatus"]

    tail = LogTail(clients.logs, TRANSFORM, f"{name}/")
    return _wait(clients, f"The transform job {name}", _changes_of(describe), tail, say)


def wait_for_tuning(clients: Clients, name: str, say: Say) -> dict[str, Any]:
    """Wait until a tuning job has ended, and return its description; errors are as of a training job."""
    last = ""

    def describe() -> tuple[dict[str, Any], str, list[str]]:
        nonlocal last
        job = clients.sagemaker.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=name)
        status = job["HyperParameterTuningJobStatus"]
        news = f"{status}: {_counts(job)}"
        fresh = [news] if news != last else []
        last = news
        return job, status, fresh

    return _wait(clients, f"The tuning job {name}", describe, None, say)


def _counts(tuning_job: dict[str, Any]) -> str:
    """Return how many of a tuning job's training jobs are how far."""
    counts = tuning_job.get("TrainingJobStatusCounters", {})
    failed = counts.get("RetryableError", 0) + counts.get("NonRetryableError", 0)
    limit = tuning_job["HyperParameterTuningJobConfig"]["ResourceLimits"].get("MaxNumberOfTrainingJobs", "any number")
    done, running, stopped = (counts.get(name, 0) for name in ("Completed", "InProgress", "Stopped"))
    return f"of {limit} training jobs {done} completed, {running} in progress, {stopped} stopped, {failed} failed"


def wait_for_endpoint(clients: Clients, name: str, say: Say, *, seconds: float = math.inf) -> dict[str, Any]:
    """Wait until an endpoint answers, at most so many seconds, and return its description.

    Raises
    ------
    JobFailedError
        If it can't be brought up.
    WorkflowError
        If the time is over.
    """

    def describe() -> tuple[dict[str, Any], str]:
        endpoint = clients.sagemaker.describe_endpoint(EndpointName=name)
        return endpoint, endpoint["EndpointStatus"]

    tail = LogTail(clients.logs, f"{ENDPOINTS}/{name}", "")
    return _wait(
        clients, f"The endpoint {name}", _changes_of(describe), tail, say, good=("InService",), seconds=seconds
    )


def _changes_of(
    describe: Callable[[], tuple[dict[str, Any], str]],
) -> Callable[[], tuple[dict[str, Any], str, list[str]]]:
    """Return a ``describe`` that also gives the status as news whenever it is another one."""
    last = ""

    def with_changes() -> tuple[dict[str, Any], str, list[str]]:
        nonlocal last
        found, status = describe()
        fresh = [status] if status != last else []
        last = status
        return found, status, fresh

    return with_changes


def _wait(
    clients: Clients,
    what: str,
    describe: Callable[[], tuple[dict[str, Any], str, list[str]]],
    tail: LogTail | None,
    say: Say,
    *,
    good: tuple[str, ...] = GOOD_ENDS,
    seconds: float = math.inf,
) -> dict[str, Any]:
    started = time.monotonic()
    while True:
        # First the state, then the lines: those of a job that has ended are complete.
        found, status, fresh = describe()
        is_over = status in good or status in BAD_ENDS
        if is_over:
            time.sleep(clients.log_delay_seconds)
        for line in tail.new_lines() if tail else ():
            if MACHINE_LINES not in line:
                say(f"   | {line}")
        for news in fresh:
            say(f"   {time.monotonic() - started:6.1f} s  {news}")
        if status in BAD_ENDS:
            raise JobFailedError(f"{what} failed: {found.get('FailureReason', 'no reason was given')}")
        if is_over:
            return found
        if time.monotonic() - started > seconds:
            raise WorkflowError(f"{what} is still {status} after {seconds:g} s: try again later.")
        time.sleep(clients.poll_seconds)
