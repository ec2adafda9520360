from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from kmeans.atomic_file import write_files
from kmeans.errors import ResourceError

OLD = {"first": b"old 1", "last": b"old 2"}
NEW = {"first": b"new 1" * 1000, "last": b"new 2"}


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}


def fail_at(call: int, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the ``call``-th sync to disk fail, as a full disk does."""
    original, calls = os.fsync, []

    def fsync(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == call:
            raise OSError(code, os.strerror(code))
        original(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)


def test_files_hold_what_was_written_and_nothing_else_is_there(tmp_path: Path) -> None:
    write_files(tmp_path, NEW)
    assert contents(tmp_path) == NEW


def test_a_directory_that_is_missing_is_made(tmp_path: Path) -> None:
    write_files(tmp_path / "a" / "b", {"file": b""})
    assert contents(tmp_path / "a" / "b") == {"file": b""}


def test_old_files_are_replaced_and_strangers_left_alone(tmp_path: Path) -> None:
    write_files(tmp_path, OLD | {"other": b"stays"})
    write_files(tmp_path, NEW)
    assert contents(tmp_path) == NEW | {"other": b"stays"}


def test_remains_of_a_killed_writer_are_overwritten(tmp_path: Path) -> None:
    (tmp_path / ".first.tmp").write_bytes(b"half of something much longer" * 1000)
    write_files(tmp_path, NEW)
    assert contents(tmp_path) == NEW


@pytest.mark.parametrize("call", [1, 2])
def test_a_full_disk_leaves_the_old_files_and_no_temporary_one(
    tmp_path: Path, call: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_files(tmp_path, OLD)
    fail_at(call, errno.ENOSPC, monkeypatch)
    with pytest.raises(ResourceError, match=r"can't write first, last to .*: no space is left on the device\.$"):
        write_files(tmp_path, NEW)
    assert contents(tmp_path) == OLD


@pytest.mark.parametrize("call", [1, 2])
def test_a_full_disk_leaves_an_empty_directory_empty(
    tmp_path: Path, call: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_at(call, errno.ENOSPC, monkeypatch)
    with pytest.raises(ResourceError):
        write_files(tmp_path, NEW)
    assert contents(tmp_path) == {}


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (errno.EDQUOT, "the disk quota is used up"),
        (errno.EROFS, "the file system is read-only"),
        (errno.EACCES, "permission was denied"),
        (errno.EPERM, "permission was denied"),
        (errno.EIO, os.strerror(errno.EIO)),
    ],
)
def test_the_reason_is_said_in_plain_words(
    tmp_path: Path, code: int, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_at(1, code, monkeypatch)
    with pytest.raises(ResourceError, match=rf": {reason}\.$") as raised:
        write_files(tmp_path, NEW)
    assert isinstance(raised.value.__cause__, OSError)


@pytest.mark.parametrize("inside", [".", "deeper"])
def test_file_in_place_of_the_directory_is_a_resource_error(tmp_path: Path, inside: str) -> None:
    (tmp_path / "taken").write_bytes(b"a file")
    with pytest.raises(ResourceError, match="can't write first, last to "):
        write_files(tmp_path / "taken" / inside, NEW)
    assert contents(tmp_path) == {"taken": b"a file"}


def test_failed_rename_leaves_no_temporary_file(tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    with pytest.raises(ResourceError):
        write_files(tmp_path, NEW)
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("call", [1, 2])
def test_outdated_files_go_only_when_the_new_ones_are_safe(
    tmp_path: Path, call: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_files(tmp_path, OLD | {"outdated": b"x", "other": b"y"})
    with monkeypatch.context() as patch:
        fail_at(call, errno.ENOSPC, patch)
        with pytest.raises(ResourceError):
            write_files(tmp_path, NEW, outdated=["outdated", "never there"])
    assert contents(tmp_path) == OLD | {"outdated": b"x", "other": b"y"}
    write_files(tmp_path, NEW, outdated=["outdated", "never there"])
    assert contents(tmp_path) == NEW | {"other": b"y"}


def test_any_exception_leaves_no_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_files(tmp_path, NEW)
    assert contents(tmp_path) == {}


def test_everything_is_on_disk_before_the_first_file_appears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen_at_sync: list[set[str]] = []
    original = os.fsync

    def fsync(descriptor: int) -> None:
        seen_at_sync.append(set(contents(tmp_path)) & set(NEW))
        original(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    write_files(tmp_path, NEW)
    assert seen_at_sync == [set(), set(), {"first", "last"}]
