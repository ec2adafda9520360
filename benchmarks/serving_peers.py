"""Other servers that answer with the nearest center; they are neither in the image nor in the tests.

``python -m benchmarks.serving_peers CENTERS FOLDER`` writes centers as a model that MLflow's server loads. The other
two are applications for gunicorn; each process imports only what its server needs.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import flask


def limit() -> Callable[..., Iterable[bytes]]:
    """Return the limit of this kind of server: it reads the body and answers with a constant.

    ``ANSWER_LENGTHS`` lists the lengths of the answers; the path ``/72`` is answered with 72 bytes.
    """
    answers = {f"/{length}": b"x" * int(length) for length in os.environ["ANSWER_LENGTHS"].split(",")}

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        environ["wsgi.input"].read()
        answer = answers.get(environ["PATH_INFO"], b"")
        start_response("200 OK", [("Content-Type", "text/csv"), ("Content-Length", str(len(answer)))])
        return [answer]

    return app


def sample() -> flask.Flask:
    """Return the stack of AWS's sample, which is often copied for custom containers: Flask, pandas, scikit-learn.

    As in the sample, a request is a CSV without a header that pandas reads, and the answer is a column of labels that
    pandas writes. Two things are faster than there: there is no nginx in front, and gunicorn's workers have threads.
    ``CENTERS`` names an NPY file of the centers (k, d).
    """
    import flask  # noqa: PLC0415
    import numpy as np  # noqa: PLC0415
    import pandas as pd  # type: ignore[import-untyped]  # noqa: PLC0415

    # pandas reads rows as float64.
    model = _model(np.load(os.environ["CENTERS"]).astype(np.float64))
    app = flask.Flask(__name__)

    @app.get("/ping")
    def ping() -> flask.Response:
        return flask.Response("\n", status=200, mimetype="application/json")

    @app.post("/invocations")
    def invocations() -> flask.Response:
        if flask.request.content_type != "text/csv":
            return flask.Response("This predictor only supports CSV data", status=415, mimetype="text/plain")
        rows = pd.read_csv(io.StringIO(flask.request.data.decode("utf-8")), header=None)
        answer = io.StringIO()
        pd.DataFrame({"results": model.predict(rows.to_numpy())}).to_csv(answer, header=False, index=False)
        return flask.Response(answer.getvalue(), status=200, mimetype="text/csv")

    return app


def _model(centers: Any) -> Any:
    """Return scikit-learn's model with these centers: a fit to them leaves them unchanged, and no pickle is read."""
    from sklearn.cluster import KMeans  # noqa: PLC0415

    return KMeans(len(centers), init=centers, n_init=1, max_iter=1).fit(centers)


def main() -> None:
    """Write the model for MLflow."""
    import mlflow.sklearn  # type: ignore[import-not-found]  # noqa: PLC0415 - only in .venv-bench
    import numpy as np  # noqa: PLC0415

    # JSON and pandas provide rows in float64.
    model = _model(np.load(sys.argv[1]).astype(np.float64))
    # Without a list of requirements MLflow would load the model again to find the imported packages.
    mlflow.sklearn.save_model(model, sys.argv[2], pip_requirements=["scikit-learn"])


if __name__ == "__main__":
    main()
