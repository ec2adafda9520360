"""The command ``serve``: the only place of this package that reads the environment and exits.

The model is read before the port opens; then this process becomes gunicorn's arbiter. So PID 1 is gunicorn, as with an
exec of its command, without starting Python and NumPy a second time.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Flask

    from serve.settings import Settings

GUNICORN_CONFIGURATION = Path(__file__).resolve().parents[1] / "container" / "gunicorn.conf.py"


def main() -> int:
    """Serve until SIGTERM; return 1 if there is no model to serve."""
    parser = argparse.ArgumentParser(
        prog="serve",
        description="Serve the k-means model in /opt/ml/model by SageMaker's hosting contract. Settings come from the "
        "environment: SAGEMAKER_BASE_DIR (/opt/ml), SAGEMAKER_BIND_TO_PORT (8080), SAGEMAKER_MODEL_SERVER_WORKERS (one "
        "per CPU), SAGEMAKER_MAX_PAYLOAD_IN_MB (25), SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT (application/json).",
    )
    parser.parse_args()
    # A worker computes one small product per request: threads of BLAS would cost more than they bring, and threads that
    # exist before gunicorn forks don't survive it. Must be said before NumPy is imported.
    for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(name, "1")

    from kmeans import artifact
    from kmeans.errors import KMeansError
    from kmeans.machine import usable_cpus
    from serve.app import create_app
    from serve.settings import Settings

    try:
        settings = Settings.from_environment(os.environ, usable_cpus())
        model = artifact.load(settings.model_directory)
    except KMeansError as error:
        print(error, file=sys.stderr)
        return 1
    print(
        f"serving {model.clusters} clusters x {model.features} features from {settings.model_directory} on port "
        f"{settings.port} with {settings.workers} workers",
        flush=True,
    )
    _run_gunicorn(settings, create_app(settings, model))
    return 0


def _run_gunicorn(settings: Settings, app: Flask) -> None:
    """Become gunicorn's arbiter; ends by SystemExit with its exit code."""
    from gunicorn.app.base import Application

    from serve.settings import THREADS_PER_WORKER

    class Server(Application):  # type: ignore[misc]  # gunicorn has no type hints
        def load_config(self) -> None:
            self.load_config_from_file(str(GUNICORN_CONFIGURATION))
            self.cfg.set("bind", f"0.0.0.0:{settings.port}")
            self.cfg.set("workers", settings.workers)
            self.cfg.set("threads", THREADS_PER_WORKER)

        def load(self) -> Flask:
            return app

    Server().run()


if __name__ == "__main__":
    sys.exit(main())
