"""``docker run IMAGE serve``: SageMaker's hosting contract around :mod:`kmeans`."""
