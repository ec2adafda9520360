"""Step 1: digits into S3, as RecordIO-protobuf for training, and as CSV with the true digits for validation."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from workflow import dataset
from workflow.numbers import positive
from workflow.objects import put_object
from workflow.workspace import Workspace

HELP = "write the digits to S3, or to the folder that stands for it"


def configure(parser: ArgumentParser) -> None:
    """Add where the digits come from."""
    parser.add_argument(
        "--mnist",
        type=Path,
        metavar="DIR",
        help="folder with the four IDX files of MNIST: 50,000 digits to train on, 10,000 to validate (default: "
        "scikit-learn's 1,797 small digits)",
    )
    parser.add_argument("--rows", type=positive, help="at most so many rows of either split, for a quick look")


def plan(work: Workspace, options: Namespace) -> dict[str, Any]:
    """Return the requests, without their bodies."""
    uri = f"{work.prefix}/data"
    return {"PutObject": [put_object(*part) for group in dataset.parts(uri).values() for part in group]}


def carry_out(work: Workspace, plan: dict[str, Any], options: Namespace) -> None:
    """Write the objects that the plan names."""
    uri = f"{work.prefix}/data"
    objects = work.clients.objects
    objects.require_bucket(work.account.bucket, create=work.account.is_usual_bucket)
    work.ledger.record("data", uri)
    written = dataset.write(objects, uri, options.mnist, options.rows)
    work.ledger.record("data", uri, features=str(written.features))
    for channel, group in dataset.parts(uri).items():
        work.say(f"{uri}/{channel}: {len(group)} object(s)")
    work.say(
        f"{written.train_rows} digits to train on and {written.validation_rows} to validate, {written.features} pixels "
        f"each, from {written.source}"
    )
