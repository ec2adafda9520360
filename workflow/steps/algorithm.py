"""The image as an algorithm of the account: its hyperparameters are then checked by SageMaker itself."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

from workflow.names import checked
from workflow.requests.algorithm import create_algorithm
from workflow.workspace import Workspace

HELP = "print or create the algorithm's specification: CreateAlgorithm (--target aws)"


def configure(parser: ArgumentParser) -> None:
    """Add its name."""
    parser.add_argument("--algorithm-name", help="(default: --name)")


def plan(work: Workspace, options: Namespace) -> dict[str, Any]:
    """Return CreateAlgorithm."""
    name = checked("--algorithm-name", options.algorithm_name or work.settings.name)
    return {"CreateAlgorithm": create_algorithm(name, image=work.image())}


def carry_out(work: Workspace, plan: dict[str, Any], options: Namespace) -> None:
    """Create the algorithm."""
    work.create("algorithm", "CreateAlgorithm", plan["CreateAlgorithm"], "AlgorithmName")
