"""The server reads requests that sagemaker-inference writes, and the reverse, but runs no code from them."""

import io
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from kmeans import artifact
from kmeans.formats.instances import Predictions
from kmeans.formats.registry import FORMATS
from kmeans.model import KMeansModel
from serve.negotiation import request_format
from tests.contract.opt_ml import PROJECT, OptMl
from tests.contract.samples import digits, nearest
from tests.contract.server import Server, serving

from .amazon import content_types, encoder
from .amazon import decoder as toolkit_decoder

DECODE_NPY = (sys.executable, "-m", "tests.conformance.decode_npy")

# As JSON the toolkit writes a bare [[...]], without {"instances": ...} around it.
TYPES = (content_types.CSV, content_types.JSON, content_types.NPY)
ANSWERS = (content_types.JSON, content_types.CSV)
DTYPES = (np.float32, np.float64, np.int64, np.int32, np.uint8)
SHAPES = ((1, 1), (1, 7), (7, 1), (40, 13), (3, 784))


def numbers(shape: tuple[int, int], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Random numbers, the fractions of which need all digits that float32 has."""
    drawn = np.random.default_rng(sum(shape)).uniform(0, 200, shape)
    return drawn.astype(dtype)


def written(array: npt.NDArray[Any], content_type: str) -> bytes:
    """A request's body as the toolkit writes it; its texts go over the wire as UTF-8."""
    content: str | bytes = encoder.encode(array, content_type)
    return content.encode() if isinstance(content, str) else content


def read(body: bytes, content_type: str) -> Any:
    """An answer as the toolkit reads it: it takes texts for CSV."""
    return toolkit_decoder.decode(body.decode() if content_type == content_types.CSV else body, content_type)


def labels_and_distances(body: bytes, content_type: str) -> npt.NDArray[np.float64]:
    """The rows (label, distance) that a user of the toolkit takes from an answer."""
    answer = read(body, content_type)
    if content_type == content_types.JSON:
        rows = [(row["closest_cluster"], row["distance_to_cluster"]) for row in answer.item()["predictions"]]
        return np.array(rows, dtype=np.float64)
    return np.atleast_2d(answer)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("content_type", TYPES)
def test_we_read_what_its_encoder_writes(content_type: str, dtype: npt.DTypeLike, shape: tuple[int, int]) -> None:
    array = numbers(shape, dtype)
    points = request_format(content_type).decode(written(array, content_type), shape[1]).points
    assert np.array_equal(points, array.astype(np.float32))


@pytest.mark.parametrize("rows", [1, 2, 40])
@pytest.mark.parametrize("content_type", ANSWERS)
def test_its_decoder_reads_what_we_answer(content_type: str, rows: int) -> None:
    labels, distances = np.arange(rows, dtype=np.float64), numbers((rows, 1), np.float32)[:, 0].astype(np.float64)
    body = FORMATS[content_type].encode(Predictions(labels, distances))
    assert np.array_equal(labels_and_distances(body, content_type), np.column_stack([labels, distances]))


@pytest.fixture(scope="module")
def centers() -> npt.NDArray[np.float32]:
    return digits()[:10]


@pytest.fixture(scope="module")
def server(centers: npt.NDArray[np.float32], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    opt_ml = OptMl(tmp_path_factory.mktemp("serving") / "ml")
    artifact.save(KMeansModel(centers), opt_ml.model)
    with serving(opt_ml.base, opt_ml.base / "log", SAGEMAKER_MODEL_SERVER_WORKERS="1") as server:
        yield server


@pytest.mark.parametrize("accept", ANSWERS)
@pytest.mark.parametrize("content_type", TYPES)
def test_a_request_and_its_answer(
    server: Server, centers: npt.NDArray[np.float32], content_type: str, accept: str
) -> None:
    points = digits()[10:60]
    answer = server.invoke(written(points, content_type), content_type, Accept=accept)
    assert (answer.status, answer.content_type) == (200, accept)
    labels, distances = nearest(points, centers)
    found = labels_and_distances(answer.body, accept)
    assert np.array_equal(found[:, 0], labels)
    assert np.allclose(found[:, 1], distances, rtol=1e-6, atol=0)


class Trap:
    """Unpickling this makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.folder),)


def array_of_objects(trap: Trap) -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([[trap]], dtype=object), allow_pickle=True)
    return file.getvalue()


# numpy.load takes what doesn't begin like a .npy file for a pickle, so there are two ways in.
BOOBY_TRAPS = pytest.mark.parametrize("body", [array_of_objects, pickle.dumps], ids=["array of objects", "bare pickle"])


@BOOBY_TRAPS
def test_a_pickle_in_a_request_runs_nothing(server: Server, tmp_path: Path, body: Any) -> None:
    trap = Trap(tmp_path / "made by a request")
    answer = server.invoke(body(trap), "application/x-npy")
    assert 400 <= answer.status < 500
    assert not trap.folder.exists()
    assert server.ask("GET", "/ping").status == 200


@BOOBY_TRAPS
def test_the_same_pickle_runs_in_the_toolkit(tmp_path: Path, body: Any) -> None:
    """The control of the test above: these bodies do harm where they are unpickled."""
    trap, request = Trap(tmp_path / "made by a request"), tmp_path / "request.npy"
    request.write_bytes(body(trap))
    subprocess.run([*DECODE_NPY, str(request)], cwd=PROJECT, timeout=60, check=True)
    assert trap.folder.is_dir()
