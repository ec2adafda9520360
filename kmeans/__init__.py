"""k-means for SageMaker: the algorithm, the model and its file formats.

Arrays in, arrays out. Nothing here knows Flask, ``/opt/ml`` or environment variables, and nothing prints:
``train`` and ``serve`` stand on this package and never on each other (docs/architecture.md).
"""

__version__ = "0.1.0"
