"""The training contract: what a job leaves behind when it succeeds, and what it says when it doesn't."""

import contextlib
import json
import os
import random
import re
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from .containers import Job, wait_until
from .samples import Points, digits, mnist, nearest, read_centers, recordio

pytestmark = pytest.mark.image

SIGKILLED = 128 + 9
# Number of jobs that are stopped, each at another moment.
STOPS = 20


def _mean_squared_distance(job: Job, points: Points) -> float:
    _, distances = nearest(points, read_centers(job.model / "model_algo-1"))
    return float((distances**2).mean())


def test_leaves_a_model(digits_job: Job) -> None:
    finished = digits_job.run(["train"])
    assert finished.exit_code == 0, finished.log
    assert not digits_job.failure.exists()
    assert json.loads((digits_job.model / "kmeans.json").read_text())
    assert read_centers(digits_job.model / "model_algo-1").shape == (10, 64)
    # scikit-learn's best of 20 starts reaches 648; all in one cluster is 1201.
    assert _mean_squared_distance(digits_job, digits()) < 700


def test_works_as_root_without_restrictions_too(digits_job: Job) -> None:
    """SageMaker's own start."""
    finished = digits_job.run(
        ["train"], user="", read_only=False, tmpfs={}, cap_drop=[], security_opt=[], network_mode="bridge"
    )
    assert finished.exit_code == 0, finished.log
    assert (digits_job.model / "model_algo-1").is_file()


def test_validates_without_training(digits_job: Job) -> None:
    finished = digits_job.run(["validate"])
    assert finished.exit_code == 0, finished.log
    assert "The job is valid." in finished.log
    assert not list(digits_job.model.iterdir())


def test_validates_and_names_what_is_wrong(digits_job: Job) -> None:
    _forget_k(digits_job)
    _put_text_among_the_numbers(digits_job)
    finished = digits_job.run(["validate"])
    assert finished.exit_code == 1
    assert "'k'" in finished.log
    assert "'seven'" in finished.log


def _forget_k(job: Job) -> None:
    job.set_hyperparameters(feature_dim="64")


def _put_text_among_the_numbers(job: Job) -> None:
    with job.data_file("digits.csv").open("a") as file:
        file.write(",".join(["seven"] * 64) + "\n")


@pytest.mark.parametrize(
    ("mistake", "cause"),
    [
        pytest.param(_forget_k, "k", id="no k"),
        pytest.param(_put_text_among_the_numbers, "digits.csv", id="text in the CSV file"),
    ],
)
def test_tells_a_user_what_to_correct(digits_job: Job, mistake: Callable[[Job], None], cause: str) -> None:
    mistake(digits_job)
    finished = digits_job.run(["train"])
    assert finished.exit_code == 1, finished.log
    failure = digits_job.failure.read_text()
    assert failure.startswith("ClientError: ")
    assert cause in failure.removeprefix("ClientError: ")
    assert len(failure) <= 1024
    assert "Traceback" not in failure
    assert list(digits_job.model.iterdir()) == []


def test_full_disk_leaves_no_half_of_a_model(digits_job: Job) -> None:
    digits_job.set_hyperparameters(k="100", feature_dim="64")
    # The folder is gone with the container, so the container itself says what is in it. One page is too little for a
    # model of 25,600 bytes.
    script = "train; code=$?; find /opt/ml/model -mindepth 1 -printf 'left behind: %f\\n'; exit $code"
    finished = digits_job.run(
        ["sh", "-c", script],
        tmpfs={"/tmp": "", "/opt/ml/model": "size=4096,mode=1777"},  # noqa: S108
    )
    assert finished.exit_code != 0, finished.log
    assert "left behind" not in finished.out
    failure = digits_job.failure.read_text()
    assert "no space" in failure.lower()
    assert "Traceback" not in failure
    assert len(failure) <= 1024


