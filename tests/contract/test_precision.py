"""Jobs on data whose differences float32 doesn't keep: large offsets, tiny scales, tight clusters far from 0."""

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from kmeans import artifact
from kmeans.formats import recordio

from ..pipes import Feeder
from ..unit.kmeans.formats import wire
from .opt_ml import Finished, OptMl
from .samples import predictions, read_centers
from .server import serving

pytestmark = pytest.mark.slow

Rows = npt.NDArray[Any]
MODE = "TrainingInputMode"


def csv(rows: Rows) -> bytes:
    return b"".join(b",".join(repr(value).encode() for value in row) + b"\n" for row in rows.tolist())


def json_lines(rows: Rows) -> bytes:
    return b"\n".join(json.dumps({"features": row}).encode() for row in rows.tolist())


def npy(rows: Rows) -> bytes:
    file = io.BytesIO()
    np.save(file, rows)
    return file.getvalue()


def npy_integers(rows: Rows) -> bytes:
    return npy(rows.astype(np.int64))


def recordio_float64(rows: Rows) -> bytes:
    return b"".join(wire.frame(wire.record(wire.float64_tensor(*row))) for row in rows.tolist())


def recordio_integers(rows: Rows) -> bytes:
    return b"".join(wire.frame(wire.record(wire.int32_tensor(*map(int, row)))) for row in rows.tolist())


def recordio_float32(rows: Rows) -> bytes:
    return recordio.encode(rows.astype(np.float32))


TYPES: dict[Callable[[Rows], bytes], str] = {
    csv: "text/csv;label_size=0",
    json_lines: "application/jsonlines",
    npy: "application/x-npy",
    npy_integers: "application/x-npy",
    recordio_float64: "application/x-recordio-protobuf",
    recordio_integers: "application/x-recordio-protobuf",
    recordio_float32: "application/x-recordio-protobuf",
}


def seconds(first: float = 1_700_000_000, apart: float = 60, rows: int = 100) -> Rows:
    """Return timestamps near ``first``, and as many near others, in whole seconds."""
    around = np.random.default_rng(5).integers(-3, 4, (2, rows)) + np.array([[0], [apart]])
    return np.reshape(first + around, (-1, 1)).astype(np.float64)


def blobs(scale: float = 1.0) -> Rows:
    generator = np.random.default_rng(4)
    return np.concatenate([generator.normal(place, 1, (100, 3)) for place in (-10, 0, 10)]) * scale


def tight() -> Rows:
    generator = np.random.default_rng(6)
    return np.concatenate([generator.normal(place, 0.001, 50) for place in (-1000.02, -1000, 1000, 1000.02)])[:, None]


def loss(rows: Rows, centers: Rows) -> float:
    return float(np.square(rows[:, None, :] - centers).sum(axis=2).min(axis=1).mean())


def trained(job: OptMl, rows: Rows, form: Callable[[Rows], bytes], k: int, **fields: str) -> Finished:
    job.set_hyperparameters(k=k, eval_metrics='["msd", "ssd"]')
    described = {MODE: "File", "ContentType": TYPES[form]} | fields
    job.set_channels(train=described, test=described)
    for channel in ("train", "test"):
        job.put("rows", form(rows), channel)
    finished = job.train()
    assert finished.exit_code == 0, finished.log + finished.errors
    return finished


