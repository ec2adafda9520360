"""The log of a job as CloudWatch has it: streams in a group, one for each host, read as they grow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from botocore.exceptions import ClientError

from workflow.errors import is_not_found

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
