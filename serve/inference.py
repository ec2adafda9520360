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
from kmeans.formats.format import Format
from kmeans.formats.instances import Instances, Predictions
from kmeans.formats.payloads import PAYLOAD_CHUNK_BYTES, Chunk
from kmeans.model import KMeansModel
from serve.exchange import RECORD, Answer, Record
from serve.metrics import Metrics
from serve.negotiation import AnswerType, answer_type, request_format
from serve.semaphore import Semaphore
from serve.server.connection import read_body
from serve.settings import Settings

# An answer to more rows than this is encoded while it is sent, with chunked transfer encoding: as a whole it would be
# many times as long as the request.
MAX_ROWS_AT_ONCE = 100_000

# Bytes of a body that are decoded at once, in most formats.
CHUNK_BYTES = PAYLOAD_CHUNK_BYTES

# Most bytes of a row for each feature of the model, in formats that limit them.
NUMBER_BYTES = 64


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
        form = request_format(environ.get("CONTENT_TYPE"))
        wanted = answer_type(environ.get("HTTP_ACCEPT"), self._settings.default_accept)
        began = time.perf_counter()
        content = read_body(environ, self._settings.max_payload_bytes)
        record.bytes_in = len(content)
        record.seconds["read"] = time.perf_counter() - began
        parts = self._predict(content, form, model, record)
        rows = sum(len(part.labels) for part in parts)
        body: Iterable[bytes]
        if len(parts) > 1 and rows > MAX_ROWS_AT_ONCE:
            body = _encode_while_sent(parts, wanted, self._telemetry)
        else:
            began = time.perf_counter()
            body = [wanted.form.encode(_converted(_joined(parts), wanted))]
            record.seconds["encode"] = time.perf_counter() - began
        # Only now: no row of a refused body counts as answered, however far it was read.
        record.rows = rows
        for part in parts:
            record.bad_rows += 0 if part.missing is None else int(part.missing.sum())
            self._telemetry.count_distances(part.distances if part.missing is None else part.distances[~part.missing])
        # Without parameters: other containers of a pipeline have refused text/csv with a charset.
        return Answer(200, wanted.form.media_type, body)

    def _predict(
        self, content: bytes | bytearray, form: Format, model: KMeansModel, record: Record
    ) -> list[Predictions]:
        """Return the predictions of all rows of a body, chunk by chunk."""
        with ExitStack() as stack:
            if len(content) > CHUNK_BYTES:
                began = time.perf_counter()
                stack.enter_context(self._large_bodies.taken())
                record.seconds["wait"] = time.perf_counter() - began
            size = form.chunk_factor * CHUNK_BYTES
            if len(content) <= size:
                return [_predict_chunk(bytes(content), form, model, self._settings, record)]
            parts: list[Predictions] = []
            for chunk in form.split(content, size):
                try:
                    parts.append(_predict_chunk(chunk.content, form, model, self._settings, record))
                except DataError as error:
                    before = sum(len(part.labels) for part in parts)
                    if form.counts_blank_lines:
                        before = content.count(b"\n", 0, chunk.offset)
                    raise _in_whole_body(error, chunk, before) from None
        return parts


def _predict_chunk(content: bytes, form: Format, model: KMeansModel, settings: Settings, record: Record) -> Predictions:
    """Return the predictions of the rows in ``content``, with labels and distances of the model's types."""
    began = time.perf_counter()
    missing = None
    try:
        _check_length(content, form, model)
        instances = _decode(content, form, model)
    except DataError:
        rows = _single_rows(content, form, settings)
        if not rows:
            raise
        instances, missing = _decode_good_rows(rows, form, model)
    decoded = time.perf_counter()
    labels, distances = model.predict(instances.points)
    seconds = record.seconds
    seconds["decode"] = seconds.get("decode", 0.0) + decoded - began
    seconds["predict"] = seconds.get("predict", 0.0) + time.perf_counter() - decoded
    return Predictions(labels, distances, instances.attached, missing)


