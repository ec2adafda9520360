"""CreateTrainingJob, CreateHyperParameterTuningJob and CreateAlgorithm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kmeans.formats.media_type import CSV, JSON, JSON_LINES, NPY, RECORDIO
from train import hyperparameters
from train.hyperparameters import Boolean, Choice, Hyperparameter, Integer, Real

NUMBER = r"([-+0-9.eEinfa]+)"
TUNING_OBJECTIVE = "test:msd"


def _quality(channel: str, metric: str) -> dict[str, str]:
    regex = rf"#quality_metric: host=\S+, {channel} {metric} <loss>={NUMBER}"
    return {"Name": f"{channel}:{metric}", "Regex": regex}


METRIC_DEFINITIONS: tuple[dict[str, str], ...] = (
    _quality("train", "msd"),
    _quality("train", "mean_squared_distance"),
    _quality("test", "msd"),
    _quality("test", "ssd"),
    {"Name": "train:progress", "Regex": rf"#progress_metric: host=\S+, completed {NUMBER} %"},
    {"Name": "train:throughput", "Regex": rf"#throughput_metric: host=\S+, train throughput={NUMBER} records/second"},
)


def metric_definitions() -> list[dict[str, Any]]:
    """Return them as an AlgorithmSpecification has them."""
    return [dict(definition) for definition in METRIC_DEFINITIONS]


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


# With k and the data fixed, these are what the loss depends on; the built-in image tunes the same.
RANGES: Mapping[str, list[dict[str, Any]]] = {
    "IntegerParameterRanges": [
        {"Name": "mini_batch_size", "MinValue": "1000", "MaxValue": "10000", "ScalingType": "Logarithmic"},
        {"Name": "extra_center_factor", "MinValue": "2", "MaxValue": "10", "ScalingType": "Linear"},
    ],
    "CategoricalParameterRanges": [{"Name": "init_method", "Values": ["random", "kmeans++"]}],
}


def create_tuning_job(
    name: str,
    *,
    definition: Mapping[str, Any],
    hyperparameters: Mapping[str, object],
    jobs: int,
    at_a_time: int,
    strategy: str = "Bayesian",
) -> dict[str, Any]:
    """Return the request of a job that trains ``jobs`` times and keeps the model of the least ``test:msd``.

    Parameters
    ----------
    name
        At most 32 letters, digits and hyphens.
    definition
        As ``training_definition`` makes it; needs the channel ``test``.
    hyperparameters
        Those that stay as they are, ``k`` among them: the loss falls with k, so it can't be tuned by it.
    """
    tuned = {row["Name"] for rows in RANGES.values() for row in rows}
    static = {key: str(value) for key, value in hyperparameters.items() if key not in tuned}
    return {
        "HyperParameterTuningJobName": name,
        "HyperParameterTuningJobConfig": {
            "Strategy": strategy,
            "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": TUNING_OBJECTIVE},
            "ResourceLimits": {"MaxNumberOfTrainingJobs": jobs, "MaxParallelTrainingJobs": at_a_time},
            "ParameterRanges": {kind: [dict(row) for row in rows] for kind, rows in RANGES.items()},
            "TrainingJobEarlyStoppingType": "Off",
        },
        "TrainingJobDefinition": {**definition, "StaticHyperParameters": static},
    }


TRAINING_TYPES = [CSV, JSON_LINES, RECORDIO, NPY]
REQUEST_TYPES = [CSV, JSON, JSON_LINES, RECORDIO, NPY]
ANSWER_TYPES = [JSON, JSON_LINES, CSV, RECORDIO]

TRAINING_INSTANCES = ["ml.m5.large", "ml.m5.xlarge", "ml.c5.xlarge", "ml.c5.2xlarge", "ml.c5.4xlarge"]
HOSTING_INSTANCES = ["ml.t2.medium", "ml.m5.large", "ml.c5.large", "ml.c5.xlarge"]
TRANSFORM_INSTANCES = ["ml.m5.large", "ml.m5.xlarge", "ml.c5.xlarge"]

# Those that the loss depends on, and that are no yes-or-no of the job.
TUNABLE = ("mini_batch_size", "epochs", "init_method", "local_lloyd_init_method", "local_lloyd_max_iter")

CHANNELS = {
    "train": ("Rows to train on.", True),
    "test": ("Rows to score the model on.", False),
    "model": ("A model to go on from.", False),
}


def create_algorithm(name: str, *, image: str) -> dict[str, Any]:
    """Return the request that makes ``image`` an algorithm of the account, with checked hyperparameters."""
    return {
        "AlgorithmName": name,
        "AlgorithmDescription": "k-means clustering, compatible with the built-in algorithm of SageMaker",
        "TrainingSpecification": {
            "TrainingImage": image,
            "SupportedHyperParameters": [_specification(row) for row in hyperparameters.TABLE],
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
            "SupportedContentTypes": REQUEST_TYPES,
            "SupportedResponseMIMETypes": ANSWER_TYPES,
        },
    }


def _specification(row: Hyperparameter) -> dict[str, Any]:
    """Return a row of the table; what may also be ``auto``, and lists, can only be free text."""
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
        limits = {"MinValue": str(row.kind.minimum), "MaxValue": str(hyperparameters.LARGEST_INTEGER)}
        specification |= {"Type": "Integer", "Range": {"IntegerParameterRangeSpecification": limits}}
    elif isinstance(row.kind, Real):
        limits = {"MinValue": f"{row.kind.minimum:g}", "MaxValue": f"{row.kind.maximum:g}"}
        specification |= {"Type": "Continuous", "Range": {"ContinuousParameterRangeSpecification": limits}}
    elif isinstance(row.kind, Choice | Boolean):
        values = list(row.kind.names) if isinstance(row.kind, Choice) else ["true", "false"]
        specification |= {
            "Type": "Categorical",
            "Range": {"CategoricalParameterRangeSpecification": {"Values": values}},
        }
    return specification


def _channel(name: str, description: str, is_required: bool) -> dict[str, Any]:
    types = ["application/x-sagemaker-model", NPY] if name == "model" else TRAINING_TYPES
    modes = ["File"] if name == "model" else list(INPUT_MODES)
    return {
        "Name": name,
        "Description": description,
        "IsRequired": is_required,
        "SupportedContentTypes": types,
        "SupportedCompressionTypes": ["None", "Gzip"],
        "SupportedInputModes": modes,
    }
