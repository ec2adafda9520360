"""The points of a request and the predictions of an answer, in any format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from kmeans.arrays import Float32, Float64, Int64

# Names under which a client attaches texts to an instance, returned with its prediction: `id` in JSON, the others in
# RecordIO.
ID, UID, METADATA = "id", "uid", "metadata"

# Fewer predictions are written faster one by one.
MIN_ROWS_AT_ONCE = 6


@dataclass(frozen=True, slots=True)
class Instances:
    """The points of a request.

    Attributes
    ----------
    points
        float32 (n, d), or float64 if the caller asked for it.
    attached
        The ``id``, ``uid`` and ``metadata`` of each point; None if no point has any.
    """

    points: NDArray[Any]
    attached: Sequence[dict[str, Any]] | None = None


@dataclass(frozen=True, slots=True)
class Predictions:
    """The predictions of an answer.

    Attributes
    ----------
    labels
        Nearest center of each point, from 0: float64 as the built-in image gives them, or int64; (n,).
    distances
        Euclidean distance to it, (n,); encoders expect float64.
    attached
        As in :class:`Instances`.
    missing
        Which points could not be read, bool (n,); their label and distance are written as missing: null in JSON, nan
        elsewhere. None if all could.
    """

    labels: Float64 | Int64
    distances: Float32 | Float64
    attached: Sequence[dict[str, Any]] | None = None
    missing: NDArray[np.bool_] | None = None

    def rows(self) -> Sequence[tuple[float | int | None, float | None, dict[str, Any]]]:
        """Return (label, distance, attached) of each point as Python types, None if it is missing."""
        labels: list[float | int | None] = self.labels.tolist()
        distances: list[float | None] = self.distances.tolist()
        for row in np.flatnonzero(self.missing).tolist() if self.missing is not None else ():
            labels[row] = distances[row] = None
        return list(zip(labels, distances, self.attached or [{}] * len(labels), strict=True))

    def text(self) -> bytes | None:
        """Return ``label,distance],[label,distance``, each number as Python's ``repr`` writes it, null if missing.

        A JSON library writes all at once, several times as fast as Python row by row, except for the numbers that
        Python writes in another way: it writes exponents with two digits, and exponents below 1e-4 and from 1e16 on.
        None if something is attached to the points, or if they are so few that row by row is faster.
        """
        if self.attached is not None or len(self.labels) < MIN_ROWS_AT_ONCE:
            return None
        pairs = np.empty((len(self.labels), 2))
        pairs[:, 0], pairs[:, 1] = self.labels, self.distances
        if self.missing is not None:
            pairs[self.missing] = np.nan
        text = orjson.dumps(pairs, option=orjson.OPT_SERIALIZE_NUMPY)[2:-2]
        unusual = np.flatnonzero((pairs[:, 1] >= 1e16) | ((pairs[:, 1] < 1e-4) & (pairs[:, 1] != 0)))
        if len(unusual):
            rows = text.split(b"],[")
            for row in unusual.tolist():
                label, distance = pairs[row].tolist()
                rows[row] = b"%r,%r" % (label, distance)
            text = b"],[".join(rows)
        # Nothing but a label is followed by a comma without a bracket before it.
        return text.replace(b".0,", b",") if self.labels.dtype.kind == "i" else text
