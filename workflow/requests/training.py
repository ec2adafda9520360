"""CreateTrainingJob, CreateHyperParameterTuningJob and CreateAlgorithm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kmeans.formats.media_type import NPY
from kmeans.formats.registry import FORMATS
from kmeans.ranges import LARGEST_INTEGER, Choice, Integer, Real
from train import hyperparameters as table
from train.hyperparameters import Boolean, Hyperparameter
from workflow.requests import metric_definitions

FULLY_REPLICATED, SHARDED = "FullyReplicated", "ShardedByS3Key"
INPUT_MODES = ("File", "FastFile", "Pipe")

# The image's default folder of checkpoints.
CHECKPOINTS = "/opt/ml/checkpoints"

TUNING_OBJECTIVE = "test:msd"

# With fixed k and data, the loss depends on these; the built-in image tunes the same.
RANGES: Mapping[str, list[dict[str, Any]]] = {
    "IntegerParameterRanges": [
        {"Name": "mini_batch_size", "MinValue": "1000", "MaxValue": "10000", "ScalingType": "Logarithmic"},
        {"Name": "extra_center_factor", "MinValue": "2", "MaxValue": "10", "ScalingType": "Linear"},
    ],
    "CategoricalParameterRanges": [{"Name": "init_method", "Values": ["random", "kmeans++"]}],
}


TRAINING_INSTANCES = ["ml.m5.large", "ml.m5.xlarge", "ml.c5.xlarge", "ml.c5.2xlarge", "ml.c5.4xlarge"]
HOSTING_INSTANCES = ["ml.t2.medium", "ml.m5.large", "ml.c5.large", "ml.c5.xlarge"]
TRANSFORM_INSTANCES = ["ml.m5.large", "ml.m5.xlarge", "ml.c5.xlarge"]

# The hyperparameters that affect the loss, without the Booleans.
TUNABLE = ("mini_batch_size", "epochs", "init_method", "local_lloyd_init_method", "local_lloyd_max_iter")

CHANNELS = {
    "train": ("Rows to train on.", True),
    "test": ("Rows to score the model on.", False),
    "model": ("A model to go on from.", False),
}


@dataclass(frozen=True, slots=True)
class Channel:
    """A named source of training data.

    Attributes
    ----------
    name
        ``train``, ``test`` or ``model``.
    uri
        ``s3://bucket/prefix``: all objects whose keys begin with the prefix.
    content_type
        Media type of the objects; if empty, the image detects it from the bytes.
    distribution
        Whether each host gets all objects (``FullyReplicated``) or its own fraction (``ShardedByS3Key``).
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
    """The machines of a job: instance type (for example ``ml.c5.xlarge``), number, and disk of each in GB."""

    kind: str
    count: int = 1
    volume_gb: int = 10


@dataclass(frozen=True, slots=True)
class Limits:
    """Maximum durations of a job in seconds; ``max_wait_seconds`` requests spot instances, and includes the waiting."""

    max_runtime_seconds: int = 3600
    max_wait_seconds: int | None = None

    def request(self) -> dict[str, int]:
        """Return a StoppingCondition."""
        wait = {} if self.max_wait_seconds is None else {"MaxWaitTimeInSeconds": self.max_wait_seconds}
        return {"MaxRuntimeInSeconds": self.max_runtime_seconds, **wait}


@dataclass(frozen=True, slots=True)
class TrainingDefinition:
    """The parts that a training job and the jobs of a tuning job have in common.

    Attributes
    ----------
    image, role
        URI of the image; ARN of the role under which SageMaker reads and writes.
    channels, instances, limits
        Data, machines and maximum durations.
    output_uri
        The model is written to ``<output_uri>/<job name>/output/model.tar.gz``.
    input_mode
        ``File``, ``FastFile`` or ``Pipe``.
    network_isolation
        Whether the container reaches only the other hosts of its job; the image needs no other network.
    """

    image: str
    role: str
    channels: Sequence[Channel]
    output_uri: str
    instances: Instances
    limits: Limits
    input_mode: str = "File"
    network_isolation: bool = False

    def request(self) -> dict[str, Any]:
        """Return a TrainingJobDefinition without hyperparameters."""
        return {
            "AlgorithmSpecification": {
                "TrainingImage": self.image,
                "TrainingInputMode": self.input_mode,
                "MetricDefinitions": metric_definitions(),
            },
            "RoleArn": self.role,
            "InputDataConfig": [channel.request() for channel in self.channels],
            "OutputDataConfig": {"S3OutputPath": self.output_uri},
            "ResourceConfig": {
                "InstanceType": self.instances.kind,
                "InstanceCount": self.instances.count,
                "VolumeSizeInGB": self.instances.volume_gb,
            },
            "StoppingCondition": self.limits.request(),
            "EnableManagedSpotTraining": self.limits.max_wait_seconds is not None,
            "EnableNetworkIsolation": self.network_isolation,
        }


