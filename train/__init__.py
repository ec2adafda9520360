"""``docker run IMAGE train``: SageMaker's training contract around :mod:`kmeans`."""
