from __future__ import annotations

import hashlib
import io
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kmeans import __version__, artifact
from kmeans.errors import ModelError, ResourceError
from kmeans.formats import mxnet
from kmeans.model import KMeansModel
from tests.unit.kmeans import oracle

CENTERS = np.random.default_rng(0).normal(size=(5, 13)).astype(np.float32)
MODEL = KMeansModel(CENTERS, np.array([5, 0, 2**53, 7, 1]), {"k": 5, "metrics": {"msd": 0.25}, "init": "random"})


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    artifact.save(MODEL, tmp_path)
    return tmp_path


def edit_card(directory: Path, **changes: Any) -> None:
    """Change fields of ``kmeans.json``; ``...`` removes one."""
    path = directory / "kmeans.json"
    card = json.loads(path.read_bytes()) | changes
    path.write_text(json.dumps({key: value for key, value in card.items() if value is not ...}))


def edit_centers(directory: Path, content: bytes) -> None:
    """Replace the centers by others, with the checksum they need."""
    (directory / "model_algo-1").write_bytes(content)
    edit_card(directory, centers_sha256=hashlib.sha256(content).hexdigest(), counts=None)


def assert_refused(directory: Path, *words: str) -> None:
    with pytest.raises(ModelError) as raised:
        artifact.load(directory)
    sentence = str(raised.value)
    for word in (*words, str(directory)):
        assert word in sentence
    assert sentence.endswith((".", ". Drop or fill such rows."))
    assert "\n" not in sentence


def test_a_model_comes_back_to_the_bit(saved: Path) -> None:
    loaded = artifact.load(saved)
    assert loaded.centers.tobytes() == CENTERS.tobytes()
    assert loaded.centers.shape == CENTERS.shape
    assert loaded.counts is not None
    assert loaded.counts.dtype == np.int64
    assert loaded.counts.tolist() == [5, 0, 2**53, 7, 1]
    assert loaded.training == MODEL.training


def test_a_model_of_unknown_counts_and_story_comes_back(tmp_path: Path) -> None:
    artifact.save(KMeansModel([[1.5]]), tmp_path)
    loaded = artifact.load(tmp_path)
    assert (loaded.centers.tolist(), loaded.counts, loaded.training) == ([[1.5]], None, {})


def test_extreme_numbers_come_back_to_the_bit(tmp_path: Path) -> None:
    centers = np.array([[0.0, -0.0, 1e-45, 1e15, -1e15, 0.1]], dtype=np.float32)
    artifact.save(KMeansModel(centers), tmp_path)
    assert artifact.load(tmp_path).centers.tobytes() == centers.tobytes()


def test_the_centers_file_is_the_ndarray_list(saved: Path) -> None:
    assert (saved / "model_algo-1").read_bytes() == mxnet.encode(CENTERS)


def test_two_files_are_written_and_nothing_else(saved: Path) -> None:
    assert sorted(path.name for path in saved.iterdir()) == ["kmeans.json", "model_algo-1"]


def test_the_card_describes_the_model(saved: Path) -> None:
    card = json.loads((saved / "kmeans.json").read_bytes())
    assert card == {
        "schema_version": 1,
        "version": __version__,
        "clusters": 5,
        "features": 13,
        "counts": [5, 0, 2**53, 7, 1],
        "centers_file": "model_algo-1",
        "centers_sha256": hashlib.sha256((saved / "model_algo-1").read_bytes()).hexdigest(),
        "training": {"k": 5, "metrics": {"msd": 0.25}, "init": "random"},
    }


def test_the_same_model_is_saved_as_the_same_bytes(saved: Path, tmp_path: Path) -> None:
    artifact.save(artifact.load(saved), tmp_path / "again")
    for name in ("kmeans.json", "model_algo-1"):
        assert (tmp_path / "again" / name).read_bytes() == (saved / name).read_bytes()


def test_another_model_takes_the_place_of_the_first(saved: Path) -> None:
    artifact.save(KMeansModel([[1.0], [2.0]]), saved)
    assert artifact.load(saved).centers.tolist() == [[1], [2]]


