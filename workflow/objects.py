"""Objects by their ``s3://`` addresses, in S3 or in a folder that replaces it; archives of models."""

from __future__ import annotations

import contextlib
import io
import json
import re
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from botocore.exceptions import ClientError

from kmeans.atomic_file import write_files
from workflow.errors import WorkflowError, code_of, is_not_found

# S3's rule for names, without its rare exceptions.
BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
DELETED_AT_ONCE = 1000
LARGEST_MODEL = 16 << 30

# S3DataType: all objects with a prefix, or a list of objects.
PREFIX, MANIFEST = "S3Prefix", "ManifestFile"


class Address(NamedTuple):
    """A bucket, and the key of an object in it or a prefix of such keys."""

    bucket: str
    key: str

    @classmethod
    def parse(cls, uri: str) -> Address:
        """Split ``s3://bucket/key``; raise WorkflowError if ``uri`` isn't such an address."""
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        if not uri.startswith("s3://") or not BUCKET.fullmatch(bucket) or ".." in key.split("/"):
            raise WorkflowError(f"Expected an address like s3://bucket/key, found {uri!r}.")
        return cls(bucket, key)

    @property
    def uri(self) -> str:
        """``s3://bucket/key``."""
        return f"s3://{self.bucket}/{self.key}"


class Objects(Protocol):
    """Operations on objects; all addresses are ``s3://bucket/key``."""

    def require_bucket(self, bucket: str, *, create: bool = False) -> None:
        """Raise WorkflowError if a bucket doesn't exist; with ``create``, create it."""

    def put(self, uri: str, content: bytes, content_type: str) -> None:
        """Write an object atomically."""

    def get(self, uri: str) -> bytes:
        """Return an object's content; raise WorkflowError if it doesn't exist."""

    def find(self, prefix: str) -> list[str]:
        """Return the addresses that begin with ``prefix``, sorted."""

    def delete(self, prefix: str) -> int:
        """Delete the objects whose addresses begin with ``prefix``; return their number."""


def put_object(uri: str, content_type: str) -> dict[str, Any]:
    """Return the request that writes an object, without the body."""
    bucket, key = Address.parse(uri)
    return {"Bucket": bucket, "Key": key, "ContentType": content_type}


class S3Objects:
    """Objects in S3, through boto3's client ``s3``."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def require_bucket(self, bucket: str, *, create: bool = False) -> None:
        """See :class:`Objects`."""
        try:
            self._client.head_bucket(Bucket=bucket)
        except ClientError as error:
            if code_of(error) == "403":
                raise WorkflowError(
                    f"The bucket {bucket} belongs to someone else, or these credentials may not use it: name another "
                    "one with --bucket."
                ) from None
            if not is_not_found(error):
                raise
            if not create:
                raise WorkflowError(
                    f"There is no bucket {bucket}: name one with --bucket, or let `python -m workflow data` make it."
                ) from None
            region = self._client.meta.region_name
            # S3 refuses this region as a LocationConstraint: it is the default.
            place = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
            self._client.create_bucket(Bucket=bucket, **place)

    def put(self, uri: str, content: bytes, content_type: str) -> None:
        """Write an object of at most 5 GiB."""
        self._client.put_object(**put_object(uri, content_type), Body=content)

    def get(self, uri: str) -> bytes:
        """Read an object."""
        bucket, key = Address.parse(uri)
        try:
            content: bytes = self._client.get_object(Bucket=bucket, Key=key)["Body"].read()
        except ClientError as error:
            if is_not_found(error):
                raise WorkflowError(f"There is no object {uri}.") from None
            raise
        return content

    def find(self, prefix: str) -> list[str]:
        """List objects, page by page."""
        bucket, key = Address.parse(prefix)
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key)
        try:
            return sorted(Address(bucket, row["Key"]).uri for page in pages for row in page.get("Contents", ()))
        except ClientError as error:
            if is_not_found(error):
                return []
            raise

    def delete(self, prefix: str) -> int:
        """Delete objects, a thousand at a time."""
        found = self.find(prefix)
        for first in range(0, len(found), DELETED_AT_ONCE):
            keys = [{"Key": Address.parse(uri).key} for uri in found[first : first + DELETED_AT_ONCE]]
            bucket = Address.parse(prefix).bucket
            answer = self._client.delete_objects(Bucket=bucket, Delete={"Objects": keys, "Quiet": True})
            for refused in answer.get("Errors", ()):
                raise WorkflowError(f"s3://{bucket}/{refused['Key']} can't be deleted: {refused['Message']}.")
        return len(found)


class FolderObjects:
    """Objects as files: ``s3://bucket/key`` is ``<root>/bucket/key``."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def path(self, uri: str) -> Path:
        """Return the file or folder of an address."""
        bucket, key = Address.parse(uri)
        return self._root / bucket / key

    def require_bucket(self, bucket: str, *, create: bool = False) -> None:
        """Check or create the bucket's folder."""
        folder = self.path(f"s3://{bucket}/")
        if create:
            folder.mkdir(parents=True, exist_ok=True)
        elif not folder.is_dir():
            raise WorkflowError(f"There is no bucket {bucket} in {self._root}: run `python -m workflow data` first.")

    def put(self, uri: str, content: bytes, content_type: str) -> None:
        """Write a file."""
        path = self.path(uri)
        write_files(path.parent, {path.name: content})

    def get(self, uri: str) -> bytes:
        """Read a file."""
        try:
            return self.path(uri).read_bytes()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise WorkflowError(f"There is no object {uri} ({self.path(uri)}).") from None

    def find(self, prefix: str) -> list[str]:
        """List files; a prefix may end in the middle of a name, as in S3."""
        bucket, key = Address.parse(prefix)
        root = self._root / bucket
        names = [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()]
        return sorted(Address(bucket, name).uri for name in names if name.startswith(key) and not _is_temporary(name))

    def delete(self, prefix: str) -> int:
        """Delete files, and folders that become empty."""
        found = self.find(prefix)
        for uri in found:
            path = self.path(uri)
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # not empty
                while path.parent != self._root:
                    path = path.parent
                    path.rmdir()
        return len(found)


