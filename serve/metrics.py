"""Counters and histograms of all workers, for GET /metrics in Prometheus' format.

The numbers are in shared anonymous memory that is mapped before the workers are forked: a row of float64 for each
worker, so no lock spans processes and no file or semaphore is needed. A worker that replaces a dead one continues in
its row, so counters never decrease. Every worker reports the sum of all rows.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import threading
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from kmeans import __version__
from kmeans.arrays import Float32, Float64
from kmeans.metric import METRICS
from kmeans.model import KMeansModel
from serve.exchange import STAGES, Record

ROUTES = ("/invocations", "/ping", "/execution-parameters", "/health", "/metrics", "/openapi.json", "/models", "other")
STATUSES = (200, 400, 404, 405, 406, 408, 409, 413, 415, 500, 503, 507)
OTHER_STATUS = 0

# Seconds: from a single row (under a millisecond) to the hour of an asynchronous endpoint.
DURATIONS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 600.0)

# Upper bounds of distances as multiples of the training data's root mean squared distance: rows like the training data
# are near 1, and a shift to larger values is drift.
DISTANCE_FACTORS = (0.25, 0.5, 0.75, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0)
# Upper bounds for a model without that distance: half decades.
DISTANCE_POWERS = tuple(float(f"{10.0 ** (exponent / 2):.3g}") for exponent in range(-6, 13))

# Rows for workers that start before the ones they replace have ended.
SPARE_ROWS = 2

# Columns of a row that describe the process and are reset for a new one.
PROCESS_COLUMNS = 2
PID, IN_PROGRESS = range(PROCESS_COLUMNS)

MEDIA_TYPE = "text/plain; version=1.0.0; charset=utf-8"


def distance_bounds(model: KMeansModel | None) -> tuple[float, ...]:
    """Return the upper bounds of the distance histogram's buckets, ascending, without infinity."""
    metrics = model.training.get("metrics") if model is not None else None
    loss = metrics.get("train:mean_squared_distance") if isinstance(metrics, dict) else None
    if model is not None and isinstance(loss, int | float) and math.isfinite(loss) and loss > 0:
        typical = METRICS[model.distance_metric].typical_distance(loss)
        return tuple(float(f"{factor * typical:.6g}") for factor in DISTANCE_FACTORS)
    return DISTANCE_POWERS


