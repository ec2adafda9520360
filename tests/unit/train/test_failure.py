"""From an error to its reason, exit code and file."""

import errno
import signal
from pathlib import Path

import pytest

from kmeans.errors import DataError, KMeansError, ModelError, ResourceError, SettingError
from train.failure import MAX_CHARACTERS, Failure, StoppedError


@pytest.mark.parametrize(
    ("error", "reason", "exit_code"),
    [
        (SettingError("k is wrong."), "ClientError: k is wrong.", 1),
        (ModelError("No model."), "ClientError: No model.", 1),
        (KMeansError("Something."), "ClientError: Something.", 1),
        (
            DataError("expected a number, found 'x'", source="a.csv", row=3, column=4, hint="Mend it."),
            "ClientError: a.csv, row 3, column 4: expected a number, found 'x'. Mend it.",
            1,
        ),
        (ResourceError("no space is left."), "AlgorithmError: no space is left.", 2),
        (
            OSError(errno.EACCES, "Permission denied", "/data/x"),
            "AlgorithmError: /data/x: Permission denied.",
            2,
        ),
        (OSError(errno.EIO, "Input/output error"), "AlgorithmError: the system: Input/output error.", 2),
        (OSError("without a number"), "AlgorithmError: the system: without a number.", 2),
    ],
)
def test_an_error_becomes_a_reason_and_an_exit_code(error: Exception, reason: str, exit_code: int) -> None:
    assert Failure.of(error) == Failure(reason, exit_code, is_defect=False)


def test_exhausted_memory_is_an_algorithm_error_with_advice() -> None:
    failure = Failure.of(MemoryError())
    assert failure.reason.startswith("AlgorithmError: the data don't fit into this machine's memory.")
    assert (failure.exit_code, failure.is_defect) == (2, False)


@pytest.mark.parametrize(
    ("error", "name", "exit_code"),
    [(StoppedError(), "SIGTERM", 143), (StoppedError(signal.SIGINT), "SIGINT", 130)],
    ids=["SIGTERM", "SIGINT"],
)
def test_stop_has_the_exit_code_of_its_signal(error: StoppedError, name: str, exit_code: int) -> None:
    failure = Failure.of(error)
    assert failure.reason == f"AlgorithmError: the job was stopped ({name}) before there was a model."
    assert (failure.exit_code, failure.is_defect) == (exit_code, False)


@pytest.mark.parametrize("letters", [0, 5000])
def test_failure_on_several_hosts_names_the_host_after_prefix(letters: int) -> None:
    failure = Failure.of(SettingError("k is wrong: 'x'." + "y" * letters)).at("algo-2")
    assert failure.reason.startswith("ClientError: host algo-2: k is wrong: 'x'.")
    assert len(failure.reason) <= MAX_CHARACTERS
    assert failure.exit_code == 1


@pytest.mark.parametrize("error", [ValueError("bad"), KeyError("k"), AssertionError(), ZeroDivisionError("x")])
def test_anything_else_is_a_defect_and_says_so(error: Exception) -> None:
    failure = Failure.of(error)
    assert failure.reason.startswith(f"AlgorithmError: unexpected {type(error).__name__}: ")
    assert failure.reason.endswith("This is a defect; details are in the log.")
    assert (failure.exit_code, failure.is_defect) == (2, True)


@pytest.mark.parametrize("error", [SettingError, ResourceError, ValueError, OSError])
@pytest.mark.parametrize("letter", ["x", "\u00e9", "\U0001f600"])
def test_no_reason_is_longer_than_sagemaker_shows(error: type[Exception], letter: str) -> None:
    reason = Failure.of(error("the cause " + letter * 5000)).reason
    assert len(reason) == MAX_CHARACTERS == 1024
    assert "the cause" in reason
    assert reason.endswith("...")


def test_reason_of_the_maximum_length_is_not_cut() -> None:
    room = MAX_CHARACTERS - len("ClientError: ")
    assert Failure.of(SettingError("x" * room)).reason == "ClientError: " + "x" * room


def test_the_file_holds_the_reason_and_nothing_else(tmp_path: Path) -> None:
    Failure("ClientError: k ist größer als n.", 1).write(tmp_path / "output")
    assert (tmp_path / "output" / "failure").read_text(encoding="utf-8") == "ClientError: k ist größer als n."
    assert [path.name for path in (tmp_path / "output").iterdir()] == ["failure"]


def test_an_earlier_reason_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "failure").write_text("AlgorithmError: a much longer reason of an earlier attempt.")
    Failure("ClientError: x.", 1).write(tmp_path)
    assert (tmp_path / "failure").read_text() == "ClientError: x."


def test_bytes_that_are_no_text_dont_spoil_the_file(tmp_path: Path) -> None:
    Failure("ClientError: \udcff.csv", 1).write(tmp_path)
    assert (tmp_path / "failure").read_bytes() == b"ClientError: ?.csv"


def test_a_file_that_cant_be_written_is_a_resource_error(tmp_path: Path) -> None:
    (tmp_path / "output").write_text("")
    with pytest.raises(ResourceError, match="can't write failure"):
        Failure("ClientError: x.", 1).write(tmp_path / "output")
