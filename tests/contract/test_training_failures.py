"""Jobs that fail: the exit code, the failure file, the last line of the log, and nothing half done."""

import json
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from kmeans import artifact
from kmeans.formats import recordio

from .opt_ml import PROJECT, TRAIN, Finished, OptMl, environment
from .samples import csv, digits, labelled_csv
from .waiting import wait_until

DIGITS = digits()[:100]
CSV = csv(DIGITS)
RECORDS = recordio.encode(DIGITS)
RECORDIO_TYPE = "application/x-recordio-protobuf"
RECORD_BYTES = len(RECORDS) // len(DIGITS)

Arrange = Callable[[OptMl], None]


def assert_explained(job: OptMl, finished: Finished, *, prefix: str, exit_code: int) -> str:
    """Assert what holds for all failures; return the reason."""
    assert finished.exit_code == exit_code, finished.log + finished.errors
    reason = job.failure.read_text(encoding="utf-8")
    assert reason.startswith(prefix)
    assert len(reason) <= 1024
    assert "Traceback" not in reason
    assert "\n" not in reason
    assert finished.last_message == " ".join(reason.split())
    assert " ERROR " in finished.lines[-1]
    assert [path.name for path in (job.base / "output").iterdir() if path.is_file()] == ["failure"]
    assert finished.errors == ""
    return reason


def assert_refused(job: OptMl, *causes: object) -> None:
    """Run a job that shall fail by its user's mistake, and find all ``causes`` in the reason."""
    reason = assert_explained(job, job.train(), prefix="ClientError: ", exit_code=1)
    missing = [cause for cause in causes if str(cause) not in reason]
    assert not missing, reason
    assert list(job.model.iterdir()) == []


@pytest.fixture
def good(job: OptMl) -> OptMl:
    """A job that would succeed."""
    job.put("digits.csv", CSV)
    return job


@pytest.mark.parametrize(
    ("hyperparameters", "causes"),
    [
        pytest.param({}, ["No value(s) were specified for 'k'", "required"], id="k is missing"),
        pytest.param({"k": ""}, ["No value(s) were specified for 'k'"], id="k is empty"),
        pytest.param({"k": "abc"}, ["k: expected an integer of at least 1", "'abc'"], id="k is a word"),
        pytest.param({"k": "0"}, ["k: expected an integer of at least 1", "'0'"], id="k is zero"),
        pytest.param({"k": "-3"}, ["k: expected", "'-3'"], id="k is negative"),
        pytest.param({"k": "2.5"}, ["k: expected", "'2.5'"], id="k is a fraction"),
        pytest.param({"k": None}, ["k", "null"], id="k is null"),
        pytest.param({"k": "101"}, ["k=101", "100 rows"], id="k is larger than the number of rows"),
        pytest.param({"k": "1e300"}, ["k"], id="k is beyond all bounds"),
        pytest.param({"k": "inf"}, ["k: expected", "'inf'"], id="k is infinite"),
        pytest.param(
            {"k": "10", "local_lloyd_max_iterations": "3"},
            ["local_lloyd_max_iterations", "did you mean 'local_lloyd_max_iter'?"],
            id="a name is nearly right",
        ),
        pytest.param({"k": "10", "zzz": "3"}, ["zzz", "known are", "mini_batch_size"], id="a name is unknown"),
        pytest.param(
            {"k": "ten", "epochs": "0", "init_method": "best", "local_lloyd_tol": "2", "eval_metrics": '["mse"]'},
            ["k:", "'ten'", "epochs:", "init_method:", "'best'", "local_lloyd_tol:", "0 to 1", "eval_metrics:", "mse"],
            id="several are wrong, and all are named at once",
        ),
        pytest.param(
            {"k": "x" * 2500, **{f"unknown_{i}": "y" * 2500 for i in range(98)}},
            ["unknown_0"],
            id="a hundred are wrong, more than the failure file can hold",
        ),
        pytest.param({"k": "10", "feature_dim": "60"}, ["feature_dim", "60", "64"], id="feature_dim differs"),
        pytest.param({"k": "zehn \u20ac \U0001f600"}, ["zehn"], id="text of all the world"),
    ],
)
def test_wrong_hyperparameters_are_named(good: OptMl, hyperparameters: dict[str, str], causes: list[str]) -> None:
    good.set_hyperparameters(**hyperparameters)
    assert_refused(good, *causes)


