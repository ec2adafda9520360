"""What a request holds, and what an answer says, whatever their formats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kmeans.arrays import Float32, Float64, Int64

# What a client may attach to an instance and gets back with its prediction: `id` in JSON, the others in RecordIO.
ID, UID, METADATA = "id", "uid", "metadata"


@dataclass(frozen=True, slots=True)
class Instances:
    """The points of a request.

    Attributes
    ----------
    points
        float32 (n, d).
    attached
        For each point what came with it (``id``, ``uid``, ``metadata``); None if nothing came with any.
    """

    points: Float32
    attached: Sequence[dict[str, Any]] | None = None


@dataclass(frozen=True, slots=True)
class Predictions:
    """The predictions of an answer.

    Attributes
    ----------
    labels
        Nearest center of each point, from 0: float64 as the built-in image gives them, or int64; (n,).
    distances
        Euclidean distance to it, float64 (n,).
    attached
        What came with each point.
    """

    labels: Float64 | Int64
    distances: Float64
    attached: Sequence[dict[str, Any]] | None = None

    def rows(self) -> Sequence[tuple[float | int, float, dict[str, Any]]]:
        """Return (label, distance, attached) of each point as Python's own types."""
        attached = self.attached or [{}] * len(self.labels)
        return list(zip(self.labels.tolist(), self.distances.tolist(), attached, strict=True))
