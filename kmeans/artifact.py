"""A model on disk: ``model_algo-1`` (the built-in image's own file) and ``kmeans.json`` (for people and programs).

The centers stand in ``model_algo-1`` alone, so either image serves the other's models. ``kmeans.json`` tells how they
came about and holds their checksum; a directory without it is a model of the built-in image and just as good. So is
one that holds, under any name, a single file of centers as MXNet, NumPy (.npy) or NumPy's archive (.npz) writes it.

Where float32 doesn't hold what tells the centers apart, ``centers.npy`` has them in float64, and ``kmeans.json`` the
checksum of that file and the coordinates in which points are compared with them (:mod:`kmeans.coordinates`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import orjson

from kmeans import __version__
from kmeans.arrays import Float32, Float64, Int64, as_float32
from kmeans.atomic_file import write_files
from kmeans.coordinates import Coordinates, of_centers
from kmeans.errors import DataError, ModelError, shown
from kmeans.formats import mxnet, npy
from kmeans.metric import EUCLIDEAN, METRICS, MetricName
from kmeans.model import KMeansModel

CENTERS_FILE = "model_algo-1"
CARD_FILE = "kmeans.json"
PRECISE_FILE = "centers.npy"
SCHEMA_VERSION = 1

# Longer names of files are cut off in messages.
MAX_SHOWN = 60

# What SageMaker's local mode and the built-in image put beside a model.
OTHER_FILES = (CARD_FILE, "model.tar.gz", "output.tar.gz")

Decoder = Callable[[bytes], Float32 | Float64]

# Files of centers that people made themselves, by their first bytes.
CENTER_FORMATS: dict[bytes, Decoder] = {
    mxnet.LIST_MAGIC.to_bytes(8, "little"): mxnet.decode,
    npy.MAGIC: npy.decode_own,
    npy.ZIP_MAGIC: npy.decode_own_centers,
}


def save(model: KMeansModel, directory: Path) -> None:
    """Write ``model`` into ``directory``, whole or not at all.

    At any moment the directory holds the old model or the new one, for a moment without ``kmeans.json``.

    Raises
    ------
    kmeans.errors.ResourceError
        If the directory can't be written (disk full, read-only).
    """
    contents: dict[str, bytes] = {CENTERS_FILE: mxnet.encode(model.centers)}
    if not model.coordinates.is_identity:
        contents[PRECISE_FILE] = npy.encode(model.precise_centers)
    write_files(directory, contents | {CARD_FILE: _card(model)}, outdated=[CARD_FILE, *_old_precise_file(directory)])


def _old_precise_file(directory: Path) -> list[str]:
    """Return the name of the file of precise centers that a model has there."""
    try:
        old = orjson.loads((directory / CARD_FILE).read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return []
    return [PRECISE_FILE] if isinstance(old, dict) and "coordinates" in old else []


def describe(model: KMeansModel, directory: Path) -> None:
    """Write anew what ``kmeans.json`` says of ``model``, whose centers are in ``directory``; as :func:`save` does."""
    write_files(directory, {CARD_FILE: _card(model)})


def _card(model: KMeansModel) -> bytes:
    centers = mxnet.encode(model.centers)
    card: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "version": __version__,
        "clusters": model.clusters,
        "features": model.features,
        # Left out where it is the default, so that such a file is the same as before there was a choice.
        **({} if model.distance_metric == EUCLIDEAN.name else {"distance_metric": model.distance_metric}),
        "counts": None if model.counts is None else model.counts.tolist(),
        "centers_file": CENTERS_FILE,
        "centers_sha256": hashlib.sha256(centers).hexdigest(),
        "training": model.training,
    }
    if not model.coordinates.is_identity:
        offset = model.coordinates.offset
        card["coordinates"] = {
            "offset": None if offset is None else offset.tolist(),
            "scale": model.coordinates.scale,
            "centers_file": PRECISE_FILE,
            "centers_sha256": hashlib.sha256(npy.encode(model.precise_centers)).hexdigest(),
        }
    return orjson.dumps(card, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def load(directory: Path) -> KMeansModel:
    """Read the model in ``directory``; it knows the name of the file in which its centers were found.

    Raises
    ------
    kmeans.errors.ModelError
        If there is none, or its files can't be read, are corrupt or don't belong together.
    """
    try:
        path, decode = _find_centers(directory)
    except OSError as error:
        raise ModelError(f"The model in {directory} can't be read: {error.strerror}.") from None
    content = _read(path)
    card = _read_card(directory)
    checksum = card.get("centers_sha256")
    if checksum is not None and checksum != hashlib.sha256(content).hexdigest():
        raise ModelError(f"The model {path} is corrupt: its checksum differs from the one in {CARD_FILE}.")
    try:
        coordinates = _coordinates(card)
        centers: Float32 | Float64 = decode(content)
        if coordinates is None and centers.dtype == np.float64 and of_centers(centers).is_identity:
            centers = as_float32(centers)
        if coordinates is not None:
            centers = _precise_centers(directory / PRECISE_FILE, card, centers.shape, coordinates)
        return KMeansModel(
            centers,
            _counts(card, len(centers)),
            card.get("training"),
            file=_plain(path.name),
            distance_metric=_metric_name(card, directory),
            coordinates=coordinates,
        )
    except DataError as error:
        raise ModelError(f"The model is corrupt: {error.within(str(path))}") from None
    except (TypeError, ValueError, OverflowError, KeyError, AttributeError):
        raise ModelError(f"The model is corrupt: {directory / CARD_FILE} doesn't describe {path}.") from None


def _find_centers(directory: Path) -> tuple[Path, Decoder]:
    """Return the file of centers and what reads it: ``model_algo-1``, or the only file that can be one."""
    if (directory / CENTERS_FILE).exists():
        return directory / CENTERS_FILE, mxnet.decode
    candidates = []
    for path in sorted(directory.iterdir()) if directory.is_dir() else ():
        if path.is_file() and path.name not in OTHER_FILES and not path.name.startswith((".", "state_")):
            start = _read(path, 8)
            candidates += [(path, decode) for magic, decode in CENTER_FORMATS.items() if start.startswith(magic)]
    if len(candidates) == 1:
        return candidates[0]
    expected = f"expected a file {CENTERS_FILE}, or one MXNet NDArray list, .npy or .npz file of centers"
    raise ModelError(f"There is no model in {directory}: {expected}, {_found(directory)}.")


def _read(path: Path, size: int = -1) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(size)
    except OSError as error:
        raise ModelError(f"The model {path} can't be read: {error.strerror}.") from None


def _coordinates(card: dict[str, Any]) -> Coordinates | None:
    """Return the coordinates in ``card``, None if it has none."""
    entry = card.get("coordinates")
    if entry is None:
        return None
    offset = None if entry["offset"] is None else np.array(entry["offset"], dtype=np.float64)
    scale = float(entry["scale"])
    if not (0 < scale < np.inf and np.frexp(scale)[0] == 0.5):
        raise ValueError
    if offset is not None and (offset.shape != (card["features"],) or not np.isfinite(offset).all()):
        raise ValueError
    return Coordinates(offset, scale)


def _precise_centers(path: Path, card: dict[str, Any], shape: tuple[int, ...], coordinates: Coordinates) -> Float64:
    """Return the centers in float64, which must have this ``shape``."""
    content = _read(path)
    if hashlib.sha256(content).hexdigest() != card["coordinates"]["centers_sha256"]:
        raise ModelError(f"The model {path} is corrupt: its checksum differs from the one in {CARD_FILE}.")
    precise = npy.decode_wide(content)
    if precise.shape != shape or coordinates.features not in (None, precise.shape[1]):
        raise ValueError
    return precise


def _counts(card: dict[str, Any], clusters: int) -> Int64 | None:
    if card.get("counts") is None:
        return None
    counts = np.array(card["counts"], dtype=np.int64)
    if counts.shape != (clusters,):
        raise ValueError
    return counts


def _metric_name(card: dict[str, Any], directory: Path) -> MetricName:
    name = card.get("distance_metric", EUCLIDEAN.name)
    if not isinstance(name, str) or name not in METRICS:
        raise ModelError(
            f"The model in {directory} has distance_metric {shown(name)}, expected {' or '.join(METRICS)}: serve it "
            "with the version that trained it."
        )
    return cast("MetricName", name)


def _read_card(directory: Path) -> dict[str, Any]:
    path = directory / CARD_FILE
    try:
        card = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, orjson.JSONDecodeError) as error:
        raise ModelError(f"The model is corrupt: {path} can't be read: {error}.") from None
    if not isinstance(card, dict):
        raise ModelError(f"The model is corrupt: {path} is no JSON object.")
    version = card.get("schema_version")
    if version != SCHEMA_VERSION:
        raise ModelError(
            f"The model in {directory} has schema version {version}, this image reads {SCHEMA_VERSION}: serve it "
            "with the version that trained it, or remove kmeans.json to use the centers alone."
        )
    return card


def _plain(name: str) -> str:
    return name if name.isprintable() and len(name) <= MAX_SHOWN else shown(name, MAX_SHOWN)


def _found(directory: Path) -> str:
    try:
        names = sorted(path.name for path in directory.iterdir())
    except OSError:
        return "and there is no such directory"
    return f"found {', '.join(map(_plain, names[:5]))}" if names else "and it is empty"
