"""The training job: from ``/opt/ml/input`` to ``/opt/ml/model``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

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
from train.fingerprint import Fingerprint, short_digest
from train.hyperparameters import Hyperparameters
from train.load import read_share
from train.metrics import JobLog
from train.warm_start import read_model

# Fraction of the memory that rows may take, and how much of it is left to the interpreter, NumPy and buffers.
ROWS_FRACTION, RESERVED_BYTES = 0.7, 192 << 20

# Rises when states of a fit change, so that a checkpoint of another version is refused with one sentence.
CHECKPOINT_FORMAT = 2

# About as many rows in memory are part of the digest by which a host recognizes them.
DIGEST_ROWS = 1000

# Fraction of the memory for gathering the per-host state of all hosts; that of a single host takes at most 12 bytes per
# row, and a row at least 100.
STATE_FRACTION = 1 / 8


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a job reads before the fit.

    Attributes
    ----------
    rows
        This host's rows of the training data.
    test_rows
        This host's rows of the channel ``test``, in the coordinates of ``rows``; None without that channel.
    start
        The model of the channel ``model``, whose centers the fit starts from; None without that channel.
    checkpoints
        States of the fit in a folder; None without one.
    """

    rows: Rows
    test_rows: Rows | None
    start: KMeansModel | None
    checkpoints: CheckpointFolder | None


