"""A temporary /opt/ml as SageMaker would fill it, and the jobs that run on it."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .waiting import wait_until

PROJECT = Path(__file__).resolve().parents[2]
TRAIN = (sys.executable, "-m", "train")
# A shell starts its background jobs, of which the tests may be one, with SIGINT ignored, and children inherit that.
HEEDS_SIGINT = ("env", "--default-signal=INT")


def environment(base: Path, **variables: str) -> dict[str, str]:
    """Return this process's environment without its own SAGEMAKER_ variables, and with ``variables``."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("SAGEMAKER_")}
    return own | {"SAGEMAKER_BASE_DIR": str(base)} | variables


@dataclass(frozen=True)
class Finished:
    exit_code: int
    log: str
    errors: str

    @property
    def lines(self) -> list[str]:
        return self.log.splitlines()

    @property
    def last_message(self) -> str:
        return self.lines[-1].partition("] ")[2]


class OptMl:
    """The tree below ``base``. A job without configuration files, data or hyperparameters until it is given some."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.config = base / "input" / "config"
        self.data = base / "input" / "data"
        self.model = base / "model"
        self.failure = base / "output" / "failure"
        for folder in (self.config, self.data, self.model, base / "output" / "data"):
            folder.mkdir(parents=True)

    def write_config(self, name: str, content: object) -> None:
        """Write a configuration file: ``content`` as it is if it is text, else as JSON."""
        text = content if isinstance(content, str) else json.dumps(content)
        (self.config / name).write_text(text)

    def set_hyperparameters(self, **values: object) -> None:
        self.write_config("hyperparameters.json", values)

    def set_channels(self, **channels: dict[str, Any]) -> None:
        self.write_config("inputdataconfig.json", channels)

    def set_content_type(self, content_type: str | None) -> None:
        """Describe the train channel, and no other, as SageMaker does."""
        fields = {"TrainingInputMode": "File", "S3DistributionType": "FullyReplicated", "RecordWrapperType": "None"}
        self.set_channels(train=fields if content_type is None else fields | {"ContentType": content_type})

    def put(self, name: str, content: bytes, channel: str = "train") -> Path:
        path = self.data / channel / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def train(self, command: Sequence[str] = TRAIN, **variables: str) -> Finished:
        """Run a whole job, with environment ``variables``."""
        done = subprocess.run(
            command,
            cwd=PROJECT,
            env=environment(self.base, **variables),
            capture_output=True,
            encoding="utf-8",
            errors="backslashreplace",
            timeout=60,
            check=False,  # the exit code is for the tests to judge
        )
        return Finished(done.returncode, done.stdout, done.stderr)

    def model_files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.model.iterdir()}

    @property
    def card(self) -> dict[str, Any]:
        card: dict[str, Any] = json.loads((self.model / "kmeans.json").read_bytes())
        return card

    @contextlib.contextmanager
    def training(self) -> Iterator["Running"]:
        """Start a job, and kill it at the end if it still runs."""
        log, errors = self.base / "stdout", self.base / "stderr"
        with (
            log.open("wb") as out,
            errors.open("wb") as err,
            subprocess.Popen(
                [*HEEDS_SIGINT, *TRAIN], cwd=PROJECT, env=environment(self.base), stdout=out, stderr=err
            ) as process,
        ):
            try:
                yield Running(process, log, errors)
            finally:
                process.kill()


@dataclass(frozen=True)
class Running:
    process: subprocess.Popen[bytes]
    log: Path
    errors: Path

    def wait_for(self, text: str) -> None:
        wait_until(
            lambda: text in self.log.read_text() or self.process.poll() is not None, f"{text!r} in the job's log"
        )
        assert self.process.poll() is None, self.errors.read_text() + self.log.read_text()

    def finish(self) -> Finished:
        exit_code = self.process.wait(timeout=30)
        return Finished(exit_code, self.log.read_text(), self.errors.read_text())
