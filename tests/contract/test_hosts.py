"""A job on several hosts as one process sees it; whole ones need MPI and are in tests/image."""

import signal
import subprocess

import pytest

from .opt_ml import PROJECT, TRAIN, OptMl, environment
from .samples import csv, digits


@pytest.mark.parametrize(
    ("current", "missing"),
    [pytest.param("localhost", "second", id="leader"), pytest.param("second", "localhost", id="follower")],
)
def test_a_host_that_stays_away_is_named(job: OptMl, current: str, missing: str) -> None:
    job.put("digits.csv", csv(digits()))
    job.write_config("resourceconfig.json", {"current_host": current, "hosts": ["localhost", "second"]})
    done = subprocess.run(
        TRAIN,
        cwd=PROJECT,
        env=environment(job.base, KMEANS_HOSTS_TIMEOUT_SECONDS="0.5"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2, done.stdout + done.stderr
    reason = job.failure.read_text()
    assert reason.startswith(f"AlgorithmError: host {missing}: ")
    assert done.stdout.rstrip().endswith(reason)
    assert not done.stderr
    assert not any(job.model.iterdir())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("current", ["localhost", "second"], ids=["leader", "follower"])
def test_stop_signal_while_a_host_waits_for_others_ends_it(job: OptMl, current: str, number: signal.Signals) -> None:
    job.write_config("resourceconfig.json", {"current_host": current, "hosts": ["localhost", "second"]})
    with job.training() as running:
        running.wait_for("waiting for" if current == "localhost" else "going to")
        running.process.send_signal(number)
        finished = running.finish()
    reason = f"AlgorithmError: host {current}: the job was stopped ({number.name}) before there was a model."
    assert (finished.exit_code, finished.errors) == (128 + number, "")
    assert job.failure.read_text() == reason
    assert finished.last_message == reason


@pytest.mark.parametrize("text", ["soon", "0", "-1", "nan", "inf"])
@pytest.mark.parametrize("variable", ["KMEANS_HOSTS_TIMEOUT_SECONDS", "KMEANS_HEARTBEAT_TIMEOUT_SECONDS"])
def test_a_deadline_that_is_none_is_named(job: OptMl, variable: str, text: str) -> None:
    job.write_config("resourceconfig.json", {"current_host": "a", "hosts": ["a", "b"]})
    done = subprocess.run(
        TRAIN, cwd=PROJECT, env=environment(job.base, **{variable: text}), capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert f"{variable}: expected a number of seconds above 0, found '{text}'" in job.failure.read_text()
