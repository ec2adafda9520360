"""A checkout by Git for Windows has the same bytes as any other."""

import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]


def git(*arguments: str | Path) -> str:
    return subprocess.run(["git", *arguments], check=True, capture_output=True, text=True, timeout=60).stdout


@pytest.mark.skipif(not (PROJECT / ".git").exists(), reason="needs a git checkout")
def test_windows_clone_keeps_unix_line_ends(tmp_path: Path) -> None:
    git("clone", "--quiet", "--config", "core.autocrlf=true", PROJECT, tmp_path / "clone")
    files = [line.split(maxsplit=3) for line in git("-C", tmp_path / "clone", "ls-files", "--eol").splitlines()]
    assert len(files) > 100
    assert [file for file in files if file[1] not in ("w/lf", "w/none", "w/-text")] == []
    assert git("-C", tmp_path / "clone", "status", "--porcelain") == ""
