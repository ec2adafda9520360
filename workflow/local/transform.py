"""A batch transform on this machine: a container that serves, and this program in the part of SageMaker's agent."""

from __future__ import annotations

import http.client
import json
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from kmeans.errors import KMeansError
from workflow.errors import WorkflowError
from workflow.local import engine, records
from workflow.local.engine import DOCKER_ERRORS, Engine, LogCopy, owner
from workflow.local.hosting import START_SECONDS, answers_ping, ask
from workflow.local.state import LogStreams, Registry
from workflow.objects import FolderObjects, find_objects, unpack
from workflow.waiting import TRANSFORM

KIND = "transform-job"
LOOK_SECONDS = 0.05

# SageMaker's values for what neither the request nor the container says.
DEFAULT_PAYLOAD_MB = 6
DEFAULT_TIMEOUT_SECONDS = 600
ENVIRONMENT_STRATEGIES = {"SingleRecord": "SINGLE_RECORD", "MultiRecord": "MULTI_RECORD"}


class _StoppedError(Exception):
    """The job shall end."""


class TransformJob(threading.Thread):
    """Carries out one CreateTransformJob with the model ``container``, and keeps its description up to date."""

    def __init__(
        self,
        request: dict[str, Any],
        container: dict[str, Any],
        *,
        folder: Path,
        objects: FolderObjects,
        registry: Registry,
        streams: LogStreams,
        docker: Engine,
    ) -> None:
        super().__init__(name=f"transform job {request['TransformJobName']}", daemon=True)
        self.job_name: str = request["TransformJobName"]
        self._request = request
        self._model = container
        self._folder = folder
        self._objects = objects
        self._registry = registry
        self._streams = streams
        self._docker = docker
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Have the job end after the requests that are under way."""
        self._stopped.set()

    def run(self) -> None:
        """Carry the job out; whatever happens stands in its description."""
        try:
            self._run()
        except _StoppedError:
            self._registry.update(KIND, self.job_name, TransformJobStatus="Stopped")
        except WorkflowError as error:
            self._fail(f"ClientError: {error}")
        except (*DOCKER_ERRORS, KMeansError) as error:
            self._fail(f"InternalServerError: {' '.join(str(error).split())}")
        except (OSError, http.client.HTTPException) as error:
            self._fail(f"AlgorithmError: the container gave no answer: {error}")
        except Exception as error:
            self._fail(f"InternalServerError: {type(error).__name__}: {error}")
            raise
        else:
            self._registry.update(KIND, self.job_name, TransformJobStatus="Completed")
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _fail(self, reason: str) -> None:
        self._registry.update(KIND, self.job_name, FailureReason=reason, TransformJobStatus="Failed")

    def _run(self) -> None:
        found = find_objects(self._objects, self._request["TransformInput"]["DataSource"]["S3DataSource"])
        uri = self._model["ModelDataUrl"]
        unpack(self._objects.get(uri), self._folder / "model", uri)
        container = self._docker.serve(
            self._model["Image"],
            owner(KIND, self.job_name),
            self._environment(),
            {self._folder / "model": "/opt/ml/model"},
        )
        copy = LogCopy(container, self._streams.file(TRANSFORM, f"{self.job_name}/algo-1-{int(time.time())}"))
        copy.start()
        try:
            port = self._ready_port(container)
            sender = self._sender(port)
            for address, name in found:
                self._transform(address, name, sender)
        finally:
            engine.stop(container, 30)
            copy.join()
            engine.remove(container)

    def _environment(self) -> dict[str, str]:
        """Return what SageMaker tells the container: of these only what the request says."""
        given = self._request
        environment = {**self._model.get("Environment", {}), **given.get("Environment", {}), "SAGEMAKER_BATCH": "true"}
        if "MaxPayloadInMB" in given:
            environment["SAGEMAKER_MAX_PAYLOAD_IN_MB"] = str(given["MaxPayloadInMB"])
        if "BatchStrategy" in given:
            environment["SAGEMAKER_BATCH_STRATEGY"] = ENVIRONMENT_STRATEGIES[given["BatchStrategy"]]
        if "MaxConcurrentTransforms" in given:
            environment["SAGEMAKER_MAX_CONCURRENT_TRANSFORMS"] = str(given["MaxConcurrentTransforms"])
        return environment

    def _ready_port(self, container: Any) -> int:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and engine.status(container) == "running":
            port = engine.host_port(container)
            if answers_ping(port):
                return port
            if self._stopped.wait(LOOK_SECONDS):
                raise _StoppedError
        raise WorkflowError(f"the model's server is not up: {engine.last_lines(container)}")

    def _sender(self, port: int) -> tuple[Callable[[list[bytes]], bytes], str, int, int]:
        """Return what sends records, the strategy, the most bytes of a request, and how many are sent at a time."""
        status, _, content = ask(port, "GET", "/execution-parameters")
        wishes = json.loads(content) if status == 200 else {}
        strategy = self._request.get("BatchStrategy") or {
            wish: name for name, wish in ENVIRONMENT_STRATEGIES.items()
        }.get(wishes.get("BatchStrategy", ""), "MultiRecord")
        payload = self._request.get("MaxPayloadInMB", wishes.get("MaxPayloadInMB", DEFAULT_PAYLOAD_MB))
        at_a_time = self._request.get("MaxConcurrentTransforms") or wishes.get("MaxConcurrentTransforms", 1)
        content_type = self._request["TransformInput"].get("ContentType", "")
        headers = {"Content-Type": content_type, "Accept": self._request["TransformOutput"].get("Accept", "*/*")}
        processing = self._request.get("DataProcessing", {})
        input_filter = processing.get("InputFilter", "$")
        client = self._request.get("ModelClientConfig", {})
        seconds = client.get("InvocationsTimeoutInSeconds", DEFAULT_TIMEOUT_SECONDS)

        def send(batch: list[bytes]) -> bytes:
            if self._stopped.is_set():
                raise _StoppedError
            body = b"".join(records.filtered(record, content_type, input_filter) for record in batch)
            status, _, answer = ask(port, "POST", "/invocations", body, headers, seconds=seconds)
            if status != 200:
                raise WorkflowError(f"the model answered with {status}: {answer.decode('utf-8', 'replace')}")
            return answer

        return send, strategy, payload << 20, at_a_time

    def _transform(self, address: str, name: str, sender: tuple[Callable[[list[bytes]], bytes], str, int, int]) -> None:
        """Write ``NAME.out`` for one object."""
        send, strategy, most, at_a_time = sender
        given, wanted = self._request["TransformInput"], self._request["TransformOutput"]
        try:
            cut = records.split(self._objects.get(address), given.get("SplitType", "None"))
            batches = list(records.pack(cut, strategy, most))
            with ThreadPoolExecutor(at_a_time) as pool:
                replies = list(pool.map(send, batches))  # in the order of the batches
            end = b"\n" if wanted.get("AssembleWith", "None") == "Line" else b""
            content = b"".join(self._assembled(*pair) + end for pair in zip(batches, replies, strict=True))
        except WorkflowError as error:
            raise WorkflowError(f"{address}: {error}") from None
        target = f"{wanted['S3OutputPath'].rstrip('/')}/{name or address.rpartition('/')[2]}.out"
        self._objects.put(target, content, wanted.get("Accept", "application/octet-stream"))

    def _assembled(self, batch: list[bytes], reply: bytes) -> bytes:
        """Return a reply as it is written: as it came, or joined record by record."""
        if "DataProcessing" not in self._request:
            return reply
        processing = self._request["DataProcessing"]
        content_type, accept = (
            self._request["TransformInput"]["ContentType"],
            self._request["TransformOutput"]["Accept"],
        )
        joins = processing.get("JoinSource", "None") == "Input"
        lines = [
            records.joined(record, answer, content_type, accept, joins=joins, path=processing.get("OutputFilter", "$"))
            for record, answer in zip(batch, records.answers(reply, accept, len(batch)), strict=True)
        ]
        return b"\n".join(lines)