@pytest.mark.parametrize("name", ["k", "seed", "mini_batch_size", "half_life_time_size", "extra_center_factor"])
def test_numbers_beyond_64_bits_never_cause_a_defect(good: OptMl, name: str) -> None:
    good.set_hyperparameters(**({"k": "10"} | {name: str(1 << 64)}))
    finished = good.train()
    assert finished.exit_code in (0, 1), finished.log + finished.errors


def _no_channel_in_the_configuration(job: OptMl) -> None:
    job.set_channels()


def _other_channels_only(job: OptMl) -> None:
    job.put("digits.csv", CSV, channel="training")
    job.set_channels(training={}, test={})


def _an_empty_folder(job: OptMl) -> None:
    (job.data / "train").mkdir()
    job.set_content_type("text/csv")


def _no_folder(job: OptMl) -> None:
    job.set_content_type("text/csv")


def _only_empty_files(job: OptMl) -> None:
    job.put("a.csv", b"")
    job.put("b/c.csv", b"")


def _only_a_manifest(job: OptMl) -> None:
    job.put(".amazon.manifest", b'[{"prefix": "s3://bucket/"}, "matrix_0.pbr"]')


@pytest.mark.parametrize(
    ("arrange", "causes"),
    [
        pytest.param(lambda _: None, ["channel named train", "the job has none"], id="there is nothing at all"),
        pytest.param(_no_channel_in_the_configuration, ["channel named train"], id="no channel is configured"),
        pytest.param(_other_channels_only, ["channel named train", "found test, training"], id="no channel is train"),
        pytest.param(_an_empty_folder, ["train", "it is empty", "S3 prefix"], id="the channel is empty"),
        pytest.param(_no_folder, ["train", "there is no folder"], id="the channel's folder is missing"),
        pytest.param(_only_empty_files, ["train", "all 2 of its files are empty"], id="all files are empty"),
        pytest.param(_only_a_manifest, ["train", "only a manifest"], id="there is only a manifest"),
    ],
)
def test_missing_data_are_explained(job: OptMl, arrange: Arrange, causes: list[str]) -> None:
    arrange(job)
    assert_refused(job, *causes)


def _replaced(row: int, line: bytes) -> bytes:
    """Return CSV with another line for ``row``, counted from 1."""
    lines = CSV.splitlines(keepends=True)
    lines[row - 1] = line + b"\n"
    return b"".join(lines)


def _cell(column: int, cell: bytes) -> bytes:
    """Return a line whose ``column``, counted from 1, is ``cell``."""
    cells = CSV.splitlines()[0].split(b",")
    cells[column - 1] = cell
    return b",".join(cells)


NARROW = recordio.encode(np.ascontiguousarray(DIGITS[:, :63]))
WITH_NAN = DIGITS.copy()
WITH_NAN[41, 6] = np.nan