class TrainingJob:
    """The job that ``base`` describes; :meth:`run` calls :meth:`load`, :meth:`fit`, :meth:`write` and :meth:`score`.

    Of several ``hosts`` each runs it on its own rows, and the leader writes the model. A stop that ``log`` receives
    ends the job with the best model so far.

    Parameters
    ----------
    base
        ``/opt/ml``, or another directory with that layout.
    threads
        Number of threads.
    memory
        Bytes that the process may use.
    log
        Receives the log lines, and the request to stop.
    hosts
        Collective operations of the job's hosts; default: one host.
    checkpoint_folder
        Replaces the folder for checkpoints that the configuration names.
    on_written
        Called when the model is written: nothing fails the job from then on.

    Raises
    ------
    kmeans.errors.SettingError
        If the configuration or a hyperparameter is wrong.
    """

    def __init__(
        self,
        base: Path,
        threads: int,
        memory: int,
        log: JobLog,
        hosts: Collectives | None = None,
        *,
        checkpoint_folder: Path | None = None,
        on_written: Callable[[], None] = lambda: None,
    ) -> None:
        self._job = job = read_job(base)
        self._threads, self._memory, self._log = threads, memory, log
        self._hosts = hosts or SingleHost()
        self._folder = checkpoint_folder or job.checkpoint_directory
        self._on_written = on_written
        log.host = job.hosts.current
        log.say(f"Merging with provided configuration from {job.hyperparameters_file}: {_json(job.hyperparameters)}")
        self._parameters = hyperparameters.parse(job.hyperparameters)
        log.say(f"Final configuration: {_json(self._parameters.values)}")

    def run(self) -> None:
        """Run the whole job.

        Raises
        ------
        kmeans.errors.KMeansError
            If anything is wrong with the configuration, the data or the disk; the model directory is then as it was.
        """
        inputs = self.load()
        fitted = self.fit(inputs)
        model = self.write(fitted, inputs)
        if inputs.test_rows is not None and not fitted.interrupted:
            self.score(model, inputs.test_rows)
        self._log.finish(peak_memory())

    def load(self) -> Inputs:
        """Check that all hosts have the same job, and read the channels.

        The channel ``test`` is read before the fit too, so that its errors fail the job at once.
        """
        check_hosts(self._job.hosts, self._hosts.size)
        _check_same_job(self._job, self._parameters, self._hosts)
        if self._is_leader:
            # Of a killed job; SageMaker would upload them with the rest.
            files = (artifact.CENTERS_FILE, artifact.PRECISE_FILE, artifact.CARD_FILE)
            remove_remains(self._job.model_directory, files)
            if self._folder is not None:
                remove_remains(self._folder, FILE_NAMES)
        start = self._read_start()
        # The leader's folder is that of all hosts.
        fingerprint = Fingerprint() if self._hosts.any(self._is_leader and self._folder is not None) else None
        budget = int(ROWS_FRACTION * max(0, self._memory - RESERVED_BYTES))
        parameters, hosts, log = self._parameters, self._hosts, self._log
        channel = required_channel(self._job)
        rows = read_share(channel, parameters.feature_dim, budget, parameters, log=log, hosts=hosts, digest=fingerprint)
        held = rows.in_memory
        budget -= len(held) * bytes_per_row(rows.features, hosts.size if held.is_dealt else 1)
        test_rows = self._read_test_channel(rows, budget)
        log.say(f"training on {len(rows)} rows x {rows.features} columns with {self._threads} threads")
        if parameters.mini_batch_size > (first := max(len(rows), held.ordered)):
            log.say(
                f"Batch size {parameters.mini_batch_size} is bigger than the first batch data. "
                f"Effective batch size used to initialize is {first}",
                "WARNING",
            )
        checkpoints = None if fingerprint is None else self._checkpoints(self._identity(rows, fingerprint, start))
        return Inputs(rows, test_rows, start, checkpoints)

    def fit(self, inputs: Inputs) -> Fitted:
        """Fit the centers, from a checkpoint or the start model if there is one."""
        with ThreadPool(self._threads, self._log.stop_wanted) as pool:
            return fit(
                inputs.rows,
                self._parameters.settings,
                pool=pool,
                hosts=self._hosts,
                callbacks=self._log,
                start=inputs.start,
                checkpoints=inputs.checkpoints or Checkpoints(),
            )

    def write(self, fitted: Fitted, inputs: Inputs) -> KMeansModel:
        """Write the model, and after an interrupted fit a checkpoint; return the model."""
        metrics = self._report(fitted)
        warnings = cluster_warnings(fitted.model, fitted.mean_squared_distance)
        for warning in warnings:
            self._log.say(warning, "WARNING")
        training = {
            "hyperparameters": self._parameters.values,
            "rows": int(self._hosts.total(len(inputs.rows))),
            "metrics": metrics,
        }
        model = KMeansModel(
            fitted.model.precise_centers,
            fitted.model.counts,
            training | ({"warnings": warnings} if warnings else {}),
            distance_metric=fitted.model.distance_metric,
            coordinates=fitted.model.coordinates,
        )
        if self._is_leader:
            directory = self._job.model_directory
            with self._log.timed("write"):
                artifact.save(model, directory)
            precise = "" if model.coordinates.is_identity else f"{artifact.PRECISE_FILE}, "
            self._log.say(f"wrote the model to {directory}: {artifact.CENTERS_FILE}, {precise}{artifact.CARD_FILE}")
        self._hosts.barrier()  # no host ends before the model is written
        self._on_written()
        if fitted.interrupted and inputs.checkpoints is not None:
            inputs.checkpoints.save()
        return model

    def score(self, model: KMeansModel, rows: Rows) -> None:
        """Report the scores of ``model`` on the ``rows`` of the channel ``test``, and add them to kmeans.json.

        ``ssd`` is the sum of their losses, ``msd`` the mean. The model is written by now: an error, or a stop, only
        prevents the scores.
        """
        trouble, inertia = "", 0.0
        with self._log.timed("score"):
            try:
                for block in rows.blocks():
                    inertia += model.score_narrowed(block)
                    if self._log.stop_wanted():
                        trouble = "the job is to stop"
                        break
            except (KMeansError, OSError) as error:
                trouble = str(error)
        inertia, count, failed = self._hosts.sum(np.array([inertia, len(rows), float(bool(trouble))])).tolist()
        if failed:
            self._log.say(f"the test channel is not scored: {trouble or 'another host could not'}", "WARNING")
        else:
            scores = {"msd": inertia / count, "ssd": inertia}
            for metric in self._parameters.eval_metrics:
                if self._is_leader:
                    self._log.quality("test", metric, scores[metric])
                model.training["metrics"][f"test:{metric}"] = scores[metric]
        if self._is_leader:
            try:
                artifact.describe(model, self._job.model_directory)
            except ResourceError as error:
                self._log.say(f"the scores are not in {artifact.CARD_FILE}: {error}", "WARNING")

    @property
    def _is_leader(self) -> bool:
        return self._hosts.rank == 0

    def _read_start(self) -> KMeansModel | None:
        if MODEL_CHANNEL not in self._job.channels:
            return None
        settings = self._parameters.settings
        model = read_model(self._job.channels[MODEL_CHANNEL], settings.k, settings.distance_metric)
        self._log.say(f"going on from the {model.clusters} centers in channel {MODEL_CHANNEL}")
        return model

    def _read_test_channel(self, train_rows: Rows, budget: int) -> Rows | None:
        if TEST_CHANNEL not in self._job.channels:
            self._log.say("Test data is not provided.")
            return None
        return read_share(
            self._job.channels[TEST_CHANNEL],
            train_rows.features,
            budget,
            self._parameters,
            log=self._log,
            hosts=self._hosts,
            coordinates=train_rows.coordinates,
        )

    def _checkpoints(self, identity: Identity) -> CheckpointFolder:
        return CheckpointFolder(
            self._folder or Path(),  # a follower never uses its folder
            self._parameters.checkpoint_interval,
            identity,
            self._log.say,
            hosts=self._hosts,
            max_state_bytes=int(STATE_FRACTION * self._memory),
            ignore_others=self._parameters.ignore_changed_checkpoint,
        )

    def _identity(self, rows: Rows, fingerprint: Fingerprint, start: KMeansModel | None) -> Identity:
        """Return what a checkpoint must have in common with this job to be used by it."""
        job = {
            **self._parameters.of_the_fit,
            "columns": rows.features,
            "hosts": self._hosts.size,
            "checkpoint format": CHECKPOINT_FORMAT,
        }
        if start is not None:
            job[f"channel {MODEL_CHANNEL}"] = short_digest(start.precise_centers, start.counts).hex()
        if self._job.channels[TRAIN_CHANNEL].is_pipe:
            return Identity(job, row_digests=None)
        # The per-host state is that of the rows in memory, in their order.
        points = rows.in_memory.points
        own = short_digest(np.array([len(points)]), points[:: max(1, len(points) // DIGEST_ROWS)])
        digests = self._hosts.broadcast(self._hosts.gather(np.frombuffer(own, dtype=np.uint8)[None]))
        job |= {"rows": int(self._hosts.total(len(rows))), "data": fingerprint.text(self._hosts)}
        if rows.coordinates is not None and not rows.coordinates.is_identity:
            scale = np.array([rows.coordinates.scale])
            job["coordinates"] = short_digest(rows.coordinates.offset, scale).hex()
        return Identity(job, [digest.tobytes().hex() for digest in digests])

    def _report(self, fitted: Fitted) -> dict[str, Any]:
        """Log how the fit ended, and return its figures; each once, so that a metric of the job has one value."""
        figures = {
            "train:msd": fitted.shrink_loss,
            "streaming_centers": fitted.streaming_centers,
            "refinements": fitted.refinements,
        }
        counts = fitted.model.counts
        if counts is None:
            self._log.say("stopped early: the model is the best so far, and its rows aren't counted", "WARNING")
            return figures
        self._log.say(f"refined the centers {fitted.refinements} times; empty clusters: {int((counts == 0).sum())}")
        scores = {
            "mean_squared_distance": fitted.mean_squared_distance,
            "smallest_cluster": int(counts.min()),
            "largest_cluster": int(counts.max()),
        }
        for name, value in scores.items():
            if self._is_leader and value is not None:
                self._log.quality("train", name, value)
        return figures | {f"train:{name}": value for name, value in scores.items()}


def check_hosts(hosts: HostNames, connected: int) -> None:
    """Raise a SettingError unless the number of ``connected`` hosts is that in the configuration."""
    if len(hosts.names) != connected:
        raise SettingError(
            f"resourceconfig.json names {len(hosts.names)} hosts, but {connected} train together: each host must be "
            "given the same list of hosts."
        )


def _check_same_job(job: Job, parameters: Hyperparameters, hosts: Collectives) -> None:
    """Raise a SettingError on a host whose job differs from the leader's: they would wait for each other forever."""
    own: dict[str, Any] = dict(parameters.values)
    for name, channel in job.channels.items():
        distribution = "sharded" if channel.is_sharded else "replicated"
        own[f"channel {name}"] = f"{distribution} in {channel.input_mode} mode"
    sent = hosts.broadcast(np.frombuffer(_json(own).encode(), dtype=np.uint8))
    own, leaders = orjson.loads(_json(own)), orjson.loads(sent.tobytes())
    differences = [
        f"{name} is {leaders.get(name, 'missing')} there and {own.get(name, 'missing')} here"
        for name in sorted({*own, *leaders})
        if own.get(name) != leaders.get(name)
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


def _json(values: object) -> str:
    return orjson.dumps(values).decode()