def test_a_model_is_there_at_any_moment_of_being_replaced(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replacement = KMeansModel([[1.0], [2.0]], np.array([3, 4]))
    seen: list[list[list[float]]] = []
    original = Path.replace

    def replace(source: Path, target: Path) -> Path:
        moved = original(source, target)
        seen.append(artifact.load(saved).centers.tolist())
        return moved

    monkeypatch.setattr(Path, "replace", replace)
    artifact.save(replacement, saved)
    assert seen == [[[1], [2]]] * 2


def test_centers_alone_are_a_model(saved: Path) -> None:
    (saved / "kmeans.json").unlink()
    loaded = artifact.load(saved)
    assert loaded.centers.tobytes() == CENTERS.tobytes()
    assert (loaded.counts, loaded.training) == (None, {})


def test_a_file_of_mxnet_is_a_model(tmp_path: Path) -> None:
    (tmp_path / "model_algo-1").write_bytes((oracle.GOLDEN / "model_algo-1").read_bytes())
    expected = np.load(oracle.GOLDEN / "model_algo-1_expected.npy")
    assert np.array_equal(artifact.load(tmp_path).centers, expected)


def npy(centers: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, centers)
    return file.getvalue()


def npz(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model_algo-7", mxnet.encode(CENTERS)),
        ("centers.npy", npy(CENTERS)),
        ("without suffix", npy(CENTERS)),
        ("model.npz", npz(centers=CENTERS, labels=np.arange(3))),
    ],
)
def test_single_file_of_centers_is_a_model_under_any_name(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    (tmp_path / "README.md").write_text("what I trained")
    (tmp_path / "model.tar.gz").write_bytes(b"PK\3\4")
    (tmp_path / ".hidden.npy").write_bytes(npy(CENTERS))
    (tmp_path / "code").mkdir()
    loaded = artifact.load(tmp_path)
    assert loaded.centers.tobytes() == CENTERS.tobytes()


def test_our_own_file_goes_before_others(saved: Path) -> None:
    (saved / "other.npy").write_bytes(npy(np.ones((1, 1))))
    assert artifact.load(saved).centers.tobytes() == CENTERS.tobytes()


def test_two_files_of_centers_are_refused(tmp_path: Path) -> None:
    for name in ("a.npy", "b.npy"):
        (tmp_path / name).write_bytes(npy(CENTERS))
    assert_refused(tmp_path, "There is no model", "expected", "one", "found a.npy, b.npy")


def test_a_broken_file_of_centers_is_corrupt(tmp_path: Path) -> None:
    (tmp_path / "centers.npy").write_bytes(npy(CENTERS)[:-1])
    assert_refused(tmp_path, "corrupt", "centers.npy")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("notes of mine.txt", "found notes of mine.txt."),
        ("a\nb\x1b[1m", r"found 'a\nb\x1b[1m'."),
        ("\udcff", r"found '\udcff'."),
        ("x" * 61, f"found '{'x' * 57}...'."),
    ],
    ids=["plain", "control characters", "no UTF-8", "long"],
)
def test_odd_names_of_files_are_quoted_in_the_message(tmp_path: Path, name: str, told: str) -> None:
    (tmp_path / name).write_text("no centers")
    with pytest.raises(ModelError) as raised:
        artifact.load(tmp_path)
    assert str(raised.value).endswith(told)
    assert str(raised.value).isprintable()


def test_unreadable_folder_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"^The model in \S+ can't be read: File name too long\.$"):
        artifact.load(tmp_path / ("a" * 300))


@pytest.mark.parametrize(("name", "told"), [("centers.npy", "centers.npy"), ("a\nb", r"'a\nb'")])
def test_a_loaded_model_knows_the_name_of_its_file(tmp_path: Path, name: str, told: str) -> None:
    (tmp_path / name).write_bytes(npy(CENTERS))
    assert artifact.load(tmp_path).file == told
    artifact.save(MODEL, tmp_path / "saved")
    assert artifact.load(tmp_path / "saved").file == "model_algo-1"
    assert MODEL.file is None


def test_a_card_without_a_checksum_is_fine(saved: Path) -> None:
    edit_card(saved, centers_sha256=..., counts=..., training=...)
    assert artifact.load(saved).centers.tobytes() == CENTERS.tobytes()


def test_a_directory_that_is_missing_is_named(tmp_path: Path) -> None:
    assert_refused(tmp_path / "nowhere", "There is no model", "model_algo-1", "no such directory")


def test_an_empty_directory_is_named(tmp_path: Path) -> None:
    assert_refused(tmp_path, "There is no model", "model_algo-1", "it is empty")


def test_what_is_there_in_place_of_a_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.tar.gz").write_bytes(b"")
    assert_refused(tmp_path, "expected a file model_algo-1", "found model.tar.gz")


def test_metadata_without_centers_is_refused(saved: Path) -> None:
    (saved / "model_algo-1").unlink()
    assert_refused(saved, "There is no model", "found kmeans.json")


