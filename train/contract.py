"""SageMaker's training contract: what lies where under ``/opt/ml``, and what the three configuration files say.

Every file and every field may be missing and then has the default that SageMaker documents or local runs need
(SageMaker developer guide, "How Amazon SageMaker Provides Training Information").
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from kmeans.errors import SettingError, shown
from kmeans.formats.media_type import MediaType

HYPERPARAMETERS_FILE = "hyperparameters.json"
TRAIN_CHANNEL, TEST_CHANNEL = "train", "test"


@dataclass(frozen=True, slots=True)
class Channel:
    """One named source of data.

    Attributes
    ----------
    name
        As in the training job's request.
    directory
        Where its files lie in File and FastFile mode.
    content_type
        Media type; its name is empty where the job gives none.
    input_mode
        ``File``, ``FastFile`` or ``Pipe``.
    """

    name: str
    directory: Path
    content_type: MediaType
    input_mode: str


@dataclass(frozen=True, slots=True)
class Hosts:
    """The machines of the job.

    Attributes
    ----------
    current
        Name of this machine.
    names
        Names of all, sorted as SageMaker sorts them; the first is the leader.
    """

    current: str = "algo-1"
    names: tuple[str, ...] = ("algo-1",)


@dataclass(frozen=True, slots=True)
class Job:
    """What SageMaker tells a training container.

    Attributes
    ----------
    base
        ``/opt/ml``, or where it was moved to.
    hyperparameters
        As they came, name to text.
    channels
        By name.
    hosts
        The machines that take part.
    """

    base: Path
    hyperparameters: Mapping[str, str]
    channels: Mapping[str, Channel]
    hosts: Hosts

    @property
    def hyperparameters_file(self) -> Path:
        """Where the hyperparameters came from."""
        return self.base / "input" / "config" / HYPERPARAMETERS_FILE

    @property
    def model_directory(self) -> Path:
        """Where the model goes; SageMaker packs it into ``model.tar.gz``."""
        return self.base / "model"


def output_directory(base: Path) -> Path:
    """Return where ``failure`` goes; known even if nothing else about the job can be read."""
    return base / "output"


def read_job(base: Path) -> Job:
    """Read the configuration files below ``base``.

    Raises
    ------
    kmeans.errors.SettingError
        If a file is there but is not what the contract says it is; the error names all such files.
    """
    config = base / "input" / "config"
    job = Job(base, {}, {}, Hosts())
    mistakes = []
    for change in (
        lambda: {"hyperparameters": _read_hyperparameters(config / HYPERPARAMETERS_FILE)},
        lambda: {"channels": _read_channels(config / "inputdataconfig.json", base / "input" / "data")},
        lambda: {"hosts": _read_hosts(config / "resourceconfig.json")},
    ):
        try:
            job = replace(job, **change())
        except SettingError as error:
            mistakes.append(str(error))
    if mistakes:
        raise SettingError(" ".join(mistakes))
    return job


def _read_hyperparameters(path: Path) -> dict[str, str]:
    # SageMaker sends texts only; in a file written by hand a number or a list is clear enough.
    return {
        name: value if isinstance(value, str) else orjson.dumps(value).decode()
        for name, value in (_read_object(path) or {}).items()
    }


def _read_channels(path: Path, data: Path) -> dict[str, Channel]:
    configured = _read_object(path)
    if configured is None:
        configured = {name: {} for name in (TRAIN_CHANNEL, TEST_CHANNEL) if (data / name).is_dir()}
    channels = {}
    for name, fields in configured.items():
        if not isinstance(fields, dict):
            raise SettingError(f"{path}: expected an object for channel {shown(name)}, found {shown(fields)}.")
        channels[name] = Channel(
            name=name,
            directory=data / name,
            content_type=MediaType.parse(_text(path, fields, "ContentType", "")),
            input_mode=_text(path, fields, "TrainingInputMode", "File"),
        )
    return channels


def _read_hosts(path: Path) -> Hosts:
    fields = _read_object(path) or {}
    current = _text(path, fields, "current_host", Hosts().current)
    names = fields.get("hosts") or [current]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise SettingError(f"{path}: expected a list of names for hosts, found {shown(names)}.")
    if current not in names:
        raise SettingError(f"{path}: current_host is {shown(current)}, which is not among the hosts {shown(names)}.")
    return Hosts(current, tuple(names))


def _read_object(path: Path) -> dict[str, Any] | None:
    try:
        content = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SettingError(f"{path} can't be read: {error.strerror}.") from None
    except orjson.JSONDecodeError as error:
        raise SettingError(f"{path}: expected JSON, but {error}.") from None
    if not isinstance(content, dict):
        raise SettingError(f"{path}: expected a JSON object, found {shown(content)}.")
    return content


def _text(path: Path, fields: dict[str, Any], name: str, default: str) -> str:
    value = fields.get(name)
    if value is None:
        return default
    if not isinstance(value, str):
        raise SettingError(f"{path}: expected a text for {name}, found {shown(value)}.")
    return value
