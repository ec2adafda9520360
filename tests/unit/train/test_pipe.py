"""A channel of FIFOs to rows: each opened once, read to its end, and never waited for in a way that can't be ended."""

import gzip
import io
import json
import os
import re
import struct
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from kmeans import artifact
from kmeans.arrays import Float32
from kmeans.dataset import bytes_per_row, load_once
from kmeans.errors import DataError, ResourceError, SettingError
from kmeans.formats import recordio
from kmeans.formats.media_type import MediaType
from tests.pipes import Feeder, in_pieces, is_being_read, make_fifo, open_for_writing
from train import pipe
from train.channels import ChannelReader
from train.config import Channel
from train.failure import StoppedError
from train.files import ReadOptions
from train.job import RESERVED_BYTES, TrainingJob
from train.load import channel_reader
from train.metrics import JobLog
from train.pipe import PipeReader

ROWS = np.arange(1, 301, dtype=np.float32).reshape(100, 3)
CSV = b"".join(b"%g,%g,%g\n" % tuple(row) for row in ROWS.tolist())
RECORDS = recordio.encode(ROWS)
JSON_LINES = b"".join(b"[%g, %g, %g]\n" % tuple(row) for row in ROWS.tolist())


def npy(points: Float32) -> bytes:
    file = io.BytesIO()
    np.save(file, points)
    return file.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "input" / "data" / "train"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipe, "LOOK_SECONDS", 0.001)
    monkeypatch.setattr(pipe, "TELL_SECONDS", 0.01)
    monkeypatch.setattr(pipe, "PATIENCE_SECONDS", 20.0)


def channel(folder: Path, content_type: str = "") -> Channel:
    return Channel("train", folder, MediaType.parse(content_type), "Pipe")


def rows_of(reader: PipeReader) -> Float32:
    return np.concatenate([block.copy() for block in reader.batches()])


def test_the_input_mode_chooses_the_reader(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "a").write_bytes(CSV)
    files = Channel("train", folder, MediaType.parse(""), "FastFile")
    assert isinstance(channel_reader(files, ReadOptions()), ChannelReader)
    assert isinstance(channel_reader(channel(folder), ReadOptions()), PipeReader)


def test_unknown_type_is_refused_before_waiting_for_a_pipe(folder: Path) -> None:
    with pytest.raises(SettingError, match="Channel train: No iterator has been registered for ContentType"):
        channel_reader(channel(folder, "image/png"), ReadOptions())


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("declared", [False, True], ids=["told from the bytes", "declared"])
@pytest.mark.parametrize(
    ("content", "content_type"),
    [
        (CSV, "text/csv"),
        (RECORDS, "application/x-recordio-protobuf"),
        (JSON_LINES, "application/jsonlines"),
        (npy(ROWS), "application/x-npy"),
    ],
    ids=["csv", "recordio", "jsonlines", "npy"],
)
def test_every_type_comes_through_a_pipe(
    folder: Path, content: bytes, content_type: str, declared: bool, packed: bool
) -> None:
    body = gzip.compress(content) if packed else content
    reader = PipeReader(channel(folder, content_type if declared else ""), ReadOptions())
    with Feeder(folder, [[body]]) as feeder:
        np.testing.assert_array_equal(rows_of(reader), ROWS)
    assert (feeder.ended, feeder.refused) == (1, 0)
    assert (reader.features, reader.rows, reader.files, reader.bytes) == (3, 100, 1, len(body))
    assert (reader.content_type, reader.label_columns) == (content_type, 0)


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("content_type", ["text/csv", "application/x-recordio-protobuf", ""])
def test_objects_in_records_are_unwrapped(folder: Path, content_type: str, packed: bool) -> None:
    contents = [RECORDS, RECORDS] if "recordio" in content_type else [CSV, CSV]
    objects = [gzip.compress(content) for content in contents] if packed else contents
    frames = [struct.pack("<II", 0xCED7230A, len(each)) + each + bytes(-len(each) % 4) for each in objects]
    reader = PipeReader(replace(channel(folder, content_type), is_wrapped=True), ReadOptions())
    with Feeder(folder, [in_pieces(b"".join(frames), 1000)]) as feeder:
        np.testing.assert_array_equal(rows_of(reader), np.vstack([ROWS, ROWS]))
    assert (feeder.ended, feeder.refused) == (1, 0)


