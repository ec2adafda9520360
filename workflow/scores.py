"""How well clusters match the true digits, and whether the answers are those of the model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kmeans.arrays import Float32
from kmeans.metric import EUCLIDEAN, Metric

# Float32 keeps seven digits; CSV and JSON keep them all.
TOLERANCE = 1e-4
BLOCK_ROWS = 1000


@dataclass(frozen=True, slots=True)
class Scores:
    """What the answers to n rows amount to.

    Attributes
    ----------
    rows
        n.
    purity
        Share of rows whose digit is the most frequent one of their cluster: 1 is perfect, and k = n always is.
    normalized_mutual_information
        0 if clusters tell nothing of the digits, 1 if they tell all; not flattered by many clusters as purity is.
    mean_squared_distance
        Mean of the squared distances in the answers; of a cosine model, mean of the distances.
    recomputed
        The same from the model and the rows, by the definition.
    wrong_labels, wrong_distances
        Answers that aren't the model's: a center that is farther than the nearest, another distance than to it.
    """

    rows: int
    purity: float
    normalized_mutual_information: float
    mean_squared_distance: float
    recomputed: float
    wrong_labels: int
    wrong_distances: int

    @property
    def agree(self) -> bool:
        """Whether all answers are the model's."""
        return not self.wrong_labels and not self.wrong_distances


def score(
    points: Float32,
    digits: NDArray[np.int64],
    centers: Float32,
    *,
    labels: NDArray[np.float64],
    distances: NDArray[np.float64],
    metric: Metric = EUCLIDEAN,
) -> Scores:
    """Compare answers with the model and with the true digits.

    Parameters
    ----------
    points
        Rows that were asked about, (n, d).
    digits
        What each shows, (n,).
    centers
        Of the model, (k, d).
    labels, distances
        The answers, (n,).
    metric
        Of the model.
    """
    from sklearn.metrics import normalized_mutual_info_score  # noqa: PLC0415 - takes a second
    from sklearn.metrics.cluster import contingency_matrix  # noqa: PLC0415

    points = metric.prepare(points)
    nearest = np.empty(len(points))
    answered = np.full(len(points), np.inf)
    clusters = len(centers)
    wide = centers.astype(np.float64)
    known = np.isin(labels, np.arange(clusters))
    chosen = np.where(known, labels, -1).astype(np.int64)
    for first in range(0, len(points), BLOCK_ROWS):
        rows = slice(first, first + BLOCK_ROWS)
        block = points[rows].astype(np.float64)
        lengths = np.stack([np.linalg.norm(block - center, axis=1) for center in wide], axis=1)
        table = metric.reported_distances(lengths.astype(np.float32)).astype(np.float64)
        nearest[rows] = table.min(axis=1)
        answered[rows] = np.where(known[rows], table[np.arange(len(block)), chosen[rows]], np.inf)
    # Two centers may be as near as float32 can tell: either is right.
    wrong_labels = ~(answered <= nearest * (1 + TOLERANCE) + TOLERANCE)
    wrong_distances = ~np.isclose(distances, nearest, rtol=TOLERANCE, atol=TOLERANCE)
    table = contingency_matrix(digits, chosen)
    return Scores(
        rows=len(points),
        purity=float(table.max(axis=0).sum() / table.sum()),
        normalized_mutual_information=float(normalized_mutual_info_score(digits, chosen)),
        mean_squared_distance=float(np.mean(metric.losses(distances))),
        recomputed=float(np.mean(metric.losses(nearest))),
        wrong_labels=int(wrong_labels.sum()),
        wrong_distances=int(wrong_distances.sum()),
    )
