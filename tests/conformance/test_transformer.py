"""The SDK 2's transformer in local mode, unmodified: files in, files out, row for row what brute force says.

Local mode splits by Line or not at all. Its split by RecordIO works with no container: it takes records out of their
frames, so that nothing tells where one ends, and joins them with a text. So RecordIO goes unsplit here.
"""

import io
import json
import sys
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from kmeans import artifact
from kmeans.model import KMeansModel
from tests.contract import samples
from tests.contract.server import free_port

from .amazon import common
from .laptop import Laptop, Notebook

pytestmark = pytest.mark.image

POINTS = samples.digits()
CENTERS = POINTS[:: len(POINTS) // 10][:10]

CSV, JSON, JSON_LINES = "text/csv", "application/json", "application/jsonlines"
RECORDIO = "application/x-recordio-protobuf"

# SingleRecord sends a request for each line.
SOME = slice(0, 40)
MANY = slice(0, None)


def recordio(points: samples.Points) -> bytes:
    file = io.BytesIO()
    common.write_numpy_to_dense_tensor(file, points)
    return file.getvalue()


def six_times(write: Callable[[samples.Points], bytes]) -> Callable[[samples.Points], bytes]:
    """Write all rows six times: more than a megabyte of lines, and less than two."""
    return lambda points: write(points) * 6


@dataclass(frozen=True)
class Job:
    """A transform job: its rows as they are written, and how the SDK is to split, send and join them."""

    content_type: str
    write: Callable[[samples.Points], bytes]
    rows: slice
    strategy: str
    split: str | None
    accept: str
    assemble: str | None
    max_payload: int | None = None

    @property
    def arguments(self) -> dict[str, dict[str, Any]]:
        transformer = {
            "strategy": self.strategy,
            "accept": self.accept,
            "assemble_with": self.assemble,
            "max_payload": self.max_payload,
        }
        return {"transformer": transformer, "transform": {"content_type": self.content_type, "split_type": self.split}}


JOBS = {
    "lines-one-by-one": Job(CSV, samples.csv, SOME, "SingleRecord", "Line", JSON, "Line"),
    "lines-together": Job(CSV, samples.csv, SOME, "MultiRecord", "Line", CSV, "Line"),
    "lines-in-several-bodies": Job(CSV, six_times(samples.csv), MANY, "MultiRecord", "Line", JSON, "Line", 1),
    "json-lines-one-by-one": Job(JSON_LINES, samples.json_lines, SOME, "SingleRecord", "Line", JSON_LINES, "Line"),
    "json-lines-together": Job(JSON_LINES, samples.json_lines, SOME, "MultiRecord", "Line", JSON_LINES, "Line"),
    "a-file-of-lines": Job(CSV, samples.csv, MANY, "SingleRecord", None, CSV, "Line"),
    "a-file-of-json-lines": Job(JSON_LINES, samples.json_lines, MANY, "MultiRecord", "None", CSV, "Line"),
    "a-file-of-json": Job(JSON, samples.instances, MANY, "SingleRecord", "None", JSON, None),
    "a-file-of-records": Job(RECORDIO, recordio, MANY, "SingleRecord", None, RECORDIO, "None"),
}


@pytest.fixture(scope="module")
def laptop(engine: Any, compose: Path) -> Laptop:
    """One without S3: all files are its own."""
    return Laptop(engine, compose, "http://127.0.0.1:9")


@pytest.fixture(scope="module")
def notebook(laptop: Laptop, image: Any, tmp_path_factory: pytest.TempPathFactory) -> Notebook:
    """All jobs, done by one program."""
    folder = tmp_path_factory.mktemp("transformer")
    artifact.save(KMeansModel(CENTERS), folder / "model")
    with tarfile.open(folder / "model.tar.gz", "w:gz") as archive:
        for path in (folder / "model").iterdir():
            archive.add(path, path.name)
    for name, job in JOBS.items():
        (folder / name).mkdir()
        (folder / name / "rows").write_bytes(job.write(POINTS[job.rows]))
    (folder / "jobs.json").write_text(json.dumps([{"name": name, **job.arguments} for name, job in JOBS.items()]))
    command = [sys.executable, "-m", "tests.conformance.sdk_transform_user", str(folder), str(free_port())]
    return laptop.run([*command, image.tags[0]], folder)


def output(notebook: Notebook, name: str) -> bytes:
    (file,) = (path for path in (notebook.folder / f"{name}.out").rglob("*") if path.is_file())
    assert file.name == "rows.out"
    return file.read_bytes()


def expected(name: str) -> npt.NDArray[np.float64]:
    job = JOBS[name]
    points = POINTS[job.rows]
    labels, distances = samples.nearest(points, CENTERS)
    rows = np.column_stack([labels, distances])
    return np.tile(rows, (6, 1)) if name == "lines-in-several-bodies" else rows


@pytest.mark.parametrize("name", JOBS)
def test_each_row_is_answered_in_its_place(notebook: Notebook, name: str) -> None:
    content = output(notebook, name)
    if JOBS[name].assemble == "Line":
        # Each answer ends as its last line does, and the transformer ends that line.
        assert content.endswith(b"\n")
        assert all(content.removesuffix(b"\n").split(b"\n")), "a blank line"
        content = content.removesuffix(b"\n")
    answers = content.split(b"\n") if JOBS[name].accept == JSON else [content]
    found = np.concatenate([samples.predictions(JOBS[name].accept, answer) for answer in answers])
    wanted = expected(name)
    assert found.shape == wanted.shape
    np.testing.assert_array_equal(found[:, 0], wanted[:, 0])
    np.testing.assert_allclose(found[:, 1], wanted[:, 1], rtol=1e-6, atol=0)


def test_strategy_and_payload_limit_the_rows_of_a_request(notebook: Notebook) -> None:
    """An answer in JSON has one line for a request, so the lines are the requests."""
    assert output(notebook, "lines-one-by-one").count(b"\n") == len(POINTS[SOME])
    assert output(notebook, "lines-in-several-bodies").count(b"\n") == 2
