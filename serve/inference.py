"""The one path from a request's body to its answer, for /invocations and for /models/{name}/invoke."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kmeans.arrays import Float32, Float64, Int64
from kmeans.errors import DataError
from kmeans.formats.instances import Instances, Predictions
from kmeans.formats.media_type import CSV, JSON, JSON_LINES
from kmeans.formats.portions import PORTION_BYTES, Portion
from kmeans.model import KMeansModel
from serve import request_body
from serve.access_log import RECORD, Record
from serve.metrics import Metrics
from serve.negotiation import CUTTERS, DECODERS, ENCODERS, FRAMES, AnswerType, answer_type, request_type
from serve.response import Answer
from serve.semaphore import Semaphore
from serve.settings import Settings

# An answer to more rows than this is written while it is sent, in chunks: as a whole it would be many times as long as
# the request.
MAX_ROWS_AT_ONCE = 100_000

# What a row may take for each feature of the model, and besides. A longer portion is one that could not be cut, and
# parsed at once its numbers would take ten times its bytes.
NUMBER_BYTES = 64
SPARE_BYTES = {CSV: PORTION_BYTES, JSON_LINES: PORTION_BYTES, JSON: 8 * PORTION_BYTES}

# CSV is parsed a part at a time anyway; with longer portions, what is done once for each is done half as often.
LONGER = {CSV: 2}


@dataclass(frozen=True, slots=True)
class _Part:
    """What was found out about a portion's rows: labels (n,), distances (n,), and the rest as in Predictions."""

    labels: Int64
    distances: Float32 | Float64
    attached: Any
    missing: NDArray[np.bool_] | None

    def predictions(self, form: AnswerType) -> Predictions:
        """Return them as the encoders want them."""
        # Floats, as the built-in image gives them, unless the client asks for integers.
        labels = self.labels if form.integer_labels else self.labels.astype(np.float64)
        return Predictions(labels, self.distances.astype(np.float64), self.attached, self.missing)


class Inference:
    """What answers the invocations of all models of a server."""

    def __init__(self, settings: Settings, telemetry: Metrics) -> None:
        self._settings = settings
        self._telemetry = telemetry
        self._turns = Semaphore(settings.large_bodies)

    def answer(self, environ: Mapping[str, Any], model: KMeansModel) -> Answer:
        """Return the nearest center of each row of a request, and the distance to it.

        Parameters
        ----------
        environ
            The request's WSGI environment; its record gets what the log and the metrics tell.

        Raises
        ------
        serve.negotiation.UnsupportedContentTypeError, serve.negotiation.NotAcceptableError
            Before anything is read: what another body won't mend is refused first.
        serve.errors.PayloadTooLargeError, serve.errors.BodyTimeoutError
            While the body is read.
        kmeans.errors.DataError
            If it is not what its type promises, or not as wide as the model; with placeholders only if its rows
            can't be told apart.
        """
        record: Record = environ[RECORD]
        media_type = request_type(environ.get("CONTENT_TYPE"))
        form = answer_type(environ.get("HTTP_ACCEPT"), self._settings.default_accept)
        began = time.perf_counter()
        content = request_body.read(environ, self._settings.max_payload_bytes)
        record.bytes_in = len(content)
        record.seconds["read"] = time.perf_counter() - began
        parts = self._predicted(content, media_type, model, record)
        rows = sum(len(part.labels) for part in parts)
        pieces: Iterable[bytes]
        if len(parts) > 1 and rows > MAX_ROWS_AT_ONCE:
            pieces = _in_chunks(parts, form, self._telemetry)
        else:
            began = time.perf_counter()
            pieces = [ENCODERS[form.media_type](_joined(parts).predictions(form))]
            record.seconds["encode"] = time.perf_counter() - began
        # Only now: of a body that is refused no row was answered, however far it was read.
        record.rows = rows
        for part in parts:
            record.bad_rows += 0 if part.missing is None else int(part.missing.sum())
            self._telemetry.count_distances(part.distances if part.missing is None else part.distances[~part.missing])
        # The bare type: a charset parameter has made other containers of a pipeline refuse text/csv.
        return Answer(200, form.media_type, pieces)

    def _predicted(
        self, content: bytes | bytearray, media_type: str, model: KMeansModel, record: Record
    ) -> list[_Part]:
        """Return what the model says of all rows of a request_body, portion by portion."""
        parts: list[_Part] = []
        with ExitStack() as stack:
            if len(content) > PORTION_BYTES:
                began = time.perf_counter()
                stack.enter_context(self._turns.taken())
                record.seconds["wait"] = time.perf_counter() - began
            for portion in CUTTERS[media_type][0](content, _portion_bytes(media_type)):
                try:
                    parts.append(_predicted(portion, media_type, model, self._settings, record))
                except DataError as error:
                    before = sum(len(part.labels) for part in parts)
                    if media_type == CSV:  # where blank lines count too
                        before = content.count(b"\n", 0, portion.offset)
                    raise _placed(error, portion, before) from None
        return parts


