"""Pipe mode: FIFOs on this machine, mounted into the container, which reads them as it would on SageMaker."""

import numpy as np
import pytest

from ..pipes import Feeder, Streams
from .containers import Job, wait_until
from .samples import digits, read_centers, recordio

pytestmark = [pytest.mark.image, pytest.mark.slow]

SIGTERM_BEFORE_A_MODEL = 128 + 15


def _through_pipes(job: Job, streams: Streams) -> Feeder:
    channel = {"TrainingInputMode": "Pipe", "ContentType": "application/x-recordio-protobuf"}
    job.write_config("inputdataconfig", {"train": channel})
    return Feeder(job.root / "input" / "data" / "train", streams)


def test_each_epoch_is_read_from_a_fifo_of_its_own(job: Job) -> None:
    # One center, moved by the mean of each mini-batch, is at the end the mean of all rows of all epochs.
    job.set_hyperparameters(k="1", extra_center_factor="1", refine_max_iter="0", epochs="3")
    points = digits()
    epochs = [points[:700], points[700:900], points[900:], points[:50]]
    with _through_pipes(job, [[recordio(epoch)] for epoch in epochs]) as feeder:
        finished = job.run(["train"])
    assert finished.exit_code == 0, finished.log
    assert (feeder.opened, feeder.ended) == (3, 3)
    center = read_centers(job.model / "model_algo-1")
    np.testing.assert_allclose(center[0], points.mean(axis=0, dtype=np.float64), rtol=1e-5, atol=1e-5)


def test_a_container_that_waits_for_rows_can_be_stopped(job: Job) -> None:
    job.set_hyperparameters(k="10")
    with _through_pipes(job, [[recordio(digits()), None]]) as feeder, job.start(["train"]) as running:
        wait_until(lambda: feeder.opened == 1, "the container to open the FIFO")
        running.stop()
        finished = running.finish()
    assert finished.exit_code == SIGTERM_BEFORE_A_MODEL, finished.log
    assert not list(job.model.iterdir())
