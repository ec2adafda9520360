"""`make workflow` stays on this machine, and leaves nothing behind whatever happens."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.contract.opt_ml import PROJECT

# Stands for the environment's Python: writes down what it is asked, and fails at the step that a test names.
PYTHON = """#!/bin/sh
echo "$*" >>"$ASKED"
[ "$3" != "$FAILING" ]
"""


@pytest.mark.parametrize("failing", ["", "data", "deploy", "delete"])
def test_make_workflow_uses_own_folder_and_deletes_at_end(tmp_path: Path, failing: str) -> None:
    assert shutil.which("make"), "make is needed"
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(PYTHON)
    python.chmod(0o755)
    (tmp_path / "venv" / ".workflow-ready").touch()
    asked = tmp_path / "asked"
    environment = {**os.environ, "KMEANS_TARGET": "aws", "ASKED": str(asked), "FAILING": failing}
    command = ["make", "--silent", "workflow", f"VENV={tmp_path / 'venv'}", "IMAGE=some:image"]
    ended = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, timeout=60, check=False)
    assert (ended.returncode == 0) is (failing == ""), ended.stderr
    lines = asked.read_text().splitlines()
    assert all(line.startswith("-m workflow ") for line in lines)
    assert all(line.endswith(" --target local --folder .workflow/make") for line in lines)
    steps = [line.split()[2] for line in lines]
    whole = ["data", "train", "deploy", "validate", "transform", "validate", "delete"]
    assert steps == (whole if failing in ("", "delete") else [*whole[: whole.index(failing) + 1], "delete"])
