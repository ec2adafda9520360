"""What every step works with: settings, the record of what was created, and the clients of the target."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.exceptions import ClientError, NoRegionError, ParamValidationError

from workflow.errors import WorkflowError
from workflow.ledger import Ledger
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


# Kind of a thing: the step that creates it.
STEPS_BY_KIND = {
    "data": "data",
    "image": "image",
    "training-job": "train",
    "model": "deploy",
    "endpoint": "deploy",
    "transform-job": "transform",
}


def _print(line: str) -> None:
    print(line, flush=True)


@dataclass(frozen=True)
class Workspace:
    """The part of a step that isn't its own.

    Attributes
    ----------
    settings, ledger, account
        Where the step runs, what there is, and what belongs to whom.
    clients
        Those of the target; in a dry run there are none.
    say
        Takes the lines that tell how it goes.
    """

    settings: Settings
    ledger: Ledger
    account: Account
    maybe_clients: Clients | None = None
    say: Callable[[str], None] = _print

    @property
    def clients(self) -> Clients:
        """The clients of the target."""
        if self.maybe_clients is None:
            raise AssertionError("a dry run asks nobody")
        return self.maybe_clients

    @property
    def prefix(self) -> str:
        """``s3://bucket/name``: below it lies all that the workflow writes."""
        return f"s3://{self.account.bucket}/{self.settings.name}"

    @property
    def role(self) -> str:
        """The ARN of the role under which SageMaker works.

        Raises
        ------
        WorkflowError
            If none was given.
        """
        if self.account.role is None:
            raise WorkflowError(
                "There is no role under which SageMaker could work: name its ARN with --role or SAGEMAKER_ROLE."
            )
        return self.account.role

    def image(self) -> str:
        """Return the image's URI: the one that was given, or that the step ``image`` made.

        Raises
        ------
        WorkflowError
            If there is none.
        """
        made = self.ledger.latest("image")
        found = self.settings.image or (made.name if made else None) or self.account.image
        if found is None:
            raise WorkflowError("There is no image yet: run `python -m workflow image`, or name one with --image.")
        return found

    def required(self, kind: str, given: str | None = None) -> str:
        """Return the name of the thing to work on: the one that was given, else the last that was created.

        In a dry run a name stands for what isn't there yet.

        Raises
        ------
        WorkflowError
            If there is none; it names the step to run first.
        """
        if given:
            return given
        entry = self.ledger.latest(kind)
        if entry is not None:
            return entry.name
        if self.settings.is_dry_run:
            return f"{self.settings.name}-{kind}"
        raise WorkflowError(
            f"There is no {kind.replace('-', ' ')} yet: run "
            f"`python -m workflow {STEPS_BY_KIND[kind]} --target {self.settings.target}` first."
        )

    def data_uri(self) -> str:
        """Return where the data lie; errors are as of :meth:`required`."""
        if self.ledger.latest("data") is None and self.settings.is_dry_run:
            return f"{self.prefix}/data"
        return self.required("data")

    def model_uri(self, job: str | None = None) -> str:
        """Return where the model of a training job lies: of the one that was named, else of the last with one.

        Raises
        ------
        WorkflowError
            If there is no such job, or it has no model.
        """
        entries = [row for row in self.ledger.entries() if row.kind == "training-job" and job in (None, row.name)]
        with_model = [row.details["model"] for row in entries if row.details.get("model")]
        if with_model:
            return with_model[-1]
        name = self.required("training-job", job)
        if entries and not self.settings.is_dry_run:
            raise WorkflowError(
                f"The training job {name} has left no model: run `python -m workflow train --target "
                f"{self.settings.target}` again, or name another job with --training-job."
            )
        return f"{self.models_uri}/{name}/output/model.tar.gz"

    @property
    def models_uri(self) -> str:
        """Where training jobs leave their models, each below its name."""
        return f"{self.prefix}/models"

    def create(self, kind: str, operation: str, request: dict[str, Any], member: str, **details: str) -> None:
        """Send a request that creates something, which is recorded before."""
        name = request[member]
        before = self.ledger.record(kind, name, **details)
        self.say(f"{operation} {name}")
        try:
            self.call(operation, request)
        except (ClientError, ParamValidationError, WorkflowError):
            # Refused, or not even sent: nothing new is there. After any other error there may be. What was recorded
            # before stays: a name is refused, too, because it is that of a thing we made.
            self.ledger.take_back(kind, name, before)
            raise

    def say_what_is_elsewhere(self) -> None:
        """Say a line for each other region or account whose things are recorded, too."""
        found = Counter((entry.region, entry.account) for entry in self.ledger.elsewhere())
        for (region, account), count in found.items():
            place = f"{region or 'an unknown region'}, account {account or 'unknown'}"
            self.say(f"{count} more in {place}: `--region {region}` with that account's credentials reaches them")

    def call(self, operation: str, request: dict[str, Any]) -> Any:
        """Send a request to SageMaker."""
        return getattr(self.clients.sagemaker, _method(operation))(**request)


@contextmanager
def open_workspace(settings: Settings, say: Callable[[str], None] = _print) -> Iterator[Workspace]:
    """Return the workspace of the settings; in a dry run nobody is asked.

    Raises
    ------
    WorkflowError
        As :func:`workflow.workspace.open_clients`.
    """
    if settings.is_dry_run:
        # Whose account it would be is known to nobody who isn't asked.
        ledger = Ledger(settings.ledger_file, "" if settings.is_local else settings.region)
        yield Workspace(settings, ledger, imagined_account(settings), None, say)
        return
    with open_clients(settings) as (clients, account):
        # This machine is one place, whatever region is named.
        place = () if settings.is_local else (account.region, account.number)
        yield Workspace(settings, Ledger(settings.ledger_file, *place), account, clients, say)


def _method(operation: str) -> str:
    """Return boto3's name of an operation: ``create_training_job`` for ``CreateTrainingJob``."""
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in operation).lstrip("_")