def _is_temporary(name: str) -> bool:
    """Return True for a file that ``write_files`` hasn't completed."""
    file = name.rpartition("/")[2]
    return file.startswith(".") and file.endswith(".tmp")


def pack(folders: Iterable[Path]) -> bytes:
    """Return a gzipped tar of all files in the folders; of files with the same name, the first folder's."""
    files: dict[str, Path] = {}
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                files.setdefault(path.relative_to(folder).as_posix(), path)
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz", compresslevel=1) as archive:
        for name, path in files.items():
            archive.add(path, name, recursive=False)
    return content.getvalue()


def unpack(content: bytes, folder: Path, source: str) -> None:
    """Unpack a gzipped tar into a new folder; raise WorkflowError if it is invalid, or leads outside the folder."""
    folder.mkdir(parents=True)
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
            if sum(member.size for member in archive.getmembers()) > LARGEST_MODEL:
                raise WorkflowError(f"{source} holds more than {LARGEST_MODEL >> 30} GiB.")
            archive.extractall(folder, filter="data")
    except (tarfile.TarError, EOFError, OSError) as error:
        raise WorkflowError(f"{source} is no model.tar.gz that can be unpacked: {error}.") from None


def find_objects(objects: FolderObjects, place: dict[str, str]) -> list[tuple[str, str]]:
    """Return the address of each object of an S3DataSource, and its name in the channel's folder.

    Raises WorkflowError if there are none, or if a manifest is invalid.
    """
    uri = place["S3Uri"]
    if place["S3DataType"] == MANIFEST:
        prefix, names = _manifest(objects.get(uri), uri)
        return [(prefix + name, name) for name in names]
    addresses = objects.find(uri)
    if not addresses:
        raise WorkflowError(f"No S3 objects found under S3 URL {uri!r} given in input data source.")
    # A prefix is a folder, or the start of names.
    inside, parent = f"{uri.rstrip('/')}/", f"{uri.rpartition('/')[0]}/"
    return [(address, address.removeprefix(inside if address.startswith(inside) else parent)) for address in addresses]


def _manifest(content: bytes, uri: str) -> tuple[str, list[str]]:
    """Return the prefix and the names of a manifest."""
    try:
        head, *names = json.loads(content)
        prefix = head["prefix"]
    except (ValueError, TypeError, KeyError):
        prefix, names = "", []
    texts = [name for name in names if isinstance(name, str) and ".." not in name.split("/")]
    if not isinstance(prefix, str) or not texts or len(texts) != len(names):
        raise WorkflowError(f'{uri} is no manifest: expected [{{"prefix": "s3://bucket/"}}, "name", ...].')
    return prefix, texts
