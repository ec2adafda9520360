"""The shell that starts Python for a training job: what it says if it is stopped before Python is there."""

import os
import re
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from train.failure import Failure, StoppedError

from .opt_ml import HEEDS_SIGINT, PROJECT, OptMl, environment

SCRIPT = PROJECT / "container" / "bin" / "train"
FAILURE = Failure.of(StoppedError())
EXEC = "\nexec env --block-signal=TERM,INT "


def run_script(base: Path, script: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a changed script; ``options`` are the shell's."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        [*HEEDS_SIGINT, "sh", *options, "-c", script],
        env=environment(base, PATH=path, PYTHONPATH=str(PROJECT)),
        capture_output=True,
        text=True,
        timeout=60,
        umask=0o077,
        check=False,
    )


def stop_in_the_shell(
    base: Path, *options: str, number: signal.Signals = signal.SIGTERM
) -> subprocess.CompletedProcess[str]:
    """Run the script, with a signal just before it becomes another program."""
    script = SCRIPT.read_text()
    assert script.count("\nexec ") == script.count(EXEC) == 1
    return run_script(base, script.replace(EXEC, f"\nkill -{number} $${EXEC}"), *options)


# The image's entry point reads the script into a shell with these options.
@pytest.mark.parametrize("options", [[], ["-e", "-u"]], ids=["alone", "within the entry point"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_before_python_runs_is_reported_as_by_python(
    opt_ml: OptMl, options: list[str], number: signal.Signals
) -> None:
    failure = Failure.of(StoppedError(number))
    opt_ml.failure.write_text("ClientError: a longer reason, of an earlier job that failed. " * 3)
    done = stop_in_the_shell(opt_ml.base, *options, number=number)
    assert done.returncode == failure.exit_code == 128 + number
    assert opt_ml.failure.read_text() == failure.reason
    assert re.fullmatch(
        r"\[\d\d/\d\d/\d{4} \d\d:\d\d:\d\d ERROR \d+\] " + re.escape(failure.reason) + "\n", done.stdout
    )
    assert done.stderr == ""
    assert sorted(path.name for path in opt_ml.failure.parent.iterdir()) == ["data", "failure"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_while_python_starts_is_reported_once_it_runs(opt_ml: OptMl, number: signal.Signals) -> None:
    failure = Failure.of(StoppedError(number))
    opt_ml.set_hyperparameters(k="10")
    opt_ml.put("rows.csv", b"1,2\n" * 100)
    stopped = SCRIPT.read_text().replace("python3 -m train", f"sh -c 'kill -{number} $$; exec python3 -m train'")
    done = run_script(opt_ml.base, stopped)
    assert (done.returncode, done.stderr) == (failure.exit_code, "")
    assert opt_ml.failure.read_text() == failure.reason
    assert done.stdout.endswith(f"] {failure.reason}\n")


def test_output_folder_is_made_with_files_anyone_may_remove(tmp_path: Path) -> None:
    stop_in_the_shell(tmp_path / "ml")
    output = tmp_path / "ml" / "output"
    assert (output / "failure").read_text() == FAILURE.reason
    assert stat.S_IMODE((output / "failure").stat().st_mode) == 0o666
    assert stat.S_IMODE(output.stat().st_mode) == 0o777


@pytest.mark.parametrize("options", [[], ["-e", "-u"]], ids=["alone", "within the entry point"])
def test_unwritable_output_folder_changes_only_the_file(tmp_path: Path, options: list[str]) -> None:
    (tmp_path / "ml").write_text("")
    done = stop_in_the_shell(tmp_path / "ml", *options)
    assert (done.returncode, done.stderr) == (FAILURE.exit_code, "")
    assert done.stdout.endswith(f"] {FAILURE.reason}\n")


def test_partly_written_failure_file_is_removed(opt_ml: OptMl) -> None:
    """As on a full disk; here a folder is in its place."""
    (opt_ml.failure / "something").mkdir(parents=True)
    done = stop_in_the_shell(opt_ml.base)
    assert (done.returncode, done.stderr) == (FAILURE.exit_code, "")
    assert [path.name for path in opt_ml.failure.iterdir()] == ["something"]
    assert not list(opt_ml.failure.parent.glob(".*"))
