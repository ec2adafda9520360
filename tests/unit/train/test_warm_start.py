"""A model to go on from: whatever is in the channel, it is read or refused with its cause."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from kmeans import artifact
from kmeans.errors import ModelError, SettingError
from kmeans.formats.media_type import MediaType
from kmeans.model import KMeansModel
from train.config import Channel
from train.warm_start import read_model

CENTERS = np.array([[0, 0], [3, 4], [9, 9]], dtype=np.float32)


@pytest.fixture
def channel(tmp_path: Path) -> Channel:
    folder = tmp_path / "model"
    folder.mkdir()
    return Channel("model", folder, MediaType.parse(""), "File")


def packed(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return file.getvalue()


def saved(folder: Path) -> dict[str, bytes]:
    artifact.save(KMeansModel(CENTERS, np.array([5, 6, 7])), folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_model_of_another_metric_is_converted(channel: Channel) -> None:
    artifact.save(KMeansModel(CENTERS[1:], np.array([6, 7])), channel.directory)
    model = read_model(channel, 2, "cosine")
    assert model.distance_metric == "cosine"
    np.testing.assert_allclose(model.centers, [[0.6, 0.8], [0.5**0.5, 0.5**0.5]], rtol=1e-6)
    assert model.counts is not None
    assert model.counts.tolist() == [6, 7]


def test_a_zero_center_can_start_no_cosine_job(channel: Channel) -> None:
    artifact.save(KMeansModel(CENTERS), channel.directory)
    with pytest.raises(SettingError, match="Channel model: center 1 of the model has only zeros, and no direction"):
        read_model(channel, 3, "cosine")


@pytest.mark.parametrize("name", ["model.tar.gz", "model.tgz"])
def test_a_models_archive_is_read(channel: Channel, tmp_path: Path, name: str) -> None:
    (tmp_path / "made").mkdir()
    (channel.directory / name).write_bytes(packed(saved(tmp_path / "made")))
    model = read_model(channel, 3)
    assert model.centers.tolist() == CENTERS.tolist()
    assert model.counts is not None
    assert model.counts.tolist() == [5, 6, 7]


def test_an_archive_with_dots_in_front_of_its_names_is_read(channel: Channel, tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    members = {f"./{name}": content for name, content in saved(tmp_path / "made").items()}
    (channel.directory / "model.tar.gz").write_bytes(packed(members))
    assert read_model(channel, 3).clusters == 3


def test_a_models_files_are_read(channel: Channel) -> None:
    saved(channel.directory)
    assert read_model(channel, 3).centers.tolist() == CENTERS.tolist()


def test_centers_as_an_array_file_are_read(channel: Channel) -> None:
    np.save(channel.directory / "centers.npy", CENTERS)
    assert read_model(channel, 3).centers.tolist() == CENTERS.tolist()


def test_another_number_of_clusters_is_refused_with_both(channel: Channel) -> None:
    saved(channel.directory)
    with pytest.raises(SettingError, match="the model has 3 clusters, but k=4"):
        read_model(channel, 4)


@pytest.mark.parametrize(
    "content",
    [b"", b"not an archive", packed({"model_algo-1": b"x" * 5000})[:60]],
    ids=["empty", "text", "truncated"],  # an archive holds the time: as an id it would differ between processes
)
def test_file_that_is_not_an_archive_is_refused(channel: Channel, content: bytes) -> None:
    (channel.directory / "model.tar.gz").write_bytes(content)
    with pytest.raises(ModelError, match=r"model.tar.gz can't be unpacked: .*[^:.]\.$") as raised:
        read_model(channel, 3)
    assert "\n" not in str(raised.value)  # tarfile tells on further lines what it has tried


@pytest.mark.parametrize(
    "name", ["../evil.npy", "{outside}/evil.npy", "a/../../evil.npy", "../evil\n" + 90 * "x", 300 * "x"]
)
def test_nothing_is_unpacked_outside(channel: Channel, tmp_path: Path, name: str) -> None:
    array = io.BytesIO()
    np.save(array, CENTERS)
    (channel.directory / "model.tar.gz").write_bytes(packed({name.format(outside=tmp_path): array.getvalue()}))
    with pytest.raises(ModelError) as raised:
        read_model(channel, 3)
    # A name in an archive is anything, of any length.
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 300 + len(str(channel.directory))
    assert list(tmp_path.rglob("evil.npy")) == []


def test_links_are_not_followed(channel: Channel, tmp_path: Path) -> None:
    np.save(tmp_path / "secret.npy", CENTERS)
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        link = tarfile.TarInfo("centers.npy")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "secret.npy")
        tar.addfile(link)
    (channel.directory / "model.tar.gz").write_bytes(file.getvalue())
    with pytest.raises(ModelError, match="There is no model"):
        read_model(channel, 3)


def test_an_archive_of_any_size_is_refused(channel: Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kmeans.archive.MAX_ARCHIVE_BYTES", 1000)
    (channel.directory / "model.tar.gz").write_bytes(packed({"zeros": bytes(1001)}))
    with pytest.raises(ModelError, match="is too large"):
        read_model(channel, 3)


def test_several_archives_are_refused_by_name(channel: Channel) -> None:
    for name in ("a.tar.gz", "b.tar.gz"):
        (channel.directory / name).write_bytes(packed({}))
    with pytest.raises(SettingError, match=r"found the archives a.tar.gz, b.tar.gz"):
        read_model(channel, 3)


def test_an_empty_channel_is_refused(channel: Channel) -> None:
    with pytest.raises(ModelError, match="There is no model in"):
        read_model(channel, 3)
