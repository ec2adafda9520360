"""CreateTrainingJob."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from workflow.requests.metrics import metric_definitions

FULLY_REPLICATED, SHARDED = "FullyReplicated", "ShardedByS3Key"
INPUT_MODES = ("File", "FastFile", "Pipe")

# Where the image looks for its checkpoints if nothing else is said.
CHECKPOINTS = "/opt/ml/checkpoints"


@dataclass(frozen=True, slots=True)
class Channel:
    """A named source of training data.

    Attributes
    ----------
    name
        ``train``, ``test`` or ``model``.
    uri
        ``s3://bucket/prefix``: all objects whose keys begin so.
    content_type
        Media type of the objects; empty: the image tells it from the bytes.
    distribution
        Whether each host gets all objects (``FullyReplicated``) or a share of its own (``ShardedByS3Key``).
    """

    name: str
    uri: str
    content_type: str = ""
    distribution: str = FULLY_REPLICATED

    def request(self) -> dict[str, Any]:
        """Return an element of InputDataConfig."""
        source = {"S3DataType": "S3Prefix", "S3Uri": self.uri, "S3DataDistributionType": self.distribution}
        named = {"ContentType": self.content_type} if self.content_type else {}
        return {"ChannelName": self.name, "DataSource": {"S3DataSource": source}, **named}


@dataclass(frozen=True, slots=True)
class Instances:
    """The machines of a job.

    Attributes
    ----------
    kind
        Instance type, for example ``ml.c5.xlarge``.
    count
        How many of them.
    volume_gb
        Disk of each, in GB.
    """

    kind: str
    count: int = 1
    volume_gb: int = 10


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a job may take, in seconds; ``max_wait_seconds`` makes it a spot job, and counts the waiting too."""

    max_runtime_seconds: int = 3600
    max_wait_seconds: int | None = None

    @property
    def is_spot(self) -> bool:
        """Whether the job runs on spot instances, which are cheaper and may be taken back."""
        return self.max_wait_seconds is not None

    def request(self) -> dict[str, int]:
        """Return a StoppingCondition."""
        wait = {} if self.max_wait_seconds is None else {"MaxWaitTimeInSeconds": self.max_wait_seconds}
        return {"MaxRuntimeInSeconds": self.max_runtime_seconds, **wait}


def create_training_job(
    name: str,
    *,
    image: str,
    role: str,
    hyperparameters: Mapping[str, object],
    channels: Sequence[Channel],
    output_uri: str,
    instances: Instances,
    limits: Limits,
    input_mode: str = "File",
    checkpoints_uri: str | None = None,
    network_isolation: bool = False,
    environment: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return the request of a training job.

    Parameters
    ----------
    name
        At most 63 letters, digits and hyphens, unique in the account and region.
    image, role
        URI of the image; ARN of the role under which SageMaker reads and writes.
    hyperparameters
        Values of any type; sent as texts, as SageMaker wants them.
    output_uri
        The model will lie at ``<output_uri>/<name>/output/model.tar.gz``.
    checkpoints_uri
        Where the state of the fit is kept, so that a spot job can go on; None: nowhere.
    network_isolation
        Whether the container reaches nothing but the other hosts of its job; the image needs nothing else.
    """
    optional: dict[str, Any] = {}
    if checkpoints_uri is not None:
        optional["CheckpointConfig"] = {"S3Uri": checkpoints_uri, "LocalPath": CHECKPOINTS}
    if environment:
        optional["Environment"] = dict(environment)
    return {
        "TrainingJobName": name,
        **training_definition(
            image=image,
            role=role,
            channels=channels,
            output_uri=output_uri,
            instances=instances,
            limits=limits,
            input_mode=input_mode,
            network_isolation=network_isolation,
        ),
        "HyperParameters": {key: str(value) for key, value in hyperparameters.items()},
        **optional,
    }


def training_definition(
    *,
    image: str,
    role: str,
    channels: Sequence[Channel],
    output_uri: str,
    instances: Instances,
    limits: Limits,
    input_mode: str = "File",
    network_isolation: bool = False,
) -> dict[str, Any]:
    """Return what a training job and the jobs of a tuning job have in common; parameters as of a training job."""
    return {
        "AlgorithmSpecification": {
            "TrainingImage": image,
            "TrainingInputMode": input_mode,
            "MetricDefinitions": metric_definitions(),
        },
        "RoleArn": role,
        "InputDataConfig": [channel.request() for channel in channels],
        "OutputDataConfig": {"S3OutputPath": output_uri},
        "ResourceConfig": {
            "InstanceType": instances.kind,
            "InstanceCount": instances.count,
            "VolumeSizeInGB": instances.volume_gb,
        },
        "StoppingCondition": limits.request(),
        "EnableManagedSpotTraining": limits.is_spot,
        "EnableNetworkIsolation": network_isolation,
    }
