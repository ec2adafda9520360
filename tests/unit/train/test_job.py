"""A job in this process, where it can be stopped at a place of our choice."""

import errno
import io
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kmeans import artifact
from kmeans.errors import SettingError
from kmeans.model import KMeansModel
from tests.pipes import Feeder
from tests.unit.kmeans.thread_hosts import ThreadHosts, on_all_hosts
from train.failure import StoppedError
from train.job import RESERVED_BYTES, TrainingJob
from train.metrics import JobLog

MEMORY = 1 << 30


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


@pytest.mark.parametrize("others", [{}, {"init_method": "hierarchical"}, {"refine_max_iter": "0"}])
def test_model_and_scores_are_those_computed_by_hand(base: Path, others: dict[str, str]) -> None:
    path = base / "input" / "config" / "hyperparameters.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **others}))
    TrainingJob(base, 1, MEMORY, JobLog(stream=io.StringIO())).run()
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
    TrainingJob(base, 1, MEMORY, JobLog(stream=io.StringIO())).run()
    alone = (base / "model" / "model_algo-1").read_bytes()
    TrainingJob(base, threads, MEMORY, JobLog(stream=io.StringIO())).run()
    assert (base / "model" / "model_algo-1").read_bytes() == alone


def test_rows_beyond_memory_are_read_again_in_each_pass(base: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(40_000, 6)) + np.repeat([[0], [20], [40], [60]], 10_000, axis=0)
    for channel, part in (("train", rows), ("test", rows[::7])):
        np.savetxt(base / "input" / "data" / channel / "rows.csv", part, fmt="%.5g", delimiter=",")
    (base / "input" / "config" / "hyperparameters.json").write_text(
        json.dumps({"k": "4", "eval_metrics": "[msd, ssd]"})
    )
    TrainingJob(base, 2, MEMORY, JobLog(stream=io.StringIO())).run()
    in_memory = artifact.load(base / "model")
    log = io.StringIO()
    TrainingJob(base, 2, RESERVED_BYTES + 1_000_000, JobLog(stream=log)).run()
    streamed = artifact.load(base / "model")
    assert "channel train is larger than the 1 MB of memory for rows" in log.getvalue()
    assert "channel test is larger than the 0 MB" in log.getvalue()
    assert streamed.counts is not None
    assert sorted(streamed.counts.tolist()) == [10_000] * 4
    for metric, value in in_memory.training["metrics"].items():
        if metric.startswith("test:") or metric.endswith("distance"):
            assert streamed.training["metrics"][metric] == pytest.approx(value, rel=1e-3)


def test_cosine_rows_beyond_memory_are_normalized_in_each_pass(base: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(40_000, 6)) + np.repeat(10 * np.eye(6)[:4], 10_000, axis=0)
    rows *= 10 ** np.random.default_rng(1).uniform(-3, 3, size=(40_000, 1))
    for channel, part in (("train", rows), ("test", rows[::7])):
        np.savetxt(base / "input" / "data" / channel / "rows.csv", part, fmt="%.5g", delimiter=",")
    (base / "input" / "config" / "hyperparameters.json").write_text(json.dumps({"k": "4", "distance_metric": "cosine"}))
    TrainingJob(base, 2, MEMORY, JobLog(stream=io.StringIO())).run()
    in_memory = artifact.load(base / "model")
    log = io.StringIO()
    TrainingJob(base, 2, RESERVED_BYTES + 1_000_000, JobLog(stream=log)).run()
    streamed = artifact.load(base / "model")
    assert "channel train is larger than the 1 MB of memory for rows" in log.getvalue()
    for model in (in_memory, streamed):
        distances = model.transform(rows).min(axis=1)
        assert model.training["metrics"]["train:mean_squared_distance"] == pytest.approx(distances.mean(), rel=1e-4)
    for metric in ("train:mean_squared_distance", "test:msd"):
        expected = pytest.approx(in_memory.training["metrics"][metric], rel=1e-3)
        assert streamed.training["metrics"][metric] == expected


