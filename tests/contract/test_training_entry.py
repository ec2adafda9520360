"""The shell that starts Python for a training job: what it says if SIGTERM comes before Python is there."""

import re
import stat
import subprocess
from pathlib import Path

import pytest

from train.failure import Failure, StoppedError

from .opt_ml import PROJECT, OptMl, environment

SCRIPT = PROJECT / "container" / "bin" / "train"
FAILURE = Failure.of(StoppedError())


def stop_in_the_shell(base: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the script, with a SIGTERM just before it becomes another program; ``options`` are the shell's."""
    script = SCRIPT.read_text()
    assert script.count("\nexec ") == 1
    stopped = script.replace("\nexec ", "\nkill -TERM $$\nexec ")
    return subprocess.run(
        ["sh", *options, "-c", stopped],
        env=environment(base),
        capture_output=True,
        text=True,
        timeout=60,
        umask=0o077,
        check=False,
    )


# The image's entry point reads the script into a shell with these options.
@pytest.mark.parametrize("options", [[], ["-e", "-u"]], ids=["alone", "within the entry point"])
def test_a_job_that_is_stopped_before_python_is_there_says_what_python_would(opt_ml: OptMl, options: list[str]) -> None:
    opt_ml.failure.write_text("ClientError: a longer reason, of an earlier job that failed. " * 3)
    done = stop_in_the_shell(opt_ml.base, *options)
    assert done.returncode == FAILURE.exit_code
    assert opt_ml.failure.read_text() == FAILURE.reason
    assert re.fullmatch(
        r"\[\d\d/\d\d/\d{4} \d\d:\d\d:\d\d ERROR \d+\] " + re.escape(FAILURE.reason) + "\n", done.stdout
    )
    assert done.stderr == ""
    assert sorted(path.name for path in opt_ml.failure.parent.iterdir()) == ["data", "failure"]


def test_the_folder_is_made_and_all_may_read_and_remove_what_is_there(tmp_path: Path) -> None:
    stop_in_the_shell(tmp_path / "ml")
    output = tmp_path / "ml" / "output"
    assert (output / "failure").read_text() == FAILURE.reason
    assert stat.S_IMODE((output / "failure").stat().st_mode) == 0o666
    assert stat.S_IMODE(output.stat().st_mode) == 0o777


@pytest.mark.parametrize("options", [[], ["-e", "-u"]], ids=["alone", "within the entry point"])
def test_a_folder_that_takes_nothing_changes_nothing_of_the_rest(tmp_path: Path, options: list[str]) -> None:
    (tmp_path / "ml").write_text("")
    done = stop_in_the_shell(tmp_path / "ml", *options)
    assert (done.returncode, done.stderr) == (FAILURE.exit_code, "")
    assert done.stdout.endswith(f"] {FAILURE.reason}\n")


def test_a_file_that_can_only_be_begun_is_taken_away(opt_ml: OptMl) -> None:
    """As on a full disk; here a folder is in its place."""
    (opt_ml.failure / "something").mkdir(parents=True)
    done = stop_in_the_shell(opt_ml.base)
    assert (done.returncode, done.stderr) == (FAILURE.exit_code, "")
    assert [path.name for path in opt_ml.failure.iterdir()] == ["something"]
    assert not list(opt_ml.failure.parent.glob(".*"))
