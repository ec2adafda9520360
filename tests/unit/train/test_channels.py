"""Files of a channel to rows: which files, which type, which columns."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kmeans.arrays import Float32
from kmeans.errors import DataError, SettingError
from kmeans.formats import batches, csv, recordio
from kmeans.formats.media_type import MediaType
from train.channels import ChannelReader, list_files
from train.config import Channel
from train.files import ReadOptions
from train.load import channel_reader

ROWS = np.array([[1, 2, 3], [4, 5, 6]], dtype=np.float32)
CSV = b"1,2,3\n4,5,6\n"
RECORDS = recordio.encode(ROWS)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "train"
    folder.mkdir()
    return folder


def channel(folder: Path, content_type: str = "", input_mode: str = "File") -> Channel:
    return Channel("train", folder, MediaType.parse(content_type), input_mode)


def put(folder: Path, **files: bytes) -> None:
    """Write files; ``__`` in a name is a slash."""
    for name, content in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def rows_of(reader: ChannelReader) -> Float32:
    return np.concatenate([block.copy() for block in reader.batches()])


def test_files_are_sorted_by_path_through_all_folders(folder: Path) -> None:
    put(folder, b=CSV, a__z=CSV, a__b__c=CSV, c=CSV, B=CSV)
    assert [str(path.relative_to(folder)) for path in list_files(channel(folder))] == ["B", "a/b/c", "a/z", "b", "c"]


def test_hidden_files_are_no_data(folder: Path) -> None:
    put(folder, data=CSV)
    (folder / ".hidden").write_bytes(CSV)
    (folder / ".folder" / "x").mkdir(parents=True)
    (folder / ".folder" / "x" / "data").write_bytes(CSV)
    assert list_files(channel(folder)) == [folder / "data"]


def test_a_hidden_folder_above_the_channel_hides_nothing(tmp_path: Path) -> None:
    folder = tmp_path / ".work" / "train"
    folder.mkdir(parents=True)
    put(folder, data=CSV)
    assert list_files(channel(folder)) == [folder / "data"]


def test_a_link_to_a_file_is_followed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(CSV)
    (folder / "data").symlink_to(tmp_path / "elsewhere")
    assert list_files(channel(folder)) == [folder / "data"]


def test_folders_and_links_to_nothing_are_not_data(folder: Path) -> None:
    put(folder, data=CSV)
    (folder / "dangling").symlink_to(folder / "nothing")
    (folder / "folder").mkdir()
    assert list_files(channel(folder)) == [folder / "data"]


def test_empty_files_are_no_data(folder: Path) -> None:
    put(folder, a=b"", b=CSV, c=b"", d=CSV)
    reader = ChannelReader(channel(folder), ReadOptions())
    assert len(rows_of(reader)) == 4
    assert (reader.files, reader.bytes) == (2, 2 * len(CSV))


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({}, "it is empty"),
        ({"a": b"", "b": b""}, "all 2 of its files are empty"),
        ({".amazon.manifest": b"[]"}, "there is only a manifest"),
    ],
)
def test_a_channel_without_data_says_why(folder: Path, files: dict[str, bytes], problem: str) -> None:
    put(folder, **files)
    with pytest.raises(SettingError, match=f"Channel train has no data: {folder} was searched, and {problem}"):
        rows_of(ChannelReader(channel(folder), ReadOptions()))


def test_a_channel_without_a_folder_says_so(folder: Path) -> None:
    with pytest.raises(SettingError, match="Channel train has no data: there is no folder"):
        list_files(channel(folder / "missing"))


@pytest.mark.parametrize(
    ("content", "content_type", "feature_dim", "labels"),
    [
        (CSV, "", None, 0),
        (CSV, "", 3, 0),
        (CSV, "text/csv", None, 0),
        (CSV, "text/csv;label_size=0", 3, 0),
        (CSV, "TEXT/CSV; Label_Size=0", 3, 0),
        (CSV, 'text/csv; label_size="0"', 3, 0),
        (CSV, "csv", None, 0),
        (CSV, "application/csv", None, 0),
        (b"7,1,2,3\n8,4,5,6\n", "text/csv;label_size=1", None, 1),
        (b"7,1,2,3\n8,4,5,6\n", "text/csv;label_size=1", 3, 1),
        (b"7,1,2,3\n8,4,5,6\n", "text/csv", 3, 1),
        (b"7,1,2,3\n8,4,5,6\n", "", 3, 1),
        (b"7,7,1,2,3\n8,8,4,5,6\n", "text/csv;label_size=2", 3, 2),
        (RECORDS, "", None, 0),
        (RECORDS, "", 3, 0),
        (RECORDS, "application/x-recordio-protobuf", 3, 0),
        (RECORDS, "application/x-recordio-protobuf; label_size=1", 3, 0),
    ],
)
def test_label_columns_follow_from_label_size_or_feature_dim(
    folder: Path, content: bytes, content_type: str, feature_dim: int | None, labels: int
) -> None:
    put(folder, data=content)
    reader = ChannelReader(channel(folder, content_type), ReadOptions(feature_dim))
    (block,) = reader.batches()
    np.testing.assert_array_equal(block, ROWS)
    assert block.dtype == np.float32
    assert block.flags.c_contiguous
    assert (reader.files, reader.bytes, reader.label_columns) == (1, len(content), labels)


@pytest.mark.parametrize(("content", "kind"), [(CSV, "text/csv"), (RECORDS, "application/x-recordio-protobuf")])
def test_the_type_of_a_file_is_recognised(folder: Path, content: bytes, kind: str) -> None:
    put(folder, data=content)
    reader = ChannelReader(channel(folder), ReadOptions())
    rows_of(reader)
    assert reader.content_type == kind


@pytest.mark.parametrize("input_mode", ["File", "FastFile"])
def test_rows_of_several_files_stand_in_the_order_of_the_files(folder: Path, input_mode: str) -> None:
    put(folder, b=b"3\n4", a=b"1\n2", c=b"5\n")
    reader = ChannelReader(channel(folder, input_mode=input_mode), ReadOptions())
    assert rows_of(reader).ravel().tolist() == [1, 2, 3, 4, 5]
    assert reader.files == 3


# Pass after pass.


def test_every_pass_gives_the_same_rows_and_opens_each_file_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(folder, a=CSV, b=b"", c=CSV * 2)
    opened: list[str] = []
    open_path = Path.open

    def counting(path: Path, *arguments: Any, **keywords: Any) -> Any:
        opened.append(path.name)
        return open_path(path, *arguments, **keywords)

    monkeypatch.setattr(Path, "open", counting)
    heard: list[str] = []
    reader = ChannelReader(channel(folder), ReadOptions(3, heard.append))
    for passes in (1, 2, 3):
        assert np.array_equal(rows_of(reader), np.tile(ROWS, (3, 1)))
        assert opened == ["a", "b", "c"] * passes
        assert heard == [f"{done} of 3 files" for done in (0, 0, 1, 2, 2)] * passes  # before each file and each block
        assert (reader.rows, reader.features, reader.files, reader.bytes) == (6, 3, 2, 3 * len(CSV))
        assert (reader.content_type, reader.label_columns) == ("text/csv", 0)


def test_width_is_known_after_one_batch_and_counts_after_a_pass(folder: Path) -> None:
    put(folder, a=b"7,1,2,3\n", b=b"8,4,5,6\n")
    reader = ChannelReader(channel(folder), ReadOptions(3))
    blocks = reader.batches()
    assert next(blocks).tolist() == [[1, 2, 3]]
    assert (reader.features, reader.label_columns, reader.content_type) == (3, 1, "text/csv")
    assert (reader.rows, reader.files, reader.bytes) == (0, 0, 0)
    assert next(blocks).tolist() == [[4, 5, 6]]
    assert next(blocks, None) is None
    assert (reader.rows, reader.files, reader.bytes) == (2, 2, 16)


def test_files_are_listed_once(folder: Path) -> None:
    put(folder, a=CSV)
    reader = ChannelReader(channel(folder), ReadOptions())
    put(folder, b=CSV)
    assert len(rows_of(reader)) == 2


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"1\n2\n3\n", "expected 2 rows, found more"),
        (b"1\n", "expected 2 rows, found 1"),
        (b"", "expected 2 rows, found 0"),
        (b"1,2\n3,4\n", "expected 1 columns, found 2"),
    ],
)
def test_a_file_that_changes_between_passes_is_named(folder: Path, content: bytes, found: str) -> None:
    put(folder, a=b"1\n2\n", b=b"1\n2\n")
    reader = ChannelReader(channel(folder), ReadOptions())
    rows_of(reader)
    put(folder, b=content)
    with pytest.raises(DataError, match=f"the file has changed since it was first read: {found}") as caught:
        rows_of(reader)
    assert caught.value.source == str(folder / "b")


def test_a_file_that_grew_gives_no_row_more_than_before(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv, "CHUNK_BYTES", 2)
    monkeypatch.setattr(batches, "BATCH_BYTES", 4)
    put(folder, a=b"1\n2\n")
    reader = ChannelReader(channel(folder), ReadOptions())
    rows_of(reader)
    put(folder, a=b"1\n2\n3\n")
    blocks = reader.batches()
    assert [next(blocks).tolist(), next(blocks).tolist()] == [[[1]], [[2]]]
    with pytest.raises(DataError, match="has changed"):
        next(blocks)


def test_a_pass_that_was_given_up_changes_nothing(folder: Path) -> None:
    put(folder, a=CSV, b=CSV)
    reader = ChannelReader(channel(folder), ReadOptions())
    first = reader.batches()
    next(first)
    first.close()
    for _ in range(2):
        assert len(rows_of(reader)) == 4
    second = reader.batches()
    next(second)
    second.close()
    assert (reader.rows, reader.files) == (4, 2)


def test_a_file_that_is_gone_is_an_error_of_the_system(folder: Path) -> None:
    put(folder, a=CSV)
    reader = ChannelReader(channel(folder), ReadOptions())
    (folder / "a").unlink()
    with pytest.raises(FileNotFoundError):
        rows_of(reader)


@pytest.mark.parametrize(
    ("content", "content_type", "feature_dim", "problem"),
    [
        (CSV, "text/csv", 4, r"expected 4 columns \(feature_dim\), found 3"),
        (CSV, "text/csv", 1, r"expected 1 columns \(feature_dim\), found 3"),
        (CSV, "text/csv;label_size=0", 2, r"expected 2 columns \(feature_dim\), found 3"),
        (CSV, "text/csv;label_size=1", 3, r"expected 4 columns \(feature_dim \+ label_size\), found 3"),
        (CSV, "text/csv;label_size=3", None, r"more than 3 columns \(label_size=3\), found 3"),
        (RECORDS, "", 2, "expected 2 .*found 3"),
        (b"\0\1\2\3", "", None, "neither RecordIO-protobuf, NPY nor text"),
        (b"1,2\n3\n", "", None, "row 2: expected 2 columns as in the rows before, found 1"),
        (CSV, "application/x-recordio-protobuf", None, "magic number"),
    ],
)
def test_a_file_that_doesnt_fit_is_named(
    folder: Path, content: bytes, content_type: str, feature_dim: int | None, problem: str
) -> None:
    put(folder, data=content)
    with pytest.raises(DataError, match=problem) as caught:
        rows_of(ChannelReader(channel(folder, content_type), ReadOptions(feature_dim)))
    assert caught.value.source == str(folder / "data")


@pytest.mark.parametrize(
    ("second", "found"),
    [
        pytest.param(b"1,2\n", 2, id="narrower"),
        pytest.param(b"7,1,2,3\n", 4, id="wider by one, which is no label"),
        pytest.param(b"1,2,3,4,5\n", 5, id="wider"),
    ],
)
def test_the_second_of_two_widths_is_named_with_the_first(folder: Path, second: bytes, found: int) -> None:
    put(folder, a=CSV, b=second)
    with pytest.raises(DataError, match=f"expected 3 columns as in {folder}/a, found {found}") as caught:
        rows_of(ChannelReader(channel(folder), ReadOptions()))
    assert caught.value.source == str(folder / "b")


@pytest.mark.parametrize("files", [{"a": CSV, "b": b"7,1,2,3\n"}, {"a": b"7,1,2,3\n", "b": CSV}])
def test_files_with_and_without_a_label_column_are_not_mixed(folder: Path, files: dict[str, bytes]) -> None:
    put(folder, **files)
    with pytest.raises(DataError) as caught:
        rows_of(ChannelReader(channel(folder), ReadOptions(3)))
    assert caught.value.source == str(folder / "b")


@pytest.mark.parametrize(
    ("content_type", "input_mode", "problem"),
    [
        ("image/png", "File", "Channel train: No iterator has been registered for ContentType 'image/png'"),
        ("text/csv;label_size=x", "File", "expected a number for label_size, found 'x'"),
        ("text/csv;label_size=\u00b2", "File", "expected a number for label_size"),
        ("text/csv", "Carrier pigeon", "Channel train: input mode 'Carrier pigeon' is not supported"),
    ],
)
def test_a_channel_that_cant_be_read_says_why(folder: Path, content_type: str, input_mode: str, problem: str) -> None:
    put(folder, data=CSV)
    with pytest.raises(SettingError, match=problem):
        list(channel_reader(channel(folder, content_type, input_mode), ReadOptions()).batches())
