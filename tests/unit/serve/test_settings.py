"""The server's settings, from the environment."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from kmeans.errors import SettingError
from serve.settings import Settings


def test_settings_of_an_empty_environment_are_sagemakers() -> None:
    assert Settings.from_environment({}, cpus=3) == Settings(
        model_directory=Path("/opt/ml/model"),
        models_directory=Path("/opt/ml/models"),
        port=8080,
        workers=3,
        threads=4,
        large_bodies=1,
        max_payload_bytes=25 << 20,
        default_accept="application/json",
    )


@pytest.mark.parametrize(
    ("name", "text", "changed"),
    [
        (
            "SAGEMAKER_BASE_DIR",
            "/somewhere",
            {"model_directory": Path("/somewhere/model"), "models_directory": Path("/somewhere/models")},
        ),
        ("SAGEMAKER_BIND_TO_PORT", "9090", {"port": 9090}),
        ("SAGEMAKER_BIND_TO_PORT", " 9090 ", {"port": 9090}),
        ("SAGEMAKER_BIND_TO_PORT", "1", {"port": 1}),
        ("SAGEMAKER_BIND_TO_PORT", "65535", {"port": 65535}),
        ("SAGEMAKER_MODEL_SERVER_WORKERS", "1", {"workers": 1, "large_bodies": 2}),
        ("SAGEMAKER_MODEL_SERVER_WORKERS", "64", {"workers": 64}),
        ("SAGEMAKER_MAX_PAYLOAD_IN_MB", "6", {"max_payload_bytes": 6 << 20, "is_payload_chosen": True}),
        ("SAGEMAKER_MAX_PAYLOAD_IN_MB", "100", {"max_payload_bytes": 100 << 20, "is_payload_chosen": True}),
        ("SAGEMAKER_MAX_PAYLOAD_IN_MB", "0", {"max_payload_bytes": 1024 << 20}),
        ("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT", "text/csv", {"default_accept": "text/csv"}),
        ("SAGEMAKER_BATCH", "true", {"is_batch": True, "max_payload_bytes": 100 << 20}),
        ("SAGEMAKER_BATCH", "True", {"is_batch": True, "max_payload_bytes": 100 << 20}),
        ("SAGEMAKER_BATCH", "false", {}),
        ("SAGEMAKER_BATCH_STRATEGY", "SINGLE_RECORD", {}),
        ("SAGEMAKER_BATCH_STRATEGY", "MultiRecord", {}),
        ("SAGEMAKER_MAX_CONCURRENT_TRANSFORMS", "8", {"max_concurrent_transforms": 8}),
        ("SAGEMAKER_MULTI_MODEL", "true", {"is_multi_model": True, "workers": 1, "threads": 8, "large_bodies": 2}),
        ("KMEANS_BAD_ROWS", "placeholder", {"bad_rows_become_placeholders": True}),
        ("KMEANS_BAD_ROWS", "error", {}),
    ],
)
def test_variable_changes_only_its_setting(name: str, text: str, changed: dict[str, Any]) -> None:
    defaults = Settings.from_environment({}, cpus=2)
    found = Settings.from_environment({name: text, "SAGEMAKER_REGION": "eu-west-1", "PATH": "/bin"}, cpus=2)
    assert found == dataclasses.replace(defaults, **changed)


def test_batch_payload_limit_is_the_users() -> None:
    environment = {"SAGEMAKER_BATCH": "True", "SAGEMAKER_MAX_PAYLOAD_IN_MB": "6"}
    assert Settings.from_environment(environment, cpus=2).max_payload_bytes == 6 << 20


def test_multi_model_endpoint_has_one_worker() -> None:
    environment = {"SAGEMAKER_MULTI_MODEL": "true", "SAGEMAKER_MODEL_SERVER_WORKERS": "4"}
    assert Settings.from_environment(environment, cpus=4).workers == 1


NUMBERS = {
    "SAGEMAKER_BIND_TO_PORT": "from 1 to 65535",
    "SAGEMAKER_MODEL_SERVER_WORKERS": "from 1 to 1024",
    "SAGEMAKER_MAX_PAYLOAD_IN_MB": "from 0 to 1024",
    "SAGEMAKER_MAX_CONCURRENT_TRANSFORMS": "from 0 to 1048576",
}
CHOICES = ("SAGEMAKER_BATCH", "SAGEMAKER_MULTI_MODEL", "SAGEMAKER_BATCH_STRATEGY", "KMEANS_BAD_ROWS")


@pytest.mark.parametrize("name", [*NUMBERS, *CHOICES, "SAGEMAKER_BASE_DIR", "SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT"])
def test_empty_variable_is_ignored(name: str) -> None:
    assert Settings.from_environment({name: ""}, cpus=2) == Settings.from_environment({}, cpus=2)


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize(
    "text", ["-1", "+1", "1.5", "1e1", "two", "0x10", "1_0", "\u0663", "\u00b2", "1048577", "9" * 1000]
)
def test_invalid_number_is_refused_with_its_range(name: str, text: str) -> None:
    with pytest.raises(SettingError, match=f"{name}: expected an integer {NUMBERS[name]}, found ") as caught:
        Settings.from_environment({name: text}, cpus=2)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("name", ["SAGEMAKER_BIND_TO_PORT", "SAGEMAKER_MODEL_SERVER_WORKERS"])
def test_zero_port_or_workers_is_refused(name: str) -> None:
    with pytest.raises(SettingError, match=name):
        Settings.from_environment({name: "0"}, cpus=2)


@pytest.mark.parametrize("name", CHOICES)
@pytest.mark.parametrize("text", ["yes", "1", "TRUE", "x" * 1000])
def test_invalid_choice_is_refused_with_the_choices(name: str, text: str) -> None:
    with pytest.raises(SettingError, match=f"{name}: expected one of ") as caught:
        Settings.from_environment({name: text}, cpus=2)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("text", ["image/png", "csvs", "text/csv;q=0"])
def test_unsupported_default_accept_is_refused(text: str) -> None:
    with pytest.raises(SettingError, match="SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT"):
        Settings.from_environment({"SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT": text}, cpus=2)
