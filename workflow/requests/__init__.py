"""The requests to SageMaker: boto3's dictionaries, made by functions that send nothing.

This module imports nothing of ours: it is also used in environments that have the SDKs only.
"""

from __future__ import annotations

from typing import Any

# Kinds of the things that steps create, and their nouns in SageMaker's API: CreateModel, ModelName.
NOUNS = {
    "training-job": "TrainingJob",
    "tuning-job": "HyperParameterTuningJob",
    "transform-job": "TransformJob",
    "endpoint": "Endpoint",
    "endpoint-config": "EndpointConfig",
    "model": "Model",
    "algorithm": "Algorithm",
}

NUMBER = r"([-+0-9.eEinfa]+)"


def _quality(channel: str, metric: str) -> dict[str, str]:
    regex = rf"#quality_metric: host=\S+, {channel} {metric} <loss>={NUMBER}"
    return {"Name": f"{channel}:{metric}", "Regex": regex}


# Metrics that SageMaker reads from the log lines of a training job (``train.metrics`` writes them).
METRIC_DEFINITIONS: tuple[dict[str, str], ...] = (
    _quality("train", "msd"),
    _quality("train", "mean_squared_distance"),
    _quality("test", "msd"),
    _quality("test", "ssd"),
    {"Name": "train:progress", "Regex": rf"#progress_metric: host=\S+, completed {NUMBER} %"},
    {"Name": "train:throughput", "Regex": rf"#throughput_metric: host=\S+, train throughput={NUMBER} records/second"},
)


def metric_definitions() -> list[dict[str, Any]]:
    """Return the metrics as an AlgorithmSpecification needs them."""
    return [dict(definition) for definition in METRIC_DEFINITIONS]
