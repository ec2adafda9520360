"""Jobs whose rows need coordinates: on several hosts, larger than memory, through pipes, with values that come late."""

from __future__ import annotations

import io
import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from kmeans import artifact
from kmeans.arrays import Float64
from kmeans.errors import DataError
from kmeans.model import KMeansModel
from tests.pipes import Feeder
from tests.unit.kmeans.formats import wire
from tests.unit.train.test_job_hosts import FILE, PIPE, SHARDED, Jobs
from train.job import RESERVED_BYTES, TrainingJob
from train.metrics import JobLog

MEMORY = 1 << 30


def text(rows: Float64) -> str:
    return "".join(",".join(map(repr, row)) + "\n" for row in rows.tolist())


def rows_of(count: int = 4000, seed: int = 0) -> Float64:
    """Return rows of three clusters a minute apart, with an ordinary column."""
    generator = np.random.default_rng(seed)
    rows = generator.normal(size=(count, 2))
    rows[:, 0] += 1.7e9 + 60 * (np.arange(count) % 3)
    return rows


def loss(rows: Float64, model: KMeansModel) -> float:
    return float(np.square(rows[:, None, :] - model.precise_centers).sum(axis=2).min(axis=1).mean())


def job(base: Path, *, channels: dict[str, dict[str, str]] | None = None, **hyperparameters: str) -> Path:
    config = base / "input" / "config"
    config.mkdir(parents=True)
    (config / "hyperparameters.json").write_text(json.dumps({"k": "3", "eval_metrics": "[msd, ssd]"} | hyperparameters))
    if channels:
        (config / "inputdataconfig.json").write_text(json.dumps(channels))
    return base


def put(base: Path, rows: Float64, name: str = "rows.csv", channel: str = "train") -> None:
    path = base / "input" / "data" / channel / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text(rows))


def ran(base: Path, memory: int = MEMORY) -> tuple[KMeansModel, str]:
    log = io.StringIO()
    TrainingJob(base, 1, memory, JobLog(stream=log)).run()
    return artifact.load(base / "model"), log.getvalue()


def assert_true_loss(model: KMeansModel, rows: Float64, rel: float = 1e-4) -> None:
    assert model.training["metrics"]["train:mean_squared_distance"] == pytest.approx(loss(rows, model), rel=rel)
    assert loss(rows, model) == pytest.approx(2, rel=0.1)


@pytest.mark.parametrize("distribution", ["replicated", "sharded"])
@pytest.mark.parametrize("mode", [FILE, PIPE])
def test_several_hosts_find_the_centers_of_one(tmp_path: Path, mode: dict[str, str], distribution: str) -> None:
    rows = rows_of()
    jobs = Jobs(tmp_path / "hosts", 3)
    jobs.set(k="3")
    jobs.configure(train=mode | (SHARDED if distribution == "sharded" else {}))
    # Sorted: each shard has one cluster, and by itself another offset.
    parts = np.split(rows[rows[:, 0].argsort()][:3999], 3) if distribution == "sharded" else [rows] * 3
    feeders = []
    for host, part in zip(jobs.hosts, parts, strict=True):
        if mode == PIPE:
            feeders.append(Feeder(host.data / "train", [[text(part).encode()]]))
        else:
            host.put(text(part))
    for feeder in feeders:
        feeder.__enter__()
    model = jobs.model()
    for feeder in feeders:
        feeder.__exit__()
    put(job(tmp_path / "one"), rows)
    alone, _ = ran(tmp_path / "one")
    found, expected = (np.sort(each.precise_centers, axis=0) for each in (model, alone))
    np.testing.assert_allclose(found - [1.7e9, 0], expected - [1.7e9, 0], atol=0.05)
    assert_true_loss(model, rows, rel=2e-3)


def test_a_host_without_objects_takes_the_coordinates_of_all(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path, 3)
    jobs.set(k="3")
    jobs.configure(train=FILE | SHARDED)
    rows = rows_of()
    for host, part in zip(jobs.hosts, (None, text(rows), ""), strict=True):
        host.put(part)
    assert_true_loss(jobs.model(), rows)


def test_rows_larger_than_memory_keep_their_differences(tmp_path: Path) -> None:
    rows = rows_of(40_000)
    put(job(tmp_path), rows)
    put(tmp_path, rows[::7], channel="test")
    model, log = ran(tmp_path, RESERVED_BYTES + 1_000_000)
    assert "channel train is larger than the 1 MB of memory for rows" in log
    assert_true_loss(model, rows)
    assert model.training["metrics"]["test:msd"] == pytest.approx(loss(rows[::7], model), rel=1e-4)


