"""The server's settings, from the environment."""

from pathlib import Path

import pytest

from kmeans.errors import SettingError
from serve.settings import Settings


def test_an_empty_environment_gives_what_sagemaker_expects() -> None:
    assert Settings.from_environment({}, cpus=3) == Settings(
        model_directory=Path("/opt/ml/model"),
        port=8080,
        workers=3,
        max_payload_bytes=25 << 20,
        default_accept="application/json",
    )


@pytest.mark.parametrize(
    ("name", "text", "attribute", "value"),
    [
        ("SAGEMAKER_BASE_DIR", "/somewhere", "model_directory", Path("/somewhere/model")),
        ("SAGEMAKER_BIND_TO_PORT", "9090", "port", 9090),
        ("SAGEMAKER_BIND_TO_PORT", " 9090 ", "port", 9090),
        ("SAGEMAKER_BIND_TO_PORT", "1", "port", 1),
        ("SAGEMAKER_BIND_TO_PORT", "65535", "port", 65535),
        ("SAGEMAKER_MODEL_SERVER_WORKERS", "1", "workers", 1),
        ("SAGEMAKER_MODEL_SERVER_WORKERS", "64", "workers", 64),
        ("SAGEMAKER_MAX_PAYLOAD_IN_MB", "6", "max_payload_bytes", 6 << 20),
        ("SAGEMAKER_MAX_PAYLOAD_IN_MB", "100", "max_payload_bytes", 100 << 20),
        ("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT", "text/csv", "default_accept", "text/csv"),
    ],
)
def test_a_variable_sets_its_setting_and_no_other(name: str, text: str, attribute: str, value: object) -> None:
    defaults = Settings.from_environment({}, cpus=2)
    found = Settings.from_environment({name: text, "SAGEMAKER_REGION": "eu-west-1", "PATH": "/bin"}, cpus=2)
    assert getattr(found, attribute) == value
    others = [other for other in Settings.__slots__ if other != attribute]
    assert all(getattr(found, other) == getattr(defaults, other) for other in others)


NUMBERS = ("SAGEMAKER_BIND_TO_PORT", "SAGEMAKER_MODEL_SERVER_WORKERS", "SAGEMAKER_MAX_PAYLOAD_IN_MB")


@pytest.mark.parametrize("name", [*NUMBERS, "SAGEMAKER_BASE_DIR", "SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT"])
def test_an_empty_variable_is_none(name: str) -> None:
    assert Settings.from_environment({name: ""}, cpus=2) == Settings.from_environment({}, cpus=2)


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize(
    "text", ["0", "-1", "+1", "1.5", "1e1", "two", "0x10", "1_0", "\u0663", "\u00b2", "65536", "9" * 1000]
)
def test_a_number_that_cant_be_meant_is_refused_with_its_range(name: str, text: str) -> None:
    with pytest.raises(SettingError, match=f"{name}: expected an integer from 1 to ") as caught:
        Settings.from_environment({name: text}, cpus=2)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("text", ["image/png", "csvs", "text/csv;q=0"])
def test_a_default_answer_that_cant_be_given_is_refused(text: str) -> None:
    with pytest.raises(SettingError, match="SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT"):
        Settings.from_environment({"SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT": text}, cpus=2)
