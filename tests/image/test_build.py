"""What is in the image, and what is not."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from .containers import OFFLINE, Containers, Job

pytestmark = pytest.mark.image

PROJECT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def config(image: Any) -> dict[str, Any]:
    config: dict[str, Any] = image.attrs["Config"]
    return config


def test_is_small(image: Any) -> None:
    assert image.attrs["Size"] <= 250_000_000


def test_starts_in_exec_form_and_trains_by_default(config: dict[str, Any]) -> None:
    assert config["Entrypoint"] == ["/opt/kmeans/bin/entrypoint"]
    assert config["Cmd"] == ["train"]
    assert config["StopSignal"] == "SIGTERM"


def test_leaves_user_folder_and_health_to_sagemaker(config: dict[str, Any]) -> None:
    assert config["User"] == ""
    assert config["WorkingDir"] == "/"
    assert not config.get("Healthcheck")
    assert not config.get("Volumes")
    assert list(config["ExposedPorts"]) == ["8080/tcp"]


def test_labels(config: dict[str, Any]) -> None:
    labels = config["Labels"]
    for name in ("title", "description", "version", "revision", "source"):
        assert f"org.opencontainers.image.{name}" in labels
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", labels["org.opencontainers.image.created"])
    for capability in ("accept-bind-to-port", "multi-models"):
        assert labels[f"com.amazonaws.sagemaker.capabilities.{capability}"] == "true"


@pytest.mark.parametrize("program", ["cc", "gcc", "c++", "g++", "clang", "make", "pip", "pip3", "mpicc"])
def test_has_no_tool_of_the_build(containers: Containers, program: str) -> None:
    assert containers.run(["sh", "-c", f"command -v {program}"]).out == ""


def test_has_no_installer_as_a_module(containers: Containers) -> None:
    find = "import importlib.util as i; print([m for m in ('pip', 'ensurepip', 'setuptools') if i.find_spec(m)])"
    assert containers.output("python3", "-c", find) == "[]\n"
    assert containers.output("/usr/bin/python3", "-c", find) == "[]\n"


def test_has_no_index_or_log_of_the_package_manager(containers: Containers) -> None:
    folders = "/var/lib/apt/lists /var/cache/apt /var/log/apt /root/.cache"
    assert containers.output("sh", "-c", f"for f in {folders}; do [ ! -d $f ] || find $f -type f; done") == ""


def test_has_nothing_where_sagemaker_mounts(containers: Containers) -> None:
    assert containers.output("sh", "-c", "ls -A /opt") == "kmeans\n"


@pytest.mark.parametrize("name", ["train", "serve", "validate"])
def test_commands_are_ours_by_bare_name(containers: Containers, name: str) -> None:
    assert containers.output("sh", "-c", f"command -v {name}") == f"/opt/kmeans/bin/{name}\n"


def test_commands_are_executable_here_and_in_the_image(containers: Containers) -> None:
    programs = sorted(path.name for path in (PROJECT / "container" / "bin").iterdir())
    assert [name for name in programs if not os.access(PROJECT / "container" / "bin" / name, os.X_OK)] == []
    assert (
        containers.output("sh", "-c", "find /opt/kmeans/bin -type f -perm 755 -printf '%f\\n' | sort").split()
        == programs
    )


def test_no_file_depends_on_who_reads_it(containers: Containers) -> None:
    """Everything is readable by all and writable by root only, and no file is the builder's."""
    for unwanted in (
        "-not -perm -o=r -not -type l",
        "-perm /o=w -not -type l",
        "-not -user 0",
        "-type d -not -perm -o=x",
    ):
        assert containers.output("sh", "-c", f"find /opt {unwanted}") == "", unwanted


@pytest.mark.parametrize(("program", "path"), [("bash", "/usr/bin/bash"), ("python3", "/opt/kmeans/venv/bin/python3")])
def test_has_what_sdk_3_calls(containers: Containers, program: str, path: str) -> None:
    assert containers.output("sh", "-c", f"command -v {program}") == f"{path}\n"


def test_has_each_pinned_package_and_can_import_it(containers: Containers) -> None:
    lock = re.findall(r"^[a-z][^\\\n]*", (PROJECT / "container" / "requirements.lock").read_text(), re.MULTILINE)
    probe = """
import importlib, json, platform, importlib.metadata as metadata
of_modules = metadata.packages_distributions()
for module in of_modules:
    if not module.startswith("_"):
        importlib.import_module(module)
import mpi4py.MPI, numpy.testing, numpy.linalg, gunicorn.workers.gthread
print(json.dumps({
    "python": platform.python_version(),
    "packages": {d.name: d.version for d in metadata.distributions()},
    "modules": sorted(of_modules),
}))
"""
    found = json.loads(containers.run(["python3", "-c", probe], **OFFLINE).out)
    python = {"python_version": ".".join(found["python"].split(".")[:2]), "python_full_version": found["python"]}
    requirements = [Requirement(line) for line in lock]
    pinned = {
        requirement.name: str(requirement.specifier).removeprefix("==")
        for requirement in requirements
        if requirement.marker is None or requirement.marker.evaluate(python)
    }
    assert {canonicalize_name(name): version for name, version in found["packages"].items()} == pinned
    assert {"numpy", "flask", "gunicorn", "orjson", "mpi4py"} <= set(found["modules"])


def test_byte_code_is_there_and_never_rewritten(containers: Containers) -> None:
    """A read-only root file system couldn't take it later, and a layer's times would make it stale."""
    probe = """
import importlib.util, pathlib
files = [f for f in pathlib.Path("/opt/kmeans").rglob("*.py")]
def unchecked(file):
    code = pathlib.Path(importlib.util.cache_from_source(str(file)))
    return code.exists() and int.from_bytes(code.read_bytes()[4:8], "little") == 0b01
print(len(files) > 100, [str(f) for f in files if not unchecked(f)])
"""
    assert containers.output("python3", "-c", probe) == "True []\n"


def test_imports_nothing_from_the_working_directory(job: Job) -> None:
    job.data_file("numpy.py").write_text("raise SystemExit('a file among the data was run')")
    finished = job.run(["python3", "-c", "import numpy, kmeans"], working_dir="/opt/ml/input/data/train")
    assert finished.exit_code == 0, finished.log


def test_two_ranks_of_one_container_add_up(containers: Containers) -> None:
    """What stripping MPICH must not break: its launcher, its proxy, shared memory under Docker's default profile."""
    program = """
from mpi4py import MPI
import numpy
total = numpy.empty(100_000)
MPI.COMM_WORLD.Allreduce(numpy.full(100_000, MPI.COMM_WORLD.rank + 1.0), total)
assert (total == 3).all()
"""
    finished = containers.run(["/opt/kmeans/venv/bin/mpiexec", "-n", "2", "python3", "-c", program], **OFFLINE)
    assert finished.exit_code == 0, finished.log
