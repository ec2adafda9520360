"""The three configuration files, each whole, partial, missing and broken."""

import json
from pathlib import Path

import pytest

from kmeans.errors import SettingError
from train.config import HostNames, output_directory, read_hosts, read_job


@pytest.fixture
def base(tmp_path: Path) -> Path:
    (tmp_path / "input" / "config").mkdir(parents=True)
    (tmp_path / "input" / "data").mkdir()
    return tmp_path


def write(base: Path, name: str, content: object) -> Path:
    path = base / "input" / "config" / f"{name}.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_without_any_file_the_job_is_empty_and_runs_on_one_host(tmp_path: Path) -> None:
    job = read_job(tmp_path / "nowhere")
    assert (job.hyperparameters, job.channels, job.hosts) == ({}, {}, HostNames("algo-1", ("algo-1",)))


def test_the_places_are_those_of_the_contract(base: Path) -> None:
    write(base, "inputdataconfig", {"train": {}})
    job = read_job(base)
    assert job.model_directory == base / "model"
    assert job.channels["train"].directory == base / "input" / "data" / "train"
    assert output_directory(base) == base / "output"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("8", "8"),
        ('"8"', '"8"'),
        (8, "8"),
        (0.5, "0.5"),
        (True, "true"),
        (None, "null"),
        (["msd", "ssd"], '["msd","ssd"]'),
        ({"a": 1}, '{"a":1}'),
    ],
)
def test_hyperparameters_are_texts_whatever_json_has(base: Path, value: object, text: str) -> None:
    write(base, "hyperparameters", {"x": value})
    assert read_job(base).hyperparameters == {"x": text}


def test_a_channel_has_the_defaults_that_sagemaker_documents(base: Path) -> None:
    write(base, "inputdataconfig", {"train": {}})
    channel = read_job(base).channels["train"]
    assert (channel.name, channel.input_mode, channel.content_type.name) == ("train", "File", "")


def test_all_fields_of_a_channel_are_read(base: Path) -> None:
    fields = {"ContentType": "Text/CSV; label_size=1", "TrainingInputMode": "FastFile", "RecordWrapperType": "None"}
    write(base, "inputdataconfig", {"my.channel-1_0": fields})
    channel = read_job(base).channels["my.channel-1_0"]
    assert channel.directory.name == "my.channel-1_0"
    assert channel.input_mode == "FastFile"
    assert (channel.content_type.name, channel.content_type.parameters) == ("text/csv", {"label_size": "1"})


@pytest.mark.parametrize(("declared", "is_wrapped"), [("RecordIO", True), ("None", False), (None, False)])
def test_a_channel_says_whether_its_objects_are_wrapped(base: Path, declared: str | None, is_wrapped: bool) -> None:
    write(base, "inputdataconfig", {"train": {"TrainingInputMode": "Pipe", "RecordWrapperType": declared}})
    assert read_job(base).channels["train"].is_wrapped == is_wrapped


@pytest.mark.parametrize(
    ("folders", "channels"),
    [([], []), (["train"], ["train"]), (["test", "train"], ["test", "train"]), (["train", "other"], ["train"])],
)
def test_without_a_configuration_the_folders_are_the_channels(
    base: Path, folders: list[str], channels: list[str]
) -> None:
    for folder in folders:
        (base / "input" / "data" / folder).mkdir()
    (base / "input" / "data" / "train-manifest").write_text("")
    assert sorted(read_job(base).channels) == channels


def test_folder_not_named_in_the_configuration_is_not_a_channel(base: Path) -> None:
    (base / "input" / "data" / "test").mkdir()
    write(base, "inputdataconfig", {"train": {}})
    assert list(read_job(base).channels) == ["train"]


@pytest.mark.parametrize(
    ("fields", "hosts"),
    [
        ({}, HostNames("algo-1", ("algo-1",))),
        ({"current_host": "algo-2"}, HostNames("algo-2", ("algo-2",))),
        ({"current_host": "a", "hosts": ["a"]}, HostNames("a", ("a",))),
        ({"current_host": "a", "hosts": []}, HostNames("a", ("a",))),
        ({"current_host": "algo-2", "hosts": ["algo-1", "algo-10", "algo-2"]}, None),
        (
            {"current_host": "a", "hosts": ["a"], "topology": None, "network_interface_name": "eth0"},
            HostNames("a", ("a",)),
        ),
    ],
)
def test_hosts_keep_the_order_that_sagemaker_gives_them(
    base: Path, fields: dict[str, object], hosts: HostNames | None
) -> None:
    write(base, "resourceconfig", fields)
    assert read_job(base).hosts == (hosts or HostNames("algo-2", ("algo-1", "algo-10", "algo-2")))


