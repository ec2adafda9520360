"""A job on several hosts: containers on one network, each with a separate /opt/ml and the same command."""

import contextlib
import secrets
from pathlib import Path
from typing import Any

from .containers import Containers, Finished, Job, Running, wait_until
from .samples import csv, digits

ENDED_BY_SIGKILL = 128 + 9
# A fit that continues until it is stopped.
ENDLESS = {"k": "10", "feature_dim": "64", "epochs": "1000000"}


class Cluster:
    """The hosts of one job: by default each finds all rows of the digits."""

    def __init__(self, folder: Path, containers: Containers, engine: Any, network: str, names: int | list[str]) -> None:
        if isinstance(names, int):
            # As SageMaker's SDK makes them up.
            suffix = secrets.token_hex(3)
            names = [f"algo-{number}-{suffix}" for number in range(1, names + 1)]
        self.names = names
        self.jobs = [Job(folder / name / "ml", containers) for name in self.names]
        self._engine, self._network = engine, network
        content = csv(digits())
        for name, job in zip(self.names, self.jobs, strict=True):
            job.write_config(
                "resourceconfig", {"current_host": name, "hosts": self.names, "network_interface_name": "eth0"}
            )
            job.set_hyperparameters(k="10", feature_dim="64")
            job.data_file("digits.csv").write_bytes(content)
        self._stack = contextlib.ExitStack()

    @property
    def model(self) -> Path:
        """The folder of the leader's model."""
        return self.jobs[0].model

    def configure(self, **fields: object) -> None:
        """Change what resourceconfig.json says, on all hosts."""
        for name, job in zip(self.names, self.jobs, strict=True):
            job.write_config("resourceconfig", {"current_host": name, "hosts": self.names, **fields})

    def set_hyperparameters(self, **values: str) -> None:
        for job in self.jobs:
            job.set_hyperparameters(**values)

    def start(self, number: int, command: list[str] | None = None, **options: Any) -> Running:
        """Start the host of this number, from 0."""
        name = self.names[number]
        network = {self._network: self._engine.api.create_endpoint_config(aliases=[name])}
        return self._stack.enter_context(
            self.jobs[number].start(
                command or ["train"],
                **{"network_mode": None, "network": self._network, "networking_config": network, **options},
            )
        )

    def start_all(self, command: list[str] | None = None, **options: Any) -> list[Running]:
        return [self.start(number, command, **options) for number in range(len(self.names))]

    def put(self, number: int, content: bytes | None) -> None:
        """Give the host of this number other rows, or none."""
        path = self.jobs[number].data_file("digits.csv")
        path.unlink()
        if content is not None:
            path.write_bytes(content)

    def set_channel(self, **fields: str) -> None:
        """Describe the channel train, on all hosts."""
        for job in self.jobs:
            job.write_config("inputdataconfig", {"train": {"ContentType": "text/csv;label_size=0", **fields}})

    def cut_off(self, host: Running) -> None:
        """Take a host's network away."""
        self._engine.networks.get(self._network).disconnect(host.container)

    def failure(self, number: int) -> str:
        return self.jobs[number].failure.read_text()

    def close(self) -> None:
        self._stack.close()
        for job in self.jobs:
            job.hand_over()


def signal_rank(host: Running, name: str) -> None:
    """Send a signal to a host's training process, not to the one that watches over it."""
    # Others have its command line as a part of theirs: the launcher, and this shell and its grep. Its parent has the
    # same, which sees how it ends.
    script = f"""
is_rank() {{ tr '\\0' ' ' <"$1/cmdline" | grep -q '^[^ ]*python3 -m train --rank'; }}
for process in /proc/[0-9]*; do
    is_rank "$process" && is_rank "/proc/$(cut -d ' ' -f 4 "$process/stat")" || continue
    kill -{name} "${{process#/proc/}}" && echo sent
done
"""
    _, sent = host.container.exec_run(["sh", "-c", script], stderr=False)
    assert sent == b"sent\n"


def finish(hosts: list[Running]) -> list[Finished]:
    return [host.finish() for host in hosts]


def succeed(hosts: list[Running]) -> list[Finished]:
    finished = finish(hosts)
    assert [host.exit_code for host in finished] == [0] * len(hosts), "\n".join(host.log for host in finished)
    return finished


def wait_for_training(hosts: list[Running]) -> None:
    for host in hosts:
        wait_until(lambda host=host: "streaming onto" in host.log or not host.alive, "the training")  # type: ignore[misc]
        assert host.alive, host.log
