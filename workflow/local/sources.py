"""What the data source of a channel, or of a transform job, stands for: all objects below a prefix, or of a list."""

from __future__ import annotations

import json
from typing import Any

from workflow.errors import WorkflowError
from workflow.local.validation import refusal
from workflow.objects import FolderObjects

PREFIX, MANIFEST = "S3Prefix", "ManifestFile"


def check_source(operation: str, source: dict[str, Any]) -> None:
    """Refuse, as SageMaker refuses requests, what isn't read here: ``source`` is a channel or a TransformInput."""
    place, compression = source["DataSource"].get("S3DataSource", {}), source.get("CompressionType", "None")
    kind = place.get("S3DataType", "no S3DataSource")
    if kind not in (PREFIX, MANIFEST):
        raise refusal(operation, f"The local target reads data of S3DataType {PREFIX} or {MANIFEST}, not {kind}.")
    if compression != "None":
        raise refusal(operation, f"The local target takes data as they are: CompressionType None, not {compression}.")


def find_objects(objects: FolderObjects, place: dict[str, str]) -> list[tuple[str, str]]:
    """Return the objects of an S3DataSource, each as its address and its name within the data.

    Raises
    ------
    WorkflowError
        If there are none, or if a manifest isn't ``[{"prefix": "s3://..."}, "name", ...]``.
    """
    uri = place["S3Uri"]
    if place["S3DataType"] == MANIFEST:
        prefix, names = _manifest(objects.get(uri), uri)
        return [(prefix + name, name) for name in names]
    addresses = objects.find(uri)
    if not addresses:
        raise WorkflowError(f"No S3 objects found under S3 URL {uri!r} given in input data source.")
    # A prefix may name a folder, or be the beginning of names.
    inside, beside = f"{uri.rstrip('/')}/", f"{uri.rpartition('/')[0]}/"
    return [(address, address.removeprefix(inside if address.startswith(inside) else beside)) for address in addresses]


def _manifest(content: bytes, uri: str) -> tuple[str, list[str]]:
    """Return what all names of a manifest begin with, and the names."""
    try:
        head, *names = json.loads(content)
        prefix = head["prefix"]
    except (ValueError, TypeError, KeyError):
        prefix, names = "", []
    texts = [name for name in names if isinstance(name, str) and ".." not in name.split("/")]
    if not isinstance(prefix, str) or not texts or len(texts) != len(names):
        raise WorkflowError(f'{uri} is no manifest: expected [{{"prefix": "s3://bucket/"}}, "name", ...].')
    return prefix, texts
