"""The logs of this machine's jobs: a file per host, read by the requests that CloudWatch Logs takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from workflow.local.validation import check, refusal

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
