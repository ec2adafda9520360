"""The step `image` calls make or the script, both played here, and the next steps take what came of it."""

import json
import os
from pathlib import Path

import moto
import pytest

from workflow.ledger import Ledger

from .conftest import Run

ECR = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/digits"
ACCOUNT = ("--target", "aws", "--region", "eu-west-1")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """What make and build_and_push.sh, both played by one program, were asked; no Docker and no AWS is."""
    project = tmp_path / "project"
    project.mkdir()
    program = f"""#!/bin/sh
    echo "$PWD: $(basename "$0") $*" >>{tmp_path}/asked
    echo {ECR}:1 && echo {ECR}@sha256:abc
    exit "${{CODE:-0}}"
    """
    for name in ("make", "build_and_push.sh"):
        (project / name).write_text(program)
        (project / name).chmod(0o755)
    monkeypatch.setattr("workflow.steps.prepare.PROJECT", project)
    monkeypatch.setenv("PATH", f"{project}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr("workflow.local.service.Engine", lambda scope: Silent())
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.chdir(tmp_path)  # a step may be started anywhere
    return tmp_path / "asked"


class Silent:
    def close(self) -> None:
        pass


def test_on_this_machine_make_builds_it(asked: Path, run: Run, tmp_path: Path) -> None:
    assert "image: kmeans:latest" in run("image")
    assert "image: mine:2" in run("image", "--image", "mine:2")
    project = tmp_path / "project"
    assert asked.read_text().splitlines() == [
        f"{project}: make image IMAGE=kmeans:latest",
        f"{project}: make image IMAGE=mine:2",
    ]
    assert "There is no data yet" in run("train", fails=True)
    names = [entry.name for entry in Ledger(tmp_path / "workflow" / "local" / "created.json").entries()]
    assert names == ["kmeans:latest", "mine:2"]


def test_in_an_account_the_script_builds_and_pushes_it(
    asked: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with moto.mock_aws():
        out = run("image", *ACCOUNT, "--repository", "digits", "--skip-build")
    assert f"image: {ECR}@sha256:abc" in out
    script = f"{tmp_path / 'project'}: build_and_push.sh"
    assert asked.read_text().splitlines() == [f"{script} --region eu-west-1 --skip-build digits"]
    plan = json.loads(run("train", *ACCOUNT, "--dry-run"))
    assert plan["CreateTrainingJob"]["AlgorithmSpecification"]["TrainingImage"] == f"{ECR}@sha256:abc"


@pytest.mark.parametrize("where", [(), ACCOUNT])
def test_what_fails_is_said_and_nothing_is_recorded(
    asked: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: tuple[str, ...]
) -> None:
    with moto.mock_aws():
        monkeypatch.setenv("CODE", "3")
        assert "ended with exit code 3; the reason is above" in run("image", *where, fails=True)
        for name in ("make", "build_and_push.sh"):
            (tmp_path / "project" / name).unlink()
        monkeypatch.setenv("PATH", str(tmp_path / "project"))
        assert "isn't there: run this step from a checkout" in run("image", *where, fails=True)
    assert not (tmp_path / "workflow").exists()
