"""What is found wrong without training; the command's words are tested in tests/contract."""

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from kmeans.formats import recordio
from tests.pipes import make_fifo
from train.validation import validate


def put(base: Path, **files: bytes) -> None:
    """Write files; ``__`` in a name is a slash."""
    for name, content in files.items():
        path = base / "input" / "data" / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    config = tmp_path / "input" / "config"
    config.mkdir(parents=True)
    (config / "hyperparameters.json").write_text(json.dumps({"k": "2"}))
    return tmp_path


def test_a_valid_job_is_described(base: Path) -> None:
    put(base, train__a=b"1,2\n3,4\n", train__b=b"5,6\n", train__c=b"", test__a=b"1,2\n")
    findings = validate(base)
    assert findings.mistakes == []
    assert findings.facts[0] == "Channel train: 3 rows x 2 columns in 2 file(s)."
    assert findings.facts[-1] == "Channel test: 1 rows x 2 columns in 1 file(s)."


def test_the_mistakes_of_every_file_are_listed(base: Path) -> None:
    put(base, train__a=b"1,2,x\n", train__b=b"1,2\n3,4\n", train__c=b"1,2,3\n", train__d=b"1,2\n3\n", train__e=b"5,6\n")
    findings = validate(base)
    folder = base / "input" / "data" / "train"
    assert [mistake.removeprefix(f"{folder}/") for mistake in findings.mistakes] == [
        "a, row 1, column 3: expected a number, found 'x'.",
        "c: expected 2 columns as in the files before, found 3.",
        "d, row 2: expected 2 columns as in the rows before, found 1.",
    ]
    assert findings.facts[0] == "Channel train: 3 rows x 2 columns in 5 file(s)."


def test_zero_rows_of_a_cosine_job_are_listed_by_file(base: Path) -> None:
    (base / "input" / "config" / "hyperparameters.json").write_text(json.dumps({"k": "2", "distance_metric": "cosine"}))
    put(base, train__a=b"1,2\n0,0\n", train__b=b"1,2\n3,4\n", train__c=b"\n1,2\n\n0,0\n", test__a=b"0,0\n")
    assert [mistake.partition(": expected a number other than 0")[0] for mistake in validate(base).mistakes] == [
        f"{base}/input/data/train/a, row 2",
        f"{base}/input/data/train/c, row 4",
        f"{base}/input/data/test/a, row 1",
    ]


def test_files_that_are_all_empty_are_one_mistake(base: Path) -> None:
    put(base, train__a=b"", train__b=b"")
    (mistake,) = validate(base).mistakes
    assert "Channel train has no data" in mistake
    assert "all 2 of its files are empty" in mistake


def test_unreadable_train_channel_sets_no_width_for_test(base: Path) -> None:
    put(base, train__a=b"x\n", test__a=b"1,2\n")
    findings = validate(base)
    assert all(str(base / "input" / "data" / "test") not in mistake for mistake in findings.mistakes)
    assert findings.facts[-1] == "Channel test: 1 rows x 2 columns in 1 file(s)."


def test_a_pipe_is_not_opened(base: Path) -> None:
    """It could be read only once, and then the job would find nothing in it."""
    channel = {"TrainingInputMode": "Pipe", "ContentType": "text/csv"}
    (base / "input" / "config" / "inputdataconfig.json").write_text(json.dumps({"train": channel, "test": {}}))
    put(base, test__a=b"1,2\n")
    make_fifo(base / "input" / "data" / "train_0")
    findings = validate(base)
    assert findings.mistakes == []
    assert findings.facts == [
        "Channel train: a Pipe channel can't be checked beforehand, because that would use its data up.",
        "Channel test: 1 rows x 2 columns in 1 file(s).",
    ]


def test_the_type_of_a_pipe_is_checked(base: Path) -> None:
    channel = {"TrainingInputMode": "Pipe", "ContentType": "image/png"}
    (base / "input" / "config" / "inputdataconfig.json").write_text(json.dumps({"train": channel}))
    (mistake,) = validate(base).mistakes
    assert mistake.startswith("Channel train: No iterator has been registered for ContentType 'image/png'")


def test_memory_is_bounded(base: Path) -> None:
    put(base, train__a=recordio.encode(np.ones((10_000, 784), dtype=np.float32)))
    tracemalloc.start()
    findings = validate(base)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert findings.mistakes == []
    assert peak < 8 << 20
