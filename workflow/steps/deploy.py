"""Step 4: an endpoint, or a batch transform of the validation split."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

from kmeans.formats.media_type import CSV, JSON_LINES, RECORDIO
from workflow import dataset
from workflow.dataset import TEST, VALIDATION
from workflow.errors import WorkflowError
from workflow.requests.inference import (
    DIGIT_AND_ANSWER,
    STRATEGIES,
    TransformData,
    create_endpoint,
    create_endpoint_config,
    create_model,
    create_transform_job,
    instance_variant,
    serverless_variant,
)
from workflow.requests.training import Instances
from workflow.settings import checked, percent, positive
from workflow.waiting import wait_for_endpoint, wait_for_transform
from workflow.workspace import Workspace

MEMORY_SIZES = (1024, 2048, 3072, 4096, 5120, 6144)
FORMATS = ("csv", "recordio")


class Deploy:
    """Hosts a model: creates the model, an endpoint configuration and an endpoint."""

    help = "host the model: CreateModel, CreateEndpointConfig, CreateEndpoint"

    def configure(self, parser: ArgumentParser) -> None:
        """Add the model and the capacity of the endpoint."""
        parser.add_argument("--training-job", help="whose model (default: the last training job's)")
        parser.add_argument("--endpoint-name", help="(default: --name and the time)")
        parser.add_argument("--instance-type", default="ml.t2.medium", help="(default: %(default)s; no meaning here)")
        parser.add_argument("--instances", type=positive, default=1, help="(default: %(default)s; here always one)")
        parser.add_argument(
            "--serverless",
            type=int,
            choices=MEMORY_SIZES,
            metavar="MB",
            help=f"without instances, with so much memory: {', '.join(map(str, MEMORY_SIZES))}",
        )
        parser.add_argument(
            "--max-concurrency", type=positive, default=5, help="with --serverless (default: %(default)s)"
        )
        text = "one endpoint for the models of all training jobs of the workflow"
        parser.add_argument("--multi-model", action="store_true", help=text)
        parser.add_argument(
            "--data-capture", type=percent, metavar="PERCENT", help="keep so many requests and answers in S3 (aws)"
        )
        parser.add_argument("--network-isolation", action="store_true", help="the container reaches nothing (aws)")

    def plan(self, work: Workspace, options: Namespace) -> dict[str, Any]:
        """Return CreateModel, CreateEndpointConfig and CreateEndpoint.

        Raises WorkflowError if there is no model, or options contradict each other.
        """
        # SageMaker offers none of these without instances.
        for option in ("data_capture", "multi_model", "network_isolation"):
            if options.serverless and getattr(options, option):
                raise WorkflowError(f"--{option.replace('_', '-')} needs instances: leave out --serverless.")
        name = checked("--endpoint-name", options.endpoint_name or work.settings.fresh_name())
        model = create_model(
            name,
            image=work.image(),
            role=work.role,
            model_uri=f"{work.models_uri}/" if options.multi_model else work.model_uri(options.training_job),
            multi_model=options.multi_model,
            network_isolation=options.network_isolation,
            # A serverless endpoint has less than one CPU for each request.
            environment={"SAGEMAKER_MODEL_SERVER_WORKERS": "1"} if options.serverless else None,
        )
        if options.serverless:
            variant = serverless_variant(name, options.serverless, options.max_concurrency)
        else:
            variant = instance_variant(name, options.instance_type, options.instances)
        capture_uri = f"{work.prefix}/capture/{name}" if options.data_capture else None
        config = create_endpoint_config(
            name, variant=variant, capture_uri=capture_uri, capture_percent=options.data_capture or 100
        )
        return {
            "CreateModel": model,
            "CreateEndpointConfig": config,
            "CreateEndpoint": create_endpoint(name, name),
        }

    def carry_out(self, work: Workspace, plan: dict[str, Any], options: Namespace) -> None:
        """Create the three, and wait until the endpoint is in service."""
        # The step validate invokes a multi-model endpoint with this model.
        model_uri = work.model_uri(options.training_job)
        target = {"target_model": model_uri.removeprefix(f"{work.models_uri}/")} if options.multi_model else {}
        work.require_model(model_uri)
        work.create("model", plan["CreateModel"])
        if "DataCaptureConfig" in plan["CreateEndpointConfig"]:
            work.ledger.record("objects", plan["CreateEndpointConfig"]["DataCaptureConfig"]["DestinationS3Uri"])
        work.create("endpoint-config", plan["CreateEndpointConfig"])
        work.create("endpoint", plan["CreateEndpoint"], model=model_uri, **target)
        wait_for_endpoint(work.clients, plan["CreateEndpoint"]["EndpointName"], work.say)
        if not work.settings.is_local and not options.serverless:
            work.say("The endpoint costs by the hour until `python -m workflow delete`.")


class Transform:
    """Predicts all validation rows in one batch: creates the model and a transform job."""

    help = "ask for all validation rows at once: CreateModel, CreateTransformJob"

    def configure(self, parser: ArgumentParser) -> None:
        """Add the model, the format and the capacity of the job."""
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

    def plan(self, work: Workspace, options: Namespace) -> dict[str, Any]:
        """Return CreateModel and CreateTransformJob.

        Raises WorkflowError if there are no data or no model.
        """
        name = checked("--job-name", options.job_name or f"{work.settings.fresh_name()}-t")
        uri, output_uri = work.data_uri(), f"{work.prefix}/transforms/{name}"
        if options.format == "csv":
            data = TransformData(f"{uri}/{VALIDATION}/", output_uri, CSV, CSV, DIGIT_AND_ANSWER)
        else:
            data = TransformData(f"{uri}/{TEST}/", output_uri, RECORDIO, JSON_LINES)
        model = create_model(name, image=work.image(), role=work.role, model_uri=work.model_uri(options.training_job))
        job = create_transform_job(
            name,
            data,
            model=name,
            strategy=options.strategy,
            instances=Instances(options.instance_type, options.instances),
            max_payload_mb=options.max_payload,
        )
        return {"CreateModel": model, "CreateTransformJob": job}

    def carry_out(self, work: Workspace, plan: dict[str, Any], options: Namespace) -> None:
        """Create the model and the job, and wait until the job ends."""
        job = plan["CreateTransformJob"]
        output, model_uri = (
            job["TransformOutput"]["S3OutputPath"],
            plan["CreateModel"]["PrimaryContainer"]["ModelDataUrl"],
        )
        work.require_model(model_uri)
        dataset.describe(work.clients.objects, work.data_uri())
        work.create("model", plan["CreateModel"])
        work.ledger.record("objects", output)
        work.create("transform-job", job, model=model_uri, output=output, format=options.format)
        wait_for_transform(work.clients, job["TransformJobName"], work.say)
        for uri in work.clients.objects.find(f"{output}/"):
            work.say(f"answers: {uri}")