def test_object_without_its_record_is_named(folder: Path) -> None:
    reader = PipeReader(replace(channel(folder, "text/csv"), is_wrapped=True), ReadOptions())
    with Feeder(folder, [[CSV]]), pytest.raises(DataError, match=r"train_0.*expected RecordIO's magic number"):
        rows_of(reader)


@pytest.mark.parametrize("size", [1, 7, 61, 4096])
@pytest.mark.parametrize("body", [RECORDS[: len(RECORDS) // 10], CSV[: CSV.index(b"31,")], gzip.compress(RECORDS)])
def test_rows_that_span_two_reads_are_joined(folder: Path, body: bytes, size: int) -> None:
    """The writer waits each time until its few bytes have been taken."""
    reader = PipeReader(channel(folder), ReadOptions(3))
    with Feeder(folder, [in_pieces(body, size)]):
        rows = rows_of(reader)
    np.testing.assert_array_equal(rows, ROWS[: len(rows)])
    assert len(rows) in (10, 100)


def test_files_stand_one_after_the_other_packed_or_not(folder: Path) -> None:
    with Feeder(folder, [[RECORDS, RECORDS], [gzip.compress(CSV), gzip.compress(CSV)]]):
        reader = PipeReader(channel(folder), ReadOptions())
        for content_type in ("application/x-recordio-protobuf", "text/csv"):
            np.testing.assert_array_equal(rows_of(reader), np.tile(ROWS, (2, 1)))
            assert reader.content_type == content_type


def test_each_pass_reads_the_next_fifo_whatever_it_holds(folder: Path) -> None:
    streams = [b"1,2\n3,4\n", b"5,6\n", b"7,8\n9,10\n11,12\n"]
    reader = PipeReader(channel(folder), ReadOptions())
    with Feeder(folder, [[stream] for stream in streams]) as feeder:
        for number, stream in enumerate(streams, start=1):
            assert rows_of(reader).tolist() == [[float(x) for x in line.split(b",")] for line in stream.splitlines()]
            assert (reader.rows, reader.files, reader.bytes) == (stream.count(b"\n"), number, len(stream))
            assert feeder.opened == number
    assert feeder.ended == 3


def test_nothing_is_opened_before_the_first_block_is_asked_for(folder: Path) -> None:
    folder.parent.mkdir(parents=True)
    path = make_fifo(folder.with_name("train_0"))
    blocks = PipeReader(channel(folder), ReadOptions()).batches()
    assert not is_being_read(path)
    blocks.close()


def test_labels_are_passed_over_in_every_epoch(folder: Path) -> None:
    reader = PipeReader(channel(folder, "text/csv;label_size=1"), ReadOptions())
    with Feeder(folder, [[b"7,1,2\n"], [b"8,3,4\n"]]):
        assert rows_of(reader).tolist() == [[1, 2]]
        assert rows_of(reader).tolist() == [[3, 4]]
    assert (reader.label_columns, reader.features) == (1, 2)


def test_memory_is_bounded(folder: Path) -> None:
    body = recordio.encode(np.ones((1000, 784), dtype=np.float32))
    with Feeder(folder, [[body] * 30]):
        tracemalloc.start()
        rows = sum(len(block) for block in PipeReader(channel(folder), ReadOptions(784)).batches())
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert rows == 30_000
    assert peak < 8 << 20


# Waiting.


class Hears:
    """Listens to a reader, and does something at the n-th word about waiting."""

    def __init__(self, number: int, action: Callable[[], None]) -> None:
        self.states: list[str] = []
        self._number = number
        self._action = action

    def __call__(self, state: str) -> None:
        self.states += [state] if state.startswith("waiting") else []
        if len(self.states) == self._number:
            self._number = 0
            self._action()


def stop() -> None:
    raise StoppedError


def test_a_fifo_that_is_made_late_is_waited_for(folder: Path) -> None:
    feeder = Feeder(folder, [[CSV]])
    hears = Hears(3, lambda: (feeder.__enter__(), None)[1])
    reader = PipeReader(channel(folder), ReadOptions(None, hears))
    try:
        np.testing.assert_array_equal(rows_of(reader), ROWS)
    finally:
        feeder.__exit__()
    assert hears.states[:3] == [f"waiting for {folder}_0"] * 3


def test_late_writer_is_waited_for(folder: Path) -> None:
    folder.parent.mkdir(parents=True)
    path = make_fifo(folder.with_name("train_0"))
    threads: list[Thread] = []

    def write() -> None:
        threads.append(Thread(target=path.write_bytes, args=[CSV]))
        threads[0].start()

    hears = Hears(3, write)
    np.testing.assert_array_equal(rows_of(PipeReader(channel(folder), ReadOptions(None, hears))), ROWS)
    threads[0].join()
    assert hears.states[:3] == [f"waiting for byte 1 of {path}"] * 3


def test_a_writer_that_pauses_is_waited_for(folder: Path) -> None:
    folder.parent.mkdir(parents=True)
    path = make_fifo(folder.with_name("train_0"))
    writers: list[int] = []

    def begin() -> None:
        writers.append(open_for_writing(path) or -1)
        os.write(writers[0], CSV[:10])

    def end() -> None:
        os.write(writers[0], CSV[10:])
        os.close(writers[0])

    def hears(state: str) -> None:
        if "byte 1 of" in state and not writers:
            begin()
        elif "byte 11 of" in state:
            end()

    np.testing.assert_array_equal(rows_of(PipeReader(channel(folder), ReadOptions(None, hears))), ROWS)


@pytest.mark.parametrize("make", [False, True], ids=["it doesn't appear", "nobody writes to it"])
def test_a_fifo_is_not_waited_for_for_ever(folder: Path, make: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipe, "PATIENCE_SECONDS", 0.05)
    folder.parent.mkdir(parents=True)
    path = folder.with_name("train_0")
    if make:
        make_fifo(path)
    with pytest.raises(ResourceError) as raised:
        rows_of(PipeReader(channel(folder), ReadOptions()))
    waiting = f"waiting for byte 1 of {path}" if make else f"waiting for {path}"
    assert str(raised.value).startswith(f"Channel train: {waiting} was given up after 0.05 s. In Pipe mode each epoch ")
    assert not (make and is_being_read(path))


def _nothing(_: Path) -> Iterator[None]:
    yield


def _no_writer(path: Path) -> Iterator[None]:
    make_fifo(path)
    yield


def _silent_writer(path: Path) -> Iterator[None]:
    with Feeder(path.with_name("train"), [[CSV[:10], None]]):
        yield


@pytest.mark.parametrize("arrange", [_nothing, _no_writer, _silent_writer])
def test_wait_for_a_pipe_can_be_stopped_and_closes_it(folder: Path, arrange: Callable[[Path], Iterator[None]]) -> None:
    folder.parent.mkdir(parents=True)
    path = folder.with_name("train_0")
    for _ in arrange(path):
        with pytest.raises(StoppedError):
            rows_of(PipeReader(channel(folder), ReadOptions(None, Hears(3, stop))))
        assert not (path.exists() and is_being_read(path))


# What is wrong.


@pytest.mark.parametrize(
    ("content", "what"),
    [(b"", "not one byte came through it"), (npy(ROWS[:0]), "it holds no rows")],
    ids=["no bytes", "no rows"],
)
@pytest.mark.parametrize("epochs_before", [0, 1])
def test_an_empty_stream_is_no_data(folder: Path, content: bytes, what: str, epochs_before: int) -> None:
    reader = PipeReader(channel(folder), ReadOptions())
    with Feeder(folder, [[CSV]] * epochs_before + [[content]]):
        for _ in range(epochs_before):
            rows_of(reader)
        with pytest.raises(SettingError) as raised:
            list(reader.batches())
    place = f"Channel train has no data: {folder}_{epochs_before} was read to its end, and {what}. "
    assert str(raised.value).startswith(place)


RECORD_BYTES = len(RECORDS) // 100


@pytest.mark.parametrize(
    ("content", "place", "problem"),
    [
        pytest.param(RECORDS[:-5], f"row 100, byte {99 * RECORD_BYTES + 8}", "ends within a record", id="record"),
        pytest.param(RECORDS + RECORDS[:6], f"row 101, byte {100 * RECORD_BYTES}", "expected", id="head of a record"),
        pytest.param(b"1,2,3\n4,5", "row 2", "expected 3 columns as in the rows before, found 2", id="line"),
        pytest.param(gzip.compress(CSV)[:200], "byte 200", "expected gzip, but Compressed file ended", id="gzip"),
        pytest.param(npy(ROWS)[:-4], "byte 128", "expected 1200 bytes for shape (100, 3), found 1196", id="npy"),
    ],
)
def test_stream_that_ends_within_a_row_is_refused_there(folder: Path, content: bytes, place: str, problem: str) -> None:
    with Feeder(folder, [[CSV], in_pieces(content, 1000)]) as feeder:
        reader = PipeReader(channel(folder), ReadOptions())
        rows_of(reader)
        with pytest.raises(DataError) as raised:
            rows_of(reader)
    assert str(raised.value).startswith(f"{folder}_1, {place}: ")
    assert not is_being_read(feeder.path(1))
    assert problem in str(raised.value)


def test_error_within_a_stream_releases_the_writer(folder: Path) -> None:
    with Feeder(folder, [[b"1,2\nx,3\n", *[b"1,2\n" * 10_000] * 1000]]) as feeder:
        with pytest.raises(DataError, match=f"{folder}_0, row 2, column 1: expected a number, found 'x'"):
            rows_of(PipeReader(channel(folder), ReadOptions()))
        assert not is_being_read(feeder.path(0))
    assert (feeder.opened, feeder.ended, feeder.refused) == (1, 0, 1)


def test_reader_that_needs_no_more_rows_closes_the_pipe(folder: Path) -> None:
    with Feeder(folder, [[RECORDS] * 10_000]) as feeder:
        blocks = PipeReader(channel(folder), ReadOptions()).batches()
        next(blocks)
        assert is_being_read(feeder.path(0))
        blocks.close()
        assert not is_being_read(feeder.path(0))
    assert feeder.refused == 1


def test_an_epoch_of_another_width_is_refused(folder: Path) -> None:
    reader = PipeReader(channel(folder), ReadOptions())
    with Feeder(folder, [[b"1,2\n"], [b"1,2,3\n"]]):
        rows_of(reader)
        with pytest.raises(DataError, match=f"{folder}_1: expected 2 columns as in {folder}_0, found 3"):
            rows_of(reader)


# Rows of a fit.


@pytest.mark.parametrize("held", [1000, 100, 40])
def test_epochs_read_next_fifos_and_keep_rows_of_the_first(folder: Path, held: int) -> None:
    reader = PipeReader(channel(folder), ReadOptions())
    with Feeder(folder, [[recordio.encode(ROWS + 1000 * epoch)] for epoch in range(4)]) as feeder:
        rows = load_once(reader.batches, held * bytes_per_row(3), 30)
        assert (len(rows), rows.seen, feeder.opened) == (min(held, 100), 100, 1)
        first = np.concatenate(list(rows.batches(0)))
        assert {tuple(row) for row in first.tolist()} <= {tuple(row) for row in ROWS.tolist()}
        for epoch in (1, 2):
            batches = list(rows.batches(epoch))
            assert [len(batch) for batch in batches] == [30, 30, 30, 10]
            assert sorted(np.concatenate(batches).tolist()) == (ROWS + 1000 * epoch).tolist()
    assert (feeder.opened, feeder.ended) == (3, 3)


def test_pipes_that_memory_does_not_hold_are_sampled(folder: Path) -> None:
    """Both have 20,000 rows: memory holds 2,592 of train, and a fifth of that of test."""
    base = folder.parents[1]
    config = base / "config"
    config.mkdir(parents=True)
    (config / "hyperparameters.json").write_text(json.dumps({"k": "2", "epochs": "2"}))
    (config / "inputdataconfig.json").write_text(
        json.dumps({name: {"TrainingInputMode": "Pipe"} for name in ("train", "test")})
    )
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(20_000, 3)).astype(np.float32) + np.repeat([[0], [50]], 10_000, axis=0)
    log = io.StringIO()
    train, test = [[recordio.encode(rows.astype(np.float32))]] * 2, [[recordio.encode(rows.astype(np.float32))]]
    with Feeder(folder, train) as trained, Feeder(folder.with_name("test"), test) as tested:
        TrainingJob(base.parent, 1, RESERVED_BYTES + 500_000, JobLog(stream=log)).run()
    assert (trained.ended, tested.ended) == (2, 1)
    held = [int(count) for count in re.findall(r"a pipe: (\d+) of 20000 rows are kept in memory", log.getvalue())]
    assert held == [280_000 // bytes_per_row(3), int(0.8 * (350_000 - held[0] * bytes_per_row(3))) // bytes_per_row(3)]
    model = artifact.load(base.parent / "model")
    np.testing.assert_allclose(sorted(model.centers.tolist()), [[0] * 3, [50] * 3], atol=0.2)
    assert model.training["metrics"]["test:msd"] == pytest.approx(3, rel=0.15)
    assert "processed a total of 20000 examples" in log.getvalue()
    assert "read channel test: 20000 rows x 3 columns from 1 file(s)" in log.getvalue()