@pytest.mark.parametrize(
    ("content", "content_type", "causes"),
    [
        pytest.param(_replaced(3, b"1,2,3"), "text/csv", ["row 3", "expected 64", "found 3"], id="a short row"),
        pytest.param(_replaced(7, _cell(64, b"1,2")), None, ["row 7", "expected 64", "found 65"], id="a long row"),
        pytest.param(
            _replaced(42, _cell(7, b"seven")), "text/csv", ["row 42", "column 7", "a number", "'seven'"], id="a word"
        ),
        pytest.param(_replaced(5, _cell(2, b"")), "text/csv", ["row 5", "column 2", "empty cell"], id="an empty cell"),
        pytest.param(
            _replaced(1, ",".join(f"pixel_{i}" for i in range(64)).encode()),
            "text/csv",
            ["row 1", "column 1", "'pixel_0'", "header"],
            id="a header",
        ),
        pytest.param(_replaced(42, _cell(7, b"NaN")), None, ["row 42", "column 7", "finite", "NaN"], id="NaN in CSV"),
        pytest.param(
            _replaced(42, _cell(7, b"1e39")), None, ["row 42", "column 7", "float32"], id="a number beyond float32"
        ),
        pytest.param(
            _replaced(9, _cell(3, b"\xff\xfe")),
            "text/csv",
            ["row 9", "column 3", "a number"],
            id="bytes that are no UTF-8",
        ),
        pytest.param(b"\n\n", "text/csv", ["rows of numbers", "none"], id="blank lines only"),
        pytest.param(
            recordio.encode(WITH_NAN), RECORDIO_TYPE, ["row 42", "column 7", "finite", "NaN"], id="NaN in RecordIO"
        ),
        pytest.param(
            RECORDS[:-10], RECORDIO_TYPE, ["row 100", "byte", "ends within a record", "cut off"], id="a cut-off record"
        ),
        pytest.param(
            RECORDS[: 3 * RECORD_BYTES + 5],
            None,
            ["row 4", "header", "expected 8 bytes", "found 5"],
            id="a cut-off header",
        ),
        pytest.param(
            CSV, RECORDIO_TYPE, ["row 1", "byte 0", "magic number 0xced7230a", "found 0x"], id="CSV as RecordIO"
        ),
        pytest.param(
            RECORDS[: 2 * RECORD_BYTES] + struct.pack("<II", 0xCED7230B, 4) + b"\0\0\0\0",
            None,
            ["row 3", f"byte {2 * RECORD_BYTES}", "magic number 0xced7230a", "found 0xced7230b"],
            id="a wrong magic number",
        ),
        # The magic number begins with a line break.
        pytest.param(RECORDS, "text/csv", ["row 2", "column 1", "a number"], id="RecordIO as CSV"),
        pytest.param(
            RECORDS + NARROW, RECORDIO_TYPE, ["row 101", "expected 64", "found 63"], id="two widths in RecordIO"
        ),
        pytest.param(
            b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(range(256)),
            None,
            ["neither RecordIO-protobuf", "nor text", "content type"],
            id="binary data of no type",
        ),
    ],
)
def test_wrong_bytes_are_located(job: OptMl, content: bytes, content_type: str | None, causes: list[str]) -> None:
    job.put("1-good", RECORDS if content_type == RECORDIO_TYPE else CSV)
    path = job.put("sub/2-bad", content)
    job.set_content_type(content_type)
    assert_refused(job, path, *causes)


@pytest.mark.parametrize(
    ("content", "content_type", "feature_dim", "causes"),
    [
        pytest.param(CSV, "text/csv", "60", ["60 columns (feature_dim)", "found 64"], id="CSV"),
        pytest.param(CSV, "text/csv;label_size=0", "63", ["63 columns", "found 64"], id="CSV without labels"),
        pytest.param(
            CSV,
            "text/csv;label_size=1",
            "64",
            ["65 columns (feature_dim + label_size)", "found 64"],
            id="CSV with labels",
        ),
        pytest.param(RECORDS, RECORDIO_TYPE, "63", ["expected 63", "found 64"], id="RecordIO"),
    ],
)
def test_another_width_than_feature_dim_is_refused(
    job: OptMl, content: bytes, content_type: str, feature_dim: str, causes: list[str]
) -> None:
    path = job.put("digits", content)
    job.set_content_type(content_type)
    job.set_hyperparameters(k="10", feature_dim=feature_dim)
    assert_refused(job, path, *causes)


