"""What every step works with: settings, the record of what was created, and the clients of the target."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError, ParamValidationError

from workflow.clients import Account, Clients, imagined_account, open_clients
from workflow.errors import WorkflowError
from workflow.ledger import Ledger
from workflow.settings import Settings

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
        As :func:`workflow.clients.open_clients`.
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
