"""The machine that is measured on: what its CPU is called, and how busy it is."""

from __future__ import annotations

import os
import platform
from pathlib import Path

CPU_TIMES = Path("/proc/stat")


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
