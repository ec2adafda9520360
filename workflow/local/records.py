"""Objects of a batch transform: cut into records, packed into requests, and joined with the answers."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from typing import Any

from kmeans.formats.media_type import CSV, JSON, JSON_LINES
from kmeans.formats.recordio.framing import HEADER_BYTES, find_records
from workflow.errors import WorkflowError

RESULT_KEY, INPUT_KEY = "SageMakerOutput", "SageMakerInput"

# The JSONPath that SageMaker documents for batch transforms (developer guide, "Associate Prediction Results with Input
# Records"): $, .name, ['name'], ['name', 'other'], [0], [-1], [0, -1], [1:], [1:3]. A library would answer several
# names of an object with a list of values; SageMaker returns an object with them.
_STEP = re.compile(
    r"""\.?\[\s*(?:
            (?P<names>'[^']*'(?:\s*,\s*'[^']*')*)
          | (?P<start>-?\d*)\s*:\s*(?P<end>-?\d*)
          | (?P<places>-?\d+(?:\s*,\s*-?\d+)*)
        )\s*\]
      | \.(?P<name>[A-Za-z_][A-Za-z0-9_-]*)""",
    re.VERBOSE,
)


def select(path: str, value: Any) -> Any:
    """Return the part of ``value`` that ``path`` selects; raise WorkflowError if it is invalid or selects nothing."""
    if not path.startswith("$"):
        raise WorkflowError(f"Expected a JSONPath that begins with $, found {path!r}.")
    position = 1
    while position < len(path):
        step = _STEP.match(path, position)
        if step is None:
            raise WorkflowError(f"The JSONPath {path!r} can't be read from {path[position:]!r} on.")
        try:
            value = _follow(step, value)
        except (KeyError, IndexError, TypeError):
            raise WorkflowError(f"The JSONPath {path!r} leads to nothing at {step.group()!r}.") from None
        position = step.end()
    return value


def _follow(step: re.Match[str], value: Any) -> Any:
    if step["name"] is not None:
        return value[step["name"]]
    if step["names"] is not None:
        names = re.findall(r"'([^']*)'", step["names"])
        return value[names[0]] if len(names) == 1 else {name: value[name] for name in names}
    if not isinstance(value, list):
        raise TypeError
    if step["places"] is not None:
        places = [int(text) for text in step["places"].split(",")]
        return value[places[0]] if len(places) == 1 else [value[place] for place in places]
    return value[int(step["start"]) if step["start"] else None : int(step["end"]) if step["end"] else None]


def split(content: bytes, split_type: str) -> list[bytes]:
    """Return the records of an object, with their line ends: ``None`` (the whole object), ``Line`` or ``RecordIO``.

    Raises WorkflowError if the content can't be split this way.
    """
    if split_type == "None":
        return [content]
    if split_type == "Line":
        return content.splitlines(keepends=True)
    if split_type == "RecordIO":
        return list(_frames(content))
    raise WorkflowError(f"The local target can't split by {split_type}: take Line, RecordIO or None.")


def pack(records: list[bytes], strategy: str, most_bytes: int) -> Iterator[list[bytes]]:
    """Return batches of records, one for each request: one record (``SingleRecord``), or as many as fit.

    Raises WorkflowError if a record is larger than ``most_bytes``.
    """
    request: list[bytes] = []
    size = 0
    for number, record in enumerate(records, start=1):
        if len(record) > most_bytes:
            raise WorkflowError(
                f"record {number} has {len(record)} bytes, more than MaxPayloadInMB ({most_bytes >> 20}) allows."
            )
        if request and (strategy == "SingleRecord" or size + len(record) > most_bytes):
            yield request
            request, size = [], 0
        request.append(record)
        size += len(record)
    if request:
        yield request


def filtered(record: bytes, content_type: str, path: str) -> bytes:
    """Return the part of a record that the model gets."""
    if path == "$":
        return record
    return _written(select(path, _read(record, content_type)), content_type)


def joined(record: bytes, answer: bytes, content_type: str, accept: str, *, joins: bool, path: str) -> bytes:
    """Return the output for a record and its answer, without a line end."""
    result = _read(answer, accept)
    if joins:
        given = _read(record, content_type)
        if isinstance(given, list) and isinstance(result, list):
            result = given + result
        elif isinstance(given, dict):
            result = {**given, RESULT_KEY: result}
        else:
            result = {INPUT_KEY: given, RESULT_KEY: result}
    return _written(select(path, result), accept).rstrip(b"\n")


def answers(content: bytes, accept: str, count: int) -> list[bytes]:
    """Return the answers to ``count`` records; raise WorkflowError if there are more or fewer."""
    found = [content] if accept == JSON else [line for line in content.splitlines() if line]
    if len(found) != count:
        raise WorkflowError(f"the model gave {len(found)} answers to {count} records, so they can't be joined.")
    return found


def _read(record: bytes, media_type: str) -> Any:
    if media_type == CSV:
        return next(csv.reader(io.StringIO(record.decode())), [])
    if media_type in (JSON, JSON_LINES):
        try:
            return json.loads(record)
        except ValueError as error:
            raise WorkflowError(f"expected JSON, but {error}.") from None
    raise WorkflowError(f"DataProcessing takes {CSV}, {JSON} and {JSON_LINES}, not {media_type}.")


def _written(value: Any, media_type: str) -> bytes:
    if media_type != CSV:
        return json.dumps(value).encode() + b"\n"
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(value if isinstance(value, list) else [value])
    return line.getvalue().encode()


def _frames(content: bytes) -> Iterator[bytes]:
    position = 0
    for begin, position in find_records(content):
        yield content[begin:position]
    if position == len(content):
        return
    if len(content) - position < HEADER_BYTES:
        raise WorkflowError(f"byte {position}: expected a RecordIO record, found {len(content) - position} bytes.")
    raise WorkflowError(f"byte {position}: expected a whole RecordIO record, found something else.")
