"""A batch transform on this machine: a container that serves, and SageMaker's agent that sends it the records."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from workflow.errors import WorkflowError
from workflow.local import engine, records
from workflow.local.backend import Backend, Job
from workflow.local.engine import DOCKER_ERRORS, LogCopy
from workflow.local.hosting import START_SECONDS, answers_ping, ask
from workflow.objects import find_objects, unpack
from workflow.waiting import TRANSFORM

POLL_SECONDS = 0.05

# SageMaker's defaults where neither the request nor the container names a value.
DEFAULT_PAYLOAD_MB = 6
DEFAULT_TIMEOUT_SECONDS = 600
ENVIRONMENT_STRATEGIES = {"SingleRecord": "SINGLE_RECORD", "MultiRecord": "MULTI_RECORD"}


class _StoppedError(Exception):
    """The job must end."""


class Sender(NamedTuple):
    """Sends batches of records to the container.

    Attributes
    ----------
    send
        Sends a batch and returns the response body.
    strategy
        ``MultiRecord`` or ``SingleRecord``.
    max_bytes
        Largest request body.
    concurrency
        Number of requests at a time.
    """

    send: Callable[[list[bytes]], bytes]
    strategy: str
    max_bytes: int
    concurrency: int


class TransformJob(Job):
    """Carries out one CreateTransformJob with the model ``container``."""

    kind = "transform-job"

    def __init__(self, request: dict[str, Any], container: dict[str, Any], backend: Backend) -> None:
        super().__init__(request["TransformJobName"], request, backend)
        self._model = container

    def _carry_out(self) -> None:
        try:
            self._transform_all()
        except _StoppedError:
            self._registry.update(self.kind, self.job_name, TransformJobStatus="Stopped")
        except WorkflowError as error:
            raise WorkflowError(f"ClientError: {error}") from None
        except DOCKER_ERRORS:  # some of them are an OSError
            raise
        except (OSError, http.client.HTTPException) as error:
            raise WorkflowError(f"AlgorithmError: the container gave no answer: {error}") from None
        else:
            self._registry.update(self.kind, self.job_name, TransformJobStatus="Completed")

    def _fail(self, reason: str) -> None:
        self._registry.update(self.kind, self.job_name, FailureReason=reason, TransformJobStatus="Failed")

    def _transform_all(self) -> None:
        found = find_objects(self._objects, self._request["TransformInput"]["DataSource"]["S3DataSource"])
        uri, folder = self._model["ModelDataUrl"], self._folder / "model"
        unpack(self._objects.get(uri), folder, uri)
        folders = {folder: "/opt/ml/model"}
        container = self._backend.docker.serve(self._model["Image"], self._owner, self._environment(), folders)
        stream = self._backend.streams.file(TRANSFORM, f"{self.job_name}/algo-1-{int(time.time())}")
        copy = LogCopy(container, stream)
        copy.start()
        try:
            sender = self._sender(self._ready_port(container))
            for address, name in found:
                self._transform(address, name, sender)
        finally:
            engine.stop(container, 30)
            copy.join()
            engine.remove(container)

    def _environment(self) -> dict[str, str]:
        """Return the environment of the container; of SageMaker's variables those that the request sets."""
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
            if self._stopped.wait(POLL_SECONDS):
                raise _StoppedError
        raise WorkflowError(f"the model's server is not up: {engine.last_lines(container)}")

    def _sender(self, port: int) -> Sender:
        """Return a sender with the settings of the request, else of the container, else of SageMaker."""
        status, _, content = ask(port, "GET", "/execution-parameters")
        wishes = json.loads(content) if status == 200 else {}
        strategies = {value: name for name, value in ENVIRONMENT_STRATEGIES.items()}
        strategy = strategies.get(wishes.get("BatchStrategy", ""), "MultiRecord")
        payload = self._request.get("MaxPayloadInMB", wishes.get("MaxPayloadInMB", DEFAULT_PAYLOAD_MB))
        content_type = self._request["TransformInput"].get("ContentType", "")
        headers = {"Content-Type": content_type, "Accept": self._request["TransformOutput"].get("Accept", "*/*")}
        input_filter = self._request.get("DataProcessing", {}).get("InputFilter", "$")
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

        return Sender(
            send,
            self._request.get("BatchStrategy") or strategy,
            payload << 20,
            self._request.get("MaxConcurrentTransforms") or wishes.get("MaxConcurrentTransforms", 1),
        )

    def _transform(self, address: str, name: str, sender: Sender) -> None:
        """Write ``NAME.out`` for one object."""
        given, wanted = self._request["TransformInput"], self._request["TransformOutput"]
        try:
            cut = records.split(self._objects.get(address), given.get("SplitType", "None"))
            batches = list(records.pack(cut, sender.strategy, sender.max_bytes))
            with ThreadPoolExecutor(sender.concurrency) as pool:
                replies = list(pool.map(sender.send, batches))  # in the order of the batches
            end = b"\n" if wanted.get("AssembleWith", "None") == "Line" else b""
            content = b"".join(self._assembled(*pair) + end for pair in zip(batches, replies, strict=True))
        except WorkflowError as error:
            raise WorkflowError(f"{address}: {error}") from None
        target = f"{wanted['S3OutputPath'].rstrip('/')}/{name or address.rpartition('/')[2]}.out"
        self._objects.put(target, content, wanted.get("Accept", "application/octet-stream"))

    def _assembled(self, batch: list[bytes], reply: bytes) -> bytes:
        """Return a reply as it is written: unchanged, or joined record by record."""
        if "DataProcessing" not in self._request:
            return reply
        processing = self._request["DataProcessing"]
        content_type = self._request["TransformInput"]["ContentType"]
        accept = self._request["TransformOutput"]["Accept"]
        joins, path = processing.get("JoinSource", "None") == "Input", processing.get("OutputFilter", "$")
        pairs = zip(batch, records.answers(reply, accept, len(batch)), strict=True)
        return b"\n".join(
            records.joined(record, answer, content_type, accept, joins=joins, path=path) for record, answer in pairs
        )
