"""The log's lines, to the letter."""

import io
import json
import re
import signal
from typing import Any

import pytest

from train.failure import StoppedError
from train.metrics import PROGRESS_INTERVAL, JobLog

LINE = re.compile(r"\[\d{2}/\d{2}/\d{4} \d{2}:\d{2}:\d{2} (INFO|ERROR) \d+\] (.*)\n")
METRICS = re.compile(r"^#metrics (\{.*\})\n\n", re.MULTILINE)


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("train.metrics.time.monotonic", clock.monotonic)
    return clock


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def log(clock: Clock, stream: io.StringIO) -> JobLog:
    return JobLog("algo-7", stream)


def said(stream: io.StringIO) -> list[str]:
    """Return the messages of all lines but those of #metrics."""
    lines = METRICS.sub("", stream.getvalue()).splitlines(keepends=True)
    matches = [LINE.fullmatch(line) for line in lines]
    assert all(matches), lines
    return [match[2] for match in matches if match]


def measured(stream: io.StringIO) -> list[dict[str, Any]]:
    """Return the documents of the #metrics lines."""
    return [json.loads(text) for text in METRICS.findall(stream.getvalue())]


def test_a_line_has_the_prefix_of_the_built_in_image(log: JobLog, stream: io.StringIO) -> None:
    log.say("hello")
    log.say("trouble", "ERROR")
    assert said(stream) == ["hello", "trouble"]
    assert " INFO " in stream.getvalue().splitlines()[0]
    assert " ERROR " in stream.getvalue().splitlines()[1]


@pytest.mark.parametrize("message", ["a\nb", "a\r\n\tb", "  a   b  "])
def test_a_message_stays_on_one_line(log: JobLog, stream: io.StringIO, message: str) -> None:
    log.say(message)
    assert said(stream) == ["a b"]


def test_each_line_is_flushed(clock: Clock) -> None:
    buffer = io.BytesIO()
    with io.TextIOWrapper(buffer, encoding="utf-8") as text:
        JobLog(stream=text).say("hello")
        assert buffer.getvalue().endswith(b"hello\n")


def test_without_a_stream_lines_go_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    JobLog().say("hello")
    assert capsys.readouterr().out.endswith("hello\n")


@pytest.mark.parametrize("value", [0.1, 1e-30, 123456789.123, 0.0])
def test_a_score_is_written_with_all_its_digits(log: JobLog, stream: io.StringIO, value: float) -> None:
    log.quality("test", "msd", value)
    match = re.fullmatch(r"#quality_metric: host=algo-7, test msd <loss>=(\S+)", said(stream)[0])
    assert match
    assert float(match[1]) == value


@pytest.mark.parametrize(
    ("auto", "lines"),
    [
        (
            True,
            ["'extra_center_factor' was set to 'auto', evaluated to 10.", "streaming onto 80 centers for 8 clusters"],
        ),
        (False, ["streaming onto 80 centers for 8 clusters"]),
    ],
)
def test_auto_is_logged_as_by_the_built_in_image(
    log: JobLog, stream: io.StringIO, auto: bool, lines: list[str]
) -> None:
    log.seeded(centers=80, clusters=8, factor=10, auto=auto, rows=500)
    assert said(stream) == lines


def test_an_epoch_ends_with_progress_and_throughput(log: JobLog, stream: io.StringIO) -> None:
    log.epoch_done(epoch=0, epochs=4, rows=1000, batches=2, seconds=0.5)
    assert said(stream) == [
        "processed a total of 1000 examples",
        "#progress_metric: host=algo-7, completed 25.0 % of epochs",
        "#throughput_metric: host=algo-7, train throughput=2000.0 records/second",
    ]


def test_an_epoch_of_no_time_has_a_finite_throughput(log: JobLog, stream: io.StringIO) -> None:
    log.epoch_done(epoch=0, epochs=1, rows=1, batches=1, seconds=0.0)
    assert "inf" not in stream.getvalue()


def test_shrinking_is_logged_as_by_the_built_in_image(log: JobLog, stream: io.StringIO) -> None:
    log.shrink_started(centers=80, clusters=8)
    log.shrink_attempt(attempt=0, mean_squared_distance=0.0699731)
    log.shrink_done(mean_squared_distance=0.06404909491539001)
    assert said(stream) == [
        "shrinking 80 centers into 8",
        "local kmeans attempt #0. Current mean square distance 0.069973",
        "finished shrinking process. Mean Square Distance = 0.06404909491539001",
        "#quality_metric: host=algo-7, train msd <loss>=0.06404909491539001",
    ]


def test_nothing_to_shrink_is_logged(log: JobLog, stream: io.StringIO) -> None:
    log.shrink_started(centers=8, clusters=8)
    assert said(stream) == ["No shrinking is required as extra_center_factor is 1."]


def test_each_epoch_adds_to_the_figures_of_the_data_iterator(log: JobLog, stream: io.StringIO) -> None:
    for epoch in range(3):
        log.epoch_done(epoch=epoch, epochs=3, rows=1000, batches=2, seconds=0.5)
    documents = measured(stream)
    assert [document["Dimensions"]["epoch"] for document in documents] == [0, 1, 2]
    assert {document["Dimensions"]["Meta"] for document in documents} == {"training_data_iter"}
    found = {name: values["sum"] for name, values in documents[-1]["Metrics"].items()}
    assert found == {
        "Total Records Seen": 3000,
        "Total Batches Seen": 6,
        "Max Records Seen Between Resets": 1000,
        "Max Batches Seen Between Resets": 2,
        "Reset Count": 3,
        "Number of Records Since Last Reset": 1000,
        "Number of Batches Since Last Reset": 2,
    }


