"""The requests that stop or delete what was created."""

from __future__ import annotations

from typing import Any

# Kind of a thing: the operations that end it, in order, and the member that names it.
ENDINGS: dict[str, tuple[tuple[str, ...], str]] = {
    "endpoint": (("DeleteEndpoint",), "EndpointName"),
    "endpoint-config": (("DeleteEndpointConfig",), "EndpointConfigName"),
    "model": (("DeleteModel",), "ModelName"),
    "transform-job": (("StopTransformJob",), "TransformJobName"),
    "tuning-job": (("StopHyperParameterTuningJob", "DeleteHyperParameterTuningJob"), "HyperParameterTuningJobName"),
    "training-job": (("StopTrainingJob", "DeleteTrainingJob"), "TrainingJobName"),
    "algorithm": (("DeleteAlgorithm",), "AlgorithmName"),
}


def endings(kind: str, name: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the operations, each with its request, that stop and delete the thing ``name``."""
    operations, member = ENDINGS[kind]
    return [(operation, {member: name}) for operation in operations]
