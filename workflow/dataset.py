"""The digits as objects: the address of each part, writing and reading."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kmeans.arrays import Float32
from kmeans.errors import DataError
from kmeans.formats import csv, recordio
from kmeans.formats.media_type import CSV, JSON, RECORDIO
from local_test import digits as sources
from workflow.errors import WorkflowError
from workflow.objects import Objects

# Hosts share a channel by objects: two hosts get two each, four hosts one each.
TRAIN_PARTS = 4
VALIDATION_PARTS = 2

TRAIN, TEST, VALIDATION = "train", "test", "validation"
DESCRIPTION = "description.json"


class Part(NamedTuple):
    """An object of the data set: its address and its media type."""

    uri: str
    content_type: str


@dataclass(frozen=True, slots=True)
class Description:
    """The contents of ``description.json``: ``mnist`` or ``scikit-learn``, number of columns, rows of the splits."""

    source: str
    features: int
    train_rows: int
    validation_rows: int


def parts(uri: str) -> dict[str, list[Part]]:
    """Return the objects of a data set with the prefix ``uri``, by channel.

    ``train`` and ``test`` are RecordIO-protobuf; ``validation`` has the rows of ``test`` as CSV after the true digit.
    """
    return {
        TRAIN: [Part(f"{uri}/{TRAIN}/part-{n:05}.pbr", RECORDIO) for n in range(TRAIN_PARTS)],
        TEST: [Part(f"{uri}/{TEST}/part-{n:05}.pbr", RECORDIO) for n in range(VALIDATION_PARTS)],
        VALIDATION: [Part(f"{uri}/{VALIDATION}/part-{n:05}.csv", CSV) for n in range(VALIDATION_PARTS)],
        DESCRIPTION: [Part(f"{uri}/{DESCRIPTION}", JSON)],
    }


def write(objects: Objects, uri: str, mnist: Path | None, rows: int | None) -> Description:
    """Write the digits at the prefix ``uri``: MNIST from a folder, else those of scikit-learn.

    ``mnist`` is a folder with the four IDX files, None for scikit-learn's digits; ``rows`` is the maximum number of
    rows of each split, None for all. Raises WorkflowError if a file is missing or can't be read.
    """
    try:
        found = sources.mnist(mnist) if mnist else sources.small()
    except FileNotFoundError as error:
        raise WorkflowError(
            f"There is no {error.filename}: --mnist needs a folder with the four files of MNIST; without it "
            "scikit-learn's digits are taken."
        ) from None
    except (OSError, ValueError) as error:
        raise WorkflowError(f"The digits can't be read: {error}.") from None
    train, test, shown = found.train[:rows], found.test[:rows], found.test_digits[:rows]
    places = parts(uri)
    # First, so that an interrupted step leaves no description of a mixture of these digits and older ones.
    objects.delete(f"{uri}/{DESCRIPTION}")
    for part, points in zip(places[TRAIN], np.array_split(train, TRAIN_PARTS), strict=True):
        objects.put(part.uri, recordio.encode(points), part.content_type)
    blocks = zip(np.array_split(test, VALIDATION_PARTS), np.array_split(shown, VALIDATION_PARTS), strict=True)
    for number, (points, labels) in enumerate(blocks):
        record_part, csv_part = places[TEST][number], places[VALIDATION][number]
        objects.put(record_part.uri, recordio.encode(points), record_part.content_type)
        objects.put(csv_part.uri, _with_digits(points, labels), csv_part.content_type)
    description = Description("mnist" if mnist else "scikit-learn", train.shape[1], len(train), len(test))
    # Last, because it shows that all other objects exist.
    objects.put(f"{uri}/{DESCRIPTION}", json.dumps(asdict(description)).encode(), JSON)
    return description


def describe(objects: Objects, uri: str) -> Description:
    """Read the description of the data set at ``uri``; if it exists, the data set is complete.

    Raises WorkflowError if there is none.
    """
    place = f"{uri}/{DESCRIPTION}"
    if place not in objects.find(place):
        raise WorkflowError(
            f"The data below {uri} are not whole, {DESCRIPTION} is missing: run `python -m workflow data` again."
        )
    try:
        return Description(**json.loads(objects.get(place)))
    except (ValueError, TypeError):
        raise WorkflowError(f"{place} is none of ours: run `python -m workflow data` again.") from None


def read_validation(objects: Objects, uri: str) -> tuple[Float32, NDArray[np.int64]]:
    """Return the rows of the validation split, (n, d), and their true digits, (n,), in the objects' order.

    Raises WorkflowError if an object is missing, or isn't CSV as the step ``data`` writes it.
    """
    content = b"".join(objects.get(part.uri) for part in parts(uri)[VALIDATION])
    try:
        table = csv.decode(content)
        if table.shape[1] < 2:
            raise DataError("expected a digit and its pixels, found one column")
    except DataError as error:
        raise WorkflowError(f"{error.within(f'{uri}/{VALIDATION}/')} Run `python -m workflow data` again.") from None
    return np.ascontiguousarray(table[:, 1:]), table[:, 0].astype(np.int64)


def _with_digits(points: Float32, digits: NDArray[np.int64]) -> bytes:
    lines = sources.as_csv(points).splitlines()
    return b"".join(b"%d,%s\n" % (digit, line) for digit, line in zip(digits.tolist(), lines, strict=True))
