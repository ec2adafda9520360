"""Draw a few thousand weighted rows that represent all rows.

The probability of a row is half its fraction of the rows plus half its fraction of the loss, and its weight is the
inverse (O. Bachem, M. Lucic and A. Krause, "Scalable k-means clustering via lightweight coresets", KDD 2018; the
distances here are those to rough centers, not to the mean). So a cluster of five rows in a hundred thousand is drawn
completely, with weights of 1.
"""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from kmeans.arrays import Float32, Float64
from kmeans.collectives import Collectives
from kmeans.dataset import MemoryRows
from kmeans.distance import NearestCenters
from kmeans.sums import query_rows
from kmeans.threads import ThreadPool


def draw_coreset(
    rows: MemoryRows, centers: Float32, size: int, generator: Generator, *, pool: ThreadPool, hosts: Collectives
) -> tuple[Float32, Float64]:
    """Return about ``size`` rows (m, d) drawn by distance, and weights (m,).

    Rows of all ``hosts`` are drawn by their distance to the ``centers`` (k, d). A weight is the number of rows that a
    row represents. The leader gets the rows, other hosts get none. All are returned if they are at most ``size``.
    """
    nearest = NearestCenters(centers)
    numbers = rows.order(epoch=0)
    own, positions = rows.own(numbers), rows.positions(numbers)
    _, distances = query_rows(rows.points, own, nearest, pool)
    weights = np.ones(len(own)) if rows.weights is None else rows.weights[own]
    total, inertia, count = hosts.sum(np.array([weights.sum(), weights @ distances, len(own)]))
    chance = np.ones(len(own))
    if count > size:
        by_loss = np.minimum(0.5 * size * weights * distances / max(inertia, np.finfo(np.float64).tiny), 1)
        # Each distant row is drawn at most once; the rest of the size is divided equally among all rows.
        taken = hosts.total(by_loss.sum())
        chance = np.minimum(by_loss + (size - taken) * weights / total, 1)
    is_drawn = generator.random(len(numbers))[positions] < chance
    notes = np.stack([positions[is_drawn].astype(np.float64), weights[is_drawn] / chance[is_drawn]], axis=1)
    points, notes = rows.gather_local(own[is_drawn], notes, hosts)
    return points, notes[:, 1]
