"""From a request's body to its answer, for /invocations and for /models/{name}/invoke."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kmeans.arrays import Float32, Float64
from kmeans.errors import DataError
from kmeans.formats.instances import Instances, Predictions
from kmeans.formats.media_type import CSV, JSON, JSON_LINES
from kmeans.formats.portions import PORTION_BYTES, Portion
from kmeans.model import KMeansModel
from serve.exchange import RECORD, Answer, Record
from serve.metrics import Metrics
from serve.negotiation import CUTTERS, DECODERS, ENCODERS, FRAMES, AnswerType, answer_type, request_type
from serve.semaphore import Semaphore
from serve.server.connection import read_body
from serve.settings import Settings

# An answer to more rows than this is encoded while it is sent, with chunked transfer encoding: as a whole it would be
# many times as long as the request.
MAX_ROWS_AT_ONCE = 100_000

# Most bytes of a row for each feature of the model, and in addition. A longer chunk is one that could not be split, and
# the numbers of such a chunk would take ten times its bytes in memory.
NUMBER_BYTES = 64
SPARE_BYTES = {CSV: PORTION_BYTES, JSON_LINES: PORTION_BYTES, JSON: 8 * PORTION_BYTES}

# CSV is parsed a part at a time anyway; longer chunks halve the work that is done once for each.
LONGER = {CSV: 2}


class Inference:
    """Answers the invocations of all models of a server."""

    def __init__(self, settings: Settings, telemetry: Metrics) -> None:
        self._settings = settings
        self._telemetry = telemetry
        self._large_bodies = Semaphore(settings.large_bodies)

    def answer(self, environ: Mapping[str, Any], model: KMeansModel) -> Answer:
        """Return the answer to a request: the nearest center of each row and the distance to it.

        Parameters
        ----------
        environ
            The request's WSGI environment; its record is filled for the log and the metrics.
        model
            The model to use.

        Raises
        ------
        serve.negotiation.UnsupportedContentTypeError, serve.negotiation.NotAcceptableError
            Before the body is read, since no other body would help.
        serve.errors.PayloadTooLargeError, serve.errors.BodyTimeoutError
            While the body is read.
        kmeans.errors.DataError
            If the body does not match its type, or its rows don't have the model's width; with placeholders only if
            the body can't be split into rows.
        """
        record: Record = environ[RECORD]
        media_type = request_type(environ.get("CONTENT_TYPE"))
        form = answer_type(environ.get("HTTP_ACCEPT"), self._settings.default_accept)
        began = time.perf_counter()
        content = read_body(environ, self._settings.max_payload_bytes)
        record.bytes_in = len(content)
        record.seconds["read"] = time.perf_counter() - began
        parts = self._predict(content, media_type, model, record)
        rows = sum(len(part.labels) for part in parts)
        body: Iterable[bytes]
        if len(parts) > 1 and rows > MAX_ROWS_AT_ONCE:
            body = _encode_while_sent(parts, form, self._telemetry)
        else:
            began = time.perf_counter()
            body = [ENCODERS[form.media_type](_converted(_joined(parts), form))]
            record.seconds["encode"] = time.perf_counter() - began
        # Only now: no row of a refused body counts as answered, however far it was read.
        record.rows = rows
        for part in parts:
            record.bad_rows += 0 if part.missing is None else int(part.missing.sum())
            self._telemetry.count_distances(part.distances if part.missing is None else part.distances[~part.missing])
        # Without parameters: other containers of a pipeline have refused text/csv with a charset.
        return Answer(200, form.media_type, body)

    def _predict(
        self, content: bytes | bytearray, media_type: str, model: KMeansModel, record: Record
    ) -> list[Predictions]:
        """Return the predictions of all rows of a body, chunk by chunk."""
        with ExitStack() as stack:
            if len(content) > PORTION_BYTES:
                began = time.perf_counter()
                stack.enter_context(self._large_bodies.taken())
                record.seconds["wait"] = time.perf_counter() - began
            size = PORTION_BYTES * LONGER.get(media_type, 1)
            if len(content) <= size:
                return [_predict_chunk(bytes(content), media_type, model, self._settings, record)]
            parts: list[Predictions] = []
            for portion in CUTTERS[media_type][0](content, size):
                try:
                    parts.append(_predict_chunk(portion.content, media_type, model, self._settings, record))
                except DataError as error:
                    before = sum(len(part.labels) for part in parts)
                    if media_type == CSV:  # whose error rows include blank lines
                        before = content.count(b"\n", 0, portion.offset)
                    raise _in_whole_body(error, portion, before) from None
        return parts


def _predict_chunk(
    content: bytes, media_type: str, model: KMeansModel, settings: Settings, record: Record
) -> Predictions:
    """Return the predictions of the rows in ``content``, with labels and distances of the model's types."""
    began = time.perf_counter()
    missing = None
    try:
        _check_length(content, media_type, model)
        instances = _decode(content, media_type, model)
    except DataError:
        rows = _single_rows(content, media_type, settings)
        if not rows:
            raise
        instances, missing = _decode_good_rows(rows, media_type, model)
    decoded = time.perf_counter()
    labels, distances = model.predict(instances.points)
    seconds = record.seconds
    seconds["decode"] = seconds.get("decode", 0.0) + decoded - began
    seconds["predict"] = seconds.get("predict", 0.0) + time.perf_counter() - decoded
    return Predictions(labels, distances, instances.attached, missing)


