"""What the jobs and endpoints of the local target share: descriptions, logs, refusals, and the base of a job."""

from __future__ import annotations

import json
import shutil
import threading
from functools import lru_cache
from pathlib import Path
from typing import Any

import botocore.session
from botocore.exceptions import ClientError, ParamValidationError
from botocore.validate import ParamValidator

from kmeans.atomic_file import write_files
from kmeans.errors import KMeansError
from workflow.errors import WorkflowError, one_line
from workflow.local.engine import DOCKER_ERRORS, Engine, owner
from workflow.objects import MANIFEST, PREFIX, FolderObjects
from workflow.settings import LONGEST, is_name

MOST_LINES = 10_000


@lru_cache
def _operation(service: str, operation: str) -> Any:
    return botocore.session.get_session().get_service_model(service).operation_model(operation)


def check(service: str, operation: str, request: dict[str, Any]) -> None:
    """Validate a request as boto3 does before it sends one; raise ParamValidationError if it is invalid."""
    report = ParamValidator().validate(request, _operation(service, operation).input_shape)
    if report.has_errors():
        raise ParamValidationError(report=f"{operation}: {report.generate_report()}")


def refusal(operation: str, message: str, code: str = "ValidationException") -> ClientError:
    """Return the error that boto3 raises when the service refuses a request."""
    return ClientError({"Error": {"Code": code, "Message": message}}, operation)


def arn(kind: str, name: str) -> str:
    """Return the ARN of a thing of the local target."""
    return f"arn:aws:sagemaker:local:000000000000:{kind}/{name}"


def check_source(operation: str, source: dict[str, Any]) -> None:
    """Refuse a channel or TransformInput whose data source the local target can't read."""
    place, compression = source["DataSource"].get("S3DataSource", {}), source.get("CompressionType", "None")
    kind = place.get("S3DataType", "no S3DataSource")
    if kind not in (PREFIX, MANIFEST):
        raise refusal(operation, f"The local target reads data of S3DataType {PREFIX} or {MANIFEST}, not {kind}.")
    if compression != "None":
        raise refusal(operation, f"The local target takes data as they are: CompressionType None, not {compression}.")


class Registry:
    """Descriptions by kind and name, each in ``<root>/<kind>/<name>.json``; errors are those of SageMaker."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lock = threading.Lock()

    def add(self, operation: str, kind: str, name: str, description: dict[str, Any]) -> None:
        """Add a description; refuse a name that is taken."""
        with self._lock:
            if self._file(operation, kind, name).exists():
                raise refusal(operation, f"Cannot create {kind} {name!r}: it exists already.", "ResourceInUse")
            self._write(kind, name, description)

    def get(self, operation: str, kind: str, name: str) -> dict[str, Any]:
        """Return a description; refuse a name that is unknown."""
        try:
            found: dict[str, Any] = json.loads(self._file(operation, kind, name).read_bytes())
        except FileNotFoundError:
            raise refusal(operation, f"Could not find {kind} {name!r}.") from None
        return found

    def update(self, kind: str, name: str, **members: Any) -> dict[str, Any]:
        """Replace members of a description, and return it."""
        with self._lock:
            description: dict[str, Any] = json.loads(self._file("", kind, name).read_bytes()) | members
            self._write(kind, name, description)
        return description

    def remove(self, operation: str, kind: str, name: str) -> None:
        """Remove a description; refuse a name that is unknown."""
        self.get(operation, kind, name)
        self._file(operation, kind, name).unlink()

    def _file(self, operation: str, kind: str, name: str) -> Path:
        if not is_name(name):
            message = f"expected a name of at most {LONGEST} letters, digits and hyphens, found {name!r}."
            raise refusal(operation, message)
        return self._root / kind / f"{name}.json"

    def _write(self, kind: str, name: str, description: dict[str, Any]) -> None:
        write_files(self._root / kind, {f"{name}.json": (json.dumps(description, indent=2) + "\n").encode()})


class LogStreams:
    """Replaces boto3's client ``logs``: a stream is the file ``<root>/<group>/<stream>``."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def file(self, group: str, stream: str) -> Path:
        """Return the file of a stream, in a folder that exists."""
        path = self._root / group.strip("/") / stream
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def describe_log_streams(self, **request: Any) -> dict[str, Any]:
        """List the streams of a group."""
        check("logs", "DescribeLogStreams", request)
        folder = self._root / request["logGroupName"].strip("/")
        if not folder.is_dir():
            message = "The specified log group does not exist."
            raise refusal("DescribeLogStreams", message, "ResourceNotFoundException")
        names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        wanted = [name for name in names if name.startswith(request.get("logStreamNamePrefix", ""))]
        return {"logStreams": [{"logStreamName": name} for name in wanted]}

    def get_log_events(self, **request: Any) -> dict[str, Any]:
        """Return complete lines after the previous answer; the token is a position in bytes."""
        check("logs", "GetLogEvents", request)
        position = int(request.get("nextToken", "0"))
        events = []
        with self.file(request["logGroupName"], request["logStreamName"]).open("rb") as file:
            file.seek(position)
            for _ in range(MOST_LINES):
                line = file.readline()
                if not line.endswith(b"\n"):
                    break
                position += len(line)
                if line.strip():  # CloudWatch keeps no empty lines
                    events.append({"message": line.decode("utf-8", "replace")})
        return {"events": events, "nextForwardToken": str(position)}


class Backend:
    """The state of the local target, and the services it works with.

    Parameters
    ----------
    folder
        Holds descriptions, logs, and the working folders of jobs and endpoints.
    region
        AWS region that training containers see.
    objects, docker
        Replace S3 and SageMaker's instances.
    """

    def __init__(self, folder: Path, region: str, objects: FolderObjects, docker: Engine) -> None:
        self.folder = folder
        self.region = region
        self.objects = objects
        self.docker = docker
        self.registry = Registry(folder / "sagemaker")
        self.streams = LogStreams(folder / "logs")

    def job_folder(self, name: str) -> Path:
        """Return the working folder of a job, which the job creates and removes."""
        return (self.folder / "jobs" / name).resolve()


class Job(threading.Thread):
    """A thread that carries out one request and keeps its description in the registry up to date."""

    kind: str

    def __init__(self, name: str, request: dict[str, Any], backend: Backend) -> None:
        super().__init__(name=f"{self.kind} {name}", daemon=True)
        self.job_name = name
        self._request = request
        self._backend = backend
        self._objects = backend.objects
        self._registry = backend.registry
        self._folder = backend.job_folder(name)
        self._owner = owner(self.kind, name)
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Request the end of the job; it keeps the results it has."""
        self._stopped.set()

    def run(self) -> None:
        """Carry the job out; every error becomes the FailureReason of its description."""
        try:
            self._carry_out()
        except WorkflowError as error:
            self._fail(str(error))
        except (*DOCKER_ERRORS, KMeansError, OSError) as error:
            self._fail(f"InternalServerError: {one_line(error)}")
        except Exception as error:
            self._fail(f"InternalServerError: {type(error).__name__}: {error}")
            raise
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _carry_out(self) -> None:
        raise NotImplementedError

    def _fail(self, reason: str) -> None:
        raise NotImplementedError