@pytest.mark.parametrize("count", [2, 3, 5])
def test_hosts_that_own_no_row_of_a_replicated_channel_take_part(base: Path, tmp_path: Path, count: int) -> None:
    """The train channel has four rows, the test channel one."""
    (base / "input" / "data" / "test" / "rows.csv").write_text("2\n")
    names = [f"algo-{number}" for number in range(count)]
    bases, logs = [tmp_path / "hosts" / name for name in names], [io.StringIO() for _ in names]
    for name, own in zip(names, bases, strict=True):
        shutil.copytree(base / "input", own / "input")
        (own / "input" / "config" / "resourceconfig.json").write_text(
            json.dumps({"current_host": name, "hosts": names})
        )

    def host(hosts: ThreadHosts) -> None:
        TrainingJob(bases[hosts.rank], 1, MEMORY, JobLog(stream=logs[hosts.rank]), hosts).run()

    assert on_all_hosts(count, host) == [None] * count
    model = artifact.load(bases[0] / "model")
    assert sorted(model.centers.ravel().tolist()) == [0.5, 10.5]
    assert model.training["rows"] == 4
    assert model.training["metrics"]["test:msd"] == 2.25
    for log in logs:
        # The first mini-batch is that of all hosts, whichever says it.
        assert "Effective batch size used to initialize is 4\n" in log.getvalue()


def _set(base: Path, **hyperparameters: str) -> None:
    (base / "input" / "config" / "hyperparameters.json").write_text(json.dumps({"k": "2", **hyperparameters}))


def _trained(base: Path) -> tuple[bytes, str]:
    log = io.StringIO()
    TrainingJob(base, 1, MEMORY, JobLog(stream=log)).run()
    return (base / "model" / "model_algo-1").read_bytes(), log.getvalue()


def test_job_resumes_from_its_checkpoint(base: Path) -> None:
    expected, _ = _trained(base)
    (base / "checkpoints").mkdir()
    _set(base, checkpoint_interval="0")
    model, log = _trained(base)
    assert model == expected
    assert "saved a checkpoint in phase stream" in log
    assert "saved a checkpoint in phase refine" in log
    model, log = _trained(base)
    assert model == expected
    assert "going on from checkpoint" in log


def test_a_checkpoint_folder_may_lie_elsewhere(base: Path) -> None:
    config = base / "input" / "config" / "checkpointconfig.json"
    config.write_text('{"S3Uri": "s3://bucket/prefix", "LocalPath": "/opt/ml/elsewhere"}')
    _set(base, checkpoint_interval="0")
    _trained(base)
    assert sorted(path.name for path in (base / "elsewhere").iterdir()) == [
        "kmeans-checkpoint-0",
        "kmeans-checkpoint-1",
    ]


def test_checkpoint_of_another_job_is_refused_or_ignored(base: Path) -> None:
    (base / "checkpoints").mkdir()
    _set(base, checkpoint_interval="0")
    _trained(base)
    _set(base, seed="7")
    with pytest.raises(SettingError, match="seed was 0 and is 7"):
        _trained(base)
    _set(base)
    (base / "input" / "data" / "train" / "rows.csv").write_text("0\n1\n10\n12\n")
    with pytest.raises(SettingError, match="data was"):
        _trained(base)
    _set(base, ignore_changed_checkpoint="true")
    assert "is that of another job and is ignored" in _trained(base)[1]


def _put_rows(base: Path, rows: Any) -> None:
    for channel, part in (("train", rows), ("test", rows[:1])):
        np.savetxt(base / "input" / "data" / channel / "rows.csv", part, fmt="%.5g", delimiter=",")


@pytest.mark.parametrize("memory", [MEMORY, RESERVED_BYTES + 1_000_000], ids=["in memory", "streamed"])
def test_one_changed_row_of_many_is_refused(base: Path, memory: int) -> None:
    rows = np.random.default_rng(0).normal(size=(20_000, 3))
    _put_rows(base, rows)
    (base / "checkpoints").mkdir()
    TrainingJob(base, 1, memory, JobLog(stream=io.StringIO())).run()
    _set(base, checkpoint_interval="0")
    TrainingJob(base, 1, memory, JobLog(stream=io.StringIO())).run()
    rows[12_345, 1] += 1
    _put_rows(base, rows)
    with pytest.raises(SettingError, match=r"another job: data was [0-9a-f]{16} and is [0-9a-f]{16}"):
        TrainingJob(base, 1, memory, JobLog(stream=io.StringIO())).run()


