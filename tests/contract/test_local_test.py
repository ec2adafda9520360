"""``python -m local_test``, which is what `make run` runs, on a folder that may hold files of others."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from local_test.__main__ import main
from local_test.own_files import RECORD, ForeignFileError, OwnFiles
from tests.contract.opt_ml import PROJECT

# All that a run writes, apart from missing configuration files; FIFOs in Pipe mode.
WRITTEN = [
    "input/data/train/digits.csv",
    "input/data/test/digits.csv",
    "request.csv",
    "request.json",
    "model/model_algo-1",
    "model/centers.npy",
    "model/kmeans.json",
    "output/failure",
    "checkpoints/kmeans-checkpoint-0",
    "checkpoints/kmeans-checkpoint-1",
    RECORD,
]


Refuses = Callable[..., None]


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def refuses(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refuses:
    """A function that runs the program on a folder, and asserts that it refuses to overwrite a file."""

    def run(folder: Path, path: Path, *options: str) -> None:
        monkeypatch.setattr(sys, "argv", ["local_test", "--dir", str(folder), *options])
        assert main() == 1
        assert capsys.readouterr().err == (
            f"local_test: {path} would be overwritten, but was not written by local_test, or was changed since: move "
            "it away, or choose another folder with --dir.\n"
        )

    return run


@pytest.mark.parametrize("name", WRITTEN)
def test_local_run_refuses_to_overwrite_a_file_of_others(tmp_path: Path, refuses: Refuses, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("mine")
    refuses(tmp_path, path)
    assert path.read_text() == "mine"
    assert not (tmp_path / "model" / "model_algo-1").exists() or name == "model/model_algo-1", "nothing was trained"


def test_local_run_refuses_a_file_in_the_place_of_a_fifo(tmp_path: Path, refuses: Refuses) -> None:
    path = tmp_path / "input" / "data" / "train_0"
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    refuses(tmp_path, path, "--pipe")
    assert path.read_text() == "mine"


def test_local_run_refuses_a_link_to_a_file_of_others(tmp_path: Path, refuses: Refuses) -> None:
    mine = tmp_path / "mine.csv"
    mine.write_text("mine")
    folder = tmp_path / "ml"
    folder.mkdir()
    (folder / "request.csv").symlink_to(mine)
    refuses(folder, folder / "request.csv")
    assert mine.read_text() == "mine"


def test_local_run_overwrites_its_own_files_until_they_change(tmp_path: Path, refuses: Refuses) -> None:
    for options in ((), ("--pipe",)):
        # A run that was killed leaves a FIFO.
        (tmp_path / "input" / "data").mkdir(parents=True, exist_ok=True)
        os.mkfifo(tmp_path / "input" / "data" / "train_0")
        config = tmp_path / "input" / "config" / "inputdataconfig.json"
        config.unlink(missing_ok=True)
        command = [sys.executable, "-m", "local_test", "--dir", str(tmp_path), *options]
        done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        (tmp_path / "input" / "data" / "train_0").unlink(missing_ok=True)
    (tmp_path / "model" / "kmeans.json").write_text("{}")
    before = contents(tmp_path)
    refuses(tmp_path, tmp_path / "model" / "kmeans.json")
    assert contents(tmp_path) == before


def test_own_files_include_those_with_the_content_to_write(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"1,2\n")
    with pytest.raises(ForeignFileError):
        OwnFiles(tmp_path).write({path: b"3,4\n"})
    OwnFiles(tmp_path).write({path: b"1,2\n"})
    OwnFiles(tmp_path).write({path: b"3,4\n"})
    assert path.read_bytes() == b"3,4\n"


def test_own_files_include_what_a_killed_run_may_have_written(tmp_path: Path) -> None:
    path = tmp_path / "model"
    OwnFiles(tmp_path).expect([path])
    path.write_bytes(b"half of it")
    files = OwnFiles(tmp_path)
    files.expect([path])
    files.record([path])
    path.write_bytes(b"mine")
    with pytest.raises(ForeignFileError):
        OwnFiles(tmp_path).expect([path])
