"""Objects in S3, which moto plays, and in a folder: the same to whoever uses them."""

from collections.abc import Iterator
from pathlib import Path

import boto3
import moto
import pytest

from workflow.errors import WorkflowError
from workflow.objects import Address, FolderObjects, Objects, S3Objects

BUCKET = "kmeans-test"


@pytest.fixture(params=["folder", "s3", "s3 of another region"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Objects]:
    if request.param == "folder":
        yield FolderObjects(tmp_path)
        return
    region = "us-east-1" if request.param == "s3" else "eu-west-1"
    with moto.mock_aws():
        yield S3Objects(boto3.client("s3", region))


def uri(key: str) -> str:
    return f"s3://{BUCKET}/{key}"


@pytest.fixture
def bucket(objects: Objects) -> Objects:
    objects.require_bucket(BUCKET, create=True)
    return objects


def test_require_bucket_fails_until_created(objects: Objects) -> None:
    with pytest.raises(WorkflowError, match=f"There is no bucket {BUCKET}"):
        objects.require_bucket(BUCKET)
    objects.require_bucket(BUCKET, create=True)
    objects.require_bucket(BUCKET)
    objects.require_bucket(BUCKET, create=True)


def test_get_returns_last_put_content(bucket: Objects) -> None:
    bucket.put(uri("a/b"), b"\x00\xff", "application/x-npy")
    bucket.put(uri("a/b"), b"again", "text/csv")
    assert bucket.get(uri("a/b")) == b"again"
    with pytest.raises(WorkflowError, match=f"There is no object {uri('a')}"):
        bucket.get(uri("a"))


def test_find_lists_objects_by_key_prefix(bucket: Objects) -> None:
    for key in ("a/2", "a/1", "ab/1", "b/1", "a/c/3"):
        bucket.put(uri(key), b"", "text/plain")
    assert bucket.find(uri("a/")) == [uri("a/1"), uri("a/2"), uri("a/c/3")]
    assert bucket.find(uri("a")) == [uri("a/1"), uri("a/2"), uri("a/c/3"), uri("ab/1")]
    assert bucket.find(uri("z")) == []
    assert bucket.find("s3://kmeans-no-such/a") == []


def test_delete_removes_only_objects_with_prefix(bucket: Objects) -> None:
    for number in range(7):
        bucket.put(uri(f"data/{number}"), b"x", "text/plain")
    bucket.put(uri("database"), b"x", "text/plain")
    assert bucket.delete(uri("data/")) == 7
    assert bucket.delete(uri("data/")) == 0
    assert bucket.find(uri("")) == [uri("database")]


def test_s3_find_and_delete_span_several_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "3")
    monkeypatch.setattr("workflow.objects.DELETED_AT_ONCE", 2)
    with moto.mock_aws():
        client = boto3.client("s3", "us-east-1")
        objects = S3Objects(client)
        objects.require_bucket(BUCKET, create=True)
        for number in range(8):
            objects.put(uri(f"{number}"), b"", "text/plain")
        assert len(objects.find(uri(""))) == 8
        assert objects.delete(uri("")) == 8
        assert objects.find(uri("")) == []


@pytest.mark.parametrize(
    "wrong", ["", "bucket/key", "file:///etc/passwd", "s3:///key", "s3://B_/k", "s3://b-b/../../etc"]
)
def test_address_parse_rejects_invalid_uri(wrong: str) -> None:
    with pytest.raises(WorkflowError, match="Expected an address like s3://bucket/key"):
        Address.parse(wrong)
