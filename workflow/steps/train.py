"""Step 3: a training job; or a tuning job, which is the best of several training jobs."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from typing import Any

from kmeans.formats.media_type import RECORDIO
from train import hyperparameters
from workflow import dataset
from workflow.dataset import TEST, TRAIN, TRAIN_PARTS
from workflow.errors import JobFailedError, WorkflowError
from workflow.requests.training import (
    FULLY_REPLICATED,
    INPUT_MODES,
    SHARDED,
    Channel,
    Instances,
    Limits,
    TrainingDefinition,
    create_training_job,
    create_tuning_job,
)
from workflow.settings import LONGEST_OF_TUNING, checked, positive
from workflow.waiting import wait_for_training, wait_for_tuning
from workflow.workspace import Workspace


class Train:
    """Trains: creates a training job and waits for it."""

    help = "train: CreateTrainingJob, with progress and log"

    def configure(self, parser: ArgumentParser) -> None:
        """Add hyperparameters, instances, channels and limits."""
        _add_definition_options(parser)
        parser.add_argument("--job-name", help="name of the job (default: --name and the time)")
        parser.add_argument(
            "--checkpoints", action="store_true", help="keep the state of the fit in S3; --spot does so anyway"
        )
        parser.add_argument(
            "--no-wait",
            action="store_true",
            help="return when the job is created (--target aws); `list` shows how it is, --follow waits for it",
        )

    def plan(self, work: Workspace, options: Namespace) -> dict[str, Any]:
        """Return CreateTrainingJob, or DescribeTrainingJob for a job to follow.

        Raises WorkflowError if options contradict each other, or there are no data, and SettingError if hyperparameters
        are invalid.
        """
        if options.follow:
            return {"DescribeTrainingJob": {"TrainingJobName": checked("--follow", options.follow)}}
        if options.no_wait and work.settings.is_local:
            raise WorkflowError("--no-wait needs --target aws: a local job ends with the program that runs it.")
        name = checked("--job-name", options.job_name or work.settings.fresh_name())
        keeps = options.checkpoints or options.spot
        values = _hyperparameters(work, options)
        definition = _definition(work, options, work.models_uri)
        checkpoints_uri = f"{work.prefix}/checkpoints/{name}" if keeps else None
        request = create_training_job(name, definition, hyperparameters=values, checkpoints_uri=checkpoints_uri)
        return {"CreateTrainingJob": request}

    def carry_out(self, work: Workspace, plan: dict[str, Any], options: Namespace) -> None:
        """Create the job, and wait until it ends unless ``--no-wait`` is given."""
        if options.follow:
            _wait_for_training(work, options.follow)
            return
        request = plan["CreateTrainingJob"]
        name = request["TrainingJobName"]
        _require_data(work)
        if "CheckpointConfig" in request:
            work.ledger.record("objects", request["CheckpointConfig"]["S3Uri"])
        work.ledger.record("objects", f"{work.models_uri}/{name}")
        # The model's address is recorded even if this step doesn't wait; a later step checks that the object exists.
        work.create("training-job", request, model=f"{work.models_uri}/{name}/output/model.tar.gz")
        if not options.no_wait:
            _wait_for_training(work, name)


class Tune:
    """Searches hyperparameters: creates a tuning job and waits for it (--target aws)."""

    help = "search for hyperparameters: CreateHyperParameterTuningJob (--target aws)"

    def configure(self, parser: ArgumentParser) -> None:
        """Add the number of jobs to the options of training."""
        _add_definition_options(parser)
        text = "name of the tuning job, at most 32 characters (default: --name and time)"
        parser.add_argument("--job-name", help=text)
        parser.add_argument("--jobs", type=positive, default=8, help="training jobs in all (default: %(default)s)")
        parser.add_argument("--at-a-time", type=positive, default=2, help="of these, at a time (default: %(default)s)")

    def plan(self, work: Workspace, options: Namespace) -> dict[str, Any]:
        """Return the request that creates or describes the job; errors are as of a training job."""
        if options.follow:
            name = checked("--follow", options.follow, LONGEST_OF_TUNING)
            return {"DescribeHyperParameterTuningJob": {"HyperParameterTuningJobName": name}}
        name = checked("--job-name", options.job_name or work.settings.fresh_name(), LONGEST_OF_TUNING)
        request = create_tuning_job(
            name,
            # SageMaker chooses the names of the training jobs; a common prefix finds all their models.
            _definition(work, options, f"{work.models_uri}/{name}"),
            hyperparameters=_hyperparameters(work, options),
            jobs=options.jobs,
            at_a_time=options.at_a_time,
        )
        return {"CreateHyperParameterTuningJob": request}

    def carry_out(self, work: Workspace, plan: dict[str, Any], options: Namespace) -> None:
        """Create the job, wait until it ends, and record its best training job as the last one.

        Raises WorkflowError if none of its training jobs has completed.
        """
        if options.follow:
            _wait_for_tuning(work, options.follow)
            return
        request = plan["CreateHyperParameterTuningJob"]
        _require_data(work)
        work.ledger.record("objects", request["TrainingJobDefinition"]["OutputDataConfig"]["S3OutputPath"])
        work.create("tuning-job", request)
        _wait_for_tuning(work, request["HyperParameterTuningJobName"])


def _add_definition_options(parser: ArgumentParser) -> None:
    """Add the options that training and tuning jobs share."""
    parser.add_argument(
        "--follow", metavar="JOB", help="create nothing: wait for a job that was created before, as if this step had"
    )
    parser.add_argument("--k", type=positive, default=10, help="number of clusters (default: %(default)s)")
    parser.add_argument(
        "--hyperparameter",
        type=_assignment,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="any other hyperparameter of docs/training.md; may be repeated",
    )
    parser.add_argument("--instances", type=positive, default=1, help="number of hosts (default: %(default)s)")
    parser.add_argument("--instance-type", default="ml.c5.xlarge", help="(default: %(default)s; no meaning here)")
    parser.add_argument("--input-mode", choices=INPUT_MODES, default="File", help="(default: %(default)s)")
    parser.add_argument(
        "--distribution",
        choices=(FULLY_REPLICATED, SHARDED),
        help="of the channel train: every host gets all objects, or a share (default: a share if there are several)",
    )
    parser.add_argument("--spot", action="store_true", help="on spot instances: cheaper, may be interrupted")
    parser.add_argument("--max-runtime", type=positive, default=3600, metavar="SECONDS", help="(default: %(default)s)")
    parser.add_argument(
        "--max-wait", type=positive, metavar="SECONDS", help="with --spot: run time and waiting (default: twice that)"
    )
    parser.add_argument(
        "--network-isolation", action="store_true", help="the container reaches nothing but its job's other hosts"
    )


def _assignment(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise ArgumentTypeError(f"expected NAME=VALUE, found {text!r}")
    return name, value


def _hyperparameters(work: Workspace, options: Namespace) -> dict[str, str]:
    """Return the hyperparameters, validated by the image's table."""
    data = work.ledger.latest("data")
    width = {"feature_dim": data.details["features"]} if data and "features" in data.details else {}
    values = {"k": str(options.k), **width, **dict(options.hyperparameter)}
    hyperparameters.parse(values)
    return values


