"""The job's log: progress for people, metrics for SageMaker's regular expressions.

The lines are those of the built-in image where it has one, so that metric definitions and scripts written for it go on
working. ``train msd`` keeps its meaning there, the loss of the shrinking phase over the K weighted centers; the data's
own mean squared distance is ``train mean_squared_distance``.
"""

from __future__ import annotations

import sys
import threading
import time
from datetime import UTC, datetime
from typing import TextIO

from kmeans.observer import Observer

# A long phase shows a sign of life this often, in seconds.
PROGRESS_INTERVAL = 5.0


class JobLog(Observer):
    """Writes log lines to a stream (default: stdout) as the job and the fit report to it.

    Parameters
    ----------
    host
        Name of this machine in the metric lines.
    """

    def __init__(self, host: str = "algo-1", stream: TextIO | None = None) -> None:
        self.host = host
        self._stream = stream or sys.stdout
        self._last_progress = time.monotonic()

    def say(self, message: str, level: str = "INFO") -> None:
        """Write one line in the built-in image's form."""
        now = datetime.now(UTC).strftime("%m/%d/%Y %H:%M:%S")
        # A tab or a line break would split the line in CloudWatch.
        line = " ".join(message.split())
        self._stream.write(f"[{now} {level} {threading.get_ident()}] {line}\n")
        self._stream.flush()

    def quality(self, channel: str, metric: str, value: float) -> None:
        """Write a score as SageMaker's metric definitions find it."""
        self.say(f"#quality_metric: host={self.host}, {channel} {metric} <loss>={value!r}")

    def reading(self, channel: str, done: int, files: int) -> None:
        """Give a sign of life while a channel of many files is read."""
        if self._progress_is_due():
            self.say(f"reading channel {channel}: {done} of {files} files")

    def seeded(self, *, centers: int, clusters: int, factor: int, auto: bool) -> None:
        """Tell what ``auto`` came to, and how many centers the streaming phase has."""
        if auto:
            self.say(f"'extra_center_factor' was set to 'auto', evaluated to {factor}.")
        self.say(f"streaming onto {centers} centers for {clusters} clusters")

    def batch_done(self, *, epoch: int, epochs: int, rows_seen: int, rows: int, mean_squared_distance: float) -> None:
        """Give a sign of life now and then."""
        if self._progress_is_due():
            done = 100 * (epoch + rows_seen / rows) / epochs
            self.say(
                f"epoch {epoch + 1} of {epochs}: {rows_seen} of {rows} rows, mean squared distance of the last "
                f"mini-batch {mean_squared_distance:.6g}"
            )
            self.say(f"#progress_metric: host={self.host}, completed {done:.1f} % of epochs")

    def epoch_done(self, *, epoch: int, epochs: int, rows: int, batches: int, seconds: float) -> None:
        """Write the metrics of an epoch."""
        self.say(f"processed a total of {rows} examples in {batches} mini-batches")
        self.say(f"#progress_metric: host={self.host}, completed {100 * (epoch + 1) / epochs:.1f} % of epochs")
        self.say(f"#throughput_metric: host={self.host}, train throughput={rows / max(seconds, 1e-9)!r} records/second")

    def shrink_started(self, *, centers: int, clusters: int) -> None:
        """Tell what is reduced to what."""
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

    def refine_pass(self, *, done: int, at_most: int, mean_squared_distance: float, empty_clusters: int) -> None:
        """Give a sign of life: the first pass always, the others now and then."""
        if done == 0:
            self.say(f"refining {'is off' if at_most == 0 else f'with at most {at_most} exact passes over all rows'}")
        if done == 0 or empty_clusters or self._progress_is_due():
            reseeded = f", {empty_clusters} empty clusters" if empty_clusters else ""
            self.say(f"refinement pass {done}: mean squared distance {mean_squared_distance:.6g}{reseeded}")

    def phase_done(self, *, phase: str, seconds: float) -> None:
        """Write how long a phase took."""
        self.say(f"{phase} took: {seconds:.3f} secs")

    def _progress_is_due(self) -> bool:
        now = time.monotonic()
        if now - self._last_progress < PROGRESS_INTERVAL:
            return False
        self._last_progress = now
        return True
