"""State of the server: GET /ping for SageMaker, /health for people, /execution-parameters for batch transforms."""

from __future__ import annotations

import time
from http import HTTPStatus
from typing import Any

import numpy as np
from flask import Blueprint, Response

from kmeans import __version__
from kmeans.errors import ModelError
from kmeans.model import KMeansModel
from kmeans.system import usable_memory
from serve.exchange import Answer
from serve.metrics import Metrics
from serve.settings import Settings

# Centers that a self-test predicts: enough to run all of the code, in the same time for any model.
TESTED_CENTERS = 16

# SageMaker's limit for the sum of all bodies that a batch transform sends at the same time.
MAX_CONCURRENT_MB = 100


class Readiness:
    """Whether requests can be answered: only after the model has passed a self-test in this process.

    Parameters
    ----------
    model
        The model to test; None on a multi-model endpoint, which is ready without any model.
    """

    def __init__(self, model: KMeansModel | None) -> None:
        self._model = model
        self.is_ready = model is None

    def test(self) -> None:
        """Predict some of the model's own centers, and become ready if each is its own nearest center.

        Raises
        ------
        kmeans.errors.ModelError
            If a center has another nearest center, or a distance other than 0 to itself.
        """
        if self._model is not None:
            labels, distances = self._model.predict(self._model.precise_centers[:TESTED_CENTERS])
            # The label of equal centers is the first of them, so the centers are compared and not the labels.
            centers = self._model.narrowed_centers
            if distances.any() or not np.array_equal(centers[labels], centers[:TESTED_CENTERS]):
                raise ModelError("The model doesn't find its own centers: this machine computes wrongly.")
        self.is_ready = True


def blueprint(settings: Settings, model: KMeansModel | None, readiness: Readiness, telemetry: Metrics) -> Blueprint:
    """Return the three routes."""
    routes = Blueprint("health", __name__)
    began = time.monotonic()

    @routes.get("/ping")
    def ping() -> Response:
        status = HTTPStatus.OK if readiness.is_ready else HTTPStatus.SERVICE_UNAVAILABLE
        return Answer(status, "text/plain", []).to_flask()

    @routes.get("/health")
    def health() -> Response:
        report = {
            "status": "ready" if readiness.is_ready else "starting",
            "version": __version__,
            "uptime_seconds": round(time.monotonic() - began, 3),
            "workers": {"expected": settings.workers, "alive": len(telemetry.processes()), "threads": settings.threads},
            "memory_bytes": {"used": telemetry.memory_bytes(), "usable": usable_memory()},
            "model": None if model is None else _described(model),
        }
        return Answer.of_json(report).to_flask()

    @routes.get("/execution-parameters")
    def execution_parameters() -> Response:
        return Answer.of_json(best_execution(settings)).to_flask()

    return routes


def best_execution(settings: Settings) -> dict[str, int]:
    """Return the parameters of a batch transform whose user set none.

    ``MaxPayloadInMB`` is the limit that the server enforces. It is smaller only where SageMaker's rule requires that:
    concurrency times size is at most 100 MB. A batch transform without a limit of its user sends one request per
    worker, and the size is reduced; otherwise the concurrency is. BatchStrategy is omitted: the service accepts
    ``MULTI_RECORD``, the SDK's local mode only ``MultiRecord``, and both use that strategy by default.
    """
    concurrency = min(settings.max_concurrent_transforms or settings.workers, MAX_CONCURRENT_MB)
    size = min(settings.max_payload_bytes >> 20, MAX_CONCURRENT_MB)
    if settings.is_batch and not settings.is_payload_chosen:
        size = min(size, MAX_CONCURRENT_MB // concurrency)
    concurrency = min(concurrency, MAX_CONCURRENT_MB // size)
    return {"MaxConcurrentTransforms": concurrency, "MaxPayloadInMB": size}


def _described(model: KMeansModel) -> dict[str, Any]:
    metrics = model.training.get("metrics")
    return {
        "clusters": model.clusters,
        "features": model.features,
        "file": model.file,
        "training_metrics": metrics if isinstance(metrics, dict) else {},
    }
