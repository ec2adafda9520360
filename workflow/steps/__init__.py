"""The steps, each a module: ``configure`` its options, ``plan`` its requests, ``carry_out`` the plan.

What ``--dry-run`` prints is the plan, and it is the plan that is sent.
"""

from argparse import ArgumentParser, Namespace
from typing import Any, Protocol

from workflow.steps import algorithm, data, delete, deploy, image, listing, train, transform, tune, validate
from workflow.workspace import Workspace


class Step(Protocol):
    """What each of these modules has."""

    HELP: str

    def configure(self, parser: ArgumentParser) -> None:
        """Add the step's own options."""

    def plan(self, work: Workspace, options: Namespace) -> dict[str, Any]:
        """Return the requests by operation, or the command, without asking anybody."""

    def carry_out(self, work: Workspace, plan: dict[str, Any], options: Namespace) -> None:
        """Send the requests and wait for what they bring about."""


STEPS: dict[str, Step] = {
    "data": data,
    "image": image,
    "train": train,
    "tune": tune,
    "deploy": deploy,
    "transform": transform,
    "validate": validate,
    "list": listing,
    "delete": delete,
    "algorithm": algorithm,
}