@pytest.mark.parametrize("stop", [{"batches": 2}, {"moves": 1}, {"moves": 2}], ids=str)
@pytest.mark.parametrize(
    ("before", "after"), [(1_000_000, 990_000), (1_000_000, 1_100_000), (1_000_000, MEMORY), (MEMORY, 1_000_000)]
)
def test_job_with_other_memory_resumes_from_the_centers(
    base: Path, before: int, after: int, stop: dict[str, int]
) -> None:
    centers = np.repeat([[0], [20], [40], [60]], 10_000, axis=0)
    _put_rows(base, np.random.default_rng(0).normal(size=(40_000, 6)) + centers)
    (base / "checkpoints").mkdir()
    _set(base, k="4", local_lloyd_tol="0", mini_batch_size="1000")
    TrainingJob(base, 1, RESERVED_BYTES + before, StoppedIn(**stop)).run()
    log = io.StringIO()
    TrainingJob(base, 1, RESERVED_BYTES + after, JobLog(stream=log)).run()
    assert re.search("going on from checkpoint .*, not to the same bits: other rows were in memory", log.getvalue())
    counts = artifact.load(base / "model").counts
    assert counts is not None
    assert sorted(counts.tolist()) == [10_000] * 4


def test_another_model_to_start_from_is_refused(base: Path) -> None:
    _trained(base)
    (base / "model").rename(base / "input" / "data" / "model")
    (base / "checkpoints").mkdir()
    _set(base, checkpoint_interval="0")
    _trained(base)
    assert "going on from checkpoint" in _trained(base)[1]
    artifact.save(KMeansModel(np.array([[0], [1]], dtype=np.float32)), base / "input" / "data" / "model")
    with pytest.raises(SettingError, match=r"channel model was [0-9a-f]{16} and is [0-9a-f]{16}"):
        _trained(base)
    shutil.rmtree(base / "input" / "data" / "model")
    with pytest.raises(SettingError, match=r"channel model was [0-9a-f]{16} and is None"):
        _trained(base)


def test_given_checkpoint_folder_replaces_the_configured_one(base: Path) -> None:
    _set(base, checkpoint_interval="0")
    (base / "checkpoints").mkdir()
    TrainingJob(base, 1, MEMORY, JobLog(stream=io.StringIO()), checkpoint_folder=base / "named").run()
    assert not list((base / "checkpoints").iterdir())
    assert len(list((base / "named").iterdir())) == 2


def test_temporary_files_of_a_killed_job_are_removed(base: Path) -> None:
    names = {"model": ["model_algo-1", "kmeans.json"], "checkpoints": ["kmeans-checkpoint-0", "kmeans-checkpoint-1"]}
    for folder, files in names.items():
        (base / folder).mkdir()
        for name in files:
            (base / folder / f".{name}.tmp").write_bytes(b"the first half")
    (base / "model" / ".notes").write_bytes(b"somebody else's")
    _set(base, checkpoint_interval="100000")
    _trained(base)
    assert sorted(path.name for path in (base / "model").iterdir()) == [".notes", "kmeans.json", "model_algo-1"]
    assert list((base / "checkpoints").iterdir()) == []


def test_settings_that_do_not_affect_centers_may_change(base: Path) -> None:
    (base / "checkpoints").mkdir()
    _set(base, checkpoint_interval="0")
    _trained(base)
    _set(base, eval_metrics="[ssd]", checkpoint_interval="10")
    assert "going on from checkpoint" in _trained(base)[1]


class StoppedIn(JobLog):
    """A log that receives a stop after some mini-batches, or moves of centers."""

    def __init__(self, *, batches: int = 1 << 60, moves: int = 1 << 60) -> None:
        self.out = io.StringIO()
        super().__init__(stream=self.out)
        self._batches_left, self._moves_left = batches, moves

    def batch_done(self, **figures: Any) -> None:
        super().batch_done(**figures)
        self._batches_left -= 1
        if not self._batches_left:
            self.stop()

    def refine_pass(self, **figures: Any) -> None:
        super().refine_pass(**figures)
        self._moves_left -= 1
        if not self._moves_left:
            self.stop()


