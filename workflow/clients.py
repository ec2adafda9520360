"""The clients of a target: boto3's own for an account, and for this machine others that take the same requests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.exceptions import NoRegionError

from workflow.objects import Objects, S3Objects
from workflow.settings import ANY_ACCOUNT, ANY_ROLE, DEFAULT_REGION, LOCAL_IMAGE, Settings

# SageMaker's own SDK asks no more often either; CloudWatch shows a line some seconds after it was written.
AWS_POLL_SECONDS = 5.0
AWS_LOG_DELAY_SECONDS = 5.0
LOCAL_POLL_SECONDS = 0.1

LOCAL_BUCKET = "kmeans-local"


@dataclass(frozen=True)
class Clients:
    """What a target answers with.

    Attributes
    ----------
    sagemaker, runtime, logs
        boto3's clients ``sagemaker``, ``sagemaker-runtime`` and ``logs``, or what does the same here.
    objects
        S3, or the folder that stands for it.
    poll_seconds
        How often a job is looked at.
    log_delay_seconds
        How long after its end all its lines are there.
    """

    sagemaker: Any
    runtime: Any
    logs: Any
    objects: Objects
    poll_seconds: float
    log_delay_seconds: float


@dataclass(frozen=True, slots=True)
class Account:
    """What belongs to whom: bucket, role and the usual image of a target.

    Attributes
    ----------
    region, bucket
        As requests need them.
    number
        The account's 12 digits.
    role
        ARN of the role under which SageMaker works; None if none was given.
    is_usual_bucket
        Whether the bucket is SageMaker's usual one, which may be created; one that a user names has to be there.
    image
        Image to take if none was made or given; None if there is none that could be meant.
    """

    region: str
    number: str
    bucket: str
    role: str | None
    is_usual_bucket: bool
    image: str | None


@contextmanager
def open_clients(settings: Settings) -> Iterator[tuple[Clients, Account]]:
    """Return the clients of the target; local jobs that still run at the end are stopped.

    Raises
    ------
    WorkflowError
        If no Docker engine answers.
    botocore.exceptions.BotoCoreError
        If there are no credentials, or no region.
    """
    if settings.is_local:
        from workflow.local.service import open_service  # noqa: PLC0415 - an account needs no Docker

        with open_service(settings.folder / settings.target, settings.region) as service:
            clients = Clients(
                service.sagemaker, service.runtime, service.logs, service.objects, LOCAL_POLL_SECONDS, 0.0
            )
            yield clients, local_account(settings)
        return
    session = boto3.Session(region_name=settings.region or None, profile_name=settings.profile)
    account = _aws_account(settings, session)
    clients = Clients(
        session.client("sagemaker"),
        session.client("sagemaker-runtime"),
        session.client("logs"),
        S3Objects(session.client("s3")),
        AWS_POLL_SECONDS,
        AWS_LOG_DELAY_SECONDS,
    )
    yield clients, account


def local_account(settings: Settings) -> Account:
    """Return what stands for an account on this machine."""
    return Account(
        region=settings.region or DEFAULT_REGION,
        number=ANY_ACCOUNT,
        bucket=settings.bucket or LOCAL_BUCKET,
        role=settings.role or ANY_ROLE,
        is_usual_bucket=True,
        image=settings.image or LOCAL_IMAGE,
    )


def imagined_account(settings: Settings) -> Account:
    """Return what stands for an account in a dry run, which asks nobody."""
    if settings.is_local:
        return local_account(settings)
    region = settings.region or DEFAULT_REGION
    return Account(
        region=region,
        number=ANY_ACCOUNT,
        bucket=settings.bucket or f"sagemaker-{region}-{ANY_ACCOUNT}",
        role=settings.role or ANY_ROLE,
        is_usual_bucket=not settings.bucket,
        image=settings.image or f"{ANY_ACCOUNT}.dkr.ecr.{region}.amazonaws.com/kmeans:latest",
    )


def _aws_account(settings: Settings, session: Any) -> Account:
    region = session.region_name
    if not region:  # STS would answer from anywhere
        raise NoRegionError
    number = session.client("sts").get_caller_identity()["Account"]
    bucket = settings.bucket or f"sagemaker-{region}-{number}"
    return Account(region, number, bucket, settings.role, not settings.bucket, settings.image)
