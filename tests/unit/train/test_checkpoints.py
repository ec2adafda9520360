"""Checkpoints in a folder: what is found again, what is passed over, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kmeans.checkpoint import State
from kmeans.collectives import Collectives
from kmeans.errors import SettingError
from tests.unit.kmeans.thread_hosts import on_all_hosts
from train.checkpoints import FILE_NAMES, CheckpointFolder, Identity

JOB = {"k": 3, "rows": 100}
SHARES = ["digest of the rows"]


class Folder:
    """A checkpoint folder, and what was said about it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.said: list[str] = []

    def open(
        self,
        *,
        interval: float = 0,
        ignore_others: bool = False,
        shares: list[str] | None = SHARES,
        hosts: Collectives | None = None,
        max_state_bytes: int = 1 << 20,
        **job: object,
    ) -> CheckpointFolder:
        def say(message: str, _level: str) -> None:
            self.said.append(message)

        return CheckpointFolder(
            self.path,
            interval,
            Identity({**JOB, **job}, shares),
            say,
            hosts=hosts,
            max_state_bytes=max_state_bytes,
            ignore_others=ignore_others,
        )


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "checkpoints")


def state(moves: int, rank: int = 0) -> State:
    return State(
        "refine",
        {"moves": moves, "before": float("inf")},
        {"centers": np.full((3, 2), moves, np.float32)},
        # Hosts have other numbers of rows, one of them none.
        {"labels": np.full((5 * (rank % 2) + 1 if rank else 0, 1), 10 * moves + rank, np.int32)},
    )


def save(checkpoints: CheckpointFolder, *moves: int) -> None:
    for count in moves:
        checkpoints.offer(lambda count=count: state(count))  # type: ignore[misc]


def moves_found(checkpoints: CheckpointFolder) -> int:
    found = checkpoints.found()
    assert found is not None
    assert found.phase == "refine"
    assert found.numbers["before"] == float("inf")
    assert found.arrays["centers"].dtype == np.float32
    assert (found.arrays["centers"] == found.numbers["moves"]).all()
    moves: int = found.numbers["moves"]
    return moves


def test_a_folder_without_checkpoints_begins_at_the_beginning(folder: Folder) -> None:
    assert folder.open().found() is None


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_the_newest_is_found_again(folder: Folder, count: int) -> None:
    save(folder.open(), *range(count))
    assert moves_found(folder.open()) == count - 1
    assert set(folder.path.iterdir()) <= {folder.path / name for name in FILE_NAMES}


def test_resumed_job_writes_newer_checkpoints(folder: Folder) -> None:
    save(folder.open(), 1, 2, 3)
    save(folder.open(), 4)
    assert moves_found(folder.open()) == 4


@pytest.mark.parametrize("damage", [lambda content: content[:-1], lambda content: content[:30], lambda _: b""])
def test_a_torn_one_is_passed_over_for_the_one_before(folder: Folder, damage: object) -> None:
    save(folder.open(), 1, 2, 3)
    newest = folder.path / FILE_NAMES[0]
    assert callable(damage)
    newest.write_bytes(damage(newest.read_bytes()))
    assert moves_found(folder.open()) == 2
    assert any("is torn, and is passed over" in message for message in folder.said)


def test_every_flipped_byte_is_noticed(folder: Folder) -> None:
    save(folder.open(), 1)
    path = folder.path / FILE_NAMES[0]
    content = path.read_bytes()
    for place in range(0, len(content), 7):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        assert folder.open().found() is None


def test_a_changed_job_is_refused_with_what_changed(folder: Folder) -> None:
    save(folder.open(), 1)
    with pytest.raises(SettingError, match=r"k was 3 and is 4, rows was 100 and is 99"):
        folder.open(k=4, rows=99)


def test_changed_job_starts_from_scratch_on_request(folder: Folder) -> None:
    save(folder.open(), 1, 2)
    again = folder.open(k=4, ignore_others=True)
    assert again.found() is None
    save(again, 7)
    assert moves_found(folder.open(k=4)) == 7


def test_checkpoint_is_saved_after_the_interval_or_at_the_end(folder: Folder) -> None:
    checkpoints = folder.open(interval=1000)
    save(checkpoints, 1, 2)
    assert not folder.path.exists()
    checkpoints.save()
    assert moves_found(folder.open()) == 2
    (folder.path / FILE_NAMES[0]).unlink()
    checkpoints.save()  # the same state again
    assert folder.open().found() is None


def test_the_leaders_file_gives_each_host_its_share(folder: Folder) -> None:
    def begin(hosts: Collectives) -> None:
        # The folder of the leader alone: on SageMaker all hosts' folders are copied to the same place.
        checkpoints = folder.open(hosts=hosts, shares=list("abcd"))
        for moves in range(3):
            checkpoints.offer(lambda: state(moves, hosts.rank))  # noqa: B023 - called at once

    def go_on(hosts: Collectives) -> State | None:
        return folder.open(hosts=hosts, shares=list("abcd")).found()

    assert on_all_hosts(4, begin) == [None] * 4
    assert len(list(folder.path.iterdir())) == 2
    for rank, found in enumerate(on_all_hosts(4, go_on)):
        assert isinstance(found, State)
        expected = state(2, rank)
        assert found.numbers == expected.numbers
        assert found.arrays["centers"].tolist() == expected.arrays["centers"].tolist()
        assert found.per_host["labels"].dtype == np.int32
        assert found.per_host["labels"].tolist() == expected.per_host["labels"].tolist()


def test_other_rows_in_memory_give_back_the_centers_alone(folder: Folder) -> None:
    save(folder.open(), 1)
    again = folder.open(shares=["digest of other rows"])
    assert moves_found(again) == 1
    found = again.found()
    assert found is not None
    assert not found.per_host
    assert "not to the same bits: other rows were in memory" in folder.said[-1]


@pytest.mark.parametrize("options", [{"shares": None}, {"max_state_bytes": 3}], ids=str)
def test_per_host_state_that_varies_or_is_large_is_not_saved(folder: Folder, options: dict[str, Any]) -> None:
    checkpoints = folder.open(**options)
    checkpoints.offer(lambda: state(1, rank=1))
    again = folder.open(**options)
    assert moves_found(again) == 1
    found = again.found()
    assert found is not None
    assert not found.per_host


def test_folder_that_refuses_a_checkpoint_is_only_a_warning(folder: Folder) -> None:
    folder.path.write_bytes(b"I am a file")
    save(folder.open(), 1)
    assert any("no checkpoint was saved, and the job goes on" in message for message in folder.said)