@pytest.mark.parametrize(
    ("stop", "phase"),
    [({"batches": 1}, "stream"), ({"batches": 7}, "stream"), ({"moves": 1}, "refine"), ({"moves": 3}, "refine")],
    ids=str,
)
def test_stopped_job_saves_a_checkpoint_before_the_interval(base: Path, stop: dict[str, int], phase: str) -> None:
    rows = np.random.default_rng(0).normal(size=(9000, 3))
    np.savetxt(base / "input" / "data" / "train" / "rows.csv", rows, fmt="%.5g", delimiter=",")
    (base / "input" / "data" / "test" / "rows.csv").write_text("1,2,3\n")
    settings = {"k": "9", "mini_batch_size": "500", "epochs": "2", "local_lloyd_tol": "1e-9"}
    settings |= {"checkpoint_interval": "100000"}
    _set(base, **settings)
    expected, _ = _trained(base)
    (base / "checkpoints").mkdir()
    stopped = StoppedIn(**stop)
    TrainingJob(base, 1, MEMORY, stopped).run()
    assert "stopped early" in stopped.out.getvalue()
    assert f"saved a checkpoint in phase {phase}" in stopped.out.getvalue()
    assert (base / "model" / "model_algo-1").read_bytes() != expected
    model, log = _trained(base)
    assert f"going on from checkpoint 0 in phase {phase}" in log
    assert model == expected


def test_job_on_pipes_resumes_with_the_remaining_epochs(base: Path) -> None:
    config = {"train": {"TrainingInputMode": "Pipe", "ContentType": "text/csv;label_size=0"}}
    (base / "input" / "config" / "inputdataconfig.json").write_text(json.dumps(config))
    settings = {"epochs": "5", "mini_batch_size": "100", "refine_max_iter": "0", "checkpoint_interval": "100000"}
    _set(base, k="3", **settings)
    content = "".join(f"{row % 71},{row % 31}\n" for row in range(1000)).encode()
    train = base / "input" / "data" / "train"

    def fed() -> Feeder:
        for fifo in train.parent.glob("train_*"):
            fifo.unlink()
        return Feeder(train, [[content]] * 9)

    with fed() as feeder:
        expected, _ = _trained(base)
    assert feeder.opened == 5
    (base / "checkpoints").mkdir()
    with fed():
        TrainingJob(base, 1, MEMORY, StoppedIn(batches=34)).run()  # in the fourth epoch
    with fed() as feeder:
        model, log = _trained(base)
    assert "going on from checkpoint 0 in phase stream" in log
    assert model == expected
    assert feeder.opened == 3, "the first for the rows in memory, and two epochs"


@pytest.mark.parametrize("starts_from", ["a checkpoint", "a model"])
@pytest.mark.parametrize("later", [[], [[b"1,2\n", None]]], ids=["no FIFO", "a silent one"])
def test_stop_in_wait_for_an_epoch_keeps_the_centers_so_far(
    base: Path, starts_from: str, later: list[list[bytes | None]]
) -> None:
    class StoppedAtTrain1(JobLog):
        def reading(self, channel: str, state: str) -> None:
            if "train_1" in state:
                self.stop()
            super().reading(channel, state)

    config = {"train": {"TrainingInputMode": "Pipe", "ContentType": "text/csv;label_size=0"}}
    _set(base, k="3", epochs="5", mini_batch_size="100", refine_max_iter="0", checkpoint_interval="100000")
    content = "".join(f"{row % 71},{row % 31}\n" for row in range(1000)).encode()
    train = base / "input" / "data" / "train"

    def run_with(log: JobLog, streams: list[Any]) -> None:
        for fifo in train.parent.glob("train_*"):
            fifo.unlink()
        with Feeder(train, streams):
            TrainingJob(base, 1, MEMORY, log).run()

    if starts_from == "a model":
        model = base / "input" / "data" / "model"
        artifact.save(KMeansModel(np.array([[0, 0], [30, 9], [60, 9]], dtype=np.float32)), model)
        config["model"] = {}
    else:
        (base / "checkpoints").mkdir()
    (base / "input" / "config" / "inputdataconfig.json").write_text(json.dumps(config))
    run_with(StoppedIn(batches=24), [[content]] * 4)  # in the third epoch
    (base / "model" / "model_algo-1").unlink()
    run_with(StoppedAtTrain1(stream=io.StringIO()), [[content], *later])
    assert artifact.load(base / "model").clusters == 3


