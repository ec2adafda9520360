"""The job's log: progress for people, metrics for SageMaker's regular expressions.

Where the built-in image has a line, it is the same here, so that metric definitions and scripts written for it work.
``train msd`` has the meaning it has there, the loss of the shrinking phase over the K weighted centers; the mean
squared distance of the data is ``train mean_squared_distance``.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TextIO

from kmeans.callbacks import Callbacks
from train.failure import StoppedError

# Seconds between two progress lines of a long phase.
PROGRESS_INTERVAL = 5.0

# Name of the built-in image in its #metrics lines.
ALGORITHM = "AWS/KMeansWebscale"

# The built-in image's names of the phases in its #metrics lines.
PHASE_METRICS = {"seed": "initialize.time", "stream": "update.time", "shrink": "_shrink.time", "refine": "refine.time"}


class JobLog(Callbacks):
    """Writes the log lines of the job and the fit to a stream (default: stdout).

    Parameters
    ----------
    host
        Name of this machine in the metric lines.
    """

    def __init__(self, host: str = "algo-1", stream: TextIO | None = None) -> None:
        self.host = host
        self._stream = stream or sys.stdout
        self._last_progress = time.monotonic()
        self._started = self._stage_started = time.time()
        self._stages: dict[str, float] = {}
        self._batches = self._rows = self._epochs = 0
        self._has_centers = False
        self._stop_signal: int | None = None

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Request that the job ends with the best model so far, because of the signal ``number``.

        The first signal counts. A handler may call this: it must not raise an exception itself, which would do damage
        in the middle of, for example, starting a thread.
        """
        self._stop_signal = self._stop_signal or number

    def stop_wanted(self) -> bool:
        """Return True if :meth:`stop` was called."""
        return self._stop_signal is not None

    @property
    def stop_signal(self) -> int | None:
        """The first signal that requested a stop, or None."""
        return self._stop_signal

    def say(self, message: str, level: str = "INFO") -> None:
        """Write one line in the built-in image's form."""
        now = datetime.now(UTC).strftime("%m/%d/%Y %H:%M:%S")
        # A tab or a line break would split the line in CloudWatch.
        line = " ".join(message.split())
        self._write(f"[{now} {level} {threading.get_ident()}] {line}\n")

    def quality(self, channel: str, metric: str, value: float) -> None:
        """Write a score in the form that SageMaker's metric definitions match."""
        self.say(f"#quality_metric: host={self.host}, {channel} {metric} <loss>={value!r}")

    def metrics(self, values: dict[str, float], **dimensions: int | str) -> None:
        """Write a ``#metrics`` line: a JSON object of ``values``; it starts at the end time of the line before."""
        now = time.time()
        document = {
            "StartTime": self._stage_started,
            "EndTime": now,
            "Dimensions": {"Algorithm": ALGORITHM, "Host": self.host, "Operation": "training", **dimensions},
            "Metrics": {name: {"sum": value, "count": 1, "min": value, "max": value} for name, value in values.items()},
        }
        self._stage_started = now
        self._write(f"#metrics {json.dumps(document)}\n\n")

    def reading(self, channel: str, state: str) -> None:
        """Write a progress line, at intervals, while a channel is read; ``state`` is the position of its reader.

        Raises
        ------
        StoppedError
            If a stop was requested before there are centers.
        """
        if self._stop_signal is not None and not self._has_centers:
            raise StoppedError(self._stop_signal)
        if self._progress_is_due():
            self.say(f"reading channel {channel}: {state}")

    def seeded(self, *, centers: int, clusters: int, factor: int, auto: bool, rows: int) -> None:
        """Write the factor that ``auto`` chose, and the number of centers of the mini-batch phase."""
        if auto:
            self.say(f"'extra_center_factor' was set to 'auto', evaluated to {factor}.")
        self.say(f"streaming onto {centers} centers for {clusters} clusters")
        self.metrics(_iterator_metrics(rows, 1, rows, 1, 0), Meta="init_train_data_iter")

    def hierarchy_started(self, *, clusters: int) -> None:
        """Remember that there are centers."""
        self._has_centers = True
        self.say(f"fitting {clusters} clusters within groups of rows, without mini-batches and shrinking")

    def stream_started(self) -> None:
        """Remember that there are centers."""
        self._has_centers = True

    def batch_done(self, *, epoch: int, epochs: int, rows_seen: int, rows: int, mean_squared_distance: float) -> None:
        """Write progress lines at intervals."""
        if self._progress_is_due():
            rows = max(rows, rows_seen)  # through a pipe, more may come in an epoch than in the one before
            done = 100 * (epoch + rows_seen / rows) / epochs
            self.say(
                f"epoch {epoch + 1} of {epochs}: {rows_seen} of {rows} rows, mean squared distance of the last "
                f"mini-batch {mean_squared_distance:.6g}"
            )
            self.say(f"#progress_metric: host={self.host}, completed {done:.1f} % of epochs")

    def epoch_done(self, *, epoch: int, epochs: int, rows: int, batches: int, seconds: float) -> None:
        """Write the metrics of an epoch."""
        self._rows += rows
        self._batches += batches
        self._epochs += 1
        self.say(f"processed a total of {rows} examples")
        self.say(f"#progress_metric: host={self.host}, completed {100 * (epoch + 1) / epochs:.1f} % of epochs")
        totals = _iterator_metrics(self._rows, self._batches, rows, batches, self._epochs)
        self.metrics(totals, epoch=epoch, Meta="training_data_iter")
        self.say(f"#throughput_metric: host={self.host}, train throughput={rows / max(seconds, 1e-9)!r} records/second")

    def shrink_started(self, *, centers: int, clusters: int) -> None:
        """Write how many centers are shrunk to how many."""
        if centers == clusters:
            self.say("No shrinking is required as extra_center_factor is 1.")
        else:
            self.say(f"shrinking {centers} centers into {clusters}")

    def shrink_attempt(self, *, attempt: int, mean_squared_distance: float) -> None:
        """Write the loss of one Lloyd run."""
        self.say(f"local kmeans attempt #{attempt}. Current mean square distance {mean_squared_distance:.6f}")

    def shrink_done(self, *, mean_squared_distance: float) -> None:
        """Write the loss of the best run."""
        self.say(f"finished shrinking process. Mean Square Distance = {mean_squared_distance!r}")
        self.quality("train", "msd", mean_squared_distance)

    def refine_started(self, *, at_most: int) -> None:
        """Write whether centers are refined."""
        self._has_centers = True
        self.say(f"refining with at most {at_most} passes over all rows" if at_most else "refining is off")

    def refine_pass(self, *, done: int, rows: int, mean_squared_distance: float, empty_clusters: int) -> None:
        """Write a progress line: for the first pass always, for the others at intervals."""
        if done == 1 or empty_clusters or self._progress_is_due():
            empty = f", {empty_clusters} empty clusters" if empty_clusters else ""
            self.say(
                f"refinement pass {done} over {rows} rows: mean squared distance {mean_squared_distance:.6g}{empty}"
            )

    def refined(self, *, with_all: int, with_nearby: int, clusters: int) -> None:
        """Write how often rows were compared with centers, which is most of the refinement's time."""
        nearby = f", {with_nearby} times with those around their own" if with_nearby else ""
        self.say(f"compared rows {with_all} times with all {clusters} centers{nearby}")

    def phase_done(self, *, phase: str, seconds: float) -> None:
        """Add the duration of a phase of the fit, or of a stage of the job."""
        self._stages[phase] = self._stages.get(phase, 0.0) + seconds

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Return a context that measures a stage of the job."""
        started = time.perf_counter()
        yield
        self.phase_done(phase=stage, seconds=time.perf_counter() - started)

    def finish(self, peak_memory: int) -> None:
        """Write the duration of each stage, and the peak memory, in bytes."""
        total = time.time() - self._started
        for stage, seconds in self._stages.items():
            self.say(f"{stage} took: {100 * seconds / total:.4f}%, ({seconds:.6f} secs)")
        self.say(f"TOTAL took: {total:.6f}")
        self.say(f"peak memory: {peak_memory / 1e6:.1f} MB")
        times = {metric: 1000 * self._stages[phase] for phase, metric in PHASE_METRICS.items() if phase in self._stages}
        times["model.serialize.time"] = 1000 * self._stages.get("write", 0.0)
        self.metrics({**times, "epochs": self._epochs, "totaltime": 1000 * total})

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()

    def _progress_is_due(self) -> bool:
        now = time.monotonic()
        if now - self._last_progress < PROGRESS_INTERVAL:
            return False
        self._last_progress = now
        return True


def _iterator_metrics(rows: int, batches: int, last_rows: int, last_batches: int, resets: int) -> dict[str, float]:
    """Return the figures of the built-in image's data iterator under its names."""
    return {
        "Total Records Seen": rows,
        "Total Batches Seen": batches,
        "Max Records Seen Between Resets": last_rows,
        "Max Batches Seen Between Resets": last_batches,
        "Reset Count": resets,
        "Number of Records Since Last Reset": last_rows,
        "Number of Batches Since Last Reset": last_batches,
    }
