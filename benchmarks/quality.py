"""What all centers are judged by: the mean squared distance of all rows, by code that no method shares."""

from __future__ import annotations

import numpy as np

from kmeans.arrays import Float32

BLOCK_VALUES = 4 << 20


def mean_squared_distance(points: Float32, centers: Float32) -> float:
    """Return the mean over all rows of ``points`` of the squared distance to the nearest of ``centers``.

    Float32 only decides which center is nearest (where it errs, two are equally near to seven digits); the distance to
    that one and the sum are computed in float64.
    """
    norms = np.einsum("ij,ij->i", centers, centers)
    exact = centers.astype(np.float64)
    total = 0.0
    rows = max(1, BLOCK_VALUES // max(centers.shape))
    for first in range(0, len(points), rows):
        block = points[first : first + rows]
        labels = (norms - 2 * (block @ centers.T)).argmin(axis=1)
        differences = block - exact[labels]
        total += float(np.einsum("ij,ij->", differences, differences))
    return total / len(points)
