"""The wheel as its users have it: in an environment without the project's folder and without what the image needs."""

from __future__ import annotations

import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from .conftest import PROJECT, Installed, run, succeed

pytestmark = [pytest.mark.wheel, pytest.mark.slow]

# Every module is imported: none needs a package that the wheel doesn't name.
IMPORTS = """
import importlib, pkgutil, kmeans
for module in pkgutil.walk_packages(kmeans.__path__, "kmeans."):
    importlib.import_module(module.name)
print(kmeans.__file__)
"""

FIT = """
import numpy as np, kmeans
points = np.random.default_rng(0).normal(size=(200, 3)) + 10 * np.arange(200)[:, None] % 30
result = kmeans.fit(points, k=3)
result.model.save("model")
np.save("points.npy", points)
np.save("labels.npy", result.labels)
"""

PREDICT = """
import numpy as np, kmeans
labels, distances = kmeans.load("model").predict(np.load("points.npy"))
print(np.array_equal(labels, np.load("labels.npy")), len(distances))
"""

TYPED = """
from typing import assert_type
import numpy as np
from numpy.typing import NDArray
import kmeans
from kmeans import FitResult, KMeansModel, Settings

result = kmeans.fit([[1.0], [2.0]], k=1, weights=[1, 2], init_method="kmeans++")
assert_type(result, FitResult)
assert_type(result.model, KMeansModel)
assert_type(result.labels, NDArray[np.int64])
assert_type(result.inertia, float)
assert_type(kmeans.load("model"), KMeansModel)
try:
    Settings(k=0)
except kmeans.SettingError as error:
    print(error)
"""

MISTYPED = """
import kmeans
kmeans.fit([[1.0]], k="three")
kmeans.predict([[1.0]])
kmeans.Settings(k=3, bogus=1)
"""


def names_in(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def test_wheel_contains_kmeans_and_nothing_else(installed: Installed) -> None:
    names = [name for name in names_in(installed.wheel) if ".dist-info/" not in name]
    sources = (PROJECT / "kmeans").rglob("*.py")
    expected = {path.relative_to(PROJECT).as_posix() for path in sources}
    assert {name for name in names if name.endswith(".py")} == expected
    assert {name.split("/")[0] for name in names} == {"kmeans"}
    assert "kmeans/py.typed" in names


def test_wheel_requires_only_what_kmeans_imports(installed: Installed) -> None:
    with zipfile.ZipFile(installed.wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = Parser().parsestr(archive.read(name).decode())
    required = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert sorted(line.partition(">")[0] for line in required) == ["numpy", "orjson", "pysimdjson"]


def test_wheel_in_empty_environment_imports(installed: Installed, tmp_path: Path) -> None:
    found = Path(succeed(installed.python, "-c", IMPORTS, cwd=tmp_path).strip())
    assert installed.python.parents[1] in found.parents


def test_wheel_fits_saves_loads_predicts(installed: Installed, tmp_path: Path) -> None:
    succeed(installed.python, "-W", "error", "-c", FIT, cwd=tmp_path)
    said = succeed(installed.python, "-W", "error", "-c", PREDICT, cwd=tmp_path)
    assert said.split() == ["True", "200"]


def test_mypy_sees_types_of_installed_wheel(installed: Installed, tmp_path: Path) -> None:
    (tmp_path / "typed.py").write_text(TYPED)
    (tmp_path / "mistyped.py").write_text(MISTYPED)
    mypy: list[str | Path] = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", ".cache"]
    mypy += ["--python-executable", installed.python]
    succeed(*mypy, "typed.py", cwd=tmp_path)
    said = run(*mypy, "mistyped.py", cwd=tmp_path).stdout
    codes = [line.rpartition("[")[2] for line in said.splitlines() if ": error: " in line]
    assert codes == ["arg-type]", "attr-defined]", "call-arg]"], said
