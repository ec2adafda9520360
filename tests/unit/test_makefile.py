"""What the Makefile's commands run; make only prints it here."""

import shutil
import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]


def commands(tmp_path: Path, *arguments: str) -> list[str]:
    """Return the lines that make would run in an environment that is up to date."""
    assert shutil.which("make"), "make is needed"
    (tmp_path / ".test-ready").touch()
    command = ["make", "--dry-run", f"VENV={tmp_path}", "IMAGE=some:image", *arguments]
    return subprocess.run(command, cwd=PROJECT, check=True, capture_output=True, text=True, timeout=60).stdout.split(
        "\n"
    )


def test_make_test_all_runs_every_test_once(tmp_path: Path) -> None:
    runs = [line.partition(" -m pytest ")[2] for line in commands(tmp_path, "test", "test-all") if "pytest" in line]
    quick, slow = (run.partition(" --numprocesses")[0] for run in runs)
    assert (quick, slow) == ('-m "not slow"', "-m slow")


def test_make_image_ends_by_starting_the_result(tmp_path: Path) -> None:
    build, start = (line for line in commands(tmp_path, "image") if line.startswith("docker "))
    assert build.startswith("docker build ")
    assert start == "docker run --rm --network none some:image --help >/dev/null"


@pytest.mark.parametrize("verb", ["run", "test", "check"])
def test_first_commands_install_uv_with_hashes(tmp_path: Path, verb: str) -> None:
    lines = subprocess.run(
        ["make", "--dry-run", "--always-make", f"VENV={tmp_path}", verb],
        cwd=PROJECT,
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout.splitlines()
    installs = [line for line in lines if "pip install" in line]
    assert [("--require-hashes" in line, line.split(" -r ")[1]) for line in installs] == [
        (True, ".uv/requirements.lock"),
        (True, ("local_test" if verb == "run" else "tests") + "/requirements.lock"),
    ]
