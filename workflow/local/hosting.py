"""An endpoint on this machine: a container that serves, also after this program has ended."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import io
import json
import shutil
import time
from collections.abc import Mapping
from typing import Any

from botocore.exceptions import ClientError

from workflow.errors import WorkflowError
from workflow.local import engine
from workflow.local.backend import Backend, arn, check, refusal
from workflow.local.engine import owner
from workflow.objects import unpack
from workflow.waiting import ENDPOINTS

KIND = "endpoint"

# SageMaker's limits: for the first ping, and for an answer.
START_SECONDS = 180
ANSWER_SECONDS = 60
INSUFFICIENT_MEMORY = 507


class Hosting:
    """Creates, describes and deletes endpoints, and invokes them."""

    def __init__(self, backend: Backend) -> None:
        self._folder = backend.folder / "endpoints"
        self._objects = backend.objects
        self._registry = backend.registry
        self._streams = backend.streams
        self._docker = backend.docker

    def create(self, request: dict[str, Any]) -> dict[str, Any]:
        """Unpack the model and start the server, without waiting for it."""
        operation, name = "CreateEndpoint", request["EndpointName"]
        config = self._registry.get(operation, "endpoint-config", request["EndpointConfigName"])
        if len(config["ProductionVariants"]) != 1:
            raise refusal(operation, "The local target serves one variant per endpoint.")
        (variant,) = config["ProductionVariants"]
        model = self._registry.get(operation, "model", variant["ModelName"])
        container = model["PrimaryContainer"]
        self._docker.require_image(container["Image"])
        description = {
            **request,
            "EndpointStatus": "Creating",
            "CreatedAt": time.time(),
            "VariantName": variant["VariantName"],
            "MultiModelUri": container["ModelDataUrl"] if container.get("Mode") == "MultiModel" else None,
        }
        self._registry.add(operation, KIND, name, description)
        try:
            self._start(name, container, variant)
        except WorkflowError as error:
            self._registry.update(KIND, name, EndpointStatus="Failed", FailureReason=str(error))
        return {"EndpointArn": arn(KIND, name)}

    def describe(self, name: str) -> dict[str, Any]:
        """Return the description, updated with the state of the container."""
        description = self._registry.get("DescribeEndpoint", KIND, name)
        if description["EndpointStatus"] == "Failed":
            return description
        containers = self._docker.find(owner(KIND, name))
        running = [container for container in containers if engine.status(container) == "running"]
        if not running:
            said = f": {engine.last_lines(containers[0])}" if containers else ""
            reason = f"The server ended{said or ', and its container is gone'}"
            return self._registry.update(KIND, name, EndpointStatus="Failed", FailureReason=reason)
        if description["EndpointStatus"] == "Creating":
            stream = self._streams.file(f"{ENDPOINTS}/{name}", f"{description['VariantName']}/local")
            stream.write_bytes(running[0].logs())
            try:
                port = engine.host_port(running[0])
            except WorkflowError:  # it ended after the check above; the next one reports the reason
                return self.describe(name)
            if answers_ping(port):
                return self._registry.update(KIND, name, EndpointStatus="InService")
            if time.time() - description["CreatedAt"] > START_SECONDS:
                reason = f"GET /ping was not answered with 200 within {START_SECONDS} s"
                return self._registry.update(KIND, name, EndpointStatus="Failed", FailureReason=reason)
        return description

    def delete(self, name: str) -> None:
        """Stop the server, and remove its container, folder and description."""
        self._registry.get("DeleteEndpoint", KIND, name)
        for container in self._docker.find(owner(KIND, name)):
            engine.stop(container, 30)
        self._docker.remove_all(owner(KIND, name))
        shutil.rmtree(self._folder / name, ignore_errors=True)
        self._registry.remove("DeleteEndpoint", KIND, name)

    def invoke_endpoint(self, **request: Any) -> dict[str, Any]:
        """Invoke an endpoint as boto3's client ``sagemaker-runtime`` does.

        Raises ClientError if the endpoint isn't in service, or the container answered with an error (``ModelError``).
        """
        check("sagemaker-runtime", "InvokeEndpoint", request)
        name = request["EndpointName"]
        endpoint = self.describe(name)
        if endpoint["EndpointStatus"] != "InService":
            raise refusal("InvokeEndpoint", f"Endpoint {name} is {endpoint['EndpointStatus']}, not InService.")
        port = self._port(name)
        body = request["Body"].encode() if isinstance(request["Body"], str) else bytes(request["Body"])
        headers = {"Content-Type": request.get("ContentType", ""), "Accept": request.get("Accept", "*/*")}
        path = "/invocations"
        if endpoint["MultiModelUri"]:
            if "TargetModel" not in request:
                raise refusal("InvokeEndpoint", f"Endpoint {name} serves several models: TargetModel is missing.")
            model = self._load(endpoint, port, request["TargetModel"])
            path, headers["X-Amzn-SageMaker-Target-Model"] = f"/models/{model}/invoke", request["TargetModel"]
        status, content_type, content = _answer(port, "POST", path, body, headers)
        if status != 200:
            whose = "client" if status < 500 else "server"
            text = content.decode("utf-8", "replace")
            raise refusal("InvokeEndpoint", f"Received {whose} error ({status}): {text}", "ModelError")
        variant = endpoint["VariantName"]
        return {"Body": io.BytesIO(content), "ContentType": content_type, "InvokedProductionVariant": variant}

    def _start(self, name: str, container: dict[str, Any], variant: dict[str, Any]) -> None:
        folder = self._folder / name
        shutil.rmtree(folder, ignore_errors=True)
        environment = dict(container.get("Environment", {}))
        if container.get("Mode") == "MultiModel":
            environment["SAGEMAKER_MULTI_MODEL"] = "true"
            (folder / "models").mkdir(parents=True)
            folders = {folder / "models": "/opt/ml/models"}
        else:
            uri = container["ModelDataUrl"]
            unpack(self._objects.get(uri), folder / "model", uri)
            folders = {folder / "model": "/opt/ml/model"}
        options = {}
        if "ServerlessConfig" in variant:
            options["mem_limit"] = f"{variant['ServerlessConfig']['MemorySizeInMB']}m"
        self._docker.serve(container["Image"], owner(KIND, name), environment, folders, **options)

    def _port(self, name: str) -> int:
        # The container may have ended since it was described.
        for container in self._docker.find(owner(KIND, name)):
            with contextlib.suppress(WorkflowError):
                return engine.host_port(container)
        raise _no_answer("its container has ended")

    def _load(self, endpoint: dict[str, Any], port: int, target: str) -> str:
        """Have the server load an archive unless it is loaded; return the name of the loaded model."""
        name = hashlib.sha256(target.encode()).hexdigest()[:32]
        if _answer(port, "GET", f"/models/{name}")[0] == 200:
            return name
        uri = f"{endpoint['MultiModelUri'].rstrip('/')}/{target.lstrip('/')}"
        folder = self._folder / endpoint["EndpointName"] / "models" / name / "model"
        if not folder.exists():
            try:
                unpack(self._objects.get(uri), folder, uri)
            except WorkflowError as error:
                shutil.rmtree(folder.parent, ignore_errors=True)
                raise refusal("InvokeEndpoint", f"Failed to download model data: {error}") from None
        request = json.dumps({"model_name": name, "url": f"/opt/ml/models/{name}/model"}).encode()
        headers = {"Content-Type": "application/json"}
        status, _, content = _answer(port, "POST", "/models", request, headers)
        while status == INSUFFICIENT_MEMORY and self._unload_one(port):
            status, _, content = _answer(port, "POST", "/models", request, headers)
        if status not in (200, 409):
            raise refusal("InvokeEndpoint", f"Loading {uri} failed ({status}): {content.decode()}", "ModelError")
        return name

    @staticmethod
    def _unload_one(port: int) -> bool:
        """Have the server unload a model; return True if it had one."""
        loaded = json.loads(_answer(port, "GET", "/models")[2])["models"]
        return bool(loaded) and _answer(port, "DELETE", f"/models/{loaded[0]['modelName']}")[0] == 200


def ask(
    port: int,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    *,
    seconds: float = ANSWER_SECONDS,
) -> tuple[int, str, bytes]:
    """Send a request to a server on this machine; return status, content type and body."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=seconds)) as connection:
        connection.request(method, path, body, headers or {})
        with connection.getresponse() as response:
            return response.status, response.getheader("Content-Type", ""), response.read()


def _answer(*request: Any) -> tuple[int, str, bytes]:
    """Send a request to an endpoint's server; report a missing answer as SageMaker does."""
    try:
        return ask(*request, seconds=ANSWER_SECONDS)
    except TimeoutError:
        raise _no_answer(f"it took longer than {ANSWER_SECONDS} s") from None
    except (OSError, http.client.HTTPException) as error:
        raise _no_answer(str(error) or type(error).__name__) from None


def _no_answer(reason: str) -> ClientError:
    return refusal("InvokeEndpoint", f"The container gave no answer: {reason}. See its log.", "ModelError")


def answers_ping(port: int) -> bool:
    """Return True if a server is ready."""
    # Docker's port proxy accepts connections before the server does, and then closes them.
    with contextlib.suppress(OSError, http.client.HTTPException):
        return ask(port, "GET", "/ping", seconds=2)[0] == 200
    return False
