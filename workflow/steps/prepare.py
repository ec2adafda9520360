"""Steps 1 and 2: the digits in S3, and the image; also the image as an algorithm of the account."""

from __future__ import annotations

import shutil
import subprocess
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from workflow import dataset
from workflow.errors import WorkflowError
from workflow.objects import put_object
from workflow.requests.training import create_algorithm
from workflow.settings import LOCAL_IMAGE, checked, positive
from workflow.workspace import Workspace

PROJECT = Path(__file__).resolve().parents[2]


class Data:
    """Writes digits to S3, as RecordIO-protobuf for training, and as CSV with the true digits for validation."""

    help = "write the digits to S3, or to the folder that stands for it"

    def configure(self, parser: ArgumentParser) -> None:
        """Add the source of the digits and their number."""
        parser.add_argument(
            "--mnist",
            type=Path,
            metavar="DIR",
            help="folder with the four IDX files of MNIST: 50,000 digits to train on, 10,000 to validate (default: "
            "scikit-learn's 1,797 small digits)",
        )
        parser.add_argument("--rows", type=positive, help="at most so many rows of either split, for a quick look")

    def plan(self, work: Workspace, options: Namespace) -> dict[str, Any]:
        """Return the requests, without their bodies."""
        uri = f"{work.prefix}/data"
        return {"PutObject": [put_object(*part) for group in dataset.parts(uri).values() for part in group]}

    def carry_out(self, work: Workspace, plan: dict[str, Any], options: Namespace) -> None:
        """Write the objects."""
        uri = f"{work.prefix}/data"
        objects = work.clients.objects
        objects.require_bucket(work.account.bucket, create=work.account.is_usual_bucket)
        work.ledger.record("data", uri)
        written = dataset.write(objects, uri, options.mnist, options.rows)
        work.ledger.record("data", uri, features=str(written.features))
        for channel, group in dataset.parts(uri).items():
            work.say(f"{uri}/{channel}: {len(group)} object(s)")
        work.say(
            f"{written.train_rows} digits to train on and {written.validation_rows} to validate, "
            f"{written.features} pixels each, from {written.source}"
        )


class Image:
    """Builds the image with make; for an account, build_and_push.sh also pushes it to ECR."""

    help = "build the image; with --target aws also push it to ECR"

    def configure(self, parser: ArgumentParser) -> None:
        """Add the repository."""
        parser.add_argument("--repository", default="kmeans", help="repository in ECR (default: %(default)s)")
        parser.add_argument("--skip-build", action="store_true", help="push the local image as it is")

    def plan(self, work: Workspace, options: Namespace) -> dict[str, Any]:
        """Return the command."""
        if work.settings.is_local:
            return {"command": ["make", "image", f"IMAGE={work.settings.image or LOCAL_IMAGE}"]}
        command = ["./build_and_push.sh", "--region", work.account.region]
        if work.settings.profile:
            command += ["--profile", work.settings.profile]
        if options.skip_build:
            command.append("--skip-build")
        return {"command": [*command, options.repository]}

    def carry_out(self, work: Workspace, plan: dict[str, Any], options: Namespace) -> None:
        """Run the command; the last line that the script prints is the image.

        Raises WorkflowError if the command is missing or fails.
        """
        command = plan["command"]
        work.say(f"+ {' '.join(command)}")
        # A path is relative to the project, not to the working directory.
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


class Algorithm:
    """Registers the image as an algorithm of the account, so that SageMaker validates hyperparameters."""

    help = "print or create the algorithm's specification: CreateAlgorithm (--target aws)"

    def configure(self, parser: ArgumentParser) -> None:
        """Add the name."""
        parser.add_argument("--algorithm-name", help="(default: --name)")

    def plan(self, work: Workspace, options: Namespace) -> dict[str, Any]:
        """Return CreateAlgorithm."""
        name = checked("--algorithm-name", options.algorithm_name or work.settings.name)
        return {"CreateAlgorithm": create_algorithm(name, image=work.image())}

    def carry_out(self, work: Workspace, plan: dict[str, Any], options: Namespace) -> None:
        """Create the algorithm."""
        work.create("algorithm", plan["CreateAlgorithm"])
