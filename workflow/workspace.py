"""What every step works with: settings, the ledger, and the clients of the target."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import boto3
from botocore import xform_name
from botocore.exceptions import ClientError, NoRegionError, ParamValidationError

from workflow.errors import WorkflowError
from workflow.ledger import Ledger
from workflow.objects import Objects, S3Objects
from workflow.requests import NOUNS
from workflow.settings import ANY_ACCOUNT, ANY_ROLE, DEFAULT_REGION, LOCAL_IMAGE, Settings

# SageMaker's own SDK polls no more often; CloudWatch shows a line some seconds after it is written.
AWS_POLL_SECONDS = 5.0
AWS_LOG_DELAY_SECONDS = 5.0

LOCAL_BUCKET = "kmeans-local"

# Kind of a thing: the step that creates it.
STEPS_BY_KIND = {
    "data": "data",
    "image": "image",
    "training-job": "train",
    "model": "deploy",
    "endpoint": "deploy",
    "transform-job": "transform",
}


@dataclass(frozen=True)
class Clients:
    """The clients of a target.

    Attributes
    ----------
    sagemaker, runtime, logs
        boto3's clients ``sagemaker``, ``sagemaker-runtime`` and ``logs``, or their local replacements.
    objects
        S3, or the folder that replaces it.
    poll_seconds
        Time between two requests for a job's status.
    log_delay_seconds
        Time after a job's end until all its log lines are visible.
    """

    sagemaker: Any
    runtime: Any
    logs: Any
    objects: Objects
    poll_seconds: float
    log_delay_seconds: float


@dataclass(frozen=True, slots=True)
class Account:
    """The account of a target.

    Attributes
    ----------
    region, number, bucket
        AWS region, the account's 12 digits, and the bucket of all objects.
    role
        ARN of the role under which SageMaker works; None if none was given.
    is_usual_bucket
        Whether the bucket is SageMaker's default one, which may be created; one that a user names must exist.
    image
        Default image; None if there is none.
    """

    region: str
    number: str
    bucket: str
    role: str | None
    is_usual_bucket: bool
    image: str | None


def _print(line: str) -> None:
    print(line, flush=True)


@dataclass(frozen=True)
class Workspace:
    """What every step works with.

    Attributes
    ----------
    settings, ledger, account
        Settings of all steps, what they created, and the account.
    maybe_clients
        Clients of the target; None in a dry run.
    say
        Receives progress lines.
    """

    settings: Settings
    ledger: Ledger
    account: Account
    maybe_clients: Clients | None = None
    say: Callable[[str], None] = _print

    @property
    def clients(self) -> Clients:
        """Clients of the target."""
        if self.maybe_clients is None:
            raise AssertionError("a dry run sends no requests")
        return self.maybe_clients

    @property
    def prefix(self) -> str:
        """``s3://bucket/name``, the prefix of all objects that the workflow writes."""
        return f"s3://{self.account.bucket}/{self.settings.name}"

    @property
    def models_uri(self) -> str:
        """Prefix of the models, each of which is below its training job's name."""
        return f"{self.prefix}/models"

    @property
    def role(self) -> str:
        """ARN of the role under which SageMaker works; raises WorkflowError if none was given."""
        if self.account.role is None:
            raise WorkflowError(
                "There is no role under which SageMaker could work: name its ARN with --role or SAGEMAKER_ROLE."
            )
        return self.account.role

    def image(self) -> str:
        """Return the URI of the image, given or made by the step ``image``; raise WorkflowError if there is none."""
        made = self.ledger.latest("image")
        found = self.settings.image or (made.name if made else None) or self.account.image
        if found is None:
            raise WorkflowError("There is no image yet: run `python -m workflow image`, or name one with --image.")
        return found

    def required(self, kind: str, given: str | None = None) -> str:
        """Return the given name, else the name of the last thing of its kind, or a placeholder in a dry run.

        Raises WorkflowError if there is none; it names the step to run first.
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
        """Return the prefix of the data; errors are as of :meth:`required`."""
        if self.ledger.latest("data") is None and self.settings.is_dry_run:
            return f"{self.prefix}/data"
        return self.required("data")

    def model_uri(self, job: str | None = None) -> str:
        """Return the address of the model of a training job, by default of the last one with a model.

        Raises WorkflowError if there is no such job, or it has no model.
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

    def require_model(self, uri: str) -> None:
        """Raise WorkflowError if there is no object at a model's address."""
        if not self.clients.objects.find(uri):
            raise WorkflowError(f"There is no model at {uri}: run `python -m workflow train` again, or wait for it.")

    def create(self, kind: str, request: dict[str, Any], **details: str) -> None:
        """Record a thing with its details, then send the request that creates it."""
        operation, name = f"Create{NOUNS[kind]}", request[f"{NOUNS[kind]}Name"]
        before = self.ledger.record(kind, name, **details)
        self.say(f"{operation} {name}")
        try:
            self.call(operation, request)
        except (ClientError, ParamValidationError, WorkflowError):
            # The request was refused or not sent, so nothing was created; after any other error something may exist.
            # An earlier entry stays: the name may be refused because it is taken by a thing that we created.
            self.ledger.take_back(kind, name, before)
            raise

    def say_what_is_elsewhere(self) -> None:
        """Say a line for each other region or account with recorded things."""
        found = Counter((entry.region, entry.account) for entry in self.ledger.elsewhere())
        for (region, account), count in found.items():
            place = f"{region or 'an unknown region'}, account {account or 'unknown'}"
            self.say(f"{count} more in {place}: `--region {region}` with that account's credentials reaches them")

    def call(self, operation: str, request: dict[str, Any]) -> Any:
        """Send a request to SageMaker."""
        return getattr(self.clients.sagemaker, xform_name(operation))(**request)


