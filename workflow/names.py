"""Names of jobs, models and endpoints: what SageMaker takes, said before a request is sent."""

from __future__ import annotations

import re

from workflow.errors import WorkflowError

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
