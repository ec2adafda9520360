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

# Float32 has seven significant digits; CSV and JSON keep them all.
TOLERANCE = 1e-4

SOURCES = {"endpoint": "endpoint", "transform": "transform-job"}

# An endpoint accepts requests of 6 MB, a serverless one of 4 MB.
MOST_BYTES = 3 << 20

Answers = tuple[NDArray[np.float64], NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Scores:
    """Quality of the answers to n rows.

    Attributes
    ----------
    rows
        n.
    purity
        Fraction of rows whose digit is the most frequent one of their cluster, between 0 and 1; always 1 for k = n.
    normalized_mutual_information
        0 if clusters and digits are independent, 1 if they agree; many clusters don't increase it as they do purity.
    mean_squared_distance
        Mean of the squared distances in the answers; of a cosine model, mean of the distances.
    recomputed
        The same, computed from the model and the rows by the definition.
    wrong_labels, wrong_distances
        Number of answers with a center that isn't the nearest, and with another distance than to the nearest.
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
    points, digits
        Rows that were predicted, (n, d), and their true digits, (n,).
    centers, metric
        Centers of the model, (k, d), and its metric.
    labels, distances
        The answers, (n,).
    """
    from sklearn.metrics import DistanceMetric, normalized_mutual_info_score  # noqa: PLC0415 - takes a second
    from sklearn.metrics.cluster import contingency_matrix  # noqa: PLC0415

    known = np.isin(labels, np.arange(len(centers)))
    chosen = np.where(known, labels, -1).astype(np.int64)
    # This subtracts before it squares, unlike kmeans.distance, whose results are compared.
    euclidean = DistanceMetric.get_metric("euclidean")
    lengths = euclidean.pairwise(metric.prepare(points).astype(np.float64), centers.astype(np.float64))
    table = metric.reported_distances(lengths.astype(np.float32)).astype(np.float64)
    nearest = table.min(axis=1)
    answered = np.where(known, table[np.arange(len(table)), chosen], np.inf)
    # If float32 can't distinguish two distances, either center is right.
    wrong_labels = ~(answered <= nearest * (1 + TOLERANCE) + TOLERANCE)
    wrong_distances = ~np.isclose(distances, nearest, rtol=TOLERANCE, atol=TOLERANCE)
    counts = contingency_matrix(digits, chosen)
    return Scores(
        rows=len(points),
        purity=float(counts.max(axis=0).sum() / counts.sum()),
        normalized_mutual_information=float(normalized_mutual_info_score(digits, chosen)),
        mean_squared_distance=float(np.mean(metric.losses(distances))),
        recomputed=float(np.mean(metric.losses(nearest))),
        wrong_labels=int(wrong_labels.sum()),
        wrong_distances=int(wrong_distances.sum()),
    )


class Validate:
    """Compares the answers of an endpoint or a transform with the model and the true digits."""

    help = "score the answers of the endpoint or the transform against model and true digits; fails if they differ"

    def configure(self, parser: ArgumentParser) -> None:
        """Add the source of the answers."""
        text = "whose answers (default: the endpoint's if there is one)"
        parser.add_argument("--of", choices=sorted(SOURCES), help=text)

    def plan(self, work: Workspace, options: Namespace) -> dict[str, Any]:
        """Return InvokeEndpoint with a placeholder for its body; nothing for the answers of a transform."""
        is_transformed = work.ledger.latest("endpoint") is None and work.ledger.latest("transform-job") is not None
        source = options.of or ("transform" if is_transformed else "endpoint")
        name = work.required(SOURCES[source])
        if source == "transform":
            return {}
        entry = work.ledger.find("endpoint", name)
        target = entry.details.get("target_model") if entry else None
        body = f"<rows as CSV, at most {MOST_BYTES >> 20} MB of them>"
        return {"InvokeEndpoint": invoke_endpoint(name, body, content_type=CSV, accept=CSV, target_model=target)}

    def carry_out(self, work: Workspace, plan: dict[str, Any], options: Namespace) -> None:
        """Get the answers, compare them with the model's, and say the scores.

        Raises WorkflowError if an answer isn't the model's.
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
        work.say(f"{scores.rows} answers of the {kind} {entry.name}")
        work.say(f"   purity                          {scores.purity:.4f}")
        work.say(f"   normalized mutual information   {scores.normalized_mutual_information:.4f}")
        work.say(f"   mean squared distance           {scores.mean_squared_distance:.6g}")
        work.say(f"   the same from model and rows    {scores.recomputed:.6g}")
        if not scores.agree:
            raise WorkflowError(
                f"The answers of the {kind} {entry.name} are not those of {entry.details['model']}: "
                f"{scores.wrong_labels} clusters and {scores.wrong_distances} distances of {scores.rows} differ."
            )
        work.say("   all clusters and distances are those of the model")


def _ask(work: Workspace, request: dict[str, Any], points: Float32) -> Answers:
    """Return the endpoint's answers to all rows."""
    tables = []
    for body in _bodies(points):
        answer = work.clients.runtime.invoke_endpoint(**{**request, "Body": body})
        tables.append(_table(answer["Body"].read(), request["EndpointName"], columns=2))
    table = np.concatenate(tables)
    return table[:, 0], table[:, 1]


def _bodies(points: Float32) -> Iterator[bytes]:
    """Return the rows as CSV, in bodies of at most ``MOST_BYTES``."""
    body = bytearray()
    for row in points.tolist():
        line = ",".join(f"{value:.9g}" for value in row).encode() + b"\n"
        if body and len(body) + len(line) > MOST_BYTES:
            yield bytes(body)
            body.clear()
        body += line
    yield bytes(body)


def _read_transformed(work: Workspace, entry: Entry, digits: NDArray[np.int64]) -> Answers:
    """Return the answers of a transform; in CSV the row's true digit precedes each answer."""
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