@pytest.mark.parametrize(
    ("second", "feature_dim", "causes"),
    [
        pytest.param(csv(DIGITS[:, :60]), "auto", ["expected 64", "found 60"], id="whatever the width"),
        pytest.param(csv(DIGITS[:, :60]), "64", ["expected 64", "found 60"], id="with feature_dim"),
        pytest.param(labelled_csv(DIGITS), "auto", ["expected 64", "found 65"], id="one column more"),
        pytest.param(labelled_csv(DIGITS), "64", ["b.csv"], id="one with a label column, one without"),
    ],
)
def test_files_of_two_widths_are_refused(job: OptMl, second: bytes, feature_dim: str, causes: list[str]) -> None:
    job.put("a.csv", CSV)
    path = job.put("b.csv", second)
    job.set_hyperparameters(k="10", feature_dim=feature_dim)
    assert_refused(job, path, *causes)


@pytest.mark.parametrize(
    ("fields", "causes"),
    [
        pytest.param({"ContentType": "image/png"}, ["train", "ContentType", "image/png", "text/csv"], id="type"),
        pytest.param({"ContentType": "text/csv;label_size=two"}, ["label_size", "'two'"], id="label_size in words"),
        pytest.param({"ContentType": "text/csv;label_size=-1"}, ["label_size", "'-1'"], id="negative label_size"),
        pytest.param({"ContentType": "text/csv;label_size=\u00b2"}, ["label_size"], id="superscript label_size"),
        pytest.param({"ContentType": "text/csv;label_size=64"}, ["label_size=64", "found 64"], id="nothing but labels"),
        pytest.param({"ContentType": 7}, ["inputdataconfig.json", "ContentType", "'7'"], id="type that is a number"),
        pytest.param({"TrainingInputMode": "Fire hose"}, ["train", "'Fire hose'", "FastFile"], id="input mode"),
        pytest.param([], ["inputdataconfig.json", "train"], id="a list instead of fields"),
    ],
)
def test_a_channel_that_cant_be_read_is_explained(good: OptMl, fields: object, causes: list[str]) -> None:
    good.write_config("inputdataconfig.json", {"train": fields})
    assert_refused(good, *causes)


CONFIGURATION = ("hyperparameters.json", "inputdataconfig.json", "resourceconfig.json")


@pytest.mark.parametrize("name", CONFIGURATION)
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param('{"k": "10"', "JSON", id="half of a JSON text"),
        pytest.param("", "JSON", id="nothing"),
        pytest.param('["k", "10"]', "object", id="a list"),
        pytest.param("null", "object", id="null"),
    ],
)
def test_broken_configuration_files_are_named(good: OptMl, name: str, content: str, expected: str) -> None:
    good.write_config(name, content)
    assert_refused(good, good.config / name, expected)


@pytest.mark.parametrize(
    ("resources", "causes"),
    [
        pytest.param({"current_host": "a", "hosts": ["a", "b c"]}, ["host's name", "'b c'"], id="a name that is none"),
        pytest.param({"current_host": "algo-3", "hosts": ["algo-1"]}, ["algo-3", "algo-1"], id="a stranger"),
        pytest.param({"current_host": "algo-1", "hosts": "algo-1"}, ["hosts", "list"], id="hosts that are no list"),
        pytest.param({"current_host": 1}, ["current_host", "text"], id="a host that is a number"),
    ],
)
def test_hosts_that_cant_train_are_refused(good: OptMl, resources: dict[str, object], causes: list[str]) -> None:
    good.write_config("resourceconfig.json", resources)
    assert_refused(good, *causes)


@pytest.mark.parametrize(
    ("content", "content_type", "causes"),
    [
        pytest.param(_replaced(2, _cell(4, b"x")), "text/csv", ["row 2", "column 4", "'x'"], id="a word"),
        pytest.param(csv(DIGITS[:, :60]), "text/csv", ["64 columns", "found 60"], id="another width"),
        pytest.param(CSV, "image/png", ["test", "image/png"], id="an unknown type"),
    ],
)
def test_a_bad_test_channel_fails_the_job_too(
    good: OptMl, content: bytes, content_type: str, causes: list[str]
) -> None:
    path = good.put("test.csv", content, channel="test")
    good.set_channels(train={}, test={"ContentType": content_type})
    assert_refused(good, *causes, *([] if content_type == "image/png" else [path]))


