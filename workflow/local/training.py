"""A training job on this machine: containers on one network, each with its own ``/opt/ml``."""

from __future__ import annotations

import json
import re
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from local_test.feeding import feeding
from workflow.errors import WorkflowError
from workflow.local import engine
from workflow.local.backend import Backend, Job
from workflow.local.engine import LogCopy
from workflow.objects import find_objects, pack
from workflow.requests.training import CHECKPOINTS, FULLY_REPLICATED, SHARDED
from workflow.waiting import TRAINING

POLL_SECONDS = 0.05

# SageMaker's time between SIGTERM and SIGKILL, and ours for the other hosts after one has failed.
STOP_SECONDS = 120
FAILED_STOP_SECONDS = 10


class TrainingJob(Job):
    """Carries out one CreateTrainingJob."""

    kind = "training-job"

    def __init__(self, request: dict[str, Any], backend: Backend) -> None:
        super().__init__(request["TrainingJobName"], request, backend)
        self._transitions: list[dict[str, str]] = []

    def _carry_out(self) -> None:
        self._enter("Starting", "Preparing the hosts")
        count = self._request["ResourceConfig"]["InstanceCount"]
        # Each host's /opt/ml; the folder has the host's name.
        bases = [self._folder / f"algo-{number}" for number in range(1, count + 1)]
        self._enter("Downloading", "Downloading input data")
        for number, base in enumerate(bases):
            self._write_configuration(base, [other.name for other in bases])
            for channel in self._request.get("InputDataConfig", ()):
                self._copy_channel(channel, base / "input" / "data" / channel["ChannelName"], number, count)
        with self._hosts(bases) as (containers, copies):
            self._enter("Training", "Training image is running")
            status = self._watch(containers, bases)
            for copy in copies:
                copy.join()
        self._enter("Uploading", "Uploading generated training model")
        self._upload(bases)
        reasons = {"Completed": "Training job completed", "Stopped": "Training job stopped"}
        self._end(status if status == "Completed" else "Stopped", status, reasons.get(status, "Out of time"))

    def _write_configuration(self, base: Path, hosts: list[str]) -> None:
        """Create a host's ``/opt/ml`` with its configuration files."""
        kind = self._request["ResourceConfig"].get("InstanceType", "")
        group = {"instance_group_name": "homogeneousCluster", "instance_type": kind, "hosts": hosts}
        configuration = {
            "hyperparameters": self._request.get("HyperParameters", {}),
            "inputdataconfig": {
                row["ChannelName"]: self._input(row) for row in self._request.get("InputDataConfig", ())
            },
            "resourceconfig": {
                "current_host": base.name,
                "current_instance_type": kind,
                "current_group_name": group["instance_group_name"],
                "hosts": hosts,
                "instance_groups": [group],
                "network_interface_name": "eth0",
            },
        }
        if "CheckpointConfig" in self._request:
            configuration["checkpointconfig"] = {"LocalPath": self._checkpoint_path()}
        for folder in ("input/config", "model", "output/data"):
            (base / folder).mkdir(parents=True)
        for name, content in configuration.items():
            (base / "input" / "config" / f"{name}.json").write_text(json.dumps(content))

    def _input(self, channel: dict[str, Any]) -> dict[str, str]:
        """Return a channel's entry of inputdataconfig.json."""
        default_mode = self._request["AlgorithmSpecification"]["TrainingInputMode"]
        entry = {
            "TrainingInputMode": channel.get("InputMode") or default_mode,
            "S3DistributionType": _distribution(channel),
            "RecordWrapperType": channel.get("RecordWrapperType", "None"),
        }
        return entry | ({"ContentType": channel["ContentType"]} if channel.get("ContentType") else {})

    def _copy_channel(self, channel: dict[str, Any], folder: Path, host: int, hosts: int) -> None:
        """Copy the objects of a channel, or every ``hosts``-th of them if they are sharded, into a folder."""
        try:
            found = find_objects(self._objects, channel["DataSource"]["S3DataSource"])
        except WorkflowError as error:
            raise WorkflowError(f"ClientError: {error}") from None
        folder.mkdir(parents=True)
        for address, name in found[host::hosts] if _distribution(channel) == SHARDED else found:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self._objects.path(address), path)

    @contextmanager
    def _hosts(self, bases: list[Path]) -> Iterator[tuple[list[Any], list[LogCopy]]]:
        """Return a context with a running container and a log copy for each host."""
        docker, algorithm = self._backend.docker, self._request["AlgorithmSpecification"]
        entrypoint, arguments = algorithm.get("ContainerEntrypoint"), algorithm.get("ContainerArguments")
        command = arguments or (None if entrypoint else ["train"])
        environment = {"TRAINING_JOB_NAME": self.job_name, "AWS_REGION": self._backend.region}
        environment |= self._request.get("Environment", {})
        is_isolated = self._request.get("EnableNetworkIsolation", False)
        stamp = int(time.time())
        containers: list[Any] = []
        copies = []
        with ExitStack() as stack:
            network = stack.enter_context(docker.network(self._owner, is_isolated=is_isolated))
            for base in bases:
                stack.enter_context(feeding(base))
                container = docker.start(
                    algorithm["TrainingImage"],
                    command,
                    self._owner,
                    volumes=self._volumes(base),
                    environment=environment,
                    **({"entrypoint": entrypoint} if entrypoint else {}),
                    **docker.attach(base.name, network),
                )
                stack.callback(engine.remove, container)
                containers.append(container)
                stream = self._backend.streams.file(TRAINING, f"{self.job_name}/{base.name}-{stamp}")
                copy = LogCopy(container, stream)
                copy.start()
                copies.append(copy)
            yield containers, copies

    def _volumes(self, base: Path) -> dict[str, dict[str, str]]:
        volumes = {str(base): {"bind": "/opt/ml", "mode": "rw"}}
        if "CheckpointConfig" in self._request:
            # The folder that replaces S3 is mounted, so checkpoints need no upload.
            kept = self._objects.path(self._request["CheckpointConfig"]["S3Uri"]).resolve()
            kept.mkdir(parents=True, exist_ok=True)
            volumes[str(kept)] = {"bind": self._checkpoint_path(), "mode": "rw"}
        return volumes

    def _checkpoint_path(self) -> str:
        return str(self._request["CheckpointConfig"].get("LocalPath", CHECKPOINTS))

    def _watch(self, containers: list[Any], bases: list[Path]) -> str:
        """Wait until all containers have ended; return the job's last secondary status.

        If a host fails, stop the others and raise WorkflowError.
        """
        deadline = time.monotonic() + self._request["StoppingCondition"].get("MaxRuntimeInSeconds", 86400)
        end = "Completed"
        running = dict(enumerate(containers))
        while running:
            for number, container in list(running.items()):
                state = engine.status(container)
                if state == "removed":
                    raise WorkflowError(f"AlgorithmError: the container of {bases[number].name} was removed.")
                if state in ("created", "running", "paused", "restarting"):
                    continue
                del running[number]
                code = engine.exit_code(container)
                # A job that is stopped before it has a model exits with the code of SIGTERM.
                if code and not (end != "Completed" and code == 128 + 15):
                    _stop_all(running.values(), FAILED_STOP_SECONDS)
                    raise WorkflowError(_failure(bases, number, code))
            if end == "Completed" and (self._stopped.is_set() or time.monotonic() > deadline):
                end = "Stopped" if self._stopped.is_set() else "MaxRuntimeExceeded"
                self._enter("Stopping", "Stopping the training job")
                _stop_all(running.values(), STOP_SECONDS)
            elif running:
                time.sleep(POLL_SECONDS)
        return end

    def _upload(self, bases: list[Path]) -> None:
        """Write the hosts' models and output data to S3."""
        target = f"{self._request['OutputDataConfig']['S3OutputPath'].rstrip('/')}/{self.job_name}/output"
        for folder, name in (("model", "model.tar.gz"), ("output/data", "output.tar.gz")):
            folders = [base / folder for base in bases]
            if folder == "model" or any(any(path.iterdir()) for path in folders):
                self._objects.put(f"{target}/{name}", pack(folders), "application/gzip")
        artifacts = {"S3ModelArtifacts": f"{target}/model.tar.gz"}
        self._registry.update(self.kind, self.job_name, ModelArtifacts=artifacts)

    def _enter(self, status: str, message: str) -> None:
        """Enter a secondary status."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._transitions.append({"Status": status, "StartTime": now, "StatusMessage": message})
        members = {"SecondaryStatus": status, "SecondaryStatusTransitions": list(self._transitions)}
        self._registry.update(self.kind, self.job_name, **members)

    def _fail(self, reason: str) -> None:
        self._end("Failed", "Failed", reason)

    def _end(self, status: str, secondary: str, message: str) -> None:
        """Enter the final status, with the metrics found in the log."""
        failure = {"FailureReason": message} if status == "Failed" else {}
        self._registry.update(self.kind, self.job_name, FinalMetricDataList=self._metrics(), **failure)
        self._enter(secondary, message)
        self._registry.update(self.kind, self.job_name, TrainingJobStatus=status)

    def _metrics(self) -> list[dict[str, Any]]:
        """Return the last value of each metric, found in the log by its regular expression."""
        folder = self._backend.streams.file(TRAINING, f"{self.job_name}/algo-1").parent
        text = "\n".join(path.read_text(errors="replace") for path in sorted(folder.iterdir()))
        found = []
        for definition in self._request["AlgorithmSpecification"].get("MetricDefinitions", ()):
            values = re.findall(definition["Regex"], text)
            if values:
                found.append({"MetricName": definition["Name"], "Value": float(values[-1])})
        return found


def _distribution(channel: dict[str, Any]) -> str:
    return str(channel["DataSource"]["S3DataSource"].get("S3DataDistributionType", FULLY_REPLICATED))


def _stop_all(containers: Any, seconds: int) -> None:
    """Stop all containers at the same time, because hosts that train together end together."""
    stoppers = [threading.Thread(target=engine.stop, args=(container, seconds)) for container in containers]
    for stopper in stoppers:
        stopper.start()
    for stopper in stoppers:
        stopper.join()


def _failure(bases: list[Path], number: int, code: int) -> str:
    """Return the failure file of the host that failed first, else another host's."""
    for base in (bases[number], *bases):
        failure = base / "output" / "failure"
        if failure.is_file():
            return f"{failure.read_text(errors='replace').strip()[:1024]}, exit code: {code}"
    return f"AlgorithmError: {bases[number].name} wrote no failure file, exit code: {code}"
