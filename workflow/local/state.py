"""What SageMaker on this machine remembers: descriptions and logs; and the requests that it refuses."""

from __future__ import annotations

import json
import threading
from functools import lru_cache
from pathlib import Path
from typing import Any

import botocore.session
from botocore.exceptions import ClientError, ParamValidationError
from botocore.validate import ParamValidator

from kmeans.atomic_file import write_files
from workflow.objects import MANIFEST, PREFIX
from workflow.settings import LONGEST, is_name


@lru_cache
def _operation(service: str, operation: str) -> Any:
    return botocore.session.get_session().get_service_model(service).operation_model(operation)


def check(service: str, operation: str, request: dict[str, Any]) -> None:
    """Raise what boto3 raises if a request isn't as the service's model has it.

    Raises
    ------
    botocore.exceptions.ParamValidationError
        If members are missing, unknown, or of a wrong type or length.
    """
    shape = _operation(service, operation).input_shape
    report = ParamValidator().validate(request, shape)
    if report.has_errors():
        raise ParamValidationError(report=f"{operation}: {report.generate_report()}")


def check_name(operation: str, name: str) -> None:
    """Refuse a name that SageMaker would refuse."""
    if not is_name(name):
        raise refusal(operation, f"expected a name of at most {LONGEST} letters, digits and hyphens, found {name!r}.")


def refusal(operation: str, message: str, code: str = "ValidationException") -> ClientError:
    """Return the error that boto3 raises when the service refuses a request."""
    return ClientError({"Error": {"Code": code, "Message": message}}, operation)


def check_source(operation: str, source: dict[str, Any]) -> None:
    """Refuse, as SageMaker refuses requests, what isn't read here: ``source`` is a channel or a TransformInput."""
    place, compression = source["DataSource"].get("S3DataSource", {}), source.get("CompressionType", "None")
    kind = place.get("S3DataType", "no S3DataSource")
    if kind not in (PREFIX, MANIFEST):
        raise refusal(operation, f"The local target reads data of S3DataType {PREFIX} or {MANIFEST}, not {kind}.")
    if compression != "None":
        raise refusal(operation, f"The local target takes data as they are: CompressionType None, not {compression}.")


class Registry:
    """Descriptions by kind and name, each in ``<root>/<kind>/<name>.json``."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lock = threading.Lock()

    def add(self, operation: str, kind: str, name: str, description: dict[str, Any]) -> None:
        """Add a description; a name that is taken is refused as SageMaker does."""
        check_name(operation, name)
        with self._lock:
            if self._file(kind, name).exists():
                raise refusal(operation, f"Cannot create {kind} {name!r}: it exists already.", "ResourceInUse")
            self._write(kind, name, description)

    def get(self, operation: str, kind: str, name: str) -> dict[str, Any]:
        """Return a description; one that isn't there is refused as SageMaker does."""
        check_name(operation, name)
        try:
            found: dict[str, Any] = json.loads(self._file(kind, name).read_bytes())
        except FileNotFoundError:
            raise refusal(operation, f"Could not find {kind} {name!r}.") from None
        return found

    def update(self, kind: str, name: str, **members: Any) -> dict[str, Any]:
        """Replace members of a description, and return it."""
        with self._lock:
            description: dict[str, Any] = json.loads(self._file(kind, name).read_bytes()) | members
            self._write(kind, name, description)
        return description

    def remove(self, operation: str, kind: str, name: str) -> dict[str, Any]:
        """Remove a description, and return it."""
        description = self.get(operation, kind, name)
        self._file(kind, name).unlink()
        return description

    def _file(self, kind: str, name: str) -> Path:
        return self._root / kind / f"{name}.json"

    def _write(self, kind: str, name: str, description: dict[str, Any]) -> None:
        write_files(self._root / kind, {f"{name}.json": (json.dumps(description, indent=2) + "\n").encode()})


MOST_LINES = 10_000


class LogStreams:
    """Does what boto3's client ``logs`` does for us, with ``<root>/<group>/<stream>``."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def file(self, group: str, stream: str) -> Path:
        """Return the file of a stream, whose folder is made."""
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
        """Return whole lines from where the last answer ended; the token is a position in bytes."""
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
