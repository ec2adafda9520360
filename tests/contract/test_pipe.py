"""Jobs in Pipe mode: real processes, and FIFOs as SageMaker makes and fills them."""

import contextlib
import gzip
import signal
from collections.abc import Iterator

import numpy as np
import pytest

from kmeans import artifact
from kmeans.formats import recordio
from local_test.feeding import feeding

from ..pipes import Feeder, Streams, in_pieces, is_being_read, make_fifo
from .opt_ml import Finished, OptMl
from .samples import Points, csv, digits, nearest, read_centers
from .test_training_commands import VALIDATE
from .test_training_failures import assert_explained
from .waiting import wait_until

DIGITS = digits()
RECORDIO_TYPE = "application/x-recordio-protobuf"
RECORD_BYTES = len(recordio.encode(DIGITS[:1]))

# One center, moved by the mean of each mini-batch: at the end it is the mean of all rows that were streamed.
ONE_CENTER = {"k": 1, "extra_center_factor": 1, "refine_max_iter": 0, "mini_batch_size": 100}


@pytest.fixture
def pipes(job: OptMl) -> OptMl:
    """A job whose channel train, of any type, comes through pipes."""
    job.set_channels(train={"TrainingInputMode": "Pipe"})
    return job


@contextlib.contextmanager
def fed(job: OptMl, **channels: Streams) -> Iterator[dict[str, Feeder]]:
    with contextlib.ExitStack() as stack:
        yield {name: stack.enter_context(Feeder(job.data / name, streams)) for name, streams in channels.items()}


def train(job: OptMl, **channels: Streams) -> tuple[Finished, dict[str, Feeder]]:
    """Run a job to its end; more streams are offered than it shall take."""
    with fed(job, **channels) as feeders:
        return job.train(), feeders


def encoded(points: Points, content_type: str) -> bytes:
    return csv(points) if content_type == "text/csv" else recordio.encode(points)


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("content_type", [RECORDIO_TYPE, "text/csv"])
def test_each_epoch_is_streamed_from_a_fifo_of_its_own(job: OptMl, content_type: str, packed: bool) -> None:
    job.set_hyperparameters(**ONE_CENTER, epochs=3, eval_metrics='["msd", "ssd"]')
    fields = {"TrainingInputMode": "Pipe", "ContentType": content_type}
    job.set_channels(train=fields, test=fields)
    epochs = [DIGITS[:700], DIGITS[700:900], DIGITS[900:1700], DIGITS[:50], DIGITS[50:100]]
    streams = [encoded(points, content_type) for points in [*epochs, DIGITS[1700:]]]
    *train_streams, test_stream = [[gzip.compress(stream) if packed else stream] for stream in streams]
    finished, feeders = train(job, train=train_streams, test=[test_stream] * 3)
    assert finished.exit_code == 0, finished.log + finished.errors
    assert finished.errors == ""
    assert [(f.opened, f.ended, f.refused) for f in feeders.values()] == [(3, 3, 0), (1, 1, 0)]
    center = read_centers(job.model)
    np.testing.assert_allclose(center[0], DIGITS[:1700].mean(axis=0, dtype=np.float64), rtol=1e-5, atol=1e-5)
    assert "channel train is a pipe: 700 of 700 rows are kept in memory" in finished.log
    _, distances = nearest(DIGITS[1700:], center)
    assert job.card["training"]["metrics"]["test:ssd"] == pytest.approx((distances**2).sum(), rel=1e-6)


def test_refined_model_equals_that_of_the_same_rows_in_files(pipes: OptMl) -> None:
    finished, feeders = train(pipes, train=[in_pieces(csv(DIGITS), 30_000)] * 2)
    assert finished.exit_code == 0, finished.log + finished.errors
    assert feeders["train"].opened == 1
    piped = pipes.model_files()["model_algo-1"]
    pipes.set_content_type(None)
    pipes.put("digits.csv", csv(DIGITS))
    assert pipes.train().exit_code == 0
    assert pipes.model_files()["model_algo-1"] == piped


