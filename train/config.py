"""SageMaker's training contract: the layout of ``/opt/ml``, and the configuration files in it.

Every file and every field may be missing; defaults are those that SageMaker documents or that local runs need
(SageMaker developer guide, "How Amazon SageMaker Provides Training Information").
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from kmeans.errors import SettingError, shown
from kmeans.formats.media_type import MediaType

HYPERPARAMETERS_FILE = "hyperparameters.json"

# SageMaker's folder. A path below it in a configuration file is taken relative to the base of the job.
USUAL_BASE = Path("/opt/ml")

TRAIN_CHANNEL, TEST_CHANNEL, MODEL_CHANNEL = "train", "test", "model"
# DNS limits a label to 63 characters.
HOST_NAME = re.compile(r"(?=.{1,253}$)[A-Za-z0-9_][A-Za-z0-9_-]{0,62}(\.[A-Za-z0-9_-]{1,63})*")
PIPE_MODE = "Pipe"


@dataclass(frozen=True, slots=True)
class Channel:
    """One named source of data.

    Attributes
    ----------
    name
        Name in the request of the training job.
    directory
        Folder of its files in File and FastFile mode; in Pipe mode its FIFOs are next to it.
    content_type
        Media type; its name is empty if the job gives none.
    input_mode
        ``File``, ``FastFile`` or ``Pipe``.
    is_sharded
        Whether each host has its own objects (``ShardedByS3Key``); otherwise all hosts have all objects.
    is_wrapped
        Whether each object is in its own RecordIO record (``RecordWrapperType``), which happens in Pipe mode only.
    """

    name: str
    directory: Path
    content_type: MediaType
    input_mode: str
    is_sharded: bool = False
    is_wrapped: bool = False

    @property
    def is_pipe(self) -> bool:
        """Whether its data are read from FIFOs, once."""
        return self.input_mode == PIPE_MODE


@dataclass(frozen=True, slots=True)
class HostNames:
    """The machines of the job.

    Attributes
    ----------
    current
        Name of this machine.
    names
        Names of all, sorted.
    interface
        Name of the network interface between them; on some platforms it does not exist.
    """

    current: str = "algo-1"
    names: tuple[str, ...] = ("algo-1",)
    interface: str = "eth0"

    @property
    def leader(self) -> str:
        """The first name, by SageMaker's convention."""
        return self.names[0]

    @property
    def rank(self) -> int:
        """Number of this machine among all, from 0."""
        return self.names.index(self.current)


@dataclass(frozen=True, slots=True)
class Job:
    """The configuration of a training job.

    Attributes
    ----------
    base
        ``/opt/ml``, or the folder that replaces it.
    hyperparameters
        Name to text, not parsed.
    channels
        Name to channel.
    hosts
        The machines of the job.
    checkpoint_path
        Folder for checkpoints from ``checkpointconfig.json``; None if it names none.
    """

    base: Path
    hyperparameters: Mapping[str, str]
    channels: Mapping[str, Channel]
    hosts: HostNames
    checkpoint_path: Path | None = None

    @property
    def hyperparameters_file(self) -> Path:
        """Path of the file with the hyperparameters."""
        return self.base / "input" / "config" / HYPERPARAMETERS_FILE

    @property
    def checkpoint_directory(self) -> Path | None:
        """Folder for checkpoints: from ``checkpointconfig.json``, or ``checkpoints`` if that exists, or None."""
        if self.checkpoint_path is not None:
            return self.checkpoint_path
        usual = self.base / "checkpoints"
        return usual if usual.is_dir() else None

    @property
    def model_directory(self) -> Path:
        """Folder for the model, which SageMaker packs into ``model.tar.gz``."""
        return self.base / "model"


def output_directory(base: Path) -> Path:
    """Return the folder for the file ``failure``, which does not depend on the configuration."""
    return base / "output"


def read_job(base: Path) -> Job:
    """Read the configuration files below ``base``.

    Raises
    ------
    kmeans.errors.SettingError
        If a file exists but violates the contract; the error names all such files.
    """
    config = base / "input" / "config"
    job = Job(base, {}, {}, HostNames())
    mistakes = []
    for change in (
        lambda: {"hyperparameters": _read_hyperparameters(config / HYPERPARAMETERS_FILE)},
        lambda: {"channels": _read_channels(config / "inputdataconfig.json", base / "input" / "data")},
        lambda: {"hosts": read_hosts(base)},
        lambda: {"checkpoint_path": _read_checkpoint_path(config / "checkpointconfig.json", base)},
    ):
        try:
            job = replace(job, **change())
        except SettingError as error:
            mistakes.append(str(error))
    if mistakes:
        raise SettingError(" ".join(mistakes))
    return job


def _read_hyperparameters(path: Path) -> dict[str, str]:
    # SageMaker sends texts only; files written by hand may have numbers and lists.
    return {
        name: value if isinstance(value, str) else orjson.dumps(value).decode()
        for name, value in (_read_object(path) or {}).items()
    }


def _read_channels(path: Path, data: Path) -> dict[str, Channel]:
    configured = _read_object(path)
    if configured is None:
        configured = {name: {} for name in (TRAIN_CHANNEL, TEST_CHANNEL, MODEL_CHANNEL) if (data / name).is_dir()}
    channels = {}
    for name, fields in configured.items():
        if not isinstance(fields, dict):
            raise SettingError(f"{path}: expected an object for channel {shown(name)}, found {shown(fields)}.")
        channels[name] = Channel(
            name=name,
            directory=data / name,
            content_type=MediaType.parse(_text(path, fields, "ContentType", "")),
            input_mode=_text(path, fields, "TrainingInputMode", "File"),
            is_sharded=_text(path, fields, "S3DistributionType", "FullyReplicated") == "ShardedByS3Key",
            is_wrapped=_text(path, fields, "RecordWrapperType", "None") == "RecordIO",
        )
    return channels


def _read_checkpoint_path(path: Path, base: Path) -> Path | None:
    local = _text(path, _read_object(path) or {}, "LocalPath", "")
    if not local:
        return None
    folder = Path(local)
    return base / folder.relative_to(USUAL_BASE) if folder.is_relative_to(USUAL_BASE) else folder


def read_hosts(base: Path) -> HostNames:
    """Read only the machines of the job below ``base``.

    Raises
    ------
    kmeans.errors.SettingError
        If the file exists but violates the contract, or a name can't be that of a machine.
    """
    path = base / "input" / "config" / "resourceconfig.json"
    fields = _read_object(path) or {}
    current = _text(path, fields, "current_host", HostNames().current)
    interface = _text(path, fields, "network_interface_name", HostNames().interface)
    names = fields.get("hosts") or [current]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise SettingError(f"{path}: expected a list of names for hosts, found {shown(names)}.")
    if current not in names:
        raise SettingError(f"{path}: current_host is {shown(current)}, which is not among the hosts {shown(names)}.")
    for name in names:
        # Host names are passed to programs as arguments.
        if not HOST_NAME.fullmatch(name):
            raise SettingError(
                f"{path}: expected a host's name of letters, digits and hyphens, at most 63 of them between dots, "
                f"found {shown(name)}."
            )
    if len(set(names)) < len(names):
        raise SettingError(f"{path}: expected each host once, found {shown(names)}.")
    return HostNames(current, tuple(sorted(names)), interface)


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
