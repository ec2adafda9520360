"""What was created is known, whatever happens in between."""

import json
import multiprocessing
from pathlib import Path

import pytest

from workflow.errors import WorkflowError
from workflow.ledger import Ledger


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "local" / "created.json")


def names(ledger: Ledger) -> list[str]:
    return [entry.name for entry in ledger.entries()]


def test_what_is_recorded_is_found_by_the_next_process(ledger: Ledger, tmp_path: Path) -> None:
    ledger.record("model", "a", uri="s3://bucket/a")
    ledger.record("endpoint", "b")
    again = Ledger(tmp_path / "local" / "created.json")
    assert [(entry.kind, entry.name, entry.details) for entry in again.entries()] == [
        ("model", "a", {"uri": "s3://bucket/a"}),
        ("endpoint", "b", {}),
    ]
    assert all(entry.created.endswith("+00:00") for entry in again.entries())


def test_the_latest_of_a_kind_is_the_one_recorded_last(ledger: Ledger) -> None:
    assert ledger.latest("model") is None
    for name in ("a", "b"):
        ledger.record("model", name)
    ledger.record("endpoint", "c")
    latest = ledger.latest("model")
    assert latest is not None
    assert latest.name == "b"


def test_recording_again_adds_details_and_keeps_the_time(ledger: Ledger) -> None:
    ledger.record("training-job", "a", model="s3://bucket/a")
    before = ledger.entries()[0].created
    ledger.record("training-job", "a", status="Completed")
    (entry,) = ledger.entries()
    assert (entry.created, entry.details) == (before, {"model": "s3://bucket/a", "status": "Completed"})


def test_only_what_is_named_is_forgotten(ledger: Ledger) -> None:
    for kind, name in (("model", "a"), ("endpoint", "a"), ("model", "b")):
        ledger.record(kind, name)
    ledger.forget("model", "a")
    ledger.forget("model", "never there")
    assert [(entry.kind, entry.name) for entry in ledger.entries()] == [("endpoint", "a"), ("model", "b")]


def test_what_a_record_has_replaced_can_be_taken_back(ledger: Ledger) -> None:
    for name in ("a", "b"):
        ledger.record("model", name, uri=f"s3://bucket/{name}")
    before = ledger.entries()
    for name in ("a", "c"):
        ledger.take_back("model", name, ledger.record("model", name, uri="s3://bucket/other"))
    assert ledger.entries() == before


def test_things_of_another_region_or_account_are_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "created.json"
    places = [("eu-west-1", "123456789012"), ("us-east-1", "123456789012"), ("eu-west-1", "210987654321")]
    ledgers = [Ledger(file, *place) for place in places]
    for number, ledger in enumerate(ledgers):
        ledger.record("model", "a", uri=str(number))
    for number, ledger in enumerate(ledgers):
        assert [entry.details["uri"] for entry in ledger.entries()] == [str(number)]
        assert len(ledger.elsewhere()) == 2
    ledgers[1].forget("model", "a")
    assert [(entry.region, entry.account) for entry in Ledger(file).entries()] == [places[0], places[2]]


def _record(file: Path, first: int) -> None:
    for number in range(first, first + 20):
        Ledger(file).record("model", str(number))


def test_two_processes_lose_nothing_of_each_other(tmp_path: Path) -> None:
    file = tmp_path / "created.json"
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_record, args=(file, first)) for first in (0, 100)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert sorted(names(Ledger(file)), key=int) == [str(n) for n in (*range(20), *range(100, 120))]


def test_a_write_that_fails_leaves_what_was_there(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger.record("model", "a")

    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(Exception, match="no space is left"):
            ledger.record("model", "b")
    assert names(ledger) == ["a"]


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"created": [{"kind": "model"}]}', b'{"created": 7}', b"\xff"])
def test_a_file_that_is_no_ledger_is_said_and_left_alone(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "created.json"
    file.write_bytes(content)
    with pytest.raises(WorkflowError, match="is no record of what was created"):
        Ledger(file).entries()
    with pytest.raises(WorkflowError):
        Ledger(file).record("model", "a")
    assert file.read_bytes() == content


def test_the_file_can_be_read_by_people(ledger: Ledger, tmp_path: Path) -> None:
    ledger.record("model", "a")
    document = json.loads((tmp_path / "local" / "created.json").read_text())
    assert document["created"][0]["name"] == "a"