@pytest.mark.parametrize("signal_name", ["SIGTERM", "SIGINT"])
def test_stop_signal_reaches_the_job(digits_job: Job, signal_name: str) -> None:
    """The program is PID 1 and listens: `docker stop` and Ctrl-C end it, with a model."""
    digits_job.set_hyperparameters(k="10", feature_dim="64", epochs="1000000")
    with digits_job.start(["train"]) as running:
        wait_until(lambda: "streaming onto" in running.log, "the start of the training")
        running.container.kill(signal_name)
        finished = running.finish()
    assert finished.exit_code == 0, finished.log
    assert "stopped early: the model is the best so far" in finished.log
    assert read_centers(digits_job.model / "model_algo-1").shape == (10, 64)
    assert not list(digits_job.model.glob("*tmp*"))


def test_ctrl_c_in_the_terminal_of_a_job_ends_it(digits_job: Job) -> None:
    """As in `docker run -it`: the terminal turns the key into SIGINT."""
    digits_job.set_hyperparameters(k="10", feature_dim="64", epochs="1000000")
    with digits_job.start(["train"], tty=True, stdin_open=True) as running:
        terminal = running.container.attach_socket(params={"stdin": 1, "stream": 1})
        # The socket is closed when the response that shares it is, too.
        with terminal._sock, contextlib.closing(terminal._response):
            wait_until(lambda: "streaming onto" in running.log, "the start of the training")
            terminal._sock.sendall(b"\x03")
            finished = running.finish()
    assert finished.exit_code == 0, finished.log
    assert read_centers(digits_job.model / "model_algo-1").shape == (10, 64)


@pytest.mark.slow
@pytest.mark.parametrize(("signal_name", "exit_code"), [("SIGTERM", 128 + 15), ("SIGINT", 128 + 2)])
def test_no_stop_signal_is_lost_from_the_first_moment(digits_job: Job, signal_name: str, exit_code: int) -> None:
    """The kernel drops one that comes to PID 1 before it listens, and this job would go on for ever."""
    digits_job.set_hyperparameters(k="10", feature_dim="64", epochs="1000000")
    moments = random.Random(0)  # noqa: S311 - moments, not secrets
    for _ in range(STOPS):
        with digits_job.start(["train"]) as running:
            end = time.monotonic() + moments.uniform(0, 0.3)
            wait_until(lambda end=end: time.monotonic() >= end, "the moment", pause=0.001)  # type: ignore[misc]
            running.container.kill(signal_name)
            finished = running.finish()
            assert finished.exit_code in {0, exit_code}, finished.log


@pytest.mark.slow
def test_data_larger_than_memory_are_read_again_in_each_pass(job: Job) -> None:
    """Four times the memory of the container: nothing but bounded memory survives this."""
    generator = np.random.default_rng(0)
    centers = generator.normal(scale=3, size=(5, 500)).astype(np.float32)
    for part in range(8):
        rows = generator.standard_normal((100_000, 500), dtype=np.float32)
        rows += centers[generator.integers(0, 5, len(rows))]
        job.data_file(f"part-{part}").write_bytes(recordio(rows))
    job.train_on("application/x-recordio-protobuf")
    job.set_hyperparameters(k="5", feature_dim="500")
    finished = job.run(["train"], mem_limit="400m", memswap_limit="400m")
    assert finished.exit_code == 0, finished.log
    assert "passes over all rows read the files again" in finished.log
    peak = re.search(r"peak memory: ([0-9.]+) MB", finished.log)
    assert peak is not None
    assert float(peak[1]) < 400
    found = read_centers(job.model / "model_algo-1")
    assert nearest(centers, found)[1].max() < 1
    assert sum(json.loads((job.model / "kmeans.json").read_text())["counts"]) == 800_000


@pytest.fixture
def mnist_folder() -> Path:
    folder = os.environ.get("KMEANS_MNIST_DIR")
    if not folder:
        pytest.skip("KMEANS_MNIST_DIR doesn't name a folder with MNIST's IDX files")
    return Path(folder)


@pytest.mark.slow
def test_mnist_in_recordio_reaches_the_known_quality(job: Job, mnist_folder: Path) -> None:
    """The job of SageMaker's own k-means examples, with its defaults."""
    points = mnist(mnist_folder)
    job.data_file("data").write_bytes(recordio(points))
    job.train_on("application/x-recordio-protobuf")
    job.set_hyperparameters(k="10", feature_dim="784")
    finished = job.run(["train"])
    assert finished.exit_code == 0, finished.log
    assert _mean_squared_distance(job, points) <= 39.6
