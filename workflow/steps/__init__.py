"""The steps, each a class: ``configure`` its options, ``plan`` its requests, ``carry_out`` the plan.

``--dry-run`` prints the plan; without it the plan is sent.
"""

from argparse import ArgumentParser, Namespace
from typing import Any, Protocol

from workflow.steps.deploy import Deploy, Transform
from workflow.steps.inventory import Delete, List
from workflow.steps.prepare import Algorithm, Data, Image
from workflow.steps.train import Train, Tune
from workflow.steps.validate import Validate
from workflow.workspace import Workspace


class Step(Protocol):
    """A step of the workflow."""

    help: str

    def configure(self, parser: ArgumentParser) -> None:
        """Add the step's options."""

    def plan(self, work: Workspace, options: Namespace) -> dict[str, Any]:
        """Return the requests by operation, or the command, without sending anything."""

    def carry_out(self, work: Workspace, plan: dict[str, Any], options: Namespace) -> None:
        """Send the requests and wait for their results."""


STEPS: dict[str, Step] = {
    "data": Data(),
    "image": Image(),
    "train": Train(),
    "tune": Tune(),
    "deploy": Deploy(),
    "transform": Transform(),
    "validate": Validate(),
    "list": List(),
    "delete": Delete(),
    "algorithm": Algorithm(),
}
