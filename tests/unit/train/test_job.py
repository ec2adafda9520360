"""A job in this process, where it can be stopped at a place of our choice."""

import io
import json
import os
from pathlib import Path

import pytest

from kmeans import artifact
from kmeans.errors import SettingError
from train.failure import StoppedError
from train.job import run
from train.metrics import JobLog


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A job on four rows with a test channel."""
    config = tmp_path / "input" / "config"
    config.mkdir(parents=True)
    (config / "hyperparameters.json").write_text(json.dumps({"k": "2", "eval_metrics": "[msd, ssd]"}))
    for channel, rows in (("train", "0\n1\n10\n11\n"), ("test", "2\n10.5\n")):
        folder = tmp_path / "input" / "data" / channel
        folder.mkdir(parents=True)
        (folder / "rows.csv").write_text(rows)
    return tmp_path


def test_the_model_and_its_scores_are_those_that_pencil_and_paper_give(base: Path) -> None:
    run(base, 1, JobLog(stream=io.StringIO()))
    model = artifact.load(base / "model")
    assert sorted(model.centers.ravel().tolist()) == [0.5, 10.5]
    assert model.counts is not None
    assert model.counts.tolist() == [2, 2]
    metrics = model.training["metrics"]
    assert metrics["train:mean_squared_distance"] == 0.25
    assert metrics["test:ssd"] == 2.25
    assert metrics["test:msd"] == 1.125


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_the_number_of_threads_doesnt_change_the_model(base: Path, threads: int) -> None:
    run(base, 1, JobLog(stream=io.StringIO()))
    alone = (base / "model" / "model_algo-1").read_bytes()
    run(base, threads, JobLog(stream=io.StringIO()))
    assert (base / "model" / "model_algo-1").read_bytes() == alone


def _stop(*_: object) -> None:
    raise StoppedError


@pytest.mark.parametrize(("owner", "name"), [(os, "fsync"), (Path, "replace")], ids=["fsync", "rename"])
def test_a_stop_while_the_model_is_written_leaves_no_part_of_it(
    base: Path, monkeypatch: pytest.MonkeyPatch, owner: object, name: str
) -> None:
    monkeypatch.setattr(owner, name, _stop)
    with pytest.raises(StoppedError):
        run(base, 1, JobLog(stream=io.StringIO()))
    assert list((base / "model").iterdir()) == []


def test_the_log_names_the_host_of_the_job(base: Path) -> None:
    (base / "input" / "config" / "resourceconfig.json").write_text('{"current_host": "algo-9"}')
    stream = io.StringIO()
    run(base, 1, JobLog(stream=stream))
    assert "host=algo-9, test ssd <loss>=2.25" in stream.getvalue()


def test_a_job_without_a_train_channel_says_what_it_found(base: Path) -> None:
    (base / "input" / "config" / "inputdataconfig.json").write_text('{"validation": {}, "test": {}}')
    with pytest.raises(SettingError, match="expected a channel named train, found test, validation"):
        run(base, 1, JobLog(stream=io.StringIO()))
