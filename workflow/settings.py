"""Settings that all steps share; names and numbers as options take them."""

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

# Placeholders on this machine and in a dry run, which ask no account.
ANY_ACCOUNT = "123456789012"
ANY_ROLE = f"arn:aws:iam::{ANY_ACCOUNT}:role/KMeansWorkflow"

# SageMaker's rule, which botocore's model doesn't contain. Names also become folders and prefixes of objects.
NAME = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9])*")
LONGEST, LONGEST_OF_TUNING = 63, 32

# With the time and SageMaker's suffixes appended, --name must fit into the limits above.
NAME_START = re.compile(r"[a-zA-Z0-9](-?[a-zA-Z0-9])*")
LONGEST_NAME = 16


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings that all steps share.

    Attributes
    ----------
    target
        ``local``: this machine's Docker, and folders instead of S3; ``aws``: SageMaker in an account.
    folder
        Contains the ledger and, with ``local``, the state of S3 and SageMaker.
    name
        Start of all names and of the objects' keys.
    region
        AWS region; with ``local`` only passed on to containers.
    profile
        AWS profile; None for the default one.
    bucket
        S3 bucket; None for SageMaker's default bucket, ``sagemaker-REGION-ACCOUNT``.
    role
        ARN of the role under which jobs and endpoints run; None if not given.
    image
        URI of the image; None for the one that the step ``image`` made.
    is_dry_run
        Whether requests are only printed.

    Raises WorkflowError if ``name`` is too long or has other characters than letters, digits and single hyphens.
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
        """Whether the target is this machine."""
        return self.target == LOCAL

    @property
    def ledger_file(self) -> Path:
        """File of the ledger."""
        return self.folder / self.target / "created.json"

    def fresh_name(self) -> str:
        """Return a name with the current time in seconds, which no earlier job has."""
        return f"{self.name}-{datetime.now(UTC):%y%m%d-%H%M%S}"


def region_of(given: str | None, environment: Mapping[str, str]) -> str | None:
    """Return the region that is given or that the environment names; None for the AWS profile's."""
    return given or environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION")


def is_name(text: str, longest: int = LONGEST) -> bool:
    """Return True if SageMaker accepts a name."""
    return NAME.fullmatch(text) is not None and len(text) <= longest


def checked(option: str, name: str, longest: int = LONGEST) -> str:
    """Return the name that ``option`` gave; raise WorkflowError if SageMaker would refuse it."""
    if not is_name(name, longest):
        raise WorkflowError(
            f"{option}: expected at most {longest} letters, digits and hyphens, neither the first nor the last of them "
            f"a hyphen, found {name!r}."
        )
    return name


def positive(text: str) -> int:
    """Return an option's integer of at least 1."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise ArgumentTypeError(f"expected an integer of at least 1, found {text!r}")
    return number


def percent(text: str) -> int:
    """Return an option's integer from 1 to 100."""
    number = positive(text)
    if number > 100:
        raise ArgumentTypeError(f"expected an integer from 1 to 100, found {text!r}")
    return number
