"""The command ``serve``: the only module of this package that reads the environment and exits.

The process reads the model before it opens the port, and then becomes gunicorn's master. So PID 1 is gunicorn, as after
an exec of its command, without starting Python and NumPy a second time.
"""

from __future__ import annotations

import argparse
import os
import sys


def main() -> int:
    """Serve until SIGTERM; return 1 if there is no model to serve."""
    parser = argparse.ArgumentParser(
        prog="serve",
        description="Serve the k-means model in /opt/ml/model by SageMaker's hosting contract. Settings come from the "
        "environment: SAGEMAKER_BASE_DIR (/opt/ml), SAGEMAKER_BIND_TO_PORT (8080), SAGEMAKER_MODEL_SERVER_WORKERS (one "
        "per CPU), SAGEMAKER_MAX_PAYLOAD_IN_MB (25), SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT (application/json).",
    )
    parser.parse_args()
    # A worker computes one small product per request: BLAS threads would cost more than they save, and threads that
    # exist before gunicorn forks don't survive it. NumPy reads these variables when it is imported.
    for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(name, "1")

    from kmeans import artifact
    from kmeans.errors import KMeansError
    from kmeans.system import usable_cpus
    from serve.app import create_app
    from serve.health import Readiness
    from serve.metrics import Metrics
    from serve.server.application import Server
    from serve.server.listener import open_port
    from serve.settings import Settings

    try:
        settings = Settings.from_environment(os.environ, usable_cpus())
        model = None if settings.is_multi_model else artifact.load(settings.model_directory)
        Readiness(model).test()  # a model that fails must end this process, not every worker
        listener = open_port(settings.port)
    except KMeansError as error:
        print(error, file=sys.stderr)
        return 1
    telemetry, readiness = Metrics(settings.workers, model), Readiness(model)
    app = create_app(settings, model, telemetry, readiness)
    served = (
        f"{model.clusters} clusters x {model.features} features from {settings.model_directory}"
        if model is not None
        else f"models below {settings.models_directory}"
    )
    print(f"serving {served} on port {settings.port} with {settings.workers} workers", flush=True)
    Server(settings, app, telemetry, readiness, listener).run()  # ends with SystemExit
    return 0


if __name__ == "__main__":
    sys.exit(main())
