"""How the server is: GET /ping for SageMaker, /health for people, /execution-parameters for batch transforms."""

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

# A self-test asks for so many centers: enough to go the whole way, and the same time for any model.
TESTED_CENTERS = 16

# What all requests of a batch transform that are under way at once may amount to (SageMaker's own rule).
MAX_CONCURRENT_MB = 100


class Readiness:
    """Whether requests can be answered: not before the model has answered a self-test in this process."""

    def __init__(self, model: KMeansModel | None) -> None:
        self._model = model
        # Without a model there is nothing to test: a multi-model endpoint is ready with none.
        self.is_ready = model is None

    def test(self) -> None:
        """Ask the model for some of its own centers, and be ready if each is found.

        Raises
        ------
        kmeans.errors.ModelError
            If the answer isn't that they are their own clusters, at no distance.
        """
        if self._model is not None:
            labels, distances = self._model.predict(self._model.precise_centers[:TESTED_CENTERS])
            # Of equal centers the first is the answer, so it is the centers that are compared.
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
    """Return what a batch transform should do if its user didn't say.

    One request per worker at a time, each as large as SageMaker's rule allows: concurrency times size is at most 100
    MB. BatchStrategy is left out: the service takes ``MULTI_RECORD``, the SDK's local mode only ``MultiRecord``, and
    both take that strategy if none is named.
    """
    concurrency = min(settings.max_concurrent_transforms or settings.workers, MAX_CONCURRENT_MB)
    size = MAX_CONCURRENT_MB // concurrency
    if settings.has_payload_limit:
        size = min(settings.max_payload_bytes >> 20, MAX_CONCURRENT_MB)
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
