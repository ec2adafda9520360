"""The CPUs and the memory that this process may use in its container."""

from __future__ import annotations

import os
import resource
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def usable_cpus(cgroup: Path = CGROUP) -> int:
    """Return the number of CPUs this process may use, at least 1.

    The smaller of its CPU affinity and its cgroup's CPU quota (version 2: ``cpu.max``; version 1:
    ``cpu/cpu.cfs_quota_us``), rounded up. ``os.cpu_count`` ignores both and returns the machine's.
    """
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cpu_quota(cgroup)
    return available if quota is None else max(1, min(available, quota))


def usable_memory(cgroup: Path = CGROUP) -> int:
    """Return the bytes of memory that this process may use.

    That is the machine's memory, or the cgroup's limit if that is less.
    Version 2: ``memory.max``; version 1: ``memory/memory.limit_in_bytes``. Inside a container these are the
    container's.
    """
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = _numbers(cgroup / "memory.max") + _numbers(cgroup / "memory/memory.limit_in_bytes")
    return min([machine, *(limit for limit in limits if limit > 0)])


def peak_memory() -> int:
    """Return the peak memory of this process in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _cpu_quota(cgroup: Path) -> int | None:
    version_2 = _numbers(cgroup / "cpu.max")
    version_1 = _numbers(cgroup / "cpu/cpu.cfs_quota_us") + _numbers(cgroup / "cpu/cpu.cfs_period_us")
    for numbers in (version_2, version_1):
        if len(numbers) == 2 and numbers[0] > 0 and numbers[1] > 0:
            return -(-numbers[0] // numbers[1])
    return None


def _numbers(path: Path) -> list[int]:
    """Return the integers of a cgroup file; none if it is missing or has ``max``."""
    try:
        return [int(word) for word in path.read_text().split()]
    except (OSError, ValueError):
        return []