class Metrics(Collector):
    """Counters that all workers share.

    Parameters
    ----------
    workers
        Number of processes that count.
    model
        Model whose distances are counted; None on a multi-model endpoint.
    """

    def __init__(self, workers: int, model: KMeansModel | None = None) -> None:
        self._model = model
        self._bounds = distance_bounds(model)
        self._distance_bounds = np.array(self._bounds)
        columns = _Columns()
        self._requests = columns.take(len(ROUTES) * (len(STATUSES) + 1))
        self._durations = columns.take(len(DURATIONS) + 2)
        self._distances = columns.take(len(self._distance_bounds) + 2)
        self._stages = columns.take(len(STAGES))
        self._rows, self._bad_rows, self._bytes_in, self._bytes_out = (columns.take(1)[0] for _ in range(4))
        size = (workers + SPARE_ROWS) * columns.count
        # Shared and anonymous: forked processes see the same pages.
        memory = mmap.mmap(-1, 8 * size)
        self._table: Float64 = np.frombuffer(memory, np.float64).reshape(-1, columns.count)
        # A view of the bytes increments single numbers several times as fast as NumPy's array.
        self._cells = memoryview(memory).cast("d")
        self._own = self._row(0)
        self._lock = threading.Lock()
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self._table)

    def claim(self, row: int) -> None:
        """Use ``row`` from now on; called in a worker's process."""
        self._lock = threading.Lock()
        self._own = self._row(row)
        self._own[PID], self._own[IN_PROGRESS] = os.getpid(), 0

    def _row(self, row: int) -> memoryview[float]:
        columns = self._table.shape[1]
        return self._cells[row * columns : (row + 1) * columns]

    def begin(self) -> None:
        """Count a new request as in progress."""
        with self._lock:
            self._own[IN_PROGRESS] += 1

    def end(self, record: Record) -> None:
        """Count a finished request."""
        own, seconds = self._own, record.total_seconds
        request = self._requests[_route(record.path) * (len(STATUSES) + 1) + _status(record.status)]
        with self._lock:
            own[IN_PROGRESS] -= 1
            own[request] += 1
            if not record.seconds:
                return
            own[self._durations[bisect_left(DURATIONS, seconds)]] += 1
            own[self._durations[-1]] += seconds
            for column, stage in zip(self._stages, STAGES, strict=True):
                own[column] += record.seconds.get(stage, 0.0)
            own[self._rows] += record.rows
            own[self._bad_rows] += record.bad_rows
            own[self._bytes_in] += record.bytes_in
            own[self._bytes_out] += record.bytes_out

    def count_distances(self, distances: Float32 | Float64) -> None:
        """Count the distances (n,) of predicted rows to their centers."""
        own, first, last = self._own, self._distances[0], self._distances[-1]
        # A bucket includes its upper bound, hence the left side.
        if len(distances) == 1:
            distance = float(distances[0])
            place = first + bisect_left(self._bounds, distance)
            with self._lock:
                own[place] += 1
                own[last] += distance
            return
        counts = np.bincount(self._distance_bounds.searchsorted(distances, side="left"), minlength=last - first)
        total = float(distances.sum(dtype=np.float64))
        with self._lock:
            np.asarray(own)[first:last] += counts
            own[last] += total

    def count_chunks(self, size: int, seconds: float) -> None:
        """Count ``size`` bytes and ``seconds`` of encoding of a chunked answer, after it has been sent."""
        with self._lock:
            self._own[self._bytes_out] += size
            self._own[self._stages[STAGES.index("encode")]] += seconds

    def processes(self) -> list[int]:
        """Return the ids of the living workers."""
        return [pid for pid in self._table[:, PID].astype(int).tolist() if is_alive(pid)]

    def memory_bytes(self) -> int:
        """Return the resident memory of all workers in bytes; shared pages count once for each."""
        return sum(_resident_bytes(pid) for pid in self.processes())

    def render(self) -> bytes:
        """Return all metrics as text in Prometheus' format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics; called by the registry."""
        sums = self._table.sum(axis=0)
        requests = CounterMetricFamily("kmeans_requests", "Requests by route and status.", labels=["route", "status"])
        counts = sums[self._requests.start : self._requests.stop].reshape(len(ROUTES), -1)
        for route, by_status in zip(ROUTES, counts, strict=True):
            for status, count in zip((*STATUSES, OTHER_STATUS), by_status.tolist(), strict=True):
                if count:
                    requests.add_metric([route, str(status or "other")], count)
        yield requests
        yield _histogram(
            "kmeans_invocation_duration_seconds",
            "Time from a request's first byte to its answer, of invocations.",
            DURATIONS,
            sums[self._durations.start : self._durations.stop],
        )
        yield _histogram(
            "kmeans_distance",
            "Distance of a row to its center; bounds are multiples of the training data's root mean squared distance.",
            self._distance_bounds.tolist(),
            sums[self._distances.start : self._distances.stop],
        )
        stages = CounterMetricFamily("kmeans_stage_seconds", "Time spent in a stage of invocations.", labels=["stage"])
        for name, column in zip(STAGES, self._stages, strict=True):
            stages.add_metric([name], sums[column])
        yield stages
        for name, text, column in (
            ("kmeans_rows", "Rows that were predicted.", self._rows),
            ("kmeans_bad_rows", "Rows that were answered with a placeholder.", self._bad_rows),
            ("kmeans_received_bytes", "Bytes of the bodies of invocations.", self._bytes_in),
            ("kmeans_sent_bytes", "Bytes of the answers to invocations.", self._bytes_out),
        ):
            yield CounterMetricFamily(name, text, value=sums[column])
        living = [row for row in self._table if is_alive(int(row[PID]))]
        in_progress = sum(float(row[IN_PROGRESS]) for row in living)
        yield GaugeMetricFamily("kmeans_requests_in_progress", "Requests being answered now.", value=in_progress)
        yield GaugeMetricFamily("kmeans_workers", "Worker processes that are alive.", value=len(living))
        yield GaugeMetricFamily(
            "kmeans_workers_memory_bytes", "Resident memory, summed over the workers.", value=self.memory_bytes()
        )
        info = GaugeMetricFamily("kmeans_info", "Version and model.", labels=["version", "clusters", "features"])
        shape = (self._model.clusters, self._model.features) if self._model is not None else ("", "")
        info.add_metric([__version__, *map(str, shape)], 1)
        yield info


class _Columns:
    """Allocates the columns of a row, one after another."""

    def __init__(self) -> None:
        self.count = PROCESS_COLUMNS

    def take(self, count: int) -> range:
        self.count += count
        return range(self.count - count, self.count)


def _histogram(name: str, text: str, bounds: Sequence[float], counts: Float64) -> Metric:
    """Return a histogram from the counts of its buckets, the last of which is unbounded, followed by the sum."""
    labels = [f"{bound:.6g}" for bound in bounds] + ["+Inf"]
    return HistogramMetricFamily(
        name, text, list(zip(labels, np.cumsum(counts[:-1]).tolist(), strict=True)), float(counts[-1])
    )


def _route(path: str) -> int:
    if path.startswith("/models"):
        path = "/models"
    return ROUTES.index(path) if path in ROUTES else len(ROUTES) - 1


def _status(status: int) -> int:
    return STATUSES.index(status) if status in STATUSES else len(STATUSES)


def is_alive(pid: object) -> bool:
    """Return True if ``pid`` is the id of a process that exists and is not a zombie."""
    if not isinstance(pid, int) or not pid:
        return False
    with contextlib.suppress(OSError):
        return b") Z" not in Path(f"/proc/{pid}/stat").read_bytes()
    return False


def _resident_bytes(pid: int) -> int:
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * mmap.PAGESIZE
    return 0
