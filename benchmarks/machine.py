"""What is measured on and how: the CPU's name, how busy it is, and the heap that the image's programs have."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

CPU_TIMES = Path("/proc/stat")

PROGRAMS = Path(__file__).resolve().parents[1] / "container" / "bin"
HEAP_SETTING = re.compile(r'^export (MALLOC_\w+)="\$\{\1:-(\d+)\}"$', re.MULTILINE)


def busy_seconds() -> float:
    """Return the seconds that all CPUs have worked since the machine started, as Linux tells; 0 if nothing does."""
    try:
        user, nice, system, _idle, _waiting, *rest = map(int, CPU_TIMES.read_text().split("\n")[0].split()[1:9])
    except (OSError, ValueError):
        return 0.0
    return (user + nice + system + sum(rest)) / os.sysconf("SC_CLK_TCK")


def processor() -> str:
    """Return the CPU's name as Linux gives it, or what Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown CPU"


def heap_variables(program: str) -> dict[str, str]:
    """Return the settings of glibc's heap with which the image starts a ``program``, ``train`` or ``serve``.

    Raises
    ------
    ValueError
        If the program's script makes none that is understood here.
    """
    found = dict(HEAP_SETTING.findall((PROGRAMS / program).read_text()))
    if not found:
        raise ValueError(f"expected lines such as export MALLOC_ARENA_MAX in {PROGRAMS / program}, found none")
    return found
