"""The machine and the program of a measurement: CPU, load, versions, and the image's allocator settings."""

from __future__ import annotations

import datetime
import hashlib
import os
import platform
import re
import subprocess
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

import kmeans
from kmeans.system import usable_cpus

PROJECT = Path(__file__).resolve().parents[1]
PROGRAMS = PROJECT / "container" / "bin"
ALLOCATOR_SETTING = re.compile(r'^export (MALLOC_\w+)="\$\{\1:-(\d+)\}"$', re.MULTILINE)
CPU_TIMES = Path("/proc/stat")

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
ONE_THREAD = dict.fromkeys(THREAD_VARIABLES, "1")


def description() -> dict[str, str]:
    """Return the CPU, the system, the date and the load, as documents name them."""
    return {
        "machine": f"{processor()}, {usable_cpus()} CPUs, {platform.system()} {platform.machine()}",
        "date": today(),
        "load average before the run": " ".join(f"{load:.1f}" for load in os.getloadavg()),
    }


def today() -> str:
    """Return the date (UTC)."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def versions(packages: Iterable[str], folders: Iterable[Path]) -> str:
    """Return the versions of kmeans, whose sources are in ``folders``, of Python and of ``packages``."""
    program = f"kmeans {kmeans.__version__} ({_revision()}, sources {_digest(folders)})"
    python = f"Python {platform.python_version()}"
    return ", ".join([program, python, *(f"{name} {version(name)}" for name in packages)])


def _revision() -> str:
    """Return the commit, and whether the files differ from it."""
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "no git"


def _digest(folders: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for source in (source for folder in folders for source in sorted(folder.rglob("*.py"))):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:12]


def processor() -> str:
    """Return the CPU's name as Linux reports it, otherwise as Python does."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown CPU"


def busy_seconds() -> float:
    """Return the seconds that all CPUs have worked since the machine started, as Linux reports; otherwise 0."""
    try:
        user, nice, system, _idle, _waiting, *rest = map(int, CPU_TIMES.read_text().split("\n")[0].split()[1:9])
    except (OSError, ValueError):
        return 0.0
    return (user + nice + system + sum(rest)) / os.sysconf("SC_CLK_TCK")


def allocator_variables(program: str) -> dict[str, str]:
    """Return the environment variables with which the image configures glibc's allocator for a ``program``.

    ``program`` is ``train`` or ``serve``. Raises ValueError if its script has no such settings.
    """
    found = dict(ALLOCATOR_SETTING.findall((PROGRAMS / program).read_text()))
    if not found:
        raise ValueError(f"expected lines such as export MALLOC_ARENA_MAX in {PROGRAMS / program}, found none")
    return found
