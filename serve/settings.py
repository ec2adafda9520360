"""What the server can be told through the environment, as one typed object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kmeans.errors import SettingError, shown
from kmeans.formats.media_type import JSON
from serve.negotiation import NotAcceptableError, answer_type

DEFAULT_BASE = "/opt/ml"
DEFAULT_PORT = 8080
DEFAULT_ACCEPT = JSON

# SageMaker's own limits: 25 MB for an endpoint, up to 100 MB in a batch transform, which sets the variable.
DEFAULT_MAX_PAYLOAD_MB = 25

# Beside a long prediction there must be threads left that answer GET /ping within 2 seconds.
THREADS_PER_WORKER = 4


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of a server.

    Attributes
    ----------
    model_directory
        Where the model lies, ``<SAGEMAKER_BASE_DIR>/model``.
    port
        ``SAGEMAKER_BIND_TO_PORT``.
    workers
        ``SAGEMAKER_MODEL_SERVER_WORKERS``: processes; by default as many as there are CPUs to use.
    max_payload_bytes
        ``SAGEMAKER_MAX_PAYLOAD_IN_MB`` times 2^20: longer request bodies are refused.
    default_accept
        ``SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT``: media type of answers to requests that name none.
    """

    model_directory: Path
    port: int
    workers: int
    max_payload_bytes: int
    default_accept: str

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], cpus: int) -> Settings:
        """Read the settings; ``cpus`` is the default number of workers.

        Raises
        ------
        kmeans.errors.SettingError
            If a variable has a value that can't be meant.
        """
        default_accept = environment.get("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT") or DEFAULT_ACCEPT
        try:
            answer_type(None, default_accept)
        except NotAcceptableError as error:
            raise SettingError(f"SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT: {error}.") from None
        megabytes = _integer(environment, "SAGEMAKER_MAX_PAYLOAD_IN_MB", DEFAULT_MAX_PAYLOAD_MB, 1, 1024)
        return cls(
            model_directory=Path(environment.get("SAGEMAKER_BASE_DIR") or DEFAULT_BASE) / "model",
            port=_integer(environment, "SAGEMAKER_BIND_TO_PORT", DEFAULT_PORT, 1, 65535),
            workers=_integer(environment, "SAGEMAKER_MODEL_SERVER_WORKERS", cpus, 1, 1024),
            max_payload_bytes=megabytes << 20,
            default_accept=default_accept,
        )


def _integer(environment: Mapping[str, str], name: str, default: int, minimum: int, maximum: int) -> int:
    text = environment.get(name, "").strip()
    if not text:
        return default
    if not text.isascii() or not text.isdigit() or not minimum <= int(text) <= maximum:
        raise SettingError(f"{name}: expected an integer from {minimum} to {maximum}, found {shown(text)}.")
    return int(text)
