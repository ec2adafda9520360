"""A training job, from ``/opt/ml/input`` to ``/opt/ml/model``, in one page."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from kmeans import artifact
from kmeans.atomic_file import remove_remains
from kmeans.checkpoint import Checkpoints
from kmeans.collectives import Collectives, SingleHost
from kmeans.dataset import Rows, bytes_per_row
from kmeans.diagnostics import cluster_warnings
from kmeans.errors import KMeansError, ResourceError, SettingError
from kmeans.fitting import Fitted, fit
from kmeans.model import KMeansModel
from kmeans.system import peak_memory
from kmeans.threads import ThreadPool
from train import hyperparameters
from train.checkpoints import FILE_NAMES, CheckpointFolder, Identity
from train.config import MODEL_CHANNEL, TEST_CHANNEL, TRAIN_CHANNEL, Channel, HostNames, Job, read_job
from train.fingerprint import Fingerprint
from train.hyperparameters import Hyperparameters
from train.load import read_share
from train.metrics import JobLog
from train.warm_start import read_model

# Share of the memory that rows may take; and what of it is left to the interpreter, to NumPy and to buffers.
ROWS_SHARE, RESERVED_BYTES = 0.7, 192 << 20

# Rises when states of a fit change, so that a checkpoint of another version is refused in a sentence.
CHECKPOINT_FORMAT = 2

# Rows by which a host knows those in its memory again, and the length of a digest.
DIGEST_ROWS, DIGEST_BYTES = 1000, 8

# Share of the memory that may be used for gathering what all hosts know of their rows; one host alone never needs more
# than 12 of the 100 bytes that a row takes at least.
CHECKPOINT_SHARE = 1 / 8


def run(
    base: Path,
    threads: int,
    memory: int,
    log: JobLog,
    hosts: Collectives | None = None,
    *,
    checkpoint_folder: Path | None = None,
    on_written: Callable[[], None] = lambda: None,
) -> None:
    """Run the job that ``base`` (``/opt/ml``) describes, with ``threads`` threads and ``memory`` bytes.

    With several ``hosts`` each runs it on its share of the rows, and the leader writes the model. A stop that ``log``
    is told of ends the job with the best model so far. A ``checkpoint_folder`` replaces the one of the configuration.
    ``on_written`` is called when the model is written: nothing fails from then on.

    Raises
    ------
    kmeans.errors.KMeansError
        If anything is wrong with the configuration, the data or the disk; nothing is left in the model directory then.
    """
    job, hosts = read_job(base), hosts or SingleHost()
    log.host = job.hosts.current
    log.say(f"Merging with provided configuration from {job.hyperparameters_file}: {_json(job.hyperparameters)}")
    wanted = hyperparameters.parse(job.hyperparameters)
    log.say(f"Final configuration: {_json(wanted.values)}")
    check_hosts(job.hosts, hosts.size)
    _check_told_the_same(job, wanted, hosts)
    folder = checkpoint_folder or job.checkpoint_directory
    if hosts.rank == 0:
        # SageMaker would upload them with the rest.
        remove_remains(job.model_directory, (artifact.CENTERS_FILE, artifact.PRECISE_FILE, artifact.CARD_FILE))
        if folder is not None:
            remove_remains(folder, FILE_NAMES)
    budget = int(ROWS_SHARE * max(0, memory - RESERVED_BYTES))
    start = _read_start(job, wanted, log)
    # The leader's folder is that of all.
    digest = Fingerprint() if hosts.any(hosts.rank == 0 and folder is not None) else None
    rows = read_share(required_channel(job), wanted.feature_dim, budget, wanted, log=log, hosts=hosts, digest=digest)
    # Read before the fit: what is wrong with it shall not come out hours later.
    held = rows.in_memory
    budget -= len(held) * bytes_per_row(rows.features, hosts.size if held.is_dealt else 1)
    test_rows = _read_test_channel(job, rows, budget, wanted, log=log, hosts=hosts)
    log.say(f"training on {len(rows)} rows x {rows.features} columns with {threads} threads")
    if wanted.mini_batch_size > (first := max(len(rows), held.ordered)):
        log.say(
            f"Batch size {wanted.mini_batch_size} is bigger than the first batch data. "
            f"Effective batch size used to initialize is {first}",
            "WARNING",
        )
    checkpoints = None
    if digest is not None:
        identity = _identity(job, rows, wanted, digest=digest, start=start, hosts=hosts)
        checkpoints = _checkpoints(folder, identity, wanted, memory, log=log, hosts=hosts)
    with ThreadPool(threads, log.stop_wanted) as pool:
        fitted = fit(
            rows,
            wanted.settings,
            pool=pool,
            hosts=hosts,
            callbacks=log,
            start=start,
            checkpoints=checkpoints or Checkpoints(),
        )
    metrics = _report(fitted, log, is_leader=hosts.rank == 0)
    warnings = cluster_warnings(fitted.model, fitted.mean_squared_distance)
    for warning in warnings:
        log.say(warning, "WARNING")
    training = {"hyperparameters": wanted.values, "rows": int(hosts.total(len(rows))), "metrics": metrics}
    model = KMeansModel(
        fitted.model.precise_centers,
        fitted.model.counts,
        training | ({"warnings": warnings} if warnings else {}),
        distance_metric=fitted.model.distance_metric,
        coordinates=fitted.model.coordinates,
    )
    if hosts.rank == 0:
        with log.timed("write"):
            artifact.save(model, job.model_directory)
        precise = "" if model.coordinates.is_identity else f"{artifact.PRECISE_FILE}, "
        log.say(f"wrote the model to {job.model_directory}: {artifact.CENTERS_FILE}, {precise}{artifact.CARD_FILE}")
    hosts.barrier()  # no host ends before the model is written
    on_written()
    if fitted.interrupted and checkpoints is not None:
        checkpoints.save()
    if test_rows is not None and not fitted.interrupted:
        metrics |= _score(test_rows, model, wanted, log, hosts)  # a part of what the model says of itself
        if hosts.rank == 0:
            _describe(model, job.model_directory, log)
    log.finish(peak_memory())


def check_hosts(hosts: HostNames, connected: int) -> None:
    """Raise a SettingError if the job has other than so many ``connected`` hosts."""
    if len(hosts.names) != connected:
        raise SettingError(
            f"resourceconfig.json names {len(hosts.names)} hosts, but {connected} train together: each host must be "
            "given the same list of hosts."
        )


def _check_told_the_same(job: Job, wanted: Hyperparameters, hosts: Collectives) -> None:
    """Raise a SettingError on a host that is told another job than the leader: they would wait for each other."""
    told: dict[str, Any] = dict(wanted.values)
    for name, channel in job.channels.items():
        distribution = "sharded" if channel.is_sharded else "replicated"
        told[f"channel {name}"] = f"{distribution} in {channel.input_mode} mode"
    sent = hosts.broadcast(np.frombuffer(_json(told).encode(), dtype=np.uint8))
    mine, leaders = orjson.loads(_json(told)), orjson.loads(sent.tobytes())
    differences = [
        f"{name} is {leaders.get(name, 'missing')} there and {mine.get(name, 'missing')} here"
        for name in sorted({*mine, *leaders})
        if mine.get(name) != leaders.get(name)
    ]
    if differences:
        raise SettingError(
            f"{job.hosts.leader} was given another job: {', '.join(differences)}. All hosts must be given the same "
            "hyperparameters and channels; of a sharded channel some may get no objects."
        )


def required_channel(job: Job) -> Channel:
    """Return the channel ``train``; raise a SettingError if there is none."""
    if TRAIN_CHANNEL in job.channels:
        return job.channels[TRAIN_CHANNEL]
    found = f"found {', '.join(sorted(job.channels))}" if job.channels else "and the job has none"
    raise SettingError(f"There is no training data: expected a channel named {TRAIN_CHANNEL}, {found}.")


def _read_start(job: Job, wanted: Hyperparameters, log: JobLog) -> KMeansModel | None:
    if MODEL_CHANNEL not in job.channels:
        return None
    model = read_model(job.channels[MODEL_CHANNEL], wanted.settings.k, wanted.settings.distance_metric)
    log.say(f"going on from the {model.clusters} centers in channel {MODEL_CHANNEL}")
    return model


def _checkpoints(
    folder: Path | None,
    identity: Identity,
    wanted: Hyperparameters,
    memory: int,
    *,
    log: JobLog,
    hosts: Collectives,
) -> CheckpointFolder:
    return CheckpointFolder(
        folder or Path(),  # of a host that isn't the leader, where it is never used
        wanted.checkpoint_interval,
        identity,
        log.say,
        hosts=hosts,
        max_share_bytes=int(CHECKPOINT_SHARE * memory),
        ignore_others=wanted.ignore_changed_checkpoint,
    )


def _identity(
    job: Job,
    rows: Rows,
    wanted: Hyperparameters,
    *,
    digest: Fingerprint,
    start: KMeansModel | None,
    hosts: Collectives,
) -> Identity:
    """Return by what a checkpoint is known as that of these rows and settings."""
    settings = {
        **wanted.of_the_fit,
        "columns": rows.features,
        "hosts": hosts.size,
        "checkpoint format": CHECKPOINT_FORMAT,
    }
    if start is not None:
        settings[f"channel {MODEL_CHANNEL}"] = _short_digest(start.precise_centers, start.counts).hex()
    if job.channels[TRAIN_CHANNEL].is_pipe:
        return Identity(settings, shares=None)
    # What is known of each row is that of the rows in memory, in their order.
    points = rows.in_memory.points
    mine = _short_digest(np.array([len(points)]), points[:: max(1, len(points) // DIGEST_ROWS)])
    shares = hosts.broadcast(hosts.gather(np.frombuffer(mine, dtype=np.uint8)[None]))
    settings |= {"rows": int(hosts.total(len(rows))), "data": digest.text(hosts)}
    if rows.coordinates is not None and not rows.coordinates.is_identity:
        scale = np.array([rows.coordinates.scale])
        settings["coordinates"] = _short_digest(rows.coordinates.offset, scale).hex()
    return Identity(settings, [share.tobytes().hex() for share in shares])


def _short_digest(*arrays: NDArray[Any] | None) -> bytes:
    digest = hashlib.sha256()
    for array in arrays:
        if array is not None:
            digest.update(np.ascontiguousarray(array).data)
    return digest.digest()[:DIGEST_BYTES]


def _report(fitted: Fitted, log: JobLog, *, is_leader: bool) -> dict[str, Any]:
    """Say how the fit ended, and return its figures; each once, so that a metric of the job has one value."""
    figures = {
        "train:msd": fitted.shrink_loss,
        "streaming_centers": fitted.streaming_centers,
        "refinements": fitted.refinements,
    }
    counts = fitted.model.counts
    if counts is None:
        log.say("stopped early: the model is the best so far, and its rows aren't counted", "WARNING")
        return figures
    log.say(f"refined the centers {fitted.refinements} times; empty clusters: {int((counts == 0).sum())}")
    scores = {
        "mean_squared_distance": fitted.mean_squared_distance,
        "smallest_cluster": int(counts.min()),
        "largest_cluster": int(counts.max()),
    }
    for name, value in scores.items():
        if is_leader and value is not None:
            log.quality("train", name, value)
    return figures | {f"train:{name}": value for name, value in scores.items()}


def _read_test_channel(
    job: Job, train_rows: Rows, budget: int, wanted: Hyperparameters, *, log: JobLog, hosts: Collectives
) -> Rows | None:
    if TEST_CHANNEL not in job.channels:
        log.say("Test data is not provided.")
        return None
    return read_share(
        job.channels[TEST_CHANNEL],
        train_rows.features,
        budget,
        wanted,
        log=log,
        hosts=hosts,
        coordinates=train_rows.coordinates,
    )


def _score(
    rows: Rows, model: KMeansModel, wanted: Hyperparameters, log: JobLog, hosts: Collectives
) -> dict[str, float]:
    """Score the rows of the test channel: ``ssd`` is their loss, ``msd`` the same per row.

    The model is written by now. What goes wrong here, and a stop, leave out the scores and cost nothing else.
    """
    trouble, inertia = "", 0.0
    with log.timed("score"):
        try:
            for block in rows.blocks():
                inertia += model.score_narrowed(block)
                if log.stop_wanted():
                    trouble = "the job is to stop"
                    break
        except (KMeansError, OSError) as error:
            trouble = str(error)
    inertia, count, failed = hosts.sum(np.array([inertia, len(rows), float(bool(trouble))])).tolist()
    if failed:
        log.say(f"the test channel is not scored: {trouble or 'another host could not'}", "WARNING")
        return {}
    scores = {"msd": inertia / count, "ssd": inertia}
    for metric in wanted.eval_metrics:
        if hosts.rank == 0:
            log.quality("test", metric, scores[metric])
    return {f"test:{metric}": scores[metric] for metric in wanted.eval_metrics}


def _describe(model: KMeansModel, directory: Path, log: JobLog) -> None:
    try:
        artifact.describe(model, directory)
    except ResourceError as error:
        log.say(f"the scores are not in {artifact.CARD_FILE}: {error}", "WARNING")


def _json(values: object) -> str:
    return orjson.dumps(values).decode()
