"""A training job, from ``/opt/ml/input`` to ``/opt/ml/model``, in one page."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from kmeans import artifact
from kmeans.errors import SettingError
from kmeans.estimator import Fitted, fit
from kmeans.machine import peak_memory
from kmeans.model import KMeansModel
from kmeans.rows import Rows, bytes_per_row, load
from kmeans.workers import Workers
from train import hyperparameters
from train.channels import ChannelReader
from train.contract import TEST_CHANNEL, TRAIN_CHANNEL, Channel, Hosts, Job, read_job
from train.hyperparameters import Hyperparameters
from train.metrics import JobLog

# Share of the memory that rows may take; and what of it is left to the interpreter, to NumPy and to buffers.
ROWS_SHARE, RESERVED_BYTES = 0.7, 192 << 20


def run(base: Path, threads: int, memory: int, log: JobLog) -> None:
    """Run the job that ``base`` (``/opt/ml``) describes, with ``threads`` threads and ``memory`` bytes.

    Raises
    ------
    kmeans.errors.KMeansError
        If anything is wrong with the configuration, the data or the disk; nothing is left in the model directory then.
    """
    job = read_job(base)
    log.host = job.hosts.current
    log.say(f"Merging with provided configuration from {job.hyperparameters_file}: {_json(job.hyperparameters)}")
    wanted = hyperparameters.parse(job.hyperparameters)
    log.say(f"Final configuration: {_json(wanted.values)}")
    check_hosts(job.hosts)
    budget = int(ROWS_SHARE * max(0, memory - RESERVED_BYTES))
    rows = _read(required_channel(job), wanted.feature_dim, budget, wanted, log)
    # Read before the fit: what is wrong with it shall not come out hours later.
    budget -= len(rows.in_memory) * bytes_per_row(rows.features)
    test_rows = _read_test_channel(job, rows.features, budget, wanted, log)
    log.say(f"training on {len(rows)} rows x {rows.features} columns with {threads} threads")
    if wanted.mini_batch_size > len(rows):
        log.say(
            f"Batch size {wanted.mini_batch_size} is bigger than the first batch data. "
            f"Effective batch size used to initialize is {len(rows)}",
            "WARNING",
        )
    with Workers(threads) as workers:
        fitted = fit(rows, wanted.settings, workers=workers, observer=log)
    metrics = _report(fitted, log)
    if test_rows is not None:
        metrics |= _score(test_rows, fitted.model, wanted, log)
    card = {"hyperparameters": wanted.values, "rows": len(rows), "metrics": metrics}
    with _stage("write", log):
        artifact.save(KMeansModel(fitted.model.centers, fitted.model.counts, card), job.model_directory)
    log.say(f"wrote the model to {job.model_directory}: {artifact.CENTERS_FILE}, {artifact.CARD_FILE}")
    log.finish(peak_memory())


def check_hosts(hosts: Hosts) -> None:
    """Raise a SettingError if there is more than one host."""
    if len(hosts.names) > 1:
        raise SettingError(
            f"The job has {len(hosts.names)} hosts, and this version trains on one: set the instance count to 1."
        )


def required_channel(job: Job) -> Channel:
    """Return the channel ``train``; raise a SettingError if there is none."""
    if TRAIN_CHANNEL in job.channels:
        return job.channels[TRAIN_CHANNEL]
    found = f"found {', '.join(sorted(job.channels))}" if job.channels else "and the job has none"
    raise SettingError(f"There is no training data: expected a channel named {TRAIN_CHANNEL}, {found}.")


def _read(channel: Channel, feature_dim: int | None, budget: int, wanted: Hyperparameters, log: JobLog) -> Rows:
    """Read a channel into at most ``budget`` bytes of memory."""
    started = time.perf_counter()
    reader = ChannelReader(channel, feature_dim, lambda done, files: log.reading(channel.name, done, files))
    with _stage("read", log):
        rows = load(reader.blocks, budget, wanted.mini_batch_size, wanted.settings.seed)
    labels = f", the first {reader.label_columns} taken as labels" if reader.label_columns else ""
    log.say(
        f"read channel {channel.name}: {len(rows)} rows x {rows.features} columns{labels} from "
        f"{reader.files} file(s) of {reader.content_type}, {reader.bytes / 1e6:.1f} MB in "
        f"{time.perf_counter() - started:.3f} secs"
    )
    held = len(rows.in_memory)
    if held < len(rows):
        log.say(
            f"channel {channel.name} is larger than the {budget / 1e6:.0f} MB of memory for rows: {held} rows drawn at "
            "random are kept, and passes over all rows read the files again"
        )
    return rows


def _report(fitted: Fitted, log: JobLog) -> dict[str, Any]:
    counts = fitted.model.counts
    assert counts is not None, "a fit counts its rows"  # noqa: S101 - for the type checker
    log.say(f"refined the centers {fitted.refinements} times; empty clusters: {int((counts == 0).sum())}")
    log.quality("train", "mean_squared_distance", fitted.mean_squared_distance)
    log.quality("train", "smallest_cluster", int(counts.min()))
    log.quality("train", "largest_cluster", int(counts.max()))
    return {
        "train:msd": fitted.shrink_loss,
        "train:mean_squared_distance": fitted.mean_squared_distance,
        "train:smallest_cluster": int(counts.min()),
        "train:largest_cluster": int(counts.max()),
        "streaming_centers": fitted.streaming_centers,
        "refinements": fitted.refinements,
    }


def _read_test_channel(job: Job, features: int, budget: int, wanted: Hyperparameters, log: JobLog) -> Rows | None:
    if TEST_CHANNEL not in job.channels:
        log.say("Test data is not provided.")
        return None
    return _read(job.channels[TEST_CHANNEL], features, budget, wanted, log)


def _score(rows: Rows, model: KMeansModel, wanted: Hyperparameters, log: JobLog) -> dict[str, float]:
    """Score the rows of the test channel: ``ssd`` is their inertia, ``msd`` the same per row."""
    with _stage("score", log):
        inertia = sum(model.score(block) for block in rows.blocks())
    scores = {"msd": inertia / len(rows), "ssd": inertia}
    for metric in wanted.eval_metrics:
        log.quality("test", metric, scores[metric])
    return {f"test:{metric}": scores[metric] for metric in wanted.eval_metrics}


@contextmanager
def _stage(name: str, log: JobLog) -> Iterator[None]:
    started = time.perf_counter()
    yield
    log.phase_done(phase=name, seconds=time.perf_counter() - started)


def _json(values: object) -> str:
    return orjson.dumps(values).decode()