def _check_length(content: bytes, media_type: str, model: KMeansModel) -> None:
    if media_type not in SPARE_BYTES:
        return
    limit = PORTION_BYTES * LONGER.get(media_type, 1) + SPARE_BYTES[media_type] + NUMBER_BYTES * model.features
    if len(content) > limit:
        hint = "Put the instances first, before any other key." if media_type == JSON else None
        raise DataError(f"expected rows of at most {limit} bytes, found a longer one", row=1, hint=hint)


def _decode(content: bytes, media_type: str, model: KMeansModel) -> Instances:
    instances = DECODERS[media_type](content, model.features, wide=model.precise_centers.dtype == np.float64)
    width = instances.points.shape[1]
    if width != model.features:
        raise DataError(f"expected {model.features} columns (those of the model), found {width}", row=1)
    if not model.prepares:
        return instances
    try:
        return Instances(model.prepare(instances.points), instances.attached)
    except DataError as error:
        if media_type == CSV and error.row is not None:  # which should include blank lines
            lines = (number for number, line in enumerate(content.split(b"\n"), start=1) if line.strip())
            error.row = next(islice(lines, error.row - 1, None))
        raise


def _single_rows(content: bytes, media_type: str, settings: Settings) -> list[bytes] | None:
    """Return the rows of a body with a bad row, each as a separate body; None if the request must be refused."""
    if not settings.bad_rows_become_placeholders:
        return None
    rows = CUTTERS[media_type][1](content)
    # A batch transform that sends single lines also sends blank ones, and a refusal would end it.
    is_blank_line = media_type in (CSV, JSON_LINES) and not rows and content.count(b"\n") <= 1
    return [content] if is_blank_line and settings.is_batch else rows


def _decode_good_rows(rows: list[bytes], media_type: str, model: KMeansModel) -> tuple[Instances, NDArray[np.bool_]]:
    """Decode each of ``rows`` separately; return the instances and a mask of those that could not be decoded."""
    points: Float32 | Float64 = np.empty((len(rows), model.features), dtype=model.precise_centers.dtype)
    points[:] = model.precise_centers[0]  # placeholder: any row that can be predicted
    missing = np.zeros(len(rows), dtype=np.bool_)
    attached: list[dict[str, Any]] = [{} for _ in rows]
    for number, row in enumerate(rows):
        try:
            instances = _decode(row, media_type, model)
            points[number] = instances.points[0]
            attached[number] = (instances.attached or [{}])[0]
        except DataError:
            missing[number] = True
    return Instances(points, attached if any(attached) else None), missing


def _in_whole_body(error: DataError, portion: Portion, rows: int) -> DataError:
    """Return ``error`` in a chunk with its place in the whole body; ``rows`` precede the chunk."""
    if portion.offset:
        if error.row is not None:
            error.row += rows
        if error.offset is not None:
            error.offset += portion.offset
        error.hint = None  # hints concern the first row of a body, such as a header
    return error


def _joined(parts: list[Predictions]) -> Predictions:
    if len(parts) == 1:
        return parts[0]
    attached = None
    if any(part.attached for part in parts):
        attached = [item for part in parts for item in part.attached or [{}] * len(part.labels)]
    missing = None
    if any(part.missing is not None for part in parts):
        missing = np.concatenate([_missing(part) for part in parts])
    return Predictions(
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.distances for part in parts]),
        attached,
        missing,
    )


def _missing(part: Predictions) -> NDArray[np.bool_]:
    return np.zeros(len(part.labels), dtype=np.bool_) if part.missing is None else part.missing


def _converted(predictions: Predictions, form: AnswerType) -> Predictions:
    """Return ``predictions`` with float64 distances, and float64 labels unless the client asked for integers."""
    # Labels are floats because the built-in image answers so.
    labels = predictions.labels if form.integer_labels else predictions.labels.astype(np.float64)
    return Predictions(labels, predictions.distances.astype(np.float64), predictions.attached, predictions.missing)


def _encode_while_sent(parts: list[Predictions], form: AnswerType, telemetry: Metrics) -> Iterator[bytes]:
    """Yield the encoded answer, each of ``parts`` when the one before has been sent; count it at the end."""
    prefix, separator, suffix = FRAMES[form.media_type]
    size, seconds = 0, 0.0
    try:
        for number, part in enumerate(parts):
            began = time.perf_counter()
            text = ENCODERS[form.media_type](_converted(part, form))
            rows = (separator if number else prefix) + text[len(prefix) : len(text) - len(suffix)]
            seconds += time.perf_counter() - began
            size += len(rows)
            yield rows
        size += len(suffix)
        yield suffix
    finally:
        telemetry.count_chunks(size, seconds)
