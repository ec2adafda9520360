"""Jobs killed or stopped at any moment: restarted they end as if nothing had happened, stopped with a model."""

import random
import signal
import subprocess
import time

import numpy as np
import pytest

from kmeans import artifact
from kmeans.formats import recordio

from .opt_ml import OptMl

KILLS = 12


@pytest.fixture
def long_job(job: OptMl) -> OptMl:
    """A job whose phases take long enough to be hit: 100,000 rows that overlap, many epochs and passes."""
    generator = np.random.default_rng(0)
    centers = generator.normal(size=(20, 16))
    rows = centers[generator.integers(0, 20, 100_000)] + generator.normal(size=(100_000, 16))
    job.put("rows.pbr", recordio.encode(rows.astype(np.float32)))
    job.set_hyperparameters(k="20", epochs="12", local_lloyd_tol="0.000001", checkpoint_interval="0")
    return job


def _seconds_of(job: OptMl) -> float:
    started = time.monotonic()
    finished = job.train()
    assert finished.exit_code == 0, finished.errors + finished.log
    return time.monotonic() - started


def _ended_within(process: subprocess.Popen[bytes], seconds: float) -> bool:
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def test_a_job_killed_at_random_moments_ends_with_the_model_of_one_that_was_not(long_job: OptMl) -> None:
    whole = _seconds_of(long_job)
    expected = long_job.model_files()["model_algo-1"]
    (long_job.model / "model_algo-1").unlink()
    (long_job.base / "checkpoints").mkdir()
    moments = random.Random(0)  # noqa: S311 - moments, not secrets
    resumed = 0
    for _ in range(KILLS):
        with long_job.training() as running:
            if _ended_within(running.process, moments.uniform(0.2, 0.8) * whole):
                break
            running.process.kill()
            running.process.wait()
        resumed += "going on from checkpoint" in running.log.read_text()
    finished = long_job.train()
    assert finished.exit_code == 0, finished.errors + finished.log
    assert finished.errors == ""
    assert "going on from checkpoint" in finished.log
    assert resumed
    assert long_job.model_files()["model_algo-1"] == expected


@pytest.mark.parametrize("share", [0.1, 0.4, 0.6, 0.8, 0.95])
def test_a_job_stopped_at_any_moment_ends_with_a_model_or_says_that_it_had_none(long_job: OptMl, share: float) -> None:
    with long_job.training() as running:
        _ended_within(running.process, share * 2.0)
        running.process.send_signal(signal.SIGTERM)
        finished = running.finish()
    if finished.exit_code == 0:
        model = artifact.load(long_job.model)
        assert model.clusters == 20
        assert np.isfinite(model.centers).all()
        assert not long_job.failure.exists()
    elif finished.exit_code != -signal.SIGTERM:  # before Python listens there is nobody to save anything
        assert finished.exit_code == 128 + signal.SIGTERM
        assert "stopped (SIGTERM) before there was a model" in long_job.failure.read_text()
        assert list(long_job.model.iterdir()) == []
    assert "Traceback" not in finished.errors
