"""Step 4 without an endpoint: a batch transform of the validation split."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

from kmeans.formats.media_type import CSV, JSON_LINES, RECORDIO
from workflow import dataset
from workflow.dataset import TEST, VALIDATION
from workflow.errors import WorkflowError
from workflow.names import checked
from workflow.numbers import positive
from workflow.requests.hosting import create_model
from workflow.requests.transform import DIGIT_AND_ANSWER, STRATEGIES, create_transform_job
from workflow.waiting import wait_for_transform
from workflow.workspace import Workspace

HELP = "ask for all validation rows at once: CreateModel, CreateTransformJob"

FORMATS = ("csv", "recordio")


def configure(parser: ArgumentParser) -> None:
    """Add what is transformed and how."""
    parser.add_argument("--training-job", help="whose model (default: the last training job's)")
    parser.add_argument("--job-name", help="name of the job and of its model (default: --name and the time)")
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default="csv",
        help="csv: rows whose first column, the true digit, passes the model by and is joined with its answer; "
        "recordio: the channel test, answers as JSON Lines (default: %(default)s)",
    )
    parser.add_argument("--strategy", choices=STRATEGIES, default="MultiRecord", help="(default: %(default)s)")
    parser.add_argument("--max-payload", type=positive, default=6, metavar="MB", help="(default: %(default)s)")
    parser.add_argument("--instance-type", default="ml.m5.large", help="(default: %(default)s; no meaning here)")
    parser.add_argument("--instances", type=positive, default=1, help="(default: %(default)s; here always one)")


def plan(work: Workspace, options: Namespace) -> dict[str, Any]:
    """Return CreateModel and CreateTransformJob.

    Raises
    ------
    WorkflowError
        If there are no data or no model.
    """
    name = checked("--job-name", options.job_name or f"{work.settings.fresh_name()}-t")
    data = work.data_uri()
    is_csv = options.format == "csv"
    model = create_model(name, image=work.image(), role=work.role, model_uri=work.model_uri(options.training_job))
    job = create_transform_job(
        name,
        model=name,
        input_uri=f"{data}/{VALIDATION if is_csv else TEST}/",
        output_uri=f"{work.prefix}/transforms/{name}",
        content_type=CSV if is_csv else RECORDIO,
        accept=CSV if is_csv else JSON_LINES,
        strategy=options.strategy,
        join=DIGIT_AND_ANSWER if is_csv else None,
        instance_type=options.instance_type,
        instances=options.instances,
        max_payload_mb=options.max_payload,
    )
    return {"CreateModel": model, "CreateTransformJob": job}


def carry_out(work: Workspace, plan: dict[str, Any], options: Namespace) -> None:
    """Create the model and the job, and wait for its end."""
    job = plan["CreateTransformJob"]
    name, output = job["TransformJobName"], job["TransformOutput"]["S3OutputPath"]
    model_uri = plan["CreateModel"]["PrimaryContainer"]["ModelDataUrl"]
    if not work.clients.objects.find(model_uri):
        raise WorkflowError(f"There is no model at {model_uri}: run `python -m workflow train` again, or wait for it.")
    dataset.describe(work.clients.objects, work.data_uri())
    work.create("model", "CreateModel", plan["CreateModel"], "ModelName")
    work.ledger.record("objects", output)
    details = {"model": model_uri, "output": output, "format": options.format}
    work.create("transform-job", "CreateTransformJob", job, "TransformJobName", **details)
    wait_for_transform(work.clients, name, work.say)
    for uri in work.clients.objects.find(f"{output}/"):
        work.say(f"answers: {uri}")
