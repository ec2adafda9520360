"""A user's machine: it runs programs that use an SDK, unmodified, and what they leave behind is removed."""

import contextlib
import os
import signal
import subprocess
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker.errors
import numpy as np
import numpy.typing as npt

from tests.contract.opt_ml import PROJECT
from tests.contract.samples import read_centers

REGION = "us-east-1"
# A program takes 15 s on two CPUs.
DEADLINE = 300
# Compose writes the folder of its file onto each container that it starts.
WORKING_DIRECTORY = "com.docker.compose.project.working_dir"
NETWORK = "sagemaker-local"


def clean_up(engine: Any, folder: Path, *, network_too: bool) -> None:
    """Remove what compose leaves behind: stopped containers, and the network, whose name is the same for all jobs."""
    for container in engine.containers.list(all=True, filters={"label": WORKING_DIRECTORY}):
        if Path(container.labels[WORKING_DIRECTORY]).is_relative_to(folder):
            container.remove(force=True, v=True)
    if network_too:
        # Not found if the job never got so far; in use if somebody else runs local mode just now.
        with contextlib.suppress(docker.errors.APIError):
            engine.networks.get(NETWORK).remove()


@dataclass(frozen=True)
class Notebook:
    """What a user's program has left: its log, and what it put into its folder."""

    folder: Path
    log: str

    @property
    def centers(self) -> npt.NDArray[np.float32]:
        """The centers that the SDK finds in S3."""
        with tarfile.open(self.folder / "model.tar.gz") as archive:
            archive.extract("model_algo-1", self.folder, filter="data")
        return read_centers(self.folder)

    @property
    def predictions(self) -> npt.NDArray[np.float64]:
        predictions: npt.NDArray[np.float64] = np.load(self.folder / "predictions.npy", allow_pickle=False)
        return predictions


class Laptop:
    """Where notebooks run: with compose, and with no settings of AWS but ours, of which ``aws`` is its address."""

    def __init__(self, engine: Any, compose: Path, aws: str) -> None:
        self.engine = engine
        # The SDKs and boto3 read settings from the home; docker, from which we got compose, from its own folder.
        home = compose.parent
        own = {name: text for name, text in os.environ.items() if not name.startswith(("AWS_", "SAGEMAKER_"))}
        self.environment = {
            "DOCKER_CONFIG": str(Path.home() / ".docker"),
            **own,
            "HOME": str(home),
            "PATH": f"{compose}{os.pathsep}{os.environ['PATH']}",
            "AWS_ENDPOINT_URL": aws,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_EC2_METADATA_DISABLED": "true",
            "PYTHONUNBUFFERED": "1",
        }

    def run(self, command: Sequence[str], folder: Path) -> Notebook:
        """Run a user's program, which works in ``folder``."""
        log = folder / "log"
        network_is_ours = not self.engine.networks.list(names=[NETWORK])
        try:
            with (
                log.open("wb") as out,
                subprocess.Popen(
                    command,
                    cwd=PROJECT,
                    env=self.environment,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                ) as process,
            ):
                try:
                    exit_code = process.wait(DEADLINE)
                finally:
                    # The SDK's children, compose for one, outlive it if it is killed.
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
        finally:
            clean_up(self.engine, folder, network_too=network_is_ours)
        text = log.read_text(errors="replace").replace("\r", "")
        assert exit_code == 0, text
        return Notebook(folder, text)