def test_a_metrics_line_has_the_form_of_the_built_in_image(log: JobLog, stream: io.StringIO) -> None:
    log.metrics({"x": 1.5, "y": 2}, Meta="here")
    assert stream.getvalue().startswith("#metrics {")
    assert stream.getvalue().endswith("}\n\n")
    (document,) = measured(stream)
    assert document["StartTime"] <= document["EndTime"]
    assert document["Dimensions"] == {
        "Algorithm": "AWS/KMeansWebscale",
        "Host": "algo-7",
        "Operation": "training",
        "Meta": "here",
    }
    assert document["Metrics"]["x"] == {"sum": 1.5, "count": 1, "min": 1.5, "max": 1.5}


def test_the_end_tells_where_the_time_went(log: JobLog, stream: io.StringIO) -> None:
    log.phase_done(phase="stream", seconds=1.0)
    log.phase_done(phase="stream", seconds=0.23456)
    log.phase_done(phase="write", seconds=0.5)
    assert stream.getvalue() == ""
    log.finish(peak_memory=12_345_678)
    stream_line, write_line, total_line, memory_line = said(stream)
    assert re.fullmatch(r"stream took: \d+\.\d{4}%, \(1\.234560 secs\)", stream_line)
    assert re.fullmatch(r"write took: \d+\.\d{4}%, \(0\.500000 secs\)", write_line)
    assert re.fullmatch(r"TOTAL took: \d+\.\d{6}", total_line)
    assert memory_line == "peak memory: 12.3 MB"
    found = {name: values["sum"] for name, values in measured(stream)[0]["Metrics"].items()}
    assert found["update.time"] == pytest.approx(1234.56)
    assert (found["model.serialize.time"], found["epochs"]) == (500, 0)


def batch(log: JobLog, rows_seen: int) -> None:
    log.batch_done(epoch=1, epochs=4, rows_seen=rows_seen, rows=1000, mean_squared_distance=2.5)


def test_batches_are_logged_at_intervals(log: JobLog, stream: io.StringIO, clock: Clock) -> None:
    for second in range(20):
        clock.now = 1000.0 + second
        batch(log, 40 * second)
    assert said(stream) == [
        line
        for second in (5, 10, 15)
        for line in (
            f"epoch 2 of 4: {40 * second} of 1000 rows, mean squared distance of the last mini-batch 2.5",
            f"#progress_metric: host=algo-7, completed {25 + second:.1f} % of epochs",
        )
    ]


def test_the_interval_is_measured_from_the_last_sign_of_life(log: JobLog, stream: io.StringIO, clock: Clock) -> None:
    clock.now += 3 * PROGRESS_INTERVAL
    batch(log, 1)
    clock.now += PROGRESS_INTERVAL - 0.001
    batch(log, 2)
    assert len(said(stream)) == 2


def test_reading_many_files_shows_a_sign_of_life(log: JobLog, stream: io.StringIO, clock: Clock) -> None:
    log.reading("train", "1 of 9 files")
    clock.now += PROGRESS_INTERVAL
    log.reading("train", "2 of 9 files")
    log.reading("train", "3 of 9 files")
    assert said(stream) == ["reading channel train: 2 of 9 files"]


def refine(log: JobLog, done: int, *, empty: int = 0) -> None:
    log.refine_pass(done=done, rows=70, mean_squared_distance=1.5, empty_clusters=empty)


def test_first_pass_of_refinement_is_always_logged(log: JobLog, stream: io.StringIO) -> None:
    log.refine_started(at_most=100)
    refine(log, 1)
    refine(log, 2)
    assert said(stream) == [
        "refining with at most 100 passes over all rows",
        "refinement pass 1 over 70 rows: mean squared distance 1.5",
    ]


def test_refinement_that_is_off_is_logged(log: JobLog, stream: io.StringIO) -> None:
    log.refine_started(at_most=0)
    assert said(stream) == ["refining is off"]


def test_number_of_comparisons_with_centers_is_logged(log: JobLog, stream: io.StringIO) -> None:
    log.refined(with_all=100, with_nearby=700, clusters=40)
    log.refined(with_all=300, with_nearby=0, clusters=3)
    assert said(stream) == [
        "compared rows 100 times with all 40 centers, 700 times with those around their own",
        "compared rows 300 times with all 3 centers",
    ]


def test_empty_clusters_are_always_logged(log: JobLog, stream: io.StringIO) -> None:
    refine(log, 3, empty=2)
    assert said(stream) == ["refinement pass 3 over 70 rows: mean squared distance 1.5, 2 empty clusters"]


def test_later_passes_are_logged_at_intervals(log: JobLog, stream: io.StringIO, clock: Clock) -> None:
    refine(log, 2)
    clock.now += PROGRESS_INTERVAL
    refine(log, 3)
    assert said(stream) == ["refinement pass 3 over 70 rows: mean squared distance 1.5"]


def test_stop_ends_the_reading_of_data_only(log: JobLog, stream: io.StringIO) -> None:
    assert not log.stop_wanted()
    log.reading("train", "0 of 1 files")
    log.stop()
    assert log.stop_wanted()
    log.say("still at work")
    assert said(stream) == ["still at work"]
    log.stop(signal.SIGINT)
    assert log.stop_signal == signal.SIGTERM, "the first counts"
    with pytest.raises(StoppedError) as stopped:
        log.reading("train", "0 of 1 files")
    assert stopped.value.number == signal.SIGTERM
    log.stream_started()
    log.reading("train", "0 of 1 files")  # once there are centers the fit itself ends with the best it has
