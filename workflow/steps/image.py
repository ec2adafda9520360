"""Step 2: the image, built here, or built and pushed to ECR."""

from __future__ import annotations

import shutil
import subprocess
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from workflow.errors import WorkflowError
from workflow.settings import LOCAL_IMAGE
from workflow.workspace import Workspace

HELP = "build the image; with --target aws also push it to ECR"

PROJECT = Path(__file__).resolve().parents[2]


def configure(parser: ArgumentParser) -> None:
    """Add what to build."""
    parser.add_argument("--repository", default="kmeans", help="repository in ECR (default: %(default)s)")
    parser.add_argument("--skip-build", action="store_true", help="push the local image as it is")


def plan(work: Workspace, options: Namespace) -> dict[str, Any]:
    """Return the command."""
    if work.settings.is_local:
        return {"command": ["make", "image", f"IMAGE={work.settings.image or LOCAL_IMAGE}"]}
    command = ["./build_and_push.sh", "--region", work.account.region]
    if work.settings.profile:
        command += ["--profile", work.settings.profile]
    if options.skip_build:
        command.append("--skip-build")
    return {"command": [*command, options.repository]}


def carry_out(work: Workspace, plan: dict[str, Any], options: Namespace) -> None:
    """Run the command; the last line that it prints is the image."""
    command = plan["command"]
    work.say(f"+ {' '.join(command)}")
    # A path is one in the project, wherever this program was started.
    if shutil.which(PROJECT / command[0] if "/" in command[0] else command[0]) is None:
        raise WorkflowError(f"{command[0]} isn't there: run this step from a checkout, with make installed.")
    pipe = None if work.settings.is_local else subprocess.PIPE
    finished = subprocess.run(command, cwd=PROJECT, stdout=pipe, text=True, check=False)
    if finished.returncode:
        raise WorkflowError(f"{command[0]} ended with exit code {finished.returncode}; the reason is above.")
    made = work.settings.image or LOCAL_IMAGE
    if not work.settings.is_local:
        made = finished.stdout.strip().splitlines()[-1]
    work.ledger.record("image", made)
    work.say(f"image: {made}")
