"""``python -m workflow.examples`` prints docs/requests.md: the output of ``--dry-run`` for every kind of job."""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
from dataclasses import dataclass

from workflow.__main__ import main

# These options make the output the same on every machine.
FIXED = "--target aws --region eu-west-1 --dry-run"

HEAD = """# The requests, printed

The output of `--dry-run` for every kind of job in an account. The keys are operations of SageMaker's API; the values
are arguments of boto3's methods, or of `aws sagemaker ... --cli-input-json`. Account, role and names are placeholders;
no account is needed. `python -m workflow.examples` writes this page. A test compares both, and another validates every
request against botocore's model of the services.
"""


@dataclass(frozen=True, slots=True)
class Example:
    """A title and the arguments of a command."""

    title: str
    command: str


EXAMPLES = (
    Example("Data", "data"),
    Example("Training", "train --job-name kmeans-digits-1"),
    Example(
        "Training on two spot instances, through pipes, with checkpoints",
        "train --job-name kmeans-digits-2 --instances 2 --input-mode Pipe --spot",
    ),
    Example(
        "Training with FastFile, every host on all data, without network",
        "train --job-name kmeans-digits-3 --instances 2 --input-mode FastFile --distribution FullyReplicated "
        "--network-isolation --hyperparameter epochs=2",
    ),
    Example("Tuning", "tune --job-name kmeans-digits-tuning --jobs 8 --at-a-time 2"),
    Example(
        "Hosting on an instance, with data capture",
        "deploy --endpoint-name kmeans-digits-endpoint --training-job kmeans-digits-1 --data-capture 10",
    ),
    Example(
        "Hosting without instances",
        "deploy --endpoint-name kmeans-digits-serverless --training-job kmeans-digits-1 --serverless 2048",
    ),
    Example("Hosting the models of all training jobs", "deploy --endpoint-name kmeans-digits-all --multi-model"),
    Example("Asking an endpoint", "validate --of endpoint"),
    Example(
        "Batch transform of CSV, joined with its input",
        "transform --job-name kmeans-digits-csv --training-job kmeans-digits-1",
    ),
    Example(
        "Batch transform of RecordIO-protobuf, record by record",
        "transform --job-name kmeans-digits-recordio --training-job kmeans-digits-1 --format recordio "
        "--strategy SingleRecord",
    ),
    Example("The image as an algorithm", "algorithm"),
)


def printed(command: str) -> str:
    """Return the output of a command in an account's dry run, before anything is created."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()) as out:
        if main([*command.split(), *FIXED.split(), "--folder", folder]):
            raise AssertionError(f"{command} can't be done")
    return out.getvalue()


def markdown() -> str:
    """Return the page."""
    sections = [
        f"## {example.title}\n\n```\n$ python -m workflow {example.command} {FIXED}\n{printed(example.command)}```\n"
        for example in EXAMPLES
    ]
    return "\n".join([HEAD, *sections])


if __name__ == "__main__":
    sys.stdout.write(markdown())