@pytest.mark.parametrize("current", ["algo-1", "algo-10", "algo-2"])
def test_the_leader_is_the_first_by_name(base: Path, current: str) -> None:
    names = ["algo-2", "algo-10", "algo-1"]
    write(base, "resourceconfig", {"current_host": current, "hosts": names, "network_interface_name": "ethwe"})
    hosts = read_job(base).hosts
    assert hosts == read_hosts(base)
    assert (hosts.leader, hosts.interface) == ("algo-1", "ethwe")
    assert hosts.rank == ["algo-1", "algo-10", "algo-2"].index(current)


@pytest.mark.parametrize("name", ["hyperparameters", "inputdataconfig", "resourceconfig"])
@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{", "expected JSON, but "),
        ("", "expected JSON, but "),
        ("[]", r"expected a JSON object, found '\[\]'"),
        ("7", "expected a JSON object, found '7'"),
        ("null", "expected a JSON object, found 'None'"),
    ],
)
def test_file_that_is_not_a_json_object_is_named(base: Path, name: str, content: str, problem: str) -> None:
    path = write(base, name, content)
    with pytest.raises(SettingError, match=problem) as caught:
        read_job(base)
    assert str(path) in str(caught.value)


def test_a_file_that_is_a_folder_is_named(base: Path) -> None:
    (base / "input" / "config" / "hyperparameters.json").mkdir()
    with pytest.raises(SettingError, match=r"hyperparameters\.json can't be read: Is a directory"):
        read_job(base)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("inputdataconfig", {"train": "x"}, "expected an object for channel 'train', found 'x'"),
        ("inputdataconfig", {"train": {"ContentType": 1}}, "expected a text for ContentType, found '1'"),
        ("inputdataconfig", {"train": {"TrainingInputMode": []}}, "expected a text for TrainingInputMode"),
        ("resourceconfig", {"current_host": 1}, "expected a text for current_host, found '1'"),
        ("resourceconfig", {"hosts": "algo-1"}, "expected a list of names for hosts, found 'algo-1'"),
        ("resourceconfig", {"hosts": [1]}, "expected a list of names for hosts"),
        ("resourceconfig", {"network_interface_name": 1}, "expected a text for network_interface_name, found '1'"),
        ("resourceconfig", {"hosts": ["a", "a"], "current_host": "a"}, "expected each host once"),
        ("resourceconfig", {"hosts": ["-a"], "current_host": "-a"}, "expected a host's name of letters"),
        ("resourceconfig", {"hosts": ["a..b"], "current_host": "a..b"}, "expected a host's name of letters"),
        ("resourceconfig", {"hosts": ["a" * 64], "current_host": "a" * 64}, "at most 63 of them between dots"),
        ("resourceconfig", {"hosts": ["a;b"], "current_host": "a;b"}, "expected a host's name of letters"),
        ("resourceconfig", {"hosts": ["b"], "current_host": "a"}, "current_host is 'a', which is not among the hosts"),
    ],
)
def test_a_field_of_the_wrong_type_is_named(base: Path, name: str, content: object, problem: str) -> None:
    path = write(base, name, content)
    with pytest.raises(SettingError, match=problem) as caught:
        read_job(base)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["ContentType", "TrainingInputMode"])
def test_null_in_a_channel_is_the_default(base: Path, name: str) -> None:
    write(base, "inputdataconfig", {"train": {name: None}})
    channel = read_job(base).channels["train"]
    assert (channel.input_mode, channel.content_type.name) == ("File", "")


@pytest.mark.parametrize("name", ["A", "Algo-1", "7", "a_b", "_a", "a.b.c", "a" * 63, f"{'a' * 63}.{'b' * 63}"])
def test_hosts_may_have_any_name_that_can_be_looked_up(base: Path, name: str) -> None:
    write(base, "resourceconfig", {"current_host": name, "hosts": ["z", name]})
    assert read_job(base).hosts.names == (name, "z")
