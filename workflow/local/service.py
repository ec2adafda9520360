"""SageMaker on this machine: replaces boto3's clients for the operations that the workflow uses."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from workflow.errors import WorkflowError, one_line
from workflow.local.backend import Backend, arn, check, check_source, refusal
from workflow.local.engine import DOCKER_ERRORS, Engine, owner
from workflow.local.hosting import Hosting
from workflow.local.training import TrainingJob
from workflow.local.transform import TransformJob
from workflow.objects import FolderObjects
from workflow.requests import NOUNS
from workflow.workspace import Clients

POLL_SECONDS = 0.1

# Maximum wait for each job when the program ends before its jobs.
END_SECONDS = 150

KINDS = {noun: kind for kind, noun in NOUNS.items()}


class SageMaker:
    """Replaces boto3's client ``sagemaker``: validates every request as boto3 does, then carries it out.

    Instance types, roles, disks, spot, VPCs, keys, tags and data capture are ignored; a spot job keeps its checkpoints.
    """

    def __init__(self, backend: Backend, hosting: Hosting) -> None:
        self._backend = backend
        self._registry = backend.registry
        self._docker = backend.docker
        self._hosting = hosting
        self._jobs: dict[tuple[str, str], TrainingJob | TransformJob] = {}

    def create_training_job(self, **request: Any) -> dict[str, Any]:
        """Start a training job."""
        operation, kind, name = _checked("CreateTrainingJob", request)
        algorithm = request["AlgorithmSpecification"]
        if "TrainingImage" not in algorithm or "InstanceCount" not in request.get("ResourceConfig", {}):
            message = "The local target needs AlgorithmSpecification.TrainingImage and ResourceConfig.InstanceCount."
            raise refusal(operation, message)
        for channel in request.get("InputDataConfig", ()):
            check_source(operation, channel)
        self._docker.require_image(algorithm["TrainingImage"])
        status = {"TrainingJobStatus": "InProgress", "SecondaryStatus": "Starting"}
        self._registry.add(operation, kind, name, {"TrainingJobArn": arn(kind, name), **request, **status})
        return {"TrainingJobArn": self._start(TrainingJob(request, self._backend))}

    def describe_training_job(self, **request: Any) -> dict[str, Any]:
        """Return the description of a training job."""
        return self._describe(*_checked("DescribeTrainingJob", request))

    def stop_training_job(self, **request: Any) -> dict[str, Any]:
        """Stop a training job; it keeps the results it has."""
        return self._stop(*_checked("StopTrainingJob", request))

    def delete_training_job(self, **request: Any) -> dict[str, Any]:
        """Forget a training job that has ended."""
        operation, kind, name = _checked("DeleteTrainingJob", request)
        if (kind, name) in self._jobs:
            self._jobs[kind, name].join(END_SECONDS)
        self._remove_traces(kind, name)
        self._registry.remove(operation, kind, name)
        return {}

    def create_model(self, **request: Any) -> dict[str, Any]:
        """Register a model: an image and the address of its data."""
        operation, kind, name = _checked("CreateModel", request)
        container = request.get("PrimaryContainer", {})
        if "Image" not in container or "ModelDataUrl" not in container:
            raise refusal(operation, "The local target needs PrimaryContainer with Image and ModelDataUrl.")
        self._registry.add(operation, kind, name, request)
        return {"ModelArn": arn(kind, name)}

    def describe_model(self, **request: Any) -> dict[str, Any]:
        """Return the request of a model."""
        return self._registry.get(*_checked("DescribeModel", request))

    def delete_model(self, **request: Any) -> dict[str, Any]:
        """Forget a model; its data stay."""
        self._registry.remove(*_checked("DeleteModel", request))
        return {}

    def create_endpoint_config(self, **request: Any) -> dict[str, Any]:
        """Register an endpoint configuration."""
        operation, kind, name = _checked("CreateEndpointConfig", request)
        for variant in request["ProductionVariants"]:
            self._registry.get(operation, "model", variant.get("ModelName", ""))
        self._registry.add(operation, kind, name, request)
        return {"EndpointConfigArn": arn(kind, name)}

    def describe_endpoint_config(self, **request: Any) -> dict[str, Any]:
        """Return the request of an endpoint configuration."""
        return self._registry.get(*_checked("DescribeEndpointConfig", request))

    def delete_endpoint_config(self, **request: Any) -> dict[str, Any]:
        """Forget an endpoint configuration."""
        self._registry.remove(*_checked("DeleteEndpointConfig", request))
        return {}

    def create_endpoint(self, **request: Any) -> dict[str, Any]:
        """Start an endpoint, which continues after this program ends."""
        _checked("CreateEndpoint", request)
        return self._hosting.create(request)

    def describe_endpoint(self, **request: Any) -> dict[str, Any]:
        """Return the description of an endpoint."""
        return self._hosting.describe(_checked("DescribeEndpoint", request)[2])

    def delete_endpoint(self, **request: Any) -> dict[str, Any]:
        """Stop and remove an endpoint."""
        self._hosting.delete(_checked("DeleteEndpoint", request)[2])
        return {}

    def create_transform_job(self, **request: Any) -> dict[str, Any]:
        """Start a batch transform."""
        operation, kind, name = _checked("CreateTransformJob", request)
        check_source(operation, request["TransformInput"])
        container = self._registry.get(operation, "model", request["ModelName"])["PrimaryContainer"]
        self._docker.require_image(container["Image"])
        description = {"TransformJobArn": arn(kind, name), **request, "TransformJobStatus": "InProgress"}
        self._registry.add(operation, kind, name, description)
        return {"TransformJobArn": self._start(TransformJob(request, container, self._backend))}

    def describe_transform_job(self, **request: Any) -> dict[str, Any]:
        """Return the description of a batch transform."""
        return self._describe(*_checked("DescribeTransformJob", request))

    def stop_transform_job(self, **request: Any) -> dict[str, Any]:
        """Stop a batch transform; its description stays, as SageMaker's does."""
        return self._stop(*_checked("StopTransformJob", request))

    def create_hyper_parameter_tuning_job(self, **request: Any) -> dict[str, Any]:
        """Refuse, because the local target has no tuning jobs."""
        check("sagemaker", "CreateHyperParameterTuningJob", request)
        raise WorkflowError(
            "The local target has no tuning jobs: run `train` with other values of --hyperparameter, or see the "
            "request with --dry-run."
        )

    def describe_hyper_parameter_tuning_job(self, **request: Any) -> dict[str, Any]:
        """Refuse, because the local target has no tuning jobs."""
        operation, _, name = _checked("DescribeHyperParameterTuningJob", request)
        raise refusal(operation, f"Could not find {name!r}: they are in an account.")

    def create_algorithm(self, **request: Any) -> dict[str, Any]:
        """Refuse, because the local target keeps no algorithms."""
        check("sagemaker", "CreateAlgorithm", request)
        raise WorkflowError("The local target keeps no algorithms: see the request with --dry-run.")

    def close(self) -> None:
        """Stop the running jobs, whose data pass through this program."""
        running = [job for job in self._jobs.values() if job.is_alive()]
        for job in running:
            job.stop()
        for job in running:
            job.join(END_SECONDS)

    def _start(self, job: TrainingJob | TransformJob) -> str:
        """Start a job and return its ARN."""
        self._jobs[job.kind, job.job_name] = job
        job.start()
        return arn(job.kind, job.job_name)

    def _describe(self, operation: str, kind: str, name: str) -> dict[str, Any]:
        description = self._registry.get(operation, kind, name)
        status = f"{NOUNS[kind]}Status"
        is_ours = (kind, name) in self._jobs
        if description[status] == "InProgress" and not is_ours and not self._docker.find(owner(kind, name)):
            reason = "InternalServerError: the program that carried the job out ended before it."
            return self._registry.update(kind, name, **{status: "Failed", "FailureReason": reason})
        return description

    def _stop(self, operation: str, kind: str, name: str) -> dict[str, Any]:
        status = self._describe(operation, kind, name)[f"{NOUNS[kind]}Status"]
        job = self._jobs.get((kind, name))
        if job is None:  # its program was killed, or notices that its containers are gone
            self._remove_traces(kind, name)
        if status != "InProgress":
            raise refusal(operation, f"The {kind} {name} has ended: it is {status}.")
        if job is not None:
            job.stop()
        return {}

    def _remove_traces(self, kind: str, name: str) -> None:
        """Remove the containers and files that a job leaves if its program is killed."""
        self._docker.remove_all(owner(kind, name))
        shutil.rmtree(self._backend.job_folder(name), ignore_errors=True)


@contextmanager
def open_service(folder: Path, region: str) -> Iterator[Clients]:
    """Return the clients of the service whose state is in ``folder``; jobs that run at the end are stopped.

    Raises WorkflowError if no Docker engine answers, or it stops answering.
    """
    docker = Engine(str(folder.resolve()))
    try:
        backend = Backend(folder, region, FolderObjects(folder / "s3"), docker)
        hosting = Hosting(backend)
        sagemaker = SageMaker(backend, hosting)
        try:
            yield Clients(sagemaker, hosting, backend.streams, backend.objects, POLL_SECONDS, 0.0)
        except DOCKER_ERRORS as error:
            message = f"Docker failed: see whether it still runs, then try again. ({one_line(error)})"
            raise WorkflowError(message) from None
        finally:
            sagemaker.close()
    finally:
        docker.close()


def _checked(operation: str, request: dict[str, Any]) -> tuple[str, str, str]:
    """Validate a request; return its operation, and the kind and name of the thing it is about."""
    check("sagemaker", operation, request)
    noun = re.sub("^(Create|Describe|Stop|Delete)", "", operation)
    return operation, KINDS[noun], request[f"{noun}Name"]