@contextmanager
def open_workspace(settings: Settings, say: Callable[[str], None] = _print) -> Iterator[Workspace]:
    """Return the workspace of the settings; local jobs that still run at the end are stopped.

    Raises
    ------
    WorkflowError
        If the target is local and no Docker engine answers.
    botocore.exceptions.BotoCoreError
        If the target is an account, and there are no credentials or no region.
    """
    if settings.is_dry_run:
        # A dry run asks no account for its number.
        ledger = Ledger(settings.ledger_file, "" if settings.is_local else settings.region)
        yield Workspace(settings, ledger, _placeholder_account(settings), None, say)
        return
    if settings.is_local:
        from workflow.local.service import open_service  # noqa: PLC0415 - an account needs no Docker

        with open_service(settings.folder / settings.target, settings.region) as clients:
            # One ledger for all regions: they have no meaning on this machine.
            yield Workspace(settings, Ledger(settings.ledger_file), _placeholder_account(settings), clients, say)
        return
    session = boto3.Session(region_name=settings.region or None, profile_name=settings.profile)
    account = _aws_account(settings, session)
    sagemaker, runtime, logs, s3 = map(session.client, ("sagemaker", "sagemaker-runtime", "logs", "s3"))
    clients = Clients(sagemaker, runtime, logs, S3Objects(s3), AWS_POLL_SECONDS, AWS_LOG_DELAY_SECONDS)
    yield Workspace(settings, Ledger(settings.ledger_file, account.region, account.number), account, clients, say)


def _placeholder_account(settings: Settings) -> Account:
    """Return an account for this machine, or for a dry run."""
    region = settings.region or DEFAULT_REGION
    bucket, image = LOCAL_BUCKET, LOCAL_IMAGE
    if not settings.is_local:
        bucket = f"sagemaker-{region}-{ANY_ACCOUNT}"
        image = f"{ANY_ACCOUNT}.dkr.ecr.{region}.amazonaws.com/{LOCAL_IMAGE}"
    return Account(
        region=region,
        number=ANY_ACCOUNT,
        bucket=settings.bucket or bucket,
        role=settings.role or ANY_ROLE,
        is_usual_bucket=settings.is_local or not settings.bucket,
        image=settings.image or image,
    )


def _aws_account(settings: Settings, session: boto3.Session) -> Account:
    region = session.region_name
    if not region:  # STS answers without one
        raise NoRegionError
    number = session.client("sts").get_caller_identity()["Account"]
    bucket = settings.bucket or f"sagemaker-{region}-{number}"
    return Account(region, number, bucket, settings.role, not settings.bucket, settings.image)
