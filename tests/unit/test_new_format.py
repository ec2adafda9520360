"""A new format is one registration: training reads it, requests are read and answered in it."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from flask.testing import FlaskClient

from kmeans import artifact
from kmeans.errors import DataError
from kmeans.formats.batches import ParsedRows, joined
from kmeans.formats.buffer import Buffer
from kmeans.formats.format import Format
from kmeans.formats.instances import Instances, Predictions
from kmeans.formats.registry import FORMATS
from serve import negotiation
from serve.app import create_app
from serve.settings import Settings
from train.job import TrainingJob
from train.metrics import JobLog
from workflow.requests.training import create_algorithm

TOY, ALIAS, MAGIC = "application/x-toy", "toy", b"\0TOY"

ROWS = [[0.0, 0.0], [0.0, 1.0], [10.0, 10.0], [10.0, 11.0]]


def toy(rows: list[list[float]]) -> bytes:
    """Return rows as the toy format: magic bytes, then lines of numbers separated by spaces."""
    return MAGIC + b"".join(b" ".join(b"%g" % number for number in row) + b"\n" for row in rows)


def read_rows(buffer: Buffer, features: int | None, /, *, wide: bool = False) -> Iterator[ParsedRows]:
    del features, wide
    assert buffer.read(len(MAGIC)) == MAGIC
    number = 0
    while buffer.advance(number + 1):
        for line in buffer.take_lines().splitlines():
            number += 1
            try:
                yield ParsedRows(np.array([line.split()], dtype=np.float64), range(number, number + 1))
            except ValueError:
                raise DataError("expected numbers", row=number) from None


def decode(body: bytes, features: int | None, /, *, wide: bool = False) -> Instances:
    del wide
    return Instances(joined(read_rows(Buffer.over(body), features)))


def encode(predictions: Predictions) -> bytes:
    return MAGIC + "".join(f"{label:.0f} {distance:g}\n" for label, distance, _ in predictions.rows()).encode()


@pytest.fixture
def _registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The one registration; undone after the test."""
    monkeypatch.setattr(FORMATS, "_formats", dict(FORMATS._formats))
    FORMATS.register(
        Format(
            media_type=TOY,
            name="Toy",
            aliases=(ALIAS,),
            magic=MAGIC,
            read_rows=read_rows,
            decode=decode,
            encode=encode,
            envelope=(MAGIC, b"", b""),
        )
    )
    yield
    negotiation.request_format.cache_clear()
    negotiation.answer_type.cache_clear()


def train(base: Path, content: bytes, content_type: str) -> None:
    """Run a job with one file of ``content``."""
    config, data = base / "input" / "config", base / "input" / "data" / "train"
    config.mkdir(parents=True)
    data.mkdir(parents=True)
    (config / "hyperparameters.json").write_text(json.dumps({"k": "2"}))
    (config / "inputdataconfig.json").write_text(json.dumps({"train": {"ContentType": content_type}}))
    (data / "rows").write_bytes(content)
    TrainingJob(base, 1, 1 << 30, JobLog(stream=io.StringIO())).run()


def client_of(base: Path) -> FlaskClient:
    return create_app(Settings.from_environment({}, cpus=1), artifact.load(base / "model")).test_client()


@pytest.mark.usefixtures("_registered")
@pytest.mark.parametrize("content_type", [TOY, ALIAS, ""], ids=["declared", "alias", "detected"])
def test_registered_format_trains_predicts_and_answers(tmp_path: Path, content_type: str) -> None:
    train(tmp_path, toy(ROWS), content_type)
    centers = artifact.load(tmp_path / "model").centers.tolist()
    assert sorted(centers) == [[0, 0.5], [10, 10.5]]
    client = client_of(tmp_path)
    answer = client.post("/invocations", data=toy(ROWS), content_type=content_type or TOY, headers={"Accept": ALIAS})
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, TOY)
    labels = [centers.index([0, 0.5])] * 2 + [centers.index([10, 10.5])] * 2
    assert answer.data == MAGIC + b"".join(b"%d 0.5\n" % label for label in labels)


@pytest.mark.usefixtures("_registered")
def test_registered_format_mixes_with_others(tmp_path: Path) -> None:
    train(tmp_path, toy(ROWS), TOY)
    client = client_of(tmp_path)
    csv = client.post("/invocations", data=toy(ROWS[:1]), content_type=TOY, headers={"Accept": "text/csv"})
    own = client.post("/invocations", data=b"0,0", content_type="text/csv", headers={"Accept": TOY})
    assert csv.data.partition(b".")[0] == own.data.removeprefix(MAGIC).partition(b" ")[0]
    described = client.get("/openapi.json").json
    assert described is not None
    invocation = described["paths"]["/invocations"]["post"]
    assert TOY in invocation["requestBody"]["content"]
    assert TOY in invocation["responses"]["200"]["content"]
    algorithm = create_algorithm("toy", image="toy")
    assert TOY in algorithm["InferenceSpecification"]["SupportedContentTypes"]
    assert TOY in algorithm["TrainingSpecification"]["TrainingChannels"][0]["SupportedContentTypes"]


@pytest.mark.usefixtures("_registered")
def test_registered_format_fault_is_named_by_row(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="row 2: expected numbers"):
        train(tmp_path, MAGIC + b"1 2\nx y\n", TOY)


def test_unregistered_format_is_refused(tmp_path: Path) -> None:
    assert FORMATS.find(TOY) is None
    train(tmp_path, b"0,0\n10,10\n", "text/csv;label_size=0")
    client = client_of(tmp_path)
    assert client.post("/invocations", data=toy(ROWS), content_type=TOY).status_code == 415
    assert client.post("/invocations", data=b"0,0", content_type="text/csv", headers={"Accept": TOY}).status_code == 406