@pytest.mark.parametrize("memory", [MEMORY, RESERVED_BYTES + 300_000])
def test_rows_that_need_coordinates_late_are_read_again(tmp_path: Path, memory: int) -> None:
    rows = rows_of(9000)
    ordinary = np.random.default_rng(1).normal(size=(300, 2))
    ordinary[:, 0] = 0
    put(job(tmp_path, k="4"), ordinary, "a.csv")
    put(tmp_path, rows, "b.csv")
    model, log = ran(tmp_path, memory)
    assert "reading the channel again" in log
    assert model.training["metrics"]["train:mean_squared_distance"] == pytest.approx(
        loss(np.concatenate([ordinary, rows]), model), rel=1e-3
    )


def test_growing_timestamps_keep_their_seconds(tmp_path: Path) -> None:
    generator = np.random.default_rng(2)
    rows = (1.7e9 + 5000 * np.arange(6) + generator.normal(0, 1, (5000, 6))).T.reshape(-1, 1)
    put(job(tmp_path, k="6"), rows[:100], "a.csv")
    put(tmp_path, rows[100:], "b.csv")
    model, _ = ran(tmp_path)
    assert model.training["metrics"]["train:mean_squared_distance"] == pytest.approx(1, rel=0.02)
    assert model.training["metrics"]["train:mean_squared_distance"] == pytest.approx(loss(rows, model), rel=1e-3)


def test_large_values_behind_tiny_ones_are_read_again(tmp_path: Path) -> None:
    generator = np.random.default_rng(3)
    tiny, large = generator.normal(size=(200, 2)) * 1e-60, generator.normal(size=(200, 2)) * 1e6
    put(job(tmp_path, k="2"), tiny, "a.csv")
    put(tmp_path, large, "b.csv")
    model, log = ran(tmp_path)
    assert "reading the channel again" in log
    assert model.coordinates.is_identity
    rows = np.concatenate([tiny, large])
    assert model.training["metrics"]["train:mean_squared_distance"] == pytest.approx(loss(rows, model), rel=1e-4)


def test_a_changed_row_changes_the_checkpoint_identity(tmp_path: Path) -> None:
    rows = rows_of(300)
    put(job(tmp_path, checkpoint_interval="0"), rows)
    (tmp_path / "checkpoints").mkdir()
    before, _ = ran(tmp_path)
    again, log = ran(tmp_path)
    assert "going on from checkpoint" in log
    np.testing.assert_array_equal(before.precise_centers, again.precise_centers)
    rows[7, 0] += 0.001  # a hundred thousandth of a step of float32
    put(tmp_path, rows)
    with pytest.raises(Exception, match="is that of another job: data was"):
        ran(tmp_path)


def test_a_checkpoint_of_other_pipe_rows_is_converted(tmp_path: Path) -> None:
    numbers = itertools.count()
    job(tmp_path, channels={"train": PIPE}, checkpoint_interval="0")
    (tmp_path / "checkpoints").mkdir()
    rows = rows_of(3000)
    for first in (rows, rows[::-1]):
        with Feeder(tmp_path / "input" / "data" / "train", [[text(first).encode()]]):
            model, log = ran(tmp_path)
        (tmp_path / "input" / "data" / "train_0").unlink()
        assert_true_loss(model, rows)
        assert ("going on from checkpoint" in log) == bool(next(numbers))


@pytest.mark.parametrize("form", ["json", "recordio"])
def test_sparse_float64_rows_keep_their_differences(tmp_path: Path, form: str) -> None:
    rows = rows_of(600)
    if form == "json":
        lines = [json.dumps({"keys": [0, 1], "shape": [2], "values": row}).encode() for row in rows.tolist()]
        content = b"\n".join(lines)
    else:
        place = wire.field(2, wire.varints(0, 1)) + wire.field(3, wire.varints(2))
        tensors = (wire.field(3, wire.field(1, wire.doubles(*row)) + place) for row in rows.tolist())
        content = b"".join(wire.frame(wire.record(tensor)) for tensor in tensors)
    put(job(tmp_path), rows)
    (tmp_path / "input" / "data" / "train" / "rows.csv").write_bytes(content)
    model, _ = ran(tmp_path)
    assert_true_loss(model, rows)


def test_files_of_two_widths_are_refused_as_ever(tmp_path: Path) -> None:
    put(job(tmp_path), rows_of(5), "a.csv")
    put(tmp_path, np.random.default_rng(0).normal(size=(9000, 3)), "b.csv")
    with pytest.raises(DataError, match=r"expected 2 columns as in .*found 3"):
        ran(tmp_path)


def test_a_pipe_of_tiny_rows_names_a_large_one(tmp_path: Path) -> None:
    job(tmp_path, channels={"train": PIPE})
    rows = np.random.default_rng(0).normal(size=(200_000, 4)) * 1e-60
    rows[-1, 2] = 5
    with (
        Feeder(tmp_path / "input" / "data" / "train", [[text(rows).encode()]]),
        pytest.raises(Exception, match=r"row 200000, column 3: expected a number within .*found 5"),
    ):
        ran(tmp_path)