def _definition(work: Workspace, options: Namespace, output_uri: str) -> TrainingDefinition:
    """Return the options as a definition; raise WorkflowError if they contradict each other."""
    distribution = options.distribution or (SHARDED if options.instances > 1 else FULLY_REPLICATED)
    if distribution == SHARDED and options.instances > TRAIN_PARTS:
        raise WorkflowError(
            f"{options.instances} hosts can't share the {TRAIN_PARTS} objects of the channel {TRAIN}, some would be "
            f"without data: take at most {TRAIN_PARTS} --instances, or --distribution {FULLY_REPLICATED}."
        )
    if options.max_wait and not options.spot:
        raise WorkflowError("--max-wait needs --spot.")
    wait = (options.max_wait or 2 * options.max_runtime) if options.spot else None
    if wait is not None and wait < options.max_runtime:
        raise WorkflowError(f"--max-wait ({wait} s) must be at least --max-runtime ({options.max_runtime} s).")
    data = work.data_uri()
    train = Channel(TRAIN, f"{data}/{TRAIN}/", RECORDIO, distribution)
    return TrainingDefinition(
        image=work.image(),
        role=work.role,
        channels=[train, Channel(TEST, f"{data}/{TEST}/", RECORDIO)],
        output_uri=output_uri,
        instances=Instances(options.instance_type, options.instances),
        limits=Limits(options.max_runtime, wait),
        input_mode=options.input_mode,
        network_isolation=options.network_isolation,
    )


def _require_data(work: Workspace) -> None:
    work.clients.objects.require_bucket(work.account.bucket)
    dataset.describe(work.clients.objects, work.data_uri())


def _wait_for_training(work: Workspace, name: str) -> None:
    """Wait until a job ends, and say its metrics and the address of its model."""
    try:
        job = wait_for_training(work.clients, name, work.say)
    except JobFailedError:
        _record_no_model(work, name)
        raise
    for metric in job.get("FinalMetricDataList", ()):
        work.say(f"{metric['MetricName']} = {metric['Value']:g}")
    model = f"{job['OutputDataConfig']['S3OutputPath'].rstrip('/')}/{name}/output/model.tar.gz"
    if not work.clients.objects.find(model):
        _record_no_model(work, name)
        raise WorkflowError(f"The training job {name} was stopped before it had a model.")
    work.say(f"model: {model}")


def _record_no_model(work: Workspace, name: str) -> None:
    # A job that isn't recorded belongs to someone else: if it were recorded, `delete` would stop it.
    if work.ledger.find("training-job", name):
        work.ledger.record("training-job", name, model="")


def _wait_for_tuning(work: Workspace, name: str) -> None:
    """Wait until a tuning job ends, and record its best training job."""
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
    if work.ledger.find("tuning-job", name):  # a job that was only followed isn't ours
        work.ledger.record("training-job", job_name, model=f"{output}/{job_name}/output/model.tar.gz")
