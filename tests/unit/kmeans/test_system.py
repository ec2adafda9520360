from __future__ import annotations

import os
from pathlib import Path

import pytest

from kmeans.system import peak_memory, usable_cpus, usable_memory


@pytest.fixture(autouse=True)
def _eight_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)


def tree(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / {"v2": "cpu.max", "quota": "cpu/cpu.cfs_quota_us", "period": "cpu/cpu.cfs_period_us"}[name]
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("cpu_max", "expected"),
    [
        ("200000 100000\n", 2),
        ("max 100000\n", 8),
        ("150000 100000\n", 2),
        ("100001 100000\n", 2),
        ("50000 100000\n", 1),
        ("1000 100000\n", 1),
        ("1600000 100000\n", 8),
        ("30000 10000\n", 3),
        ("", 8),
        ("rubbish\n", 8),
        ("100000 0\n", 8),
        ("100000\n", 8),
    ],
)
def test_the_quota_of_cgroup_version_2_limits_the_cpus(tmp_path: Path, cpu_max: str, expected: int) -> None:
    assert usable_cpus(tree(tmp_path, v2=cpu_max)) == expected


@pytest.mark.parametrize(
    ("quota", "period", "expected"),
    [
        ("300000\n", "100000\n", 3),
        ("-1\n", "100000\n", 8),
        ("250000\n", "100000\n", 3),
        ("25000\n", "100000\n", 1),
        ("0\n", "100000\n", 8),
        ("9900000\n", "100000\n", 8),
    ],
)
def test_the_quota_of_cgroup_version_1_limits_the_cpus(tmp_path: Path, quota: str, period: str, expected: int) -> None:
    assert usable_cpus(tree(tmp_path, quota=quota, period=period)) == expected


def test_half_a_tree_of_version_1_limits_nothing(tmp_path: Path) -> None:
    assert usable_cpus(tree(tmp_path, quota="100000\n")) == 8


def test_without_cgroups_the_affinity_counts(tmp_path: Path) -> None:
    assert usable_cpus(tmp_path / "missing") == 8


def test_without_affinity_the_machine_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert usable_cpus(tmp_path) == 6
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_cpus(tmp_path) == 1


def test_this_machine_has_at_least_one() -> None:
    assert usable_cpus() >= 1


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        ("memory.max", "1073741824\n", 1 << 30),
        ("memory.max", "max\n", None),
        ("memory.max", "", None),
        ("memory/memory.limit_in_bytes", "536870912\n", 1 << 29),
        ("memory/memory.limit_in_bytes", "9223372036854771712\n", None),
        ("memory/memory.limit_in_bytes", "-1\n", None),
    ],
)
def test_the_limit_of_either_cgroup_version_limits_the_memory(
    tmp_path: Path, file: str, text: str, expected: int | None
) -> None:
    machine = usable_memory(tmp_path)
    assert machine > 1 << 30
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(text)
    assert usable_memory(tmp_path) == (expected or machine)


def test_the_peak_of_memory_grows_with_what_is_held() -> None:
    before = peak_memory()
    held = b"x" * (before + (64 << 20))
    assert peak_memory() > len(held)