@pytest.mark.parametrize(
    ("streams", "causes"),
    [
        pytest.param(
            [recordio.encode(DIGITS[:100])[:-7]],
            ["train_0", "row 100", f"byte {99 * RECORD_BYTES + 8}", "ends within a record"],
            id="the end within a record",
        ),
        pytest.param(
            [csv(DIGITS), csv(DIGITS[:3]) + b"1,2"], ["train_1", "row 4", "64 columns"], id="the end within a line"
        ),
        pytest.param([csv(DIGITS), csv(DIGITS[:, :60])], ["train_1", "64 columns as in", "60"], id="another width"),
        pytest.param([b""], ["Channel train has no data", "train_0", "not one byte"], id="no data"),
        pytest.param([csv(DIGITS), b""], ["Channel train has no data", "train_1", "not one byte"], id="none later"),
        pytest.param([b"\0\1\2"], ["train_0", "neither RecordIO-protobuf, NPY nor text"], id="another format"),
        pytest.param([csv(DIGITS[:9])], ["k=10", "9 rows"], id="fewer rows than clusters"),
    ],
)
def test_a_stream_that_cant_be_used_is_explained(pipes: OptMl, streams: list[bytes], causes: list[str]) -> None:
    pipes.set_hyperparameters(k=10, epochs=2)
    finished, _ = train(pipes, train=[[stream] for stream in streams])
    reason = assert_explained(pipes, finished, prefix="ClientError: ", exit_code=1)
    assert not [cause for cause in causes if cause not in reason], reason
    assert list(pipes.model.iterdir()) == []


@pytest.mark.parametrize("made", [False, True], ids=["no FIFO", "a silent one"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_signal_ends_a_job_that_waits_for_its_first_rows(pipes: OptMl, made: bool, number: signal.Signals) -> None:
    with fed(pipes, train=[[None]] if made else []) as feeders, pipes.training() as running:
        running.wait_for("Final configuration")
        wait_until(lambda: feeders["train"].opened == made, "the job to open the FIFO")
        running.process.send_signal(number)
        finished = running.finish()
    reason = assert_explained(pipes, finished, prefix="AlgorithmError: ", exit_code=128 + number)
    assert f"the job was stopped ({number.name}) before there was a model." in reason
    assert list(pipes.model.iterdir()) == []


@pytest.mark.parametrize("later", [[], [[csv(DIGITS), None]]], ids=["no FIFO", "a silent one"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_signal_in_wait_for_a_later_epoch_leaves_a_model(
    pipes: OptMl, later: Streams, number: signal.Signals
) -> None:
    pipes.set_hyperparameters(k=10, epochs=2)
    with fed(pipes, train=[[csv(DIGITS)], *later]) as feeders, pipes.training() as running:
        running.wait_for("completed 50.0 % of epochs")
        wait_until(lambda: feeders["train"].opened == 1 + len(later), "the job to open the next FIFO")
        running.process.send_signal(number)
        finished = running.finish()
    assert finished.exit_code == 0, finished.log + finished.errors
    assert artifact.load(pipes.model).clusters == 10


def test_a_pipe_is_validated_without_being_opened(pipes: OptMl) -> None:
    path = make_fifo(pipes.data / "train_0")
    finished = pipes.train(VALIDATE)
    assert (finished.exit_code, finished.errors) == (0, "")
    assert "Channel train: a Pipe channel can't be checked beforehand" in finished.log
    assert finished.lines[-1] == "The job is valid."
    assert not is_being_read(path)


# What local_test does in SageMaker's place.


def test_a_local_job_gets_all_files_in_each_epoch(pipes: OptMl) -> None:
    pipes.set_hyperparameters(**ONE_CENTER, epochs=3)
    pipes.put("b/a.csv", csv(DIGITS[1000:]))
    pipes.put("a.csv", csv(DIGITS[:1000]))
    pipes.put(".manifest", b"no data")
    with feeding(pipes.base) as feeders:
        finished = pipes.train()
    assert finished.exit_code == 0, finished.log + finished.errors
    assert [(feeder.folder.name, feeder.epochs) for feeder in feeders] == [("train", 3)]
    assert finished.log.count(f"processed a total of {len(DIGITS)} examples") == 3
    np.testing.assert_allclose(read_centers(pipes.model)[0], DIGITS.mean(axis=0), rtol=1e-5, atol=1e-5)
    assert [path.name for path in pipes.data.iterdir()] == ["train"]


@pytest.mark.parametrize("first_lines", [b"", b"not,a,number\n"], ids=["before it reads", "while it reads"])
def test_a_local_job_that_ends_early_is_not_fed_any_more(pipes: OptMl, first_lines: bytes) -> None:
    pipes.put("a.csv", first_lines + csv(DIGITS) * 20)
    if not first_lines:
        pipes.set_hyperparameters(k="none")
    with feeding(pipes.base) as feeders:
        assert pipes.train().exit_code == 1
    assert feeders[0].epochs == 0
    assert [path.name for path in pipes.data.iterdir()] == ["train"]
