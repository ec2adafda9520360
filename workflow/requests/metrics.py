"""What SageMaker reads out of the lines that training logs (``train.metrics`` writes them)."""

from __future__ import annotations

from typing import Any

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
