"""Warnings about the number of clusters of a model."""

from __future__ import annotations

import numpy as np

from kmeans.model import KMeansModel

# Clusters with fewer rows don't generalize; a warning reports more than this fraction of them.
FEW_ROWS, FEW_ROWS_FRACTION = 3, 0.01


def cluster_warnings(model: KMeansModel, mean_squared_distance: float | None) -> list[str]:
    """Return a sentence for each reason to doubt the model's number of clusters.

    Parameters
    ----------
    mean_squared_distance
        Loss of the rows that the model was fitted to; None if unknown.
    """
    if model.counts is None:
        return []
    warnings = []
    used = model.precise_centers[model.counts > 0]
    distinct = len(np.unique(used, axis=0)) if len(used) else 0
    if distinct < model.clusters:
        cause = ": the data have no more distinct rows" if mean_squared_distance == 0 else ""
        warnings.append(
            f"Only {distinct} of the {model.clusters} clusters are distinct and have rows{cause}. "
            f"Lower k to {distinct}."
        )
    small = int(np.count_nonzero(model.counts < FEW_ROWS)) - (model.clusters - len(used))
    if small > FEW_ROWS_FRACTION * model.clusters:
        warnings.append(
            f"{small} of the {model.clusters} clusters have fewer than {FEW_ROWS} rows, the median has "
            f"{int(np.median(model.counts))}: these rows are far from all others, or k is large for the data."
        )
    return warnings
