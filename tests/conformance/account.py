"""An account on the loopback interface: SageMaker on the wire, carried out by the workflow's local target.

Training, models, endpoints and batch transforms run in containers. moto handles requests that the local target doesn't
support, such as tuning, and S3.
"""

import contextlib
import http.client
import json
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore import xform_name
from botocore.exceptions import ClientError, ParamValidationError

from tests.contract.server import HOST
from workflow.errors import WorkflowError
from workflow.local.backend import Backend
from workflow.local.engine import Engine
from workflow.local.hosting import Hosting
from workflow.local.service import SageMaker
from workflow.objects import FolderObjects, S3Objects

from .laptop import REGION

CREDENTIALS = {"region_name": REGION, "aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
INVOCATION = re.compile(r"/endpoints/([^/]+)/invocations")
JSON = "application/x-amz-json-1.1"
# What IAM tells a person with the permissions of workflow/policies, who may not ask about roles.
DENIED = b"""\
<ErrorResponse><Error><Code>AccessDenied</Code>
<Message>Not allowed by person-permissions.json</Message></Error></ErrorResponse>
"""


class BucketObjects(FolderObjects):
    """Objects of an S3; those that are wanted as files are copied into a folder."""

    def __init__(self, root: Path, client: Any) -> None:
        super().__init__(root)
        self.s3 = S3Objects(client)

    def path(self, uri: str) -> Path:
        path = super().path(uri)
        if not uri.endswith("/"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.s3.get(uri))
        return path

    def get(self, uri: str) -> bytes:
        return self.s3.get(uri)

    def put(self, uri: str, content: bytes, content_type: str) -> None:
        self.s3.put(uri, content, content_type)

    def find(self, prefix: str) -> list[str]:
        return self.s3.find(prefix)


@dataclass
class Account:
    """Where it is, and all requests that came, by operation."""

    address: str = ""
    requests: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def sent(self, operation: str) -> list[dict[str, Any]]:
        return [request for name, request in self.requests if name == operation]


class Wire(BaseHTTPRequestHandler):
    """The requests of boto3's clients ``sagemaker``, ``sagemaker-runtime``, ``logs`` and ``iam``."""

    protocol_version = "HTTP/1.1"
    account: Account
    services: Mapping[str, Any]
    runtime: Hosting
    moto: str

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        try:
            if invocation := INVOCATION.fullmatch(self.path):
                self.invoke(invocation[1], body)
            elif "X-Amz-Target" in self.headers:
                self.call(body)
            else:
                self.answer(403, DENIED, "text/xml")
        except ClientError as error:
            self.refuse(error.response["Error"]["Code"], error.response["Error"]["Message"])
        except (ParamValidationError, WorkflowError) as error:
            self.refuse("ValidationException", str(error))

    def invoke(self, endpoint: str, body: bytes) -> None:
        wanted = {"ContentType": self.headers["Content-Type"], "Accept": self.headers["Accept"]}
        request = {"EndpointName": endpoint, "Body": body, **{name: text for name, text in wanted.items() if text}}
        self.account.requests.append(("InvokeEndpoint", request))
        answer = self.runtime.invoke_endpoint(**request)
        self.answer(200, answer["Body"].read(), answer["ContentType"])

    def call(self, body: bytes) -> None:
        service, _, operation = self.headers["X-Amz-Target"].partition(".")
        request = json.loads(body)
        self.account.requests.append((operation, request))
        method = getattr(self.services[service], xform_name(operation), None)
        if operation == "ListTags":
            self.answer(200, b'{"Tags": []}', JSON)
        elif method is None or "HyperParameterTuningJob" in operation:
            self.pass_on(body)
        else:
            self.answer(200, json.dumps(as_described(operation, method(**request))).encode(), JSON)

    def pass_on(self, body: bytes) -> None:
        with contextlib.closing(http.client.HTTPConnection(urlsplit(self.moto).netloc, timeout=60)) as connection:
            headers = {name: text for name, text in self.headers.items() if name.lower() != "host"}
            connection.request("POST", self.path, body, headers)
            answer = connection.getresponse()
            self.answer(answer.status, answer.read(), answer.headers["Content-Type"])

    def refuse(self, code: str, message: str) -> None:
        self.answer(400, json.dumps({"__type": code, "message": message}).encode(), JSON)

    def answer(self, status: int, content: bytes, content_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: the client gets the errors."""


@contextmanager
def open_account(folder: Path, moto: str) -> Iterator[Account]:
    docker = Engine(str(folder))
    objects = BucketObjects(folder / "s3", boto3.client("s3", endpoint_url=moto, **CREDENTIALS))
    backend = Backend(folder, REGION, objects, docker)
    hosting = Hosting(backend)
    sagemaker = SageMaker(backend, hosting)
    account = Account()
    services = {"SageMaker": sagemaker, "Logs_20140328": backend.streams}
    wire = type("OneWire", (Wire,), {"account": account, "services": services, "runtime": hosting, "moto": moto})
    server = ThreadingHTTPServer((HOST, 0), wire)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    account.address = f"http://{HOST}:{server.server_port}"
    try:
        yield account
    finally:
        server.shutdown()
        server.server_close()
        for request in account.sent("CreateEndpoint"):
            with contextlib.suppress(ClientError):  # gone, as it should be
                hosting.delete(request["EndpointName"])
        sagemaker.close()
        docker.close()


def as_described(operation: str, answer: dict[str, Any]) -> dict[str, Any]:
    """Add what the workflow never looks at, and the SDKs do."""
    now = time.time()
    if operation.startswith("Describe"):
        answer = {
            "CreationTime": now,
            "LastModifiedTime": now,
            "TrainingStartTime": now,
            "TrainingEndTime": now,
            **answer,
        }
    if operation == "DescribeTrainingJob":
        answer["OutputDataConfig"] = {"KmsKeyId": "", **answer["OutputDataConfig"]}
        answer["TrainingJobArn"] = f"arn:aws:sagemaker:{REGION}:123456789012:training-job/{answer['TrainingJobName']}"
    for event in answer.get("events", ()):
        event["timestamp"] = int(now * 1000)
    return answer
