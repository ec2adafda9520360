"""CreateAlgorithm: what the image can be told and takes in, printed from its own tables."""

from __future__ import annotations

from typing import Any

from kmeans.formats.media_type import CSV, JSON, JSON_LINES, NPY, RECORDIO
from train import hyperparameters
from train.hyperparameters import Boolean, Choice, Hyperparameter, Integer, Real
from workflow.requests.metrics import TUNING_OBJECTIVE, metric_definitions
from workflow.requests.training import INPUT_MODES

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