def assert_right(job: OptMl, rows: Rows, k: int, rel: float = 1e-3) -> None:
    """Check that each of k equal parts of the rows is a cluster, and that the losses are those of the rows."""
    means = np.stack([part.mean(axis=0) for part in np.split(rows, k)])
    model = artifact.load(job.model)
    assert model.counts is not None
    assert model.counts.tolist() == [len(rows) // k] * k
    labels, _ = model.predict(rows)
    assert len({tuple(part.tolist()) for part in np.split(labels, k)}) == k
    assert all(len(set(part.tolist())) == 1 for part in np.split(labels, k))
    expected = loss(rows, means)
    assert loss(rows, model.precise_centers.astype(np.float64)) == pytest.approx(expected, rel=rel, abs=0)
    metrics = job.card["training"]["metrics"]
    assert metrics["train:mean_squared_distance"] == pytest.approx(expected, rel=rel, abs=0)
    assert metrics["test:msd"] == pytest.approx(expected, rel=rel, abs=0)
    assert metrics["test:ssd"] == pytest.approx(expected * len(rows), rel=rel, abs=0)
    np.testing.assert_array_equal(read_centers(job.model), model.precise_centers.astype(np.float32))


@pytest.mark.parametrize("form", [form for form in TYPES if form is not recordio_float32])
def test_timestamps_of_two_minutes_are_two_clusters(job: OptMl, form: Callable[[Rows], bytes]) -> None:
    rows = seconds()
    finished = trained(job, rows, form, 2)
    assert_right(job, rows, 2)
    assert "channel train, column" not in finished.log
    centers = np.sort(artifact.load(job.model).precise_centers.ravel())
    assert centers[1] - centers[0] == pytest.approx(60, abs=1)


@pytest.mark.parametrize("mode", ["FastFile", "Pipe"])
def test_timestamps_in_another_input_mode_are_kept(job: OptMl, mode: str) -> None:
    rows = seconds()
    job.set_hyperparameters(k=2)
    job.set_channels(train={MODE: mode, "ContentType": TYPES[csv]})
    if mode == "Pipe":
        with Feeder(job.data / "train", [[csv(rows)]]):
            finished = job.train()
    else:
        job.put("rows", csv(rows))
        finished = job.train()
    assert finished.exit_code == 0, finished.log
    centers = np.sort(artifact.load(job.model).precise_centers, axis=0)
    assert job.card["training"]["metrics"]["train:mean_squared_distance"] == pytest.approx(loss(rows, centers))
    assert centers[1, 0] - centers[0, 0] == pytest.approx(60, abs=1)


@pytest.mark.parametrize("form", [csv, json_lines, npy, recordio_float64, recordio_float32])
@pytest.mark.parametrize("scale", [1e-25, 1e-12, 1e12])
def test_blobs_of_any_scale_have_their_loss(job: OptMl, form: Callable[[Rows], bytes], scale: float) -> None:
    rows = blobs(scale)
    trained(job, rows, form, 3)
    assert_right(job, rows, 3)


@pytest.mark.parametrize("form", [csv, npy, recordio_float32])
def test_tight_clusters_far_from_zero_are_told_apart(job: OptMl, form: Callable[[Rows], bytes]) -> None:
    rows = tight()
    trained(job, rows, form, 4)
    assert_right(job, rows, 4, rel=0.01)


def test_columns_of_all_kinds_in_one_table_are_kept(job: OptMl) -> None:
    generator = np.random.default_rng(7)
    rows = np.concatenate([blobs(), generator.normal(0, 1, (300, 4))], axis=1)
    rows[:, 0] += np.repeat([0, 60, 120], 100) - 1_700_000_000
    rows[:, 4] += 5e14
    rows[:, 5] = 20231127
    trained(job, rows, csv, 3)
    assert_right(job, rows, 3)


def test_labels_in_front_are_left_as_they_are(job: OptMl) -> None:
    rows = seconds()
    job.set_hyperparameters(k=2)
    job.set_channels(train={MODE: "File", "ContentType": "text/csv;label_size=1"})
    job.put("rows.csv", csv(np.column_stack([np.arange(200) * 1e9, rows])))
    assert job.train().exit_code == 0
    assert job.card["training"]["metrics"]["train:mean_squared_distance"] == pytest.approx(
        loss(rows, artifact.load(job.model).precise_centers)
    )


def test_timestamps_as_float32_are_warned_of_by_column(job: OptMl) -> None:
    rows = np.column_stack([np.random.default_rng(0).normal(size=200), seconds()])
    log = trained(job, rows, recordio_float32, 2).log
    assert re.search(r"WARNING \d+\] channel train, column", log)
    assert "channel train, column 2: its values came as float32, which has steps of 128" in log
    assert "column 1:" not in log


def test_a_column_constant_in_the_first_file_is_read_again(job: OptMl) -> None:
    job.set_hyperparameters(k=2)
    job.set_channels(train={MODE: "File", "ContentType": TYPES[csv]})
    first, second = np.full((500, 2), 1_000_000.0), np.full((500, 2), 1_000_000.0)
    second[:, 1] += 0.01 + np.random.default_rng(0).normal(0, 1e-3, 500)
    job.put("a.csv", csv(first))
    job.put("b.csv", csv(second))
    finished = job.train()
    assert finished.exit_code == 0, finished.log
    assert "reading the channel again" in finished.log
    model = artifact.load(job.model)
    assert sorted(model.predict(np.concatenate([first, second]))[0].tolist()) == [0] * 500 + [1] * 500
    expected = loss(np.concatenate([first, second]), model.precise_centers)
    assert job.card["training"]["metrics"]["train:mean_squared_distance"] == pytest.approx(expected, rel=1e-4)


def test_a_pipe_that_shows_it_late_is_warned_of(job: OptMl) -> None:
    job.set_hyperparameters(k=2)
    rows = np.full((200_000, 8), 1_000_000.0)
    rows[100_000:, 2] += 0.01 * np.random.default_rng(0).random(100_000)
    job.set_channels(train={MODE: "Pipe"})
    with Feeder(job.data / "train", [[npy(rows)]]):
        finished = job.train()
    assert finished.exit_code == 0, finished.log
    assert "channel train, column 3: its values near 1e+06 differ by little" in finished.log


def test_served_answers_equal_those_of_the_model(job: OptMl, tmp_path: Path) -> None:
    rows = seconds()
    trained(job, rows, csv, 2)
    model = artifact.load(job.model)
    labels, distances = model.predict(rows)
    with serving(job.base, tmp_path / "output") as server:
        for form in (csv, json_lines, npy, recordio_float64):
            answer = server.invoke(form(rows), TYPES[form].partition(";")[0], Accept="text/csv")
            assert answer.status == 200, answer.body
            np.testing.assert_array_equal(predictions("text/csv", answer.body), np.column_stack([labels, distances]))
        body = json.dumps({"instances": rows.tolist()}).encode()
        answer = server.invoke(body, "application/json", Accept="text/csv")
        np.testing.assert_array_equal(predictions("text/csv", answer.body), np.column_stack([labels, distances]))


def test_a_model_with_coordinates_is_gone_on_from(job: OptMl) -> None:
    rows = seconds()
    trained(job, rows, csv, 2)
    for name, content in job.model_files().items():
        job.put(name, content, "model")
    fields = {MODE: "File", "ContentType": TYPES[csv]}
    job.set_channels(train=fields, test=fields, model={MODE: "File"})
    later = rows + 7
    for channel in ("train", "test"):
        job.put("rows", csv(later), channel)
    assert job.train().exit_code == 0
    assert_right(job, later, 2)


def test_a_job_restarted_from_a_checkpoint_ends_equal(job: OptMl) -> None:
    rows = seconds(rows=3000)
    trained(job, rows, csv, 2)
    whole = job.model_files()
    (job.base / "checkpoints").mkdir()
    job.set_hyperparameters(k=2, eval_metrics='["msd", "ssd"]', checkpoint_interval="0")
    for _ in range(2):
        finished = job.train()
        assert finished.exit_code == 0, finished.log
        files = job.model_files()
        assert files["model_algo-1"] == whole["model_algo-1"]
        assert files["centers.npy"] == whole["centers.npy"]
    assert "going on from checkpoint" in finished.log


def test_differences_no_offset_can_keep_are_warned_of(job: OptMl) -> None:
    generator = np.random.default_rng(8)
    places = (-1e6 - 0.02, -1e6, 1e6, 1e6 + 0.02)
    rows = np.concatenate([generator.normal(place, 0.001, 200) for place in places])[:, None]
    log = trained(job, rows, csv, 4).log
    assert "channel train, column 1: many of its values differ by less than float32 tells apart" in log
