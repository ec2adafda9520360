"""Data for jobs and requests, and the truth about them, computed without the code under test."""

import io
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits

Points = npt.NDArray[np.float32]


def digits() -> Points:
    """scikit-learn's digits: 1797 images of 8 x 8 pixels, whole numbers from 0 to 16."""
    return np.asarray(load_digits().data, dtype=np.float32)


def csv(points: Points) -> bytes:
    return b"".join(b",".join(b"%g" % value for value in row) + b"\n" for row in points.tolist())


def labelled_csv(points: Points) -> bytes:
    """CSV whose first column is none of the data."""
    return csv(np.column_stack([np.arange(len(points)) % 7, points]).astype(np.float32))


def instances(points: Points) -> bytes:
    return json.dumps({"instances": [{"features": row} for row in points.tolist()]}).encode()


def json_lines(points: Points) -> bytes:
    return b"\n".join(json.dumps({"features": row}).encode() for row in points.tolist())


def npy(points: Points) -> bytes:
    file = io.BytesIO()
    np.save(file, points)
    return file.getvalue()


def read_centers(model: Path) -> Points:
    """Return the one (k, d) float32 array of a `model_algo-1` file, a list of MXNet arrays."""
    content = (model / "model_algo-1").read_bytes()
    magic, _, arrays = struct.unpack_from("<QQQ", content)
    k, d = struct.unpack_from("<qq", content, 36)
    assert (magic, arrays, len(content)) == (0x112, 1, 64 + 4 * k * d + 8)
    return np.frombuffer(content, "<f4", k * d, 64).reshape(k, d)


def nearest(points: Points, centers: Points) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """Return labels and distances by the definition, in float64."""
    wide = centers.astype(np.float64)
    distances = np.stack([np.linalg.norm(points.astype(np.float64) - center, axis=1) for center in wide], axis=1)
    return distances.argmin(axis=1), distances.min(axis=1)


def predictions(content_type: str, body: bytes) -> npt.NDArray[np.float64]:
    """Return an answer of the server as rows of (label, distance)."""
    if content_type == "text/csv":
        return np.array([[float(cell) for cell in line.split(",")] for line in body.decode().split("\n")])
    if content_type == "application/x-recordio-protobuf":
        return _recordio_predictions(body)
    rows: list[dict[str, Any]] = (
        json.loads(body)["predictions"]
        if content_type == "application/json"
        else [json.loads(line) for line in body.split(b"\n")]
    )
    assert all(list(row) == ["closest_cluster", "distance_to_cluster"] for row in rows)
    return np.array([list(row.values()) for row in rows])


# A prediction as the built-in image frames it: 72 bytes, of which only the two float32 values differ between rows.
_LABEL = b"\x12\x1b\x0a\x0fclosest_cluster\x12\x08\x12\x06\x0a\x04"
_DISTANCE = b"\x12\x1f\x0a\x13distance_to_cluster\x12\x08\x12\x06\x0a\x04"
_PREDICTION = struct.Struct(f"<II{len(_LABEL)}sf{len(_DISTANCE)}sf2s")


def _recordio_predictions(body: bytes) -> npt.NDArray[np.float64]:
    rows = []
    for magic, length, label, closest, distance, distant, padding in _PREDICTION.iter_unpack(body):
        assert (magic, length, label, distance, padding) == (0xCED7230A, 62, _LABEL, _DISTANCE, b"\0\0")
        rows.append([closest, distant])
    return np.array(rows)
