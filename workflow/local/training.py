"""A training job on this machine: containers on one network, each with an ``/opt/ml`` as the request says."""

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

from kmeans.errors import KMeansError
from local_test.feeding import feeding
from workflow.errors import WorkflowError
from workflow.local import engine
from workflow.local.engine import DOCKER_ERRORS, Engine, LogCopy, owner
from workflow.local.state import LogStreams, Registry
from workflow.objects import FolderObjects, find_objects, pack
from workflow.requests.training import CHECKPOINTS, SHARDED
from workflow.waiting import TRAINING

KIND = "training-job"
LOOK_SECONDS = 0.05

# What SageMaker gives a job that it stops, and what we give the other hosts of one that has failed.
STOP_SECONDS = 120
REST_SECONDS = 10


class _FailedError(Exception):
    """The job failed; the message is its FailureReason."""


class TrainingJob(threading.Thread):
    """Carries out one CreateTrainingJob, and keeps its description up to date.

    Parameters
    ----------
    request
        As boto3 takes it; the description stands in ``registry`` already.
    folder
        Where the hosts' folders are made.
    """

    def __init__(
        self,
        request: dict[str, Any],
        *,
        folder: Path,
        objects: FolderObjects,
        registry: Registry,
        streams: LogStreams,
        docker: Engine,
        region: str,
    ) -> None:
        super().__init__(name=f"training job {request['TrainingJobName']}", daemon=True)
        self.job_name: str = request["TrainingJobName"]
        self._request = request
        self._folder = folder.resolve()
        self._objects = objects
        self._registry = registry
        self._streams = streams
        self._docker = docker
        self._region = region
        self._owner = owner(KIND, self.job_name)
        self._stopped = threading.Event()
        self._transitions: list[dict[str, str]] = []

    def stop(self) -> None:
        """Have the job end as StopTrainingJob does: SIGTERM, and what it has is kept."""
        self._stopped.set()

    def run(self) -> None:
        """Carry the job out; whatever happens stands in its description."""
        try:
            self._run()
        except (_FailedError, WorkflowError) as error:
            self._end("Failed", "Failed", str(error))
        except (*DOCKER_ERRORS, KMeansError, OSError) as error:
            self._end("Failed", "Failed", f"InternalServerError: {' '.join(str(error).split())}")
        except Exception as error:
            self._end("Failed", "Failed", f"InternalServerError: {type(error).__name__}: {error}")
            raise
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _run(self) -> None:
        self._enter("Starting", "Preparing the hosts")
        count = self._request["ResourceConfig"]["InstanceCount"]
        names = [f"algo-{number}" for number in range(1, count + 1)]
        bases = [self._folder / name for name in names]
        self._enter("Downloading", "Downloading input data")
        for name, base in zip(names, bases, strict=True):
            self._lay_out(base, name, names)
        with self._hosts(names, bases) as (containers, copies):
            self._enter("Training", "Training image is running")
            status = self._watch(containers, bases)
            for copy in copies:
                copy.join()
        self._enter("Uploading", "Uploading generated training model")
        self._upload(bases)
        reasons = {"Completed": "Training job completed", "Stopped": "Training job stopped"}
        self._end(status if status == "Completed" else "Stopped", status, reasons.get(status, "Out of time"))

    def _lay_out(self, base: Path, host: str, hosts: list[str]) -> None:
        """Make a host's ``/opt/ml``: configuration and data."""
        channels: dict[str, dict[str, str]] = {}
        for channel in self._request.get("InputDataConfig", ()):
            name, source = channel["ChannelName"], channel["DataSource"]["S3DataSource"]
            distribution = source.get("S3DataDistributionType", "FullyReplicated")
            channels[name] = {
                "TrainingInputMode": channel.get("InputMode")
                or self._request["AlgorithmSpecification"]["TrainingInputMode"],
                "S3DistributionType": distribution,
                "RecordWrapperType": channel.get("RecordWrapperType", "None"),
            }
            if channel.get("ContentType"):
                channels[name]["ContentType"] = channel["ContentType"]
            share = (hosts.index(host), len(hosts)) if distribution == SHARDED else (0, 1)
            self._copy(source, base / "input" / "data" / name, *share)
        kind = self._request["ResourceConfig"].get("InstanceType", "")
        group = {"instance_group_name": "homogeneousCluster", "instance_type": kind, "hosts": hosts}
        configuration = {
            "hyperparameters": self._request.get("HyperParameters", {}),
            "inputdataconfig": channels,
            "resourceconfig": {
                "current_host": host,
                "current_instance_type": kind,
                "current_group_name": group["instance_group_name"],
                "hosts": hosts,
                "instance_groups": [group],
                "network_interface_name": "eth0",
            },
        }
        if "CheckpointConfig" in self._request:
            configuration["checkpointconfig"] = {"LocalPath": self._checkpoint_path()}
        for name, content in configuration.items():
            path = base / "input" / "config" / f"{name}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(content))
        for folder in ("model", "output/data"):
            (base / folder).mkdir(parents=True)

    def _copy(self, source: dict[str, str], folder: Path, first: int, step: int) -> None:
        """Copy every ``step``-th object of an S3DataSource, from number ``first`` on, into a channel's folder."""
        try:
            found = find_objects(self._objects, source)
        except WorkflowError as error:
            raise _FailedError(f"ClientError: {error}") from None
        folder.mkdir(parents=True)
        for address, name in found[first::step]:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self._objects.path(address), path)

    @contextmanager
    def _hosts(self, names: list[str], bases: list[Path]) -> Iterator[tuple[list[Any], list[LogCopy]]]:
        """Return a context with a running container and a copied log for each host."""
        algorithm = self._request["AlgorithmSpecification"]
        entrypoint, arguments = algorithm.get("ContainerEntrypoint"), algorithm.get("ContainerArguments")
        command = arguments or (None if entrypoint else ["train"])
        environment = {
            "TRAINING_JOB_NAME": self.job_name,
            "AWS_REGION": self._region,
            **self._request.get("Environment", {}),
        }
        is_isolated = self._request.get("EnableNetworkIsolation", False)
        stamp = int(time.time())
        containers: list[Any] = []
        copies = []
        with ExitStack() as stack:
            network = stack.enter_context(self._docker.network(self._owner, is_isolated=is_isolated))
            for name, base in zip(names, bases, strict=True):
                stack.enter_context(feeding(base))
                container = self._docker.start(
                    algorithm["TrainingImage"],
                    command,
                    self._owner,
                    volumes=self._volumes(base),
                    environment=environment,
                    **({"entrypoint": entrypoint} if entrypoint else {}),
                    **self._docker.attach(name, network),
                )
                stack.callback(engine.remove, container)
                containers.append(container)
                copy = LogCopy(container, self._streams.file(TRAINING, f"{self.job_name}/{name}-{stamp}"))
                copy.start()
                copies.append(copy)
            yield containers, copies

    def _volumes(self, base: Path) -> dict[str, dict[str, str]]:
        volumes = {str(base): {"bind": "/opt/ml", "mode": "rw"}}
        if "CheckpointConfig" in self._request:
            # S3 is a folder here: what is written there is kept at once.
            kept = self._objects.path(self._request["CheckpointConfig"]["S3Uri"]).resolve()
            kept.mkdir(parents=True, exist_ok=True)
            volumes[str(kept)] = {"bind": self._checkpoint_path(), "mode": "rw"}
        return volumes

    def _checkpoint_path(self) -> str:
        return str(self._request["CheckpointConfig"].get("LocalPath", CHECKPOINTS))

    def _watch(self, containers: list[Any], bases: list[Path]) -> str:
        """Wait for the containers' ends; return the job's last secondary status.

        Raises
        ------
        _FailedError
            If a host failed; the others are ended too.
        """
        deadline = time.monotonic() + self._request["StoppingCondition"].get("MaxRuntimeInSeconds", 86400)
        end = "Completed"
        running = dict(enumerate(containers))
        while running:
            for number, container in list(running.items()):
                state = engine.status(container)
                if state == "removed":
                    raise _FailedError(f"AlgorithmError: the container of {bases[number].name} was removed.")
                if state in ("created", "running", "paused", "restarting"):
                    continue
                del running[number]
                code = engine.exit_code(container)
                # A job that is stopped before it has a model ends so.
                if code and not (end != "Completed" and code == 128 + 15):
                    self._stop_all(running.values(), REST_SECONDS)
                    raise _FailedError(self._reason(bases, number, code))
            if end == "Completed" and (self._stopped.is_set() or time.monotonic() > deadline):
                end = "Stopped" if self._stopped.is_set() else "MaxRuntimeExceeded"
                self._enter("Stopping", "Stopping the training job")
                self._stop_all(running.values(), STOP_SECONDS)
            elif running:
                time.sleep(LOOK_SECONDS)
        return end

    @staticmethod
    def _stop_all(containers: Any, seconds: int) -> None:
        """Stop all at the same time: hosts that train together end together."""
        stoppers = [threading.Thread(target=engine.stop, args=(container, seconds)) for container in containers]
        for stopper in stoppers:
            stopper.start()
        for stopper in stoppers:
            stopper.join()

    @staticmethod
    def _reason(bases: list[Path], number: int, code: int) -> str:
        """Return the first host's word on why it failed, else another's."""
        for base in (bases[number], *bases):
            failure = base / "output" / "failure"
            if failure.is_file():
                return f"{failure.read_text(errors='replace').strip()[:1024]}, exit code: {code}"
        return f"AlgorithmError: {bases[number].name} wrote no failure file, exit code: {code}"

    def _upload(self, bases: list[Path]) -> None:
        """Pack what the hosts left for S3."""
        target = f"{self._request['OutputDataConfig']['S3OutputPath'].rstrip('/')}/{self.job_name}/output"
        for folder, name in (("model", "model.tar.gz"), ("output/data", "output.tar.gz")):
            folders = [base / folder for base in bases]
            if folder == "model" or any(any(path.iterdir()) for path in folders):
                self._objects.put(f"{target}/{name}", pack(folders), "application/gzip")
        self._registry.update(KIND, self.job_name, ModelArtifacts={"S3ModelArtifacts": f"{target}/model.tar.gz"})

    def _enter(self, status: str, message: str) -> None:
        """Enter a secondary status."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._transitions.append({"Status": status, "StartTime": now, "StatusMessage": message})
        self._registry.update(
            KIND, self.job_name, SecondaryStatus=status, SecondaryStatusTransitions=list(self._transitions)
        )

    def _end(self, status: str, secondary: str, message: str) -> None:
        """Enter the last status, with the metrics that the log tells."""
        failure = {"FailureReason": message} if status == "Failed" else {}
        self._registry.update(KIND, self.job_name, FinalMetricDataList=self._metrics(), **failure)
        self._enter(secondary, message)
        self._registry.update(KIND, self.job_name, TrainingJobStatus=status)

    def _metrics(self) -> list[dict[str, Any]]:
        """Return the last value of each metric, found in the lines as SageMaker finds it."""
        folder = self._streams.file(TRAINING, f"{self.job_name}/algo-1").parent
        text = "\n".join(path.read_text(errors="replace") for path in sorted(folder.iterdir()))
        found = []
        for definition in self._request["AlgorithmSpecification"].get("MetricDefinitions", ()):
            values = re.findall(definition["Regex"], text)
            if values:
                found.append({"MetricName": definition["Name"], "Value": float(values[-1])})
        return found
