"""Step 5: whether the answers are those of the model, and how well the clusters match the digits."""

from __future__ import annotations

import json
import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kmeans import artifact
from kmeans.arrays import Float32
from kmeans.formats.media_type import CSV
from kmeans.metric import EUCLIDEAN, METRICS, Metric
from kmeans.model import KMeansModel
from workflow import dataset
from workflow.errors import WorkflowError
from workflow.ledger import Entry
from workflow.objects import unpack
from workflow.requests.inference import invoke_endpoint
from workflow.workspace import Workspace

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


SOURCES = {"endpoint": "endpoint", "transform": "transform-job"}

# An endpoint takes requests of 6 MB, a serverless one of 4.
MOST_BYTES = 3 << 20

Answers = tuple[NDArray[np.float64], NDArray[np.float64]]


class Validate:
    """Step 5: whether the answers are those of the model, and how well the clusters match the digits."""

    HELP = "score the answers of the endpoint or the transform against model and true digits; fails if they differ"

    def configure(self, parser: ArgumentParser) -> None:
        """Add whose answers are looked at."""
        parser.add_argument(
            "--of", choices=sorted(SOURCES), help="whose answers (default: the endpoint's if there is one)"
        )

    def plan(self, work: Workspace, options: Namespace) -> dict[str, Any]:
        """Return InvokeEndpoint with a stand-in for its body; nothing if answers of a transform are read."""
        source = options.of or ("transform" if _is_only_transformed(work) else "endpoint")
        name = work.required(SOURCES[source])
        if source == "transform":
            return {}
        entry = work.ledger.find("endpoint", name)
        target = entry.details.get("target_model") if entry else None
        body = f"<rows as CSV, at most {MOST_BYTES >> 20} MB of them>"
        return {"InvokeEndpoint": invoke_endpoint(name, body, content_type=CSV, accept=CSV, target_model=target)}

    def carry_out(self, work: Workspace, plan: dict[str, Any], options: Namespace) -> None:
        """Get the answers, compute what they should be, and say how good they are.

        Raises
        ------
        WorkflowError
            If an answer isn't the model's.
        """
        points, digits = dataset.read_validation(work.clients.objects, work.data_uri())
        kind = "endpoint" if plan else "transform-job"
        entry = work.ledger.find(kind, work.required(kind))
        if entry is None or "model" not in entry.details:
            raise WorkflowError(f"The record doesn't tell the model of this {kind}: run the step before again.")
        if plan:
            labels, distances = _ask(work, plan["InvokeEndpoint"], points)
        else:
            labels, distances = _read_transformed(work, entry, digits)
        if not len(labels) == len(distances) == len(points):
            raise WorkflowError(f"There are {len(labels)} answers to {len(points)} rows: run the step before again.")
        model = _model(work, entry.details["model"])
        metric = METRICS[model.distance_metric]
        scores = score(points, digits, model.centers, labels=labels, distances=distances, metric=metric)
        _say(work, scores, f"{kind} {entry.name}")
        if not scores.agree:
            raise WorkflowError(
                f"The answers of the {kind} {entry.name} are not those of {entry.details['model']}: "
                f"{scores.wrong_labels} clusters and {scores.wrong_distances} distances of {scores.rows} differ."
            )


def _ask(work: Workspace, request: dict[str, Any], points: Float32) -> Answers:
    """Ask the endpoint about all rows."""
    rows = []
    for body in _bodies(points):
        answer = work.clients.runtime.invoke_endpoint(**{**request, "Body": body})
        rows.append(_table(answer["Body"].read(), request["EndpointName"], columns=2))
    table = np.concatenate(rows)
    return table[:, 0], table[:, 1]


def _bodies(points: Float32) -> Iterator[bytes]:
    """Return the rows as bodies of requests."""
    body = bytearray()
    for row in points.tolist():
        line = ",".join(f"{value:.9g}" for value in row).encode() + b"\n"
        if body and len(body) + len(line) > MOST_BYTES:
            yield bytes(body)
            body.clear()
        body += line
    yield bytes(body)


def _read_transformed(work: Workspace, entry: Entry, digits: NDArray[np.int64]) -> Answers:
    """Read the answers of a transform; in CSV the digit stands before each, and must be the row's."""
    found = work.clients.objects.find(f"{entry.details['output']}/")
    content = b"".join(work.clients.objects.get(uri) for uri in found)
    if entry.details["format"] == "recordio":
        try:
            rows = [json.loads(line) for line in content.splitlines()]
            pairs = np.array([[row["closest_cluster"], row["distance_to_cluster"]] for row in rows], dtype=np.float64)
        except (ValueError, TypeError, KeyError) as error:
            raise WorkflowError(f"{entry.name}: expected answers as JSON Lines, but {error!r}.") from None
        return pairs[:, 0], pairs[:, 1]
    table = _table(content, entry.name, columns=3)
    if not np.array_equal(table[:, 0], digits):
        raise WorkflowError(f"The digits joined with the answers of {entry.name} aren't those of the rows.")
    return table[:, 1], table[:, 2]


def _table(content: bytes, source: str, columns: int) -> NDArray[np.float64]:
    try:
        table = np.array([line.split(b",") for line in content.splitlines()], dtype=np.float64)
        return table.reshape(len(table), columns)
    except ValueError as error:
        raise WorkflowError(f"{source}: expected {columns} columns of numbers, but {error}.") from None


def _model(work: Workspace, uri: str) -> KMeansModel:
    with tempfile.TemporaryDirectory() as folder:
        unpack(work.clients.objects.get(uri), Path(folder) / "model", uri)
        return artifact.load(Path(folder) / "model")


def _say(work: Workspace, scores: Scores, source: str) -> None:
    work.say(f"{scores.rows} answers of the {source}")
    work.say(f"   purity                          {scores.purity:.4f}")
    work.say(f"   normalized mutual information   {scores.normalized_mutual_information:.4f}")
    work.say(f"   mean squared distance           {scores.mean_squared_distance:.6g}")
    work.say(f"   the same from model and rows    {scores.recomputed:.6g}")
    if scores.agree:
        work.say("   all clusters and distances are those of the model")


def _is_only_transformed(work: Workspace) -> bool:
    return work.ledger.latest("endpoint") is None and work.ledger.latest("transform-job") is not None
