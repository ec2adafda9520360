"""Jobs with distance_metric=cosine, and their models on a server: all distances are 1 - cosine."""

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from kmeans.formats import recordio

from .opt_ml import TRAIN, OptMl
from .samples import Points, csv, digits, instances, json_lines, npy, predictions, read_centers
from .server import Server, serving

# Rows of other lengths than one another, in the same directions.
LENGTHS = 10.0 ** (np.arange(1797) % 9 - 4)[:, None]
POINTS: Points = (digits() * LENGTHS).astype(np.float32)

WRITERS: dict[str, Callable[[Points], bytes]] = {
    "text/csv": csv,
    "application/json": instances,
    "application/jsonlines": json_lines,
    "application/x-recordio-protobuf": recordio.encode,
    "application/x-npy": npy,
}
READERS = ("text/csv", "application/json", "application/jsonlines", "application/x-recordio-protobuf")
ZEROS = "expected a number other than 0 in the row, found only zeros"


def cosine_distances(points: Points, centers: Points) -> npt.NDArray[np.float64]:
    """Return 1 - cosine of each point and each center, by the definition."""
    wide, others = points.astype(np.float64), centers.astype(np.float64)
    lengths = np.outer(np.linalg.norm(wide, axis=1), np.linalg.norm(others, axis=1))
    distances: npt.NDArray[np.float64] = 1 - wide @ others.T / lengths
    return distances


@pytest.fixture(scope="module")
def cosine(tmp_path_factory: pytest.TempPathFactory) -> OptMl:
    """A finished job on the digits with a test channel; for reading only."""
    job = OptMl(tmp_path_factory.mktemp("cosine") / "ml")
    job.set_hyperparameters(k="10", distance_metric="cosine", eval_metrics="msd,ssd")
    job.put("train.npy", npy(POINTS[:1500]))
    job.put("test.npy", npy(POINTS[1500:]), channel="test")
    finished = job.train()
    assert finished.exit_code == 0, finished.log
    (job.base / "log").write_text(finished.log)
    return job


