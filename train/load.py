"""Reads the local rows of a channel: all in this host's files, or this host's part of the rows that all hosts read."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import numpy as np

from kmeans.arrays import Float32
from kmeans.collectives import Collectives
from kmeans.coordinates import IDENTITY, Coordinates
from kmeans.dataset import MemoryRows, Pass, PipedRows, RowAssignment, Rows, load, load_once
from kmeans.errors import DataError, NoDataError
from kmeans.narrowing import MAX_RESTARTS, Narrowing
from kmeans.threads import Interrupted
from train.channels import ChannelReader, Reader
from train.config import Channel
from train.files import ReadOptions
from train.fingerprint import Fingerprint
from train.hyperparameters import Hyperparameters
from train.metrics import JobLog
from train.pipe import PipeReader

# Fraction of the memory for rows that those of one pipe may take: they can't be read again, and the next need room too.
PIPED_SHARE = 0.8

# A line of the log names at most this many columns.
MAX_SHOWN = 10


def read_share(
    channel: Channel,
    feature_dim: int | None,
    budget: int,
    wanted: Hyperparameters,
    *,
    log: JobLog,
    hosts: Collectives,
    digest: Fingerprint | None = None,
    coordinates: Coordinates | None = None,
) -> Rows:
    """Return this host's local rows of a channel, in at most ``budget`` bytes of memory; ``digest`` adds them up.

    Some hosts may have no local rows. All hosts call the same collective operations, whether they have rows or
    not.

    Parameters
    ----------
    feature_dim
        Columns that the rows must have; None for any number.
    budget
        Bytes for the rows in memory.
    coordinates
        Coordinates for the rows; None chooses them (:mod:`kmeans.narrowing`).

    Raises
    ------
    kmeans.errors.NoDataError
        If no host has rows, or this one has none of a replicated channel.
    kmeans.errors.DataError
        If something is wrong with them, or hosts have rows of other widths.
    """
    started = time.perf_counter()

    def tell(state: str) -> None:
        log.reading(channel.name, state)
        # The fit checks for a stop while it computes, but can't while it waits for a pipe.
        if channel.is_pipe and log.stop_wanted():
            raise Interrupted

    if channel.is_pipe:
        budget = int(PIPED_SHARE * budget)
    may_be_empty = hosts.size > 1 and channel.is_sharded
    # Where each host sees all rows of a channel, they divide them.
    assignment = RowAssignment() if channel.is_sharded else RowAssignment(hosts.rank, hosts.size)
    restarts = 0 if channel.is_pipe else MAX_RESTARTS
    if wanted.prepare is not None:
        coordinates = IDENTITY  # an offset would change directions
    narrowing = Narrowing(hosts, divides=channel.is_sharded, restarts=restarts, coordinates=coordinates)
    with log.timed("read"):
        try:
            options = ReadOptions(feature_dim, tell, wanted.prepare, narrowing)
            reader, nothing = channel_reader(channel, options), None
        except NoDataError as error:
            reader, nothing = None, error

        def one_read() -> tuple[Rows, NoDataError | None]:
            return (_no_rows(0), nothing) if reader is None else _one_read(reader, budget, wanted, assignment, digest)

        rows, nothing = _read_settled(one_read, narrowing, log, may_be_empty=may_be_empty)
    columns = _common_width(rows.features, hosts)
    count = rows.seen if isinstance(rows, PipedRows) else len(rows)
    if not hosts.any(count > 0):
        raise nothing or NoDataError(f"Channel {channel.name} has no data: its objects have no rows.")
    if reader is not None and nothing is None:
        _tell_what_was_read(rows, reader, channel, budget, seconds=time.perf_counter() - started, log=log)
    else:
        log.say(f"there are no objects of channel {channel.name} for this host", "WARNING")
        rows = _no_rows(columns)
    if reader is not None and channel.is_pipe and may_be_empty:
        held = rows.in_memory.points
        next_pass = _or_nothing(reader.batches, columns)
        rows = PipedRows(next_pass, assignment.numbers(count), held, wanted.mini_batch_size, wanted.settings.seed)
    rows.coordinates = narrowing.coordinates
    _tell_coordinates(narrowing, channel, log)
    return rows


def channel_reader(channel: Channel, options: ReadOptions) -> Reader:
    """Return the reader of a channel's files or pipes.

    Raises
    ------
    kmeans.errors.SettingError
        If the channel's input mode or content type is not known, or it should have files and has none.
    """
    return PipeReader(channel, options) if channel.is_pipe else ChannelReader(channel, options)


def _read_settled(
    one_read: Callable[[], tuple[Rows, NoDataError | None]], narrowing: Narrowing, log: JobLog, *, may_be_empty: bool
) -> tuple[Rows, NoDataError | None]:
    """Call ``one_read`` until the coordinates are right, and return its last result."""
    while True:
        rows, nothing = one_read()
        if nothing is not None and not may_be_empty:
            raise nothing
        if not narrowing.end_pass():
            return rows, nothing
        log.say("reading the channel again, in coordinates that all its rows need")
        del rows  # before memory is taken for the next


def _one_read(
    reader: Reader, budget: int, wanted: Hyperparameters, assignment: RowAssignment, digest: Fingerprint | None
) -> tuple[Rows, NoDataError | None]:
    """Return the rows of a pass; or no rows, and the reason."""
    if digest:
        digest.restart()
    read = load_once if isinstance(reader, PipeReader) else load
    try:
        one_pass = digest.over(reader.batches, assignment) if digest else reader.batches
        return read(one_pass, budget, wanted.mini_batch_size, wanted.settings.seed, assignment), None
    except NoDataError as error:
        return _no_rows(0), error


def _tell_what_was_read(
    rows: Rows, reader: Reader, channel: Channel, budget: int, *, seconds: float, log: JobLog
) -> None:
    labels = f", the first {reader.label_columns} taken as labels" if reader.label_columns else ""
    count = rows.seen if isinstance(rows, PipedRows) else len(rows)
    log.say(
        f"read channel {channel.name}: {count} rows x {rows.features} columns{labels} from "
        f"{reader.files} file(s) of {reader.content_type}, {reader.bytes / 1e6:.1f} MB in {seconds:.3f} secs"
    )
    held = len(rows.in_memory)
    if isinstance(rows, PipedRows):
        log.say(
            f"channel {channel.name} is a pipe: {held} of {count} rows are kept in memory; what needs rows again, "
            "as refinement and scores do, works on these"
        )
    elif held < len(rows):
        log.say(
            f"channel {channel.name} is larger than the {budget / 1e6:.0f} MB of memory for rows: {held} rows drawn at "
            "random are kept, and passes over all rows read the files again"
        )


def _tell_coordinates(narrowing: Narrowing, channel: Channel, log: JobLog) -> None:
    for warning in narrowing.warnings:
        log.say(f"channel {channel.name}, {warning}", "WARNING")
    offset, scale = narrowing.coordinates.offset, narrowing.coordinates.scale
    if offset is not None:
        columns = [str(column + 1) for column in np.flatnonzero(offset).tolist()]
        listed = ", ".join(columns[:MAX_SHOWN]) + (" and others" if len(columns) > MAX_SHOWN else "")
        log.say(f"channel {channel.name}: an offset is subtracted from column(s) {listed} before they become float32")
    if scale != 1:
        log.say(f"channel {channel.name}: values are multiplied by {scale:g} before they become float32")


def _no_rows(features: int) -> Rows:
    return MemoryRows(np.empty((0, features), dtype=np.float32))


def _common_width(features: int, hosts: Collectives) -> int:
    """Return the number of columns that all hosts have that have rows; ``features`` is this one's, 0 without rows."""
    widths = np.zeros(hosts.size)
    widths[hosts.rank] = features
    found = sorted({int(width) for width in hosts.sum(widths) if width})
    if len(found) > 1:
        raise DataError(
            f"expected the same columns on all hosts, found {' and '.join(map(str, found))}",
            hint="Are all objects of the channel of one table?",
        )
    return found[0] if found else 1


def _or_nothing(next_pass: Pass, features: int) -> Pass:
    """Return the same passes of rows of ``features`` columns; one without data has no rows and isn't an error."""

    def batches() -> Iterator[Float32]:
        with suppress(NoDataError):
            for batch in next_pass():
                # A host that had no rows so far hasn't seen how many columns they have.
                if batch.shape[1] != features:
                    raise DataError(f"expected {features} columns as in the first epoch, found {batch.shape[1]}")
                yield batch

    return batches