def test_file_in_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert_refused(tmp_path / "file", "There is no model", "model_algo-1")


def test_directory_in_place_of_the_centers_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model_algo-1").mkdir()
    assert_refused(tmp_path, "model_algo-1", "can't be read")


@pytest.mark.parametrize("with_card", [True, False])
@pytest.mark.parametrize("cut", [1, 8, 9, 100, 331])
def test_truncated_centers_are_corrupt(saved: Path, cut: int, with_card: bool) -> None:
    path = saved / "model_algo-1"
    path.write_bytes(path.read_bytes()[:-cut])
    if not with_card:
        (saved / "kmeans.json").unlink()
    assert_refused(saved, "corrupt", "model_algo-1")


def test_a_flipped_bit_in_the_centers_is_found_by_the_checksum(saved: Path) -> None:
    path = saved / "model_algo-1"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    assert_refused(saved, "corrupt", "model_algo-1", "checksum", "kmeans.json")


CORRUPTIONS: list[tuple[bytes, str]] = [
    (b"", "the file ends"),
    (b"PK\3\4" + mxnet.encode(CENTERS)[4:], "expected an MXNet NDArray list"),
    (mxnet.encode(np.full((2, 3), np.nan, dtype=np.float32)), "row 1, column 1: expected a finite number"),
    (mxnet.encode(np.array([[1], [np.inf]], dtype=np.float32)), "row 2, column 1: expected a finite number"),
    (struct.pack("<QQQ", 0x112, 0, 2) + mxnet.encode(CENTERS)[24:], "expected one array"),
]


@pytest.mark.parametrize(("content", "words"), CORRUPTIONS, ids=[words for _, words in CORRUPTIONS])
@pytest.mark.parametrize("with_card", [True, False])
def test_centers_that_are_none_are_corrupt(saved: Path, content: bytes, words: str, with_card: bool) -> None:
    edit_centers(saved, content)
    if not with_card:
        (saved / "kmeans.json").unlink()
    assert_refused(saved, "corrupt", "model_algo-1", words)


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe", b"nonsense", b'{"schema_version": 1', b"[1]", b"3", b"null"])
def test_metadata_that_is_not_a_json_object_is_corrupt(saved: Path, text: bytes) -> None:
    (saved / "kmeans.json").write_bytes(text)
    assert_refused(saved, "corrupt", "kmeans.json")


@pytest.mark.parametrize("version", [0, 2, "1", None, ...])
def test_a_card_of_another_schema_is_refused_with_a_way_out(saved: Path, version: Any) -> None:
    edit_card(saved, schema_version=version)
    assert_refused(saved, "schema version", "kmeans.json", "this image reads 1")


@pytest.mark.parametrize("checksum", ["", "0" * 64, 17])
def test_a_checksum_of_other_centers_is_refused(saved: Path, checksum: Any) -> None:
    edit_card(saved, centers_sha256=checksum)
    assert_refused(saved, "corrupt", "checksum")


@pytest.mark.parametrize(
    "changes",
    [
        {"counts": "many"},
        {"counts": [1, "two", 3, 4, 5]},
        {"counts": [[1, 2], [3]]},
        {"counts": [2**63, 0, 0, 0, 0]},
        {"counts": [1, 2]},
        {"counts": 5},
        {"counts": {"0": 1}},
        {"training": [1, 2]},
        {"training": "story"},
        {"training": 5},
    ],
    ids=repr,
)
def test_a_card_that_does_not_describe_the_centers_is_corrupt(saved: Path, changes: dict[str, Any]) -> None:
    edit_card(saved, **changes)
    assert_refused(saved, "corrupt", "kmeans.json")


def test_a_card_that_is_a_directory_is_corrupt(saved: Path) -> None:
    (saved / "kmeans.json").unlink()
    (saved / "kmeans.json").mkdir()
    assert_refused(saved, "corrupt", "kmeans.json")


def a_file(directory: Path) -> Path:
    (directory / "file").write_bytes(b"")
    return directory / "file"


@pytest.mark.parametrize(
    "place", [a_file, lambda directory: a_file(directory) / "deeper"], ids=["file", "below a file"]
)
def test_a_place_that_cannot_be_written_is_a_resource_error(tmp_path: Path, place: Callable[[Path], Path]) -> None:
    with pytest.raises(ResourceError, match=r"can't write model_algo-1, kmeans\.json"):
        artifact.save(MODEL, place(tmp_path))
