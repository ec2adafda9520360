"""The wheel, and an environment that contains only it. Missing tools are named, and fail in CI."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple, NoReturn

import pytest

PROJECT = Path(__file__).resolve().parents[2]
BUILT_FROM = ("pyproject.toml", "README.md", "LICENSE", "kmeans", "train", "serve")
BUILD_TOOLS = "setuptools>=77"


class Installed(NamedTuple):
    """The wheel, and the interpreter of the environment in which it was installed."""

    wheel: Path
    python: Path


def missing(what: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(what, pytrace=False)
    pytest.skip(what)


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    # Without the project's folder on the path, whatever the caller's environment says.
    environment = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "PYTHONHOME"}}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=600, check=False)


def succeed(*command: str | Path, cwd: Path) -> str:
    done = run(*command, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    # A copy: a build leaves folders in its source.
    for name in BUILT_FROM:
        copied = shutil.copytree if (PROJECT / name).is_dir() else shutil.copy
        copied(PROJECT / name, source / name)
    succeed(sys.executable, "-m", "venv", folder / "builder", cwd=folder)
    pip: list[str | Path] = [folder / "builder" / "bin" / "python", "-m", "pip", "--disable-pip-version-check"]
    tools = run(*pip, "install", "--quiet", "--no-compile", BUILD_TOOLS, cwd=folder)
    if tools.returncode:
        missing(f"pip can't install {BUILD_TOOLS}: {tools.stderr.strip()[-300:]}")
    dist = folder / "dist"
    succeed(*pip, "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", dist, source, cwd=folder)
    (wheel,) = dist.glob("*.whl")
    succeed(sys.executable, "-m", "venv", "--without-pip", folder / "empty", cwd=folder)
    python = folder / "empty" / "bin" / "python"
    succeed(*pip, "--python", python, "install", "--quiet", "--no-compile", "--only-binary", ":all:", wheel, cwd=folder)
    return Installed(wheel, python)