@pytest.fixture(scope="module")
def cosine_server(cosine: OptMl, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(cosine.base, tmp_path_factory.mktemp("server") / "output") as server:
        yield server


@pytest.fixture(scope="module")
def lenient(cosine: OptMl, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that answers bad rows with placeholders."""
    variables = {"SAGEMAKER_BATCH": "true", "KMEANS_BAD_ROWS": "placeholder"}
    with serving(cosine.base, tmp_path_factory.mktemp("lenient") / "output", **variables) as server:
        yield server


def test_centers_have_length_1_and_the_card_names_the_metric(cosine: OptMl) -> None:
    lengths = np.linalg.norm(read_centers(cosine.model).astype(np.float64), axis=1)
    np.testing.assert_allclose(lengths, 1, rtol=2e-7)
    assert cosine.card["distance_metric"] == "cosine"
    assert cosine.card["training"]["hyperparameters"]["distance_metric"] == "cosine"


def test_losses_are_means_of_1_minus_cosine(cosine: OptMl) -> None:
    log = (cosine.base / "log").read_text()
    logged = {name: float(value) for name, value in re.findall(r", (\S+ \S+) <loss>=(\S+)", log)}
    centers = read_centers(cosine.model)
    train, test = (cosine_distances(rows, centers).min(axis=1) for rows in (POINTS[:1500], POINTS[1500:]))
    assert logged["train mean_squared_distance"] == pytest.approx(train.mean(), rel=1e-5)
    assert logged["test msd"] == pytest.approx(test.mean(), rel=1e-5)
    assert logged["test ssd"] == pytest.approx(test.sum(), rel=1e-5)
    assert 0 < logged["train msd"] < train.mean()


@pytest.mark.parametrize("accept", READERS)
@pytest.mark.parametrize("content_type", WRITERS)
@pytest.mark.parametrize("rows", [1, 50])
def test_answers_are_1_minus_cosine(
    cosine_server: Server, cosine: OptMl, content_type: str, accept: str, rows: int
) -> None:
    answer = cosine_server.invoke(WRITERS[content_type](POINTS[:rows]), content_type, Accept=accept)
    assert answer.status == 200, answer.body
    found = predictions(answer.content_type, answer.body)
    table = cosine_distances(POINTS[:rows], read_centers(cosine.model))
    np.testing.assert_array_equal(found[:, 0], table.argmin(axis=1))
    np.testing.assert_allclose(found[:, 1], table.min(axis=1), rtol=1e-5)


@pytest.mark.parametrize("content_type", WRITERS)
def test_zero_row_of_a_request_is_refused_by_its_number(cosine_server: Server, content_type: str) -> None:
    points = POINTS[:9].copy()
    points[6] = 0
    answer = cosine_server.invoke(WRITERS[content_type](points), content_type)
    assert answer.status == 400
    assert f"row 7: {ZEROS}" in answer.error["message"]
    assert answer.error["details"]["row"] == 7


def test_zero_row_of_csv_is_counted_with_blank_lines(cosine_server: Server) -> None:
    lines = csv(POINTS[:3]).split(b"\n")
    zeros = b",".join([b"0"] * POINTS.shape[1])
    answer = cosine_server.invoke(b"\n".join([lines[0], b"", lines[1], b"", zeros, lines[2]]))
    assert answer.error["details"]["row"] == 5


def test_zero_row_in_a_later_portion_is_refused_by_its_number(cosine_server: Server) -> None:
    points = np.tile(digits()[:1000], (20, 1))
    points[17_654] = 0
    answer = cosine_server.invoke(csv(points))
    assert answer.status == 400
    assert answer.error["details"]["row"] == 17_655


@pytest.mark.parametrize("content_type", ["text/csv", "application/json", "application/x-recordio-protobuf"])
def test_zero_rows_become_placeholders_in_a_batch(lenient: Server, cosine: OptMl, content_type: str) -> None:
    points = POINTS[:9].copy()
    points[[0, 6]] = 0
    answer = lenient.invoke(WRITERS[content_type](points), content_type, Accept="text/csv")
    assert answer.status == 200, answer.body
    found = predictions("text/csv", answer.body)
    assert np.isnan(found[[0, 6]]).all()
    table = cosine_distances(np.delete(points, [0, 6], axis=0), read_centers(cosine.model))
    np.testing.assert_array_equal(np.delete(found, [0, 6], axis=0)[:, 0], table.argmin(axis=1))


@pytest.mark.parametrize("channel", ["train", "test"])
@pytest.mark.parametrize("labels", [0, 1])
def test_zero_row_of_a_file_fails_the_job_by_its_number(opt_ml: OptMl, channel: str, labels: int) -> None:
    opt_ml.set_hyperparameters(k="2", distance_metric="cosine")
    fields = {"ContentType": f"text/csv;label_size={labels}"}
    opt_ml.set_channels(train=fields, test=fields)
    good, label = b"".join(b"7," * labels + b"%d,2\n" % value for value in range(1, 9)), b"7," * labels
    path = opt_ml.put("rows.csv", good + b"\n" + label + b"0,0\n" + good, channel=channel)
    opt_ml.put("rows.csv", good, channel="test" if channel == "train" else "train")
    for command in ("train", "validate"):
        finished = opt_ml.train() if command == "train" else opt_ml.train((*TRAIN, "--validate"))
        assert finished.exit_code == 1, finished.log + finished.errors
        assert f"{path}, row 10: {ZEROS}" in finished.log


def test_description_of_a_cosine_server_names_its_distance(cosine_server: Server) -> None:
    assert b"cosine distance (1 - cosine, from 0 to 2)" in cosine_server.ask("GET", "/openapi.json").body


def test_metric_of_a_job_is_checked(job: OptMl) -> None:
    job.set_hyperparameters(k="2", distance_metric="manhattan")
    job.put("rows.csv", b"1,2\n3,4\n")
    finished = job.train()
    assert finished.exit_code == 1
    assert "Hyperparameter distance_metric: expected euclidean or cosine, found 'manhattan'." in finished.log


def test_checkpoint_of_another_metric_is_refused(job: OptMl) -> None:
    job.put("digits.npy", npy(POINTS))
    folder = job.base / "checkpoints"
    folder.mkdir()
    job.set_hyperparameters(k="10", checkpoint_interval="0")
    assert job.train().exit_code == 0
    job.set_hyperparameters(k="10", checkpoint_interval="0", distance_metric="cosine")
    finished = job.train()
    assert finished.exit_code == 1
    assert "distance_metric was euclidean and is cosine" in finished.log


def test_cosine_job_starts_from_a_euclidean_model(job: OptMl, trained: OptMl) -> None:
    job.put("digits.npy", npy(POINTS))
    for name, content in trained.model_files().items():
        job.put(name, content, channel="model")
    job.set_hyperparameters(k="10", distance_metric="cosine")
    finished = job.train()
    assert finished.exit_code == 0, finished.log
    assert cosine_distances(POINTS, read_centers(job.model)).min(axis=1).mean() < 0.2


def test_cosine_job_refuses_to_start_from_a_zero_center(job: OptMl) -> None:
    job.put("rows.csv", b"1,2\n3,4\n")
    job.put("centers.npy", npy(np.array([[1, 2], [0, 0]], dtype=np.float32)), channel="model")
    job.set_hyperparameters(k="2", distance_metric="cosine")
    finished = job.train()
    assert finished.exit_code == 1
    assert "Channel model: center 2 of the model has only zeros" in finished.log


def test_models_of_both_metrics_are_behind_one_endpoint(cosine: OptMl, trained: OptMl, tmp_path: Path) -> None:
    with serving(tmp_path, tmp_path / "output", SAGEMAKER_MULTI_MODEL="true") as server:
        for name, job in (("cosine", cosine), ("euclidean", trained)):
            folder = tmp_path / "models" / name
            shutil.copytree(job.model, folder)
            body = f'{{"model_name": "{name}", "url": "{folder}"}}'.encode()
            assert server.ask("POST", "/models", body).status == 200
        headers = {"Content-Type": "text/csv", "Accept": "text/csv"}
        answer = server.ask("POST", "/models/cosine/invoke", csv(POINTS[:9]), headers)
        found = predictions("text/csv", answer.body)
        table = cosine_distances(POINTS[:9], read_centers(cosine.model))
        np.testing.assert_allclose(found[:, 1], table.min(axis=1), rtol=1e-5)
        zeros = b",".join([b"0"] * POINTS.shape[1])
        assert server.ask("POST", "/models/cosine/invoke", zeros, headers).status == 400
        assert server.ask("POST", "/models/euclidean/invoke", zeros, headers).status == 200
