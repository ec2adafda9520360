"""The stack of the sample that everyone copies for a container of one's own: Flask, pandas, scikit-learn.

As in AWS's sample, a request is a CSV without a header that pandas reads, and the answer is a column of labels, which
pandas writes. Two things are kinder than there: no nginx stands in front, and gunicorn's workers have threads.
"""

from __future__ import annotations

import io
import os

import flask
import numpy as np
import pandas as pd  # type: ignore[import-untyped]
from sklearn.cluster import KMeans


def create_app() -> flask.Flask:
    """Return the application; ``CENTERS`` names an NPY file of the centers (k, d)."""
    centers = np.load(os.environ["CENTERS"]).astype(np.float64)  # as pandas reads rows
    # Fitted to its own centers it has them as they are: no pickle has to be read.
    model = KMeans(len(centers), init=centers, n_init=1, max_iter=1).fit(centers)
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
