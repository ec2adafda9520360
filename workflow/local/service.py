"""The service on this machine: what boto3's clients offer of it, as far as the workflow asks."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workflow.errors import WorkflowError
from workflow.local.engine import DOCKER_ERRORS, Engine, owner
from workflow.local.hosting import Hosting
from workflow.local.state import LogStreams, Registry, check, check_source, refusal
from workflow.local.training import TrainingJob
from workflow.local.transform import TransformJob
from workflow.objects import FolderObjects

# How long the end of a job is waited for when the program ends before it.
END_SECONDS = 150


class SageMaker:
    """Does what boto3's client ``sagemaker`` does: every request is checked by the same model first.

    Instance types, roles, disks, spot, VPCs, keys, tags and data capture have no meaning here and are passed over: of
    a spot job its checkpoints remain.
    """

    def __init__(
        self,
        folder: Path,
        *,
        objects: FolderObjects,
        registry: Registry,
        streams: LogStreams,
        docker: Engine,
        hosting: Hosting,
        region: str,
    ) -> None:
        self._folder = folder
        self._region = region
        self._parts: dict[str, Any] = {"objects": objects, "registry": registry, "streams": streams, "docker": docker}
        self._registry = registry
        self._docker = docker
        self._hosting = hosting
        self._jobs: dict[tuple[str, str], TrainingJob | TransformJob] = {}

    def create_training_job(self, **request: Any) -> dict[str, Any]:
        """Start a training job."""
        check("sagemaker", "CreateTrainingJob", request)
        algorithm = request["AlgorithmSpecification"]
        if "TrainingImage" not in algorithm or "InstanceCount" not in request.get("ResourceConfig", {}):
            message = "The local target needs AlgorithmSpecification.TrainingImage and ResourceConfig.InstanceCount."
            raise refusal("CreateTrainingJob", message)
        for channel in request.get("InputDataConfig", ()):
            check_source("CreateTrainingJob", channel)
        self._docker.require_image(algorithm["TrainingImage"])
        name = request["TrainingJobName"]
        arn, status = _arn("training-job", name), {"TrainingJobStatus": "InProgress", "SecondaryStatus": "Starting"}
        self._registry.add("CreateTrainingJob", "training-job", name, {"TrainingJobArn": arn, **request, **status})
        folder = self._folder / "jobs" / name
        self._start(TrainingJob(request, folder=folder, region=self._region, **self._parts), "training-job")
        return {"TrainingJobArn": arn}

    def describe_training_job(self, **request: Any) -> dict[str, Any]:
        """Return what is known of a training job."""
        check("sagemaker", "DescribeTrainingJob", request)
        name = request["TrainingJobName"]
        return self._describe("DescribeTrainingJob", "training-job", name, "TrainingJobStatus")

    def stop_training_job(self, **request: Any) -> dict[str, Any]:
        """Have a training job end with what it has."""
        check("sagemaker", "StopTrainingJob", request)
        self._stop("StopTrainingJob", "training-job", request["TrainingJobName"], "TrainingJobStatus")
        return {}

    def delete_training_job(self, **request: Any) -> dict[str, Any]:
        """Forget a training job that has ended."""
        check("sagemaker", "DeleteTrainingJob", request)
        self._forget("DeleteTrainingJob", "training-job", request["TrainingJobName"])
        return {}

    def create_model(self, **request: Any) -> dict[str, Any]:
        """Remember a model: an image and where its data lie."""
        check("sagemaker", "CreateModel", request)
        container = request.get("PrimaryContainer", {})
        if "Image" not in container or "ModelDataUrl" not in container:
            message = "The local target needs PrimaryContainer with Image and ModelDataUrl."
            raise refusal("CreateModel", message)
        self._registry.add("CreateModel", "model", request["ModelName"], request)
        return {"ModelArn": _arn("model", request["ModelName"])}

    def describe_model(self, **request: Any) -> dict[str, Any]:
        """Return a model's request."""
        check("sagemaker", "DescribeModel", request)
        return self._registry.get("DescribeModel", "model", request["ModelName"])

    def delete_model(self, **request: Any) -> dict[str, Any]:
        """Forget a model; its data stay."""
        check("sagemaker", "DeleteModel", request)
        self._registry.remove("DeleteModel", "model", request["ModelName"])
        return {}

    def create_endpoint_config(self, **request: Any) -> dict[str, Any]:
        """Remember an endpoint configuration."""
        check("sagemaker", "CreateEndpointConfig", request)
        for variant in request["ProductionVariants"]:
            self._registry.get("CreateEndpointConfig", "model", variant.get("ModelName", ""))
        self._registry.add("CreateEndpointConfig", "endpoint-config", request["EndpointConfigName"], request)
        return {"EndpointConfigArn": _arn("endpoint-config", request["EndpointConfigName"])}

    def describe_endpoint_config(self, **request: Any) -> dict[str, Any]:
        """Return a configuration's request."""
        check("sagemaker", "DescribeEndpointConfig", request)
        return self._registry.get("DescribeEndpointConfig", "endpoint-config", request["EndpointConfigName"])

    def delete_endpoint_config(self, **request: Any) -> dict[str, Any]:
        """Forget an endpoint configuration."""
        check("sagemaker", "DeleteEndpointConfig", request)
        self._registry.remove("DeleteEndpointConfig", "endpoint-config", request["EndpointConfigName"])
        return {}

    def create_endpoint(self, **request: Any) -> dict[str, Any]:
        """Start an endpoint; it lives on when this program ends."""
        check("sagemaker", "CreateEndpoint", request)
        return self._hosting.create(request)

    def describe_endpoint(self, **request: Any) -> dict[str, Any]:
        """Return what is known of an endpoint."""
        check("sagemaker", "DescribeEndpoint", request)
        return self._hosting.describe(request["EndpointName"])

    def delete_endpoint(self, **request: Any) -> dict[str, Any]:
        """Stop and remove an endpoint."""
        check("sagemaker", "DeleteEndpoint", request)
        self._hosting.delete(request["EndpointName"])
        return {}

    def create_transform_job(self, **request: Any) -> dict[str, Any]:
        """Start a batch transform."""
        check("sagemaker", "CreateTransformJob", request)
        check_source("CreateTransformJob", request["TransformInput"])
        model = self._registry.get("CreateTransformJob", "model", request["ModelName"])
        self._docker.require_image(model["PrimaryContainer"]["Image"])
        name = request["TransformJobName"]
        arn, status = _arn("transform-job", name), {"TransformJobStatus": "InProgress"}
        self._registry.add("CreateTransformJob", "transform-job", name, {"TransformJobArn": arn, **request, **status})
        folder = self._folder / "jobs" / name
        job = TransformJob(request, model["PrimaryContainer"], folder=folder, **self._parts)
        self._start(job, "transform-job")
        return {"TransformJobArn": arn}

    def describe_transform_job(self, **request: Any) -> dict[str, Any]:
        """Return what is known of a batch transform."""
        check("sagemaker", "DescribeTransformJob", request)
        name = request["TransformJobName"]
        return self._describe("DescribeTransformJob", "transform-job", name, "TransformJobStatus")

    def stop_transform_job(self, **request: Any) -> dict[str, Any]:
        """Have a batch transform end; its description stays, as SageMaker's does."""
        check("sagemaker", "StopTransformJob", request)
        self._stop("StopTransformJob", "transform-job", request["TransformJobName"], "TransformJobStatus")
        return {}

    def create_hyper_parameter_tuning_job(self, **request: Any) -> dict[str, Any]:
        """Refuse: nothing here searches."""
        check("sagemaker", "CreateHyperParameterTuningJob", request)
        raise WorkflowError(
            "The local target has no tuning jobs: run `train` with other values of --hyperparameter, or see the "
            "request with --dry-run."
        )

    def describe_hyper_parameter_tuning_job(self, **request: Any) -> dict[str, Any]:
        """Refuse: there is none."""
        operation = "DescribeHyperParameterTuningJob"
        check("sagemaker", operation, request)
        raise refusal(operation, f"Could not find {request['HyperParameterTuningJobName']!r}: they are in an account.")

    def create_algorithm(self, **request: Any) -> dict[str, Any]:
        """Refuse: there is no list of algorithms here."""
        check("sagemaker", "CreateAlgorithm", request)
        raise WorkflowError("The local target keeps no algorithms: see the request with --dry-run.")

    def close(self) -> None:
        """End the jobs that still run: their data go through this program."""
        running = [job for job in self._jobs.values() if job.is_alive()]
        for job in running:
            job.stop()
        for job in running:
            job.join(END_SECONDS)

    def _start(self, job: TrainingJob | TransformJob, kind: str) -> None:
        self._jobs[kind, job.job_name] = job
        job.start()

    def _describe(self, operation: str, kind: str, name: str, member: str) -> dict[str, Any]:
        description = self._registry.get(operation, kind, name)
        if (
            description[member] == "InProgress"
            and (kind, name) not in self._jobs
            and not self._docker.find(owner(kind, name))
        ):
            reason = "InternalServerError: the program that carried the job out ended before it."
            return self._registry.update(kind, name, **{member: "Failed", "FailureReason": reason})
        return description

    def _stop(self, operation: str, kind: str, name: str, member: str) -> None:
        description = self._describe(operation, kind, name, member)
        if (kind, name) not in self._jobs:
            # Of another program that was killed, or that will notice.
            self._docker.remove_all(owner(kind, name))
            shutil.rmtree(self._folder / "jobs" / name, ignore_errors=True)
        if description[member] != "InProgress":
            raise refusal(operation, f"The {kind} {name} has ended: it is {description[member]}.")
        if (kind, name) in self._jobs:
            self._jobs[kind, name].stop()

    def _forget(self, operation: str, kind: str, name: str) -> None:
        if (kind, name) in self._jobs:
            self._jobs[kind, name].join(END_SECONDS)
        self._docker.remove_all(owner(kind, name))
        shutil.rmtree(self._folder / "jobs" / name, ignore_errors=True)  # there if its program was killed
        self._registry.remove(operation, kind, name)