def create_training_job(
    name: str,
    definition: TrainingDefinition,
    *,
    hyperparameters: Mapping[str, object],
    checkpoints_uri: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return the request of a training job.

    Parameters
    ----------
    name
        At most 63 letters, digits and hyphens, unique in the account and region.
    definition
        Image, data, machines and limits.
    hyperparameters
        Values of any type; sent as texts, as SageMaker requires.
    checkpoints_uri
        Address of the checkpoints, from which an interrupted spot job resumes; None for no checkpoints.
    environment
        Environment variables of the containers.
    """
    optional: dict[str, Any] = {}
    if checkpoints_uri is not None:
        optional["CheckpointConfig"] = {"S3Uri": checkpoints_uri, "LocalPath": CHECKPOINTS}
    if environment:
        optional["Environment"] = dict(environment)
    texts = {key: str(value) for key, value in hyperparameters.items()}
    return {"TrainingJobName": name, **definition.request(), "HyperParameters": texts, **optional}


def create_tuning_job(
    name: str,
    definition: TrainingDefinition,
    *,
    hyperparameters: Mapping[str, object],
    jobs: int,
    at_a_time: int,
) -> dict[str, Any]:
    """Return the request of ``jobs`` training jobs, of which the one with the smallest ``test:msd`` is the best.

    Parameters
    ----------
    name
        At most 32 letters, digits and hyphens.
    definition
        As of a training job, with the channel ``test``.
    hyperparameters
        The fixed ones, among them ``k``, which can't be tuned because the loss always decreases with k.
    jobs, at_a_time
        Number of training jobs, and how many run at the same time.
    """
    tuned = {row["Name"] for rows in RANGES.values() for row in rows}
    static = {key: str(value) for key, value in hyperparameters.items() if key not in tuned}
    return {
        "HyperParameterTuningJobName": name,
        "HyperParameterTuningJobConfig": {
            "Strategy": "Bayesian",
            "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": TUNING_OBJECTIVE},
            "ResourceLimits": {"MaxNumberOfTrainingJobs": jobs, "MaxParallelTrainingJobs": at_a_time},
            "ParameterRanges": {kind: [dict(row) for row in rows] for kind, rows in RANGES.items()},
            "TrainingJobEarlyStoppingType": "Off",
        },
        "TrainingJobDefinition": {**definition.request(), "StaticHyperParameters": static},
    }


def create_algorithm(name: str, *, image: str) -> dict[str, Any]:
    """Return the request that registers ``image`` as an algorithm whose hyperparameters SageMaker validates."""
    return {
        "AlgorithmName": name,
        "AlgorithmDescription": "k-means clustering, compatible with the built-in algorithm of SageMaker",
        "TrainingSpecification": {
            "TrainingImage": image,
            "SupportedHyperParameters": [_specification(row) for row in table.TABLE],
            "SupportedTrainingInstanceTypes": TRAINING_INSTANCES,
            "SupportsDistributedTraining": True,
            "MetricDefinitions": metric_definitions(),
            "TrainingChannels": [_channel(channel, *facts) for channel, facts in CHANNELS.items()],
            "SupportedTuningJobObjectiveMetrics": [{"Type": "Minimize", "MetricName": TUNING_OBJECTIVE}],
        },
        "InferenceSpecification": {
            "Containers": [{"Image": image}],
            "SupportedTransformInstanceTypes": TRANSFORM_INSTANCES,
            "SupportedRealtimeInferenceInstanceTypes": HOSTING_INSTANCES,
            "SupportedContentTypes": [form.media_type for form in FORMATS.of_requests()],
            "SupportedResponseMIMETypes": [form.media_type for form in FORMATS.of_responses()],
        },
    }


def _specification(row: Hyperparameter) -> dict[str, Any]:
    """Return a row of the table; SageMaker validates neither lists nor integers that may be ``auto``."""
    specification: dict[str, Any] = {
        "Name": row.name,
        "Description": row.meaning,
        "Type": "FreeText",
        "IsTunable": row.name in TUNABLE,
        "IsRequired": row.default is None,
    }
    if row.default is not None:
        specification["DefaultValue"] = row.default
    if isinstance(row.kind, Integer) and not row.kind.auto:
        limits = {"MinValue": str(row.kind.minimum), "MaxValue": str(LARGEST_INTEGER)}
        specification |= {"Type": "Integer", "Range": {"IntegerParameterRangeSpecification": limits}}
    elif isinstance(row.kind, Real):
        limits = {"MinValue": f"{row.kind.minimum:g}", "MaxValue": f"{row.kind.maximum:g}"}
        specification |= {"Type": "Continuous", "Range": {"ContinuousParameterRangeSpecification": limits}}
    elif isinstance(row.kind, Choice | Boolean):
        values = {"Values": list(row.kind.names) if isinstance(row.kind, Choice) else ["true", "false"]}
        specification |= {"Type": "Categorical", "Range": {"CategoricalParameterRangeSpecification": values}}
    return specification


def _channel(name: str, description: str, is_required: bool) -> dict[str, Any]:
    types = [form.media_type for form in FORMATS.of_training()]
    if name == "model":
        types = ["application/x-sagemaker-model", NPY]
    modes = ["File"] if name == "model" else list(INPUT_MODES)
    return {
        "Name": name,
        "Description": description,
        "IsRequired": is_required,
        "SupportedContentTypes": types,
        "SupportedCompressionTypes": ["None", "Gzip"],
        "SupportedInputModes": modes,
    }
