"""k-means for Python: fit centers to points, assign points to centers, save and load models.

>>> import kmeans
>>> result = kmeans.fit([[1.0, 2.0], [1.0, 4.0], [9.0, 2.0], [9.0, 4.0]], k=2)
>>> sorted(result.model.centers.tolist())
[[1.0, 3.0], [9.0, 3.0]]
>>> labels, distances = result.model.predict([[9.0, 3.0]])
>>> distances.tolist()
[0.0]

The names in ``__all__`` are the public API; everything else may change. Arrays in, arrays out: no module here knows
Flask, ``/opt/ml`` or environment variables, and none prints. ``train`` and ``serve`` import this package and never each
other (docs/architecture.md).
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

__all__ = [
    "DataError",
    "FitResult",
    "KMeansError",
    "KMeansModel",
    "ModelError",
    "NoDataError",
    "ResourceError",
    "SettingError",
    "Settings",
    "UnknownSettingError",
    "fit",
    "load",
]

if TYPE_CHECKING:
    from kmeans.api import FitResult, fit, load
    from kmeans.errors import (
        DataError,
        KMeansError,
        ModelError,
        NoDataError,
        ResourceError,
        SettingError,
        UnknownSettingError,
    )
    from kmeans.model import KMeansModel
    from kmeans.settings import Settings
else:
    # Modules are imported when a name is first used: the launcher of a training process imports `kmeans.errors` before
    # it may import NumPy, and a signal handler is set before that import, which takes a moment.
    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        homes = {"KMeansModel": "kmeans.model", "Settings": "kmeans.settings"}
        home = homes.get(name, "kmeans.errors" if name.endswith("Error") else "kmeans.api")
        value = globals()[name] = getattr(_import_module(home), name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
