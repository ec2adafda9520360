"""``python -m benchmarks.serving_peers.mlflow_model CENTERS FOLDER``: centers as a model that MLflow's server loads."""

from __future__ import annotations

import sys

import mlflow.sklearn  # type: ignore[import-not-found]  # in .venv-bench alone
import numpy as np
from sklearn.cluster import KMeans


def main() -> None:
    """Write the model."""
    centers = np.load(sys.argv[1]).astype(np.float64)  # as JSON and pandas give rows
    model = KMeans(len(centers), init=centers, n_init=1, max_iter=1).fit(centers)
    # Without a list MLflow would load the model once more to find out which packages it imports.
    mlflow.sklearn.save_model(model, sys.argv[2], pip_requirements=["scikit-learn"])


if __name__ == "__main__":
    main()
