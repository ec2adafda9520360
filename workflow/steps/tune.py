"""A tuning job: the best of several training jobs (--target aws)."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

from workflow import dataset
from workflow.errors import WorkflowError
from workflow.names import LONGEST_OF_TUNING, checked
from workflow.numbers import positive
from workflow.requests.training import training_definition
from workflow.requests.tuning import create_tuning_job
from workflow.steps.train import add_definition_options, chosen_hyperparameters, definition
from workflow.waiting import wait_for_tuning
from workflow.workspace import Workspace

HELP = "search for hyperparameters: CreateHyperParameterTuningJob (--target aws)"


def configure(parser: ArgumentParser) -> None:
    """Add how many jobs there shall be."""
    add_definition_options(parser)
    parser.add_argument("--job-name", help="name of the tuning job, at most 32 characters (default: --name and time)")
    parser.add_argument("--jobs", type=positive, default=8, help="training jobs in all (default: %(default)s)")
    parser.add_argument("--at-a-time", type=positive, default=2, help="of these, at a time (default: %(default)s)")


def plan(work: Workspace, options: Namespace) -> dict[str, Any]:
    """Return CreateHyperParameterTuningJob, or what asks for a job that is there; errors are as of a training job."""
    if options.follow:
        name = checked("--follow", options.follow, LONGEST_OF_TUNING)
        return {"DescribeHyperParameterTuningJob": {"HyperParameterTuningJobName": name}}
    name = checked("--job-name", options.job_name or work.settings.fresh_name(), LONGEST_OF_TUNING)
    # Its training jobs have names that SageMaker makes up; in a folder of their own all their models are found.
    output = {"output_uri": f"{work.models_uri}/{name}"}
    request = create_tuning_job(
        name,
        definition=training_definition(**{**definition(work, options), **output}),
        hyperparameters=chosen_hyperparameters(work, options),
        jobs=options.jobs,
        at_a_time=options.at_a_time,
    )
    return {"CreateHyperParameterTuningJob": request}


def carry_out(work: Workspace, plan: dict[str, Any], options: Namespace) -> None:
    """Create the job, wait for its end, and remember its best training job as the last one.

    Raises
    ------
    WorkflowError
        If none of its training jobs has come to a good end.
    """
    if options.follow:
        _wait(work, options.follow)
        return
    request = plan["CreateHyperParameterTuningJob"]
    name = request["HyperParameterTuningJobName"]
    output = request["TrainingJobDefinition"]["OutputDataConfig"]["S3OutputPath"]
    work.clients.objects.require_bucket(work.account.bucket)
    dataset.describe(work.clients.objects, work.data_uri())
    work.ledger.record("objects", output)
    work.create("tuning-job", "CreateHyperParameterTuningJob", request, "HyperParameterTuningJobName")
    _wait(work, name)


def _wait(work: Workspace, name: str) -> None:
    job = wait_for_tuning(work.clients, name, work.say)
    best = job.get("BestTrainingJob")
    if best is None:
        raise WorkflowError(
            f"None of the training jobs of the tuning job {name} has come to a good end: see their logs in CloudWatch, "
            "or train once with `python -m workflow train`, which shows the reason."
        )
    output = job["TrainingJobDefinition"]["OutputDataConfig"]["S3OutputPath"].rstrip("/")
    job_name = best["TrainingJobName"]
    work.say(f"best: {job_name} with {best.get('TunedHyperParameters', {})}")
    if work.ledger.find("tuning-job", name):  # else it isn't ours, and we have only followed it
        work.ledger.record("training-job", job_name, model=f"{output}/{job_name}/output/model.tar.gz")
