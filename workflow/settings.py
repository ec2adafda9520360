"""Where a workflow runs and under which names; names and numbers as options take them."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from workflow.errors import WorkflowError

LOCAL, AWS = "local", "aws"
DEFAULT_FOLDER = Path(".workflow")
DEFAULT_NAME = "kmeans-digits"
DEFAULT_REGION = "us-east-1"
LOCAL_IMAGE = "kmeans:latest"

# Stand for what an account would say: on this machine, and in a dry run.
ANY_ACCOUNT = "123456789012"
ANY_ROLE = f"arn:aws:iam::{ANY_ACCOUNT}:role/KMeansWorkflow"

# With the time behind it, and what SageMaker adds to it, a name has at most 63 characters; of a tuning job 32.
NAME_START = re.compile(r"[a-zA-Z0-9](-?[a-zA-Z0-9])*")
LONGEST_NAME = 16


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings that all steps share.

    Attributes
    ----------
    target
        ``local``: this machine's Docker, and folders for S3; ``aws``: SageMaker in an account.
    folder
        Holds the record of what was created and, with ``local``, everything that S3 and SageMaker would hold.
    name
        What the names of all that is created begin with, and the objects' prefix.
    region
        AWS region; with ``local`` a mere name.
    profile
        AWS profile; None for the usual one.
    bucket
        S3 bucket; None for SageMaker's usual one, ``sagemaker-REGION-ACCOUNT``.
    role
        ARN of the role under which jobs and endpoints run; None if not given.
    image
        URI of the image; None for the one that the step ``image`` made.
    is_dry_run
        Whether requests are printed and nothing is asked, created or deleted.
    """

    target: str = LOCAL
    folder: Path = DEFAULT_FOLDER
    name: str = DEFAULT_NAME
    region: str = DEFAULT_REGION
    profile: str | None = None
    bucket: str | None = None
    role: str | None = None
    image: str | None = None
    is_dry_run: bool = False

    def __post_init__(self) -> None:
        if not NAME_START.fullmatch(self.name) or len(self.name) > LONGEST_NAME:
            raise WorkflowError(
                f"--name: expected at most {LONGEST_NAME} letters, digits and hyphens, found {self.name!r}."
            )

    @property
    def is_local(self) -> bool:
        """Whether all happens on this machine."""
        return self.target == LOCAL

    @property
    def ledger_file(self) -> Path:
        """Where it is kept what was created."""
        return self.folder / self.target / "created.json"

    def fresh_name(self, now: datetime | None = None) -> str:
        """Return a name that no earlier job had, in seconds' steps."""
        moment = now or datetime.now(UTC)
        return f"{self.name}-{moment:%y%m%d-%H%M%S}"


def region_of(given: str | None, environment: Mapping[str, str]) -> str | None:
    """Return the region that was given or that the environment names; None: what the AWS profile says."""
    return given or environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION")


# SageMaker's rule, which botocore's model leaves to the service. Names become folders and prefixes of objects here.
NAME = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9])*")
LONGEST, LONGEST_OF_TUNING = 63, 32


def is_name(text: str, longest: int = LONGEST) -> bool:
    """Tell whether SageMaker takes a name."""
    return NAME.fullmatch(text) is not None and len(text) <= longest


def checked(option: str, name: str, longest: int = LONGEST) -> str:
    """Return a name that ``option`` gave.

    Raises
    ------
    WorkflowError
        If SageMaker would refuse it.
    """
    if not is_name(name, longest):
        raise WorkflowError(
            f"{option}: expected at most {longest} letters, digits and hyphens, neither the first nor the last of them "
            f"a hyphen, found {name!r}."
        )
    return name


def positive(text: str) -> int:
    """Return an integer of at least 1."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise ArgumentTypeError(f"expected an integer of at least 1, found {text!r}")
    return number


def percent(text: str) -> int:
    """Return an integer from 1 to 100."""
    number = positive(text)
    if number > 100:
        raise ArgumentTypeError(f"expected an integer from 1 to 100, found {text!r}")
    return number