class ChangedOnceWritten(JobLog):
    """A log that does something, with itself, when the model is written."""

    def __init__(self, change: Callable[[JobLog], object]) -> None:
        self.out = io.StringIO()
        super().__init__(stream=self.out)
        self._change = change

    def say(self, message: str, level: str = "INFO") -> None:
        super().say(message, level)
        if message.startswith("wrote the model"):
            self._change(self)


def _is_whole_without_scores(base: Path) -> bool:
    model = artifact.load(base / "model")
    return model.counts is not None and not [name for name in model.training["metrics"] if name.startswith("test:")]


def test_stop_during_scoring_prevents_only_the_scores(base: Path) -> None:
    log = ChangedOnceWritten(lambda log: log.stop())
    TrainingJob(base, 1, MEMORY, log).run()
    assert _is_whole_without_scores(base)
    assert "the test channel is not scored: the job is to stop" in log.out.getvalue()


def test_changed_test_channel_prevents_only_the_scores(base: Path) -> None:
    _put_rows(base, np.random.default_rng(0).normal(size=(40_000, 6)))
    test = base / "input" / "data" / "test" / "rows.csv"
    test.write_bytes((base / "input" / "data" / "train" / "rows.csv").read_bytes())
    log = ChangedOnceWritten(lambda _: test.write_text("1,2,3,4,5,6\n"))
    TrainingJob(base, 1, RESERVED_BYTES + 1_000_000, log).run()
    assert _is_whole_without_scores(base)
    assert "the test channel is not scored: " in log.out.getvalue()
    assert "the file has changed since it was first read" in log.out.getvalue()


def test_full_disk_after_the_model_prevents_only_the_scores(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    log = ChangedOnceWritten(lambda _: monkeypatch.setattr(os, "fsync", full))
    TrainingJob(base, 1, MEMORY, log).run()
    assert _is_whole_without_scores(base)
    assert "the scores are not in kmeans.json: can't write kmeans.json" in log.out.getvalue()


def test_job_starts_from_the_model_in_its_channel(base: Path) -> None:
    _trained(base)
    (base / "model").rename(base / "input" / "data" / "model")
    _, log = _trained(base)
    assert "going on from the 2 centers in channel model" in log
    assert "shrinking" not in log
    assert sorted(artifact.load(base / "model").centers.ravel().tolist()) == [0.5, 10.5]
    _set(base, k="3")
    with pytest.raises(SettingError, match="the model has 2 clusters, but k=3"):
        _trained(base)


def _stop(*_: object) -> None:
    raise StoppedError


@pytest.mark.parametrize(("owner", "name"), [(os, "fsync"), (Path, "replace")], ids=["fsync", "rename"])
def test_a_stop_while_the_model_is_written_leaves_no_part_of_it(
    base: Path, monkeypatch: pytest.MonkeyPatch, owner: object, name: str
) -> None:
    monkeypatch.setattr(owner, name, _stop)
    with pytest.raises(StoppedError):
        TrainingJob(base, 1, MEMORY, JobLog(stream=io.StringIO())).run()
    assert list((base / "model").iterdir()) == []


def test_the_log_names_the_host_of_the_job(base: Path) -> None:
    (base / "input" / "config" / "resourceconfig.json").write_text('{"current_host": "algo-9"}')
    stream = io.StringIO()
    TrainingJob(base, 1, MEMORY, JobLog(stream=stream)).run()
    assert "host=algo-9, test ssd <loss>=2.25" in stream.getvalue()


def test_job_without_a_train_channel_names_those_it_has(base: Path) -> None:
    (base / "input" / "config" / "inputdataconfig.json").write_text('{"validation": {}, "test": {}}')
    with pytest.raises(SettingError, match="expected a channel named train, found test, validation"):
        TrainingJob(base, 1, MEMORY, JobLog(stream=io.StringIO())).run()
