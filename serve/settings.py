"""The server's settings, read from the environment, as one typed object."""

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

# SageMaker's own limits: 25 MB for an endpoint, up to 100 MB in a batch transform.
DEFAULT_MAX_PAYLOAD_MB = 25
BATCH_MAX_PAYLOAD_MB = 100

# An asynchronous endpoint takes inputs of up to 1 GB. Nothing larger is ever sent.
LARGEST_PAYLOAD_MB = 1024

# Requests that a worker answers at the same time; others wait for a thread.
THREADS_PER_WORKER = 4

BATCH_STRATEGIES = ("SINGLE_RECORD", "MULTI_RECORD", "SingleRecord", "MultiRecord")
BAD_ROWS = ("error", "placeholder")


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of a server.

    Attributes
    ----------
    model_directory
        Directory of the model, ``<SAGEMAKER_BASE_DIR>/model``.
    models_directory
        Parent directory of a multi-model endpoint's models, ``<SAGEMAKER_BASE_DIR>/models``.
    port
        ``SAGEMAKER_BIND_TO_PORT``.
    workers
        ``SAGEMAKER_MODEL_SERVER_WORKERS``: number of processes; by default one for each usable CPU. Always 1 for a
        multi-model endpoint.
    threads
        Requests that a worker answers at the same time.
    large_bodies
        How many of these may have a body of more than a megabyte: one for each CPU of a worker.
    max_payload_bytes
        ``SAGEMAKER_MAX_PAYLOAD_IN_MB`` times 2^20: longer request bodies are refused. By default 25, in a batch
        transform 100; 0 means that SageMaker sets no limit, and becomes 1024. ``/execution-parameters`` reports it.
    default_accept
        ``SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT``: media type of answers to requests without Accept.
    is_batch
        ``SAGEMAKER_BATCH``: the server works for a batch transform.
    is_multi_model
        ``SAGEMAKER_MULTI_MODEL``: models are loaded and unloaded while the server runs.
    max_concurrent_transforms
        ``SAGEMAKER_MAX_CONCURRENT_TRANSFORMS``: requests that a batch transform sends at the same time; None if not
        set.
    is_payload_chosen
        Whether ``SAGEMAKER_MAX_PAYLOAD_IN_MB`` sets a limit, so that a batch transform must not choose a smaller one.
    bad_rows_become_placeholders
        ``KMEANS_BAD_ROWS``: ``placeholder`` answers invalid rows with null, ``error`` (the default) refuses the
        request.
    """

    model_directory: Path
    models_directory: Path
    port: int
    workers: int
    threads: int
    large_bodies: int
    max_payload_bytes: int
    default_accept: str
    is_batch: bool = False
    is_multi_model: bool = False
    max_concurrent_transforms: int | None = None
    is_payload_chosen: bool = False
    bad_rows_become_placeholders: bool = False

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], cpus: int) -> Settings:
        """Return the settings in ``environment``; ``cpus`` is the default number of workers.

        Raises
        ------
        kmeans.errors.SettingError
            If a variable has an invalid value.
        """
        default_accept = environment.get("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT") or DEFAULT_ACCEPT
        try:
            answer_type(None, default_accept)
        except NotAcceptableError as error:
            raise SettingError(f"SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT: {error}.") from None
        base = Path(environment.get("SAGEMAKER_BASE_DIR") or DEFAULT_BASE)
        is_batch = _truth(environment, "SAGEMAKER_BATCH")
        is_multi_model = _truth(environment, "SAGEMAKER_MULTI_MODEL")
        usual = BATCH_MAX_PAYLOAD_MB if is_batch else DEFAULT_MAX_PAYLOAD_MB
        megabytes = _integer(environment, "SAGEMAKER_MAX_PAYLOAD_IN_MB", 0, LARGEST_PAYLOAD_MB)
        workers = _integer(environment, "SAGEMAKER_MODEL_SERVER_WORKERS", 1, 1024)
        port = _integer(environment, "SAGEMAKER_BIND_TO_PORT", 1, 65535)
        _choice(environment, "SAGEMAKER_BATCH_STRATEGY", BATCH_STRATEGIES)
        # Several processes could not share a changing table of models.
        workers = 1 if is_multi_model else workers or cpus
        return cls(
            model_directory=base / "model",
            models_directory=base / "models",
            port=DEFAULT_PORT if port is None else port,
            workers=workers,
            threads=THREADS_PER_WORKER * (cpus if is_multi_model else 1),
            large_bodies=max(1, cpus // workers),
            max_payload_bytes=(usual if megabytes is None else megabytes or LARGEST_PAYLOAD_MB) << 20,
            default_accept=default_accept,
            is_batch=is_batch,
            is_multi_model=is_multi_model,
            max_concurrent_transforms=_integer(environment, "SAGEMAKER_MAX_CONCURRENT_TRANSFORMS", 0, 1 << 20) or None,
            is_payload_chosen=bool(megabytes),
            bad_rows_become_placeholders=_choice(environment, "KMEANS_BAD_ROWS", BAD_ROWS) == "placeholder",
        )


def _integer(environment: Mapping[str, str], name: str, minimum: int, maximum: int) -> int | None:
    text = environment.get(name, "").strip()
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or not minimum <= int(text) <= maximum:
        raise SettingError(f"{name}: expected an integer from {minimum} to {maximum}, found {shown(text)}.")
    return int(text)


def _truth(environment: Mapping[str, str], name: str) -> bool:
    # The service writes "true", the SDK's local mode "True".
    return (_choice(environment, name, ("true", "false", "True", "False")) or "").lower() == "true"


def _choice(environment: Mapping[str, str], name: str, choices: tuple[str, ...]) -> str | None:
    text = environment.get(name, "").strip()
    if text and text not in choices:
        raise SettingError(f"{name}: expected one of {', '.join(choices)}, found {shown(text)}.")
    return text or None
