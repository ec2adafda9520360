"""CreateHyperParameterTuningJob."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workflow.requests.metrics import TUNING_OBJECTIVE

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