def _check_length(content: bytes, form: Format, model: KMeansModel) -> None:
    if form.spare_bytes is None:
        return
    limit = form.chunk_factor * CHUNK_BYTES + form.spare_bytes + NUMBER_BYTES * model.features
    if len(content) > limit:
        raise DataError(f"expected rows of at most {limit} bytes, found a longer one", row=1, hint=form.long_row_hint)


def _decode(content: bytes, form: Format, model: KMeansModel) -> Instances:
    instances = form.decode(content, model.features, wide=model.precise_centers.dtype == np.float64)
    width = instances.points.shape[1]
    if width != model.features:
        raise DataError(f"expected {model.features} columns (those of the model), found {width}", row=1)
    if not model.prepares:
        return instances
    try:
        return Instances(model.prepare(instances.points), instances.attached)
    except DataError as error:
        if form.counts_blank_lines and error.row is not None:
            lines = (number for number, line in enumerate(content.split(b"\n"), start=1) if line.strip())
            error.row = next(islice(lines, error.row - 1, None))
        raise


def _single_rows(content: bytes, form: Format, settings: Settings) -> list[bytes] | None:
    """Return the rows of a body with a bad row, each as a separate body; None if the request must be refused."""
    if not settings.bad_rows_become_placeholders:
        return None
    rows = form.split_rows(content)
    # A batch transform that sends single lines also sends blank ones, and a refusal would end it.
    is_blank_line = form.has_lines and not rows and content.count(b"\n") <= 1
    return [content] if is_blank_line and settings.is_batch else rows


def _decode_good_rows(rows: list[bytes], form: Format, model: KMeansModel) -> tuple[Instances, NDArray[np.bool_]]:
    """Decode each of ``rows`` separately; return the instances and a mask of those that could not be decoded."""
    points: Float32 | Float64 = np.empty((len(rows), model.features), dtype=model.precise_centers.dtype)
    points[:] = model.precise_centers[0]  # placeholder: any row that can be predicted
    missing = np.zeros(len(rows), dtype=np.bool_)
    attached: list[dict[str, Any]] = [{} for _ in rows]
    for number, row in enumerate(rows):
        try:
            instances = _decode(row, form, model)
            points[number] = instances.points[0]
            attached[number] = (instances.attached or [{}])[0]
        except DataError:
            missing[number] = True
    return Instances(points, attached if any(attached) else None), missing


def _in_whole_body(error: DataError, chunk: Chunk, rows: int) -> DataError:
    """Return ``error`` in a chunk with its place in the whole body; ``rows`` precede the chunk."""
    if chunk.offset:
        if error.row is not None:
            error.row += rows
        if error.offset is not None:
            error.offset += chunk.offset
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


def _converted(predictions: Predictions, wanted: AnswerType) -> Predictions:
    """Return ``predictions`` with float64 distances, and float64 labels unless the client asked for integers."""
    # Labels are floats because the built-in image answers so.
    labels = predictions.labels if wanted.integer_labels else predictions.labels.astype(np.float64)
    return Predictions(labels, predictions.distances.astype(np.float64), predictions.attached, predictions.missing)


def _encode_while_sent(parts: list[Predictions], wanted: AnswerType, telemetry: Metrics) -> Iterator[bytes]:
    """Yield the encoded answer, each of ``parts`` when the one before has been sent; count it at the end."""
    prefix, separator, suffix = wanted.form.envelope
    size, seconds = 0, 0.0
    try:
        for number, part in enumerate(parts):
            began = time.perf_counter()
            text = wanted.form.encode(_converted(part, wanted))
            rows = (separator if number else prefix) + text[len(prefix) : len(text) - len(suffix)]
            seconds += time.perf_counter() - began
            size += len(rows)
            yield rows
        size += len(suffix)
        yield suffix
    finally:
        telemetry.count_chunks(size, seconds)
