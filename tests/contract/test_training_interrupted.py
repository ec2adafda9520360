"""Jobs killed or stopped at any moment: restarted they end as if nothing had happened, stopped with a model."""

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest

from kmeans import artifact
from kmeans.formats import recordio

from .opt_ml import OptMl

pytestmark = pytest.mark.slow

# Number of jobs that are killed, and of those that are stopped, each at its own moments; and how many run at a time.
RUNS, AT_A_TIME = 50, 2
# Seconds for a stopped job to end: SageMaker kills after 30 s at the earliest.
GRACE = 30

Outcome = TypeVar("Outcome")


class Jobs:
    """Jobs that are all the same: about half a second of reading, streaming, shrinking and refining after the start."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._rows = folder / "rows.pbr"
        generator = np.random.default_rng(0)
        centers = generator.normal(size=(10, 8))
        rows = centers[generator.integers(0, 10, 50_000)] + generator.normal(size=(50_000, 8))
        self._rows.write_bytes(recordio.encode(rows.astype(np.float32)))

    def new(self, name: str, *, checkpoints: bool) -> OptMl:
        job = OptMl(self._folder / name)
        (job.data / "train").mkdir()
        os.link(self._rows, job.data / "train" / "rows.pbr")
        job.set_hyperparameters(k="10", epochs="4", local_lloyd_tol="0.000001", checkpoint_interval="0")
        if checkpoints:
            (job.base / "checkpoints").mkdir()
        return job

    def each(self, run: Callable[[OptMl, random.Random], Outcome], *, checkpoints: bool) -> list[Outcome]:
        """Return the outcomes of ``RUNS`` runs, each with its own job and its own random numbers."""

        def run_one(number: int) -> Outcome:
            job = self.new(f"job-{number}", checkpoints=checkpoints)
            outcome = run(job, random.Random(number))  # noqa: S311 - moments, not secrets
            shutil.rmtree(job.base)
            return outcome

        with ThreadPoolExecutor(AT_A_TIME) as threads:
            return list(threads.map(run_one, range(RUNS)))

    def seconds(self, *, checkpoints: bool) -> float:
        """Return the seconds that an undisturbed job takes while as many others run as in the test."""

        def measure(number: int) -> float:
            job = self.new(f"whole-{number}", checkpoints=checkpoints)
            started = time.monotonic()
            finished = job.train()
            assert finished.exit_code == 0, finished.errors + finished.log
            return time.monotonic() - started

        with ThreadPoolExecutor(AT_A_TIME) as threads:
            return max(threads.map(measure, range(AT_A_TIME)))


@pytest.fixture
def jobs(tmp_path: Path) -> Jobs:
    return Jobs(tmp_path)


def _ended_within(process: subprocess.Popen[bytes], seconds: float) -> bool:
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def test_killed_jobs_resume_to_the_same_model(jobs: Jobs) -> None:
    undisturbed = jobs.new("undisturbed", checkpoints=False)
    finished = undisturbed.train()
    assert finished.exit_code == 0, finished.errors + finished.log
    expected = undisturbed.model_files()["model_algo-1"]
    whole = jobs.seconds(checkpoints=True)

    def kill_until_it_ends(job: OptMl, moments: random.Random) -> bool:
        """Return whether it went on from a checkpoint."""
        kills, resumed, finished = 0, False, None
        while finished is None:
            with job.training() as running:
                # Later moments are often too late, so that it ends some time.
                moment = moments.uniform(0, 2 * whole if kills else whole)
                if _ended_within(running.process, moment):
                    finished = running.finish()
                    assert finished.exit_code == 0, finished.errors + finished.log
                else:
                    running.process.kill()
                    running.process.wait()
                    kills += 1
                    resumed |= "going on from checkpoint" in running.log.read_text()
            if not kills:  # faster than the one that was measured: as if it had not been
                finished = None
                shutil.rmtree(job.base / "checkpoints")
                (job.base / "checkpoints").mkdir()
                (job.model / "model_algo-1").unlink()
        assert finished.errors == ""
        assert job.model_files()["model_algo-1"] == expected
        return resumed or "going on from checkpoint" in finished.log

    resumed = jobs.each(kill_until_it_ends, checkpoints=True)
    assert sum(resumed) >= RUNS / 5, "most of them had a checkpoint by then"


def test_stopped_jobs_leave_a_model_or_a_reason(jobs: Jobs) -> None:
    whole = jobs.seconds(checkpoints=False)

    def stop(job: OptMl, moments: random.Random) -> int:
        with job.training() as running:
            _ended_within(running.process, moments.uniform(0, whole))
            running.process.send_signal(signal.SIGTERM)
            assert _ended_within(running.process, GRACE)
            finished = running.finish()
        assert "Traceback" not in finished.errors
        if finished.exit_code == 0:
            model = artifact.load(job.model)
            assert model.clusters == 10
            assert np.isfinite(model.centers).all()
            assert not job.failure.exists()
        elif finished.exit_code != -signal.SIGTERM:  # before Python runs
            assert finished.exit_code == 128 + signal.SIGTERM
            assert "stopped (SIGTERM) before there was a model" in job.failure.read_text()
            assert list(job.model.iterdir()) == []
        return finished.exit_code

    codes = jobs.each(stop, checkpoints=False)
    assert {0, 128 + signal.SIGTERM} <= set(codes), "both happen"