def test_an_earlier_model_outlives_a_job_that_fails(good: OptMl, trained: OptMl) -> None:
    for name, content in trained.model_files().items():
        (good.model / name).write_bytes(content)
    good.set_hyperparameters(k="101")
    finished = good.train()
    assert finished.exit_code == 1
    assert good.model_files() == trained.model_files()


def test_a_model_folder_that_is_a_file_is_the_machines_trouble(good: OptMl) -> None:
    good.model.rmdir()
    good.model.write_bytes(b"I am a file")
    reason = assert_explained(good, good.train(), prefix="AlgorithmError: ", exit_code=2)
    assert str(good.model) in reason
    assert good.model.read_bytes() == b"I am a file"


def test_a_disk_that_takes_no_more_leaves_no_part_of_a_model(good: OptMl) -> None:
    good.set_hyperparameters(k="100")
    # At most 1 or 2 KiB per file, as the shell has it: enough for the failure file, not for 100 centers.
    finished = good.train(["sh", "-c", 'ulimit -f 2 && exec "$0" -m train', sys.executable])
    reason = assert_explained(good, finished, prefix="AlgorithmError: ", exit_code=2)
    assert str(good.model) in reason
    assert list(good.model.iterdir()) == []


def test_a_reason_that_cant_be_written_is_still_logged(good: OptMl) -> None:
    output = good.base / "output"
    (output / "data").rmdir()
    output.rmdir()
    output.write_bytes(b"")
    good.set_hyperparameters(k="0")
    finished = good.train()
    assert finished.exit_code == 1
    assert finished.last_message.startswith("ClientError: Hyperparameter k: expected an integer of at least 1")
    assert "could not be written" in finished.lines[-2]


def test_a_file_name_of_any_bytes_can_be_reported(job: OptMl) -> None:
    path = Path(str(job.put("x", b"")).encode().decode() + "\udcff.csv")
    path.write_bytes(b"1,2\n3\n")
    finished = job.train()
    assert finished.exit_code == 1, finished.errors
    assert finished.errors == ""
    assert "row 2" in job.failure.read_text(encoding="utf-8")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_signal_ends_a_job_with_the_best_model_so_far(good: OptMl, number: signal.Signals) -> None:
    good.set_hyperparameters(k="10", epochs="100000000")
    with good.training() as running:
        running.wait_for("streaming onto")
        running.process.send_signal(number)
        finished = running.finish()
    assert finished.exit_code == 0, finished.errors
    assert not good.failure.exists()
    assert any("stopped early: the model is the best so far" in line for line in finished.lines)
    model = artifact.load(good.model)
    assert model.clusters == 10
    assert np.isfinite(model.centers).all()
    assert model.counts is None


def test_sigint_that_was_ignored_at_the_start_stays_ignored(good: OptMl) -> None:
    """As in a background job of a shell, at which Ctrl-C is not aimed."""
    good.set_hyperparameters(k="10", epochs="100000000")
    log = good.base / "log"
    command = ["env", "--ignore-signal=INT", *TRAIN]
    with (
        log.open("wb") as out,
        subprocess.Popen(command, cwd=PROJECT, env=environment(good.base), stdout=out) as process,
    ):
        wait_until(lambda: "streaming onto" in log.read_text() or process.poll() is not None, "the training to start")
        process.send_signal(signal.SIGINT)
        epochs = log.read_text().count("training_data_iter")
        wait_until(
            lambda: log.read_text().count("training_data_iter") > epochs + 1 or process.poll() is not None,
            "the next epochs",
        )
        assert process.poll() is None, log.read_text()
        process.terminate()
        assert process.wait(timeout=30) == 0


def test_log_has_the_configuration_before_the_failure(good: OptMl) -> None:
    good.set_hyperparameters(k="101")
    configuration = next(line for line in good.train().lines if "Final configuration: " in line)
    assert json.loads(configuration.partition("Final configuration: ")[2])["k"] == 101