def _predicted(portion: Portion, media_type: str, model: KMeansModel, settings: Settings, record: Record) -> _Part:
    """Return what the model says of a portion's rows."""
    began = time.perf_counter()
    missing = None
    try:
        _check_length(portion, media_type, model)
        instances = _decoded(portion.content, media_type, model)
    except DataError:
        rows = _single_rows(portion.content, media_type, settings)
        if not rows:
            raise
        instances, missing = _salvaged(rows, media_type, model)
    decoded = time.perf_counter()
    labels, distances = model.predict(instances.points)
    seconds = record.seconds
    seconds["decode"] = seconds.get("decode", 0.0) + decoded - began
    seconds["predict"] = seconds.get("predict", 0.0) + time.perf_counter() - decoded
    return _Part(labels, distances, instances.attached, missing)


def _portion_bytes(media_type: str) -> int:
    return PORTION_BYTES * LONGER.get(media_type, 1)


def _check_length(portion: Portion, media_type: str, model: KMeansModel) -> None:
    if media_type not in SPARE_BYTES:
        return
    limit = _portion_bytes(media_type) + SPARE_BYTES[media_type] + NUMBER_BYTES * model.features
    if len(portion.content) > limit:
        hint = "Put the instances first, before any other key." if media_type == JSON else None
        raise DataError(f"expected rows of at most {limit} bytes, found a longer one", row=1, hint=hint)


def _decoded(content: bytes, media_type: str, model: KMeansModel) -> Instances:
    instances = DECODERS[media_type](content, model.features, wide=not model.coordinates.is_identity)
    width = instances.points.shape[1]
    if width != model.features:
        raise DataError(f"expected {model.features} columns (those of the model), found {width}", row=1)
    if not model.prepares:
        return instances
    try:
        return Instances(model.prepare(instances.points), instances.attached)
    except DataError as error:
        if media_type == CSV and error.row is not None:  # where blank lines count too
            lines = (number for number, line in enumerate(content.split(b"\n"), start=1) if line.strip())
            error.row = next(islice(lines, error.row - 1, None))
        raise


def _single_rows(content: bytes, media_type: str, settings: Settings) -> list[bytes] | None:
    """Return the rows of a body that holds a bad one, each as a body of its own; None if there shall be no answer."""
    if not settings.bad_rows_become_placeholders:
        return None
    rows = CUTTERS[media_type][1](content)
    # A batch transform that sends each line by itself sends blank ones too, and a refusal would end it.
    is_blank_line = media_type in (CSV, JSON_LINES) and not rows and content.count(b"\n") <= 1
    return [content] if is_blank_line and settings.is_batch else rows


def _salvaged(rows: list[bytes], media_type: str, model: KMeansModel) -> tuple[Instances, NDArray[np.bool_]]:
    """Return the instances of ``rows``, each decoded by itself, and which of them could not be."""
    points: Float32 | Float64 = np.empty((len(rows), model.features), dtype=model.precise_centers.dtype)
    points[:] = model.precise_centers[0]  # any row that has an answer
    missing = np.zeros(len(rows), dtype=np.bool_)
    attached: list[dict[str, Any]] = [{} for _ in rows]
    for number, row in enumerate(rows):
        try:
            instances = _decoded(row, media_type, model)
            points[number] = instances.points[0]
            attached[number] = (instances.attached or [{}])[0]
        except DataError:
            missing[number] = True
    return Instances(points, attached if any(attached) else None), missing


def _placed(error: DataError, portion: Portion, rows: int) -> DataError:
    """Return ``error``, which names a place within a portion, with that in the whole request_body."""
    if portion.offset:
        if error.row is not None:
            error.row += rows
        if error.offset is not None:
            error.offset += portion.offset
        error.hint = None  # that the first row looks like a header, for one
    return error


def _joined(parts: list[_Part]) -> _Part:
    if len(parts) == 1:
        return parts[0]
    attached = None
    if any(part.attached for part in parts):
        attached = [item for part in parts for item in part.attached or [{}] * len(part.labels)]
    missing = None
    if any(part.missing is not None for part in parts):
        missing = np.concatenate([_missing(part) for part in parts])
    return _Part(
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.distances for part in parts]),
        attached,
        missing,
    )


def _missing(part: _Part) -> NDArray[np.bool_]:
    return np.zeros(len(part.labels), dtype=np.bool_) if part.missing is None else part.missing


def _in_chunks(parts: list[_Part], form: AnswerType, telemetry: Metrics) -> Iterator[bytes]:
    """Yield the answer to ``parts``, each of them written when the one before has been sent; then count it."""
    prefix, separator, suffix = FRAMES[form.media_type]
    size, seconds = 0, 0.0
    try:
        for number, part in enumerate(parts):
            began = time.perf_counter()
            text = ENCODERS[form.media_type](part.predictions(form))
            rows = (separator if number else prefix) + text[len(prefix) : len(text) - len(suffix)]
            seconds += time.perf_counter() - began
            size += len(rows)
            yield rows
        size += len(suffix)
        yield suffix
    finally:
        telemetry.count_chunks(size, seconds)