@dataclass(frozen=True)
class Service:
    """The clients ``sagemaker``, ``sagemaker-runtime`` and ``logs`` of this machine, and its S3."""

    sagemaker: SageMaker
    runtime: Hosting
    logs: LogStreams
    objects: FolderObjects


@contextmanager
def open_service(folder: Path, region: str) -> Iterator[Service]:
    """Return the service whose state lies in ``folder``; jobs that run at the end are stopped.

    Raises
    ------
    WorkflowError
        If no Docker engine answers, or it does no more.
    """
    docker = Engine(str(folder.resolve()))
    try:
        objects = FolderObjects(folder / "s3")
        registry = Registry(folder / "sagemaker")
        streams = LogStreams(folder / "logs")
        hosting = Hosting(folder / "endpoints", objects, registry, streams, docker)
        sagemaker = SageMaker(
            folder,
            objects=objects,
            registry=registry,
            streams=streams,
            docker=docker,
            hosting=hosting,
            region=region,
        )
        try:
            yield Service(sagemaker, hosting, streams, objects)
        except DOCKER_ERRORS as error:
            reason = " ".join(str(error).split())
            raise WorkflowError(f"Docker failed: see whether it still runs, then try again. ({reason})") from None
        finally:
            sagemaker.close()
    finally:
        docker.close()


def _arn(kind: str, name: str) -> str:
    return f"arn:aws:sagemaker:local:000000000000:{kind}/{name}"
