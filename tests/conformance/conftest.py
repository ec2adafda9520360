"""Skips these tests where Amazon's packages are missing, as in the project's own environment.

`make conformance` has them and says so by KMEANS_CONFORMANCE=1; then a package that is missing is a failure.
"""

import importlib.util
import os
from pathlib import Path

import pytest

PACKAGES = ("sagemaker", "sagemaker_training", "sagemaker_inference", "moto", "boto3")
MISSING = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
REQUIRED = os.environ.get("KMEANS_CONFORMANCE") == "1"


class NotInstalled(pytest.Module):
    """A test module that is not imported, because it could not be."""

    def collect(self) -> list[pytest.Item | pytest.Collector]:
        pytest.skip(f"not installed: {', '.join(MISSING)} (`make conformance` has them)", allow_module_level=True)


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    if not MISSING or REQUIRED:
        return None
    module: pytest.Module = NotInstalled.from_parent(parent, path=module_path)
    return module
