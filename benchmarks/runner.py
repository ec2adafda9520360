"""Runs of methods on one case: one process per method, which keeps the points in memory, one run at a time.

A run is timed within the process, around the fit alone.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from unittest import mock

import numpy as np

from benchmarks.machine import busy_seconds
from benchmarks.methods import METHODS, Method, Variant
from kmeans.arrays import Float32

# A small fit first imports modules, starts threads and loads code. It is not counted.
WARM_UP_ROWS, WARM_UP_CLUSTERS = 5_000, 10

# After this time threads that spin for work (OpenMP's, BLAS's) are asleep, and the next run has the CPUs to itself.
SETTLE_SECONDS = 0.05

START_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Timed:
    """The time of one fit, and its centers (k, d).

    ``cpu_seconds`` are user and system time of all threads of the process. ``others`` is the mean number of CPUs that
    other processes used during the fit.
    """

    seconds: float
    cpu_seconds: float
    others: float
    centers: Float32


@dataclass(frozen=True, slots=True)
class Failed:
    """The reason why there are no centers: the error's text, or the time limit."""

    reason: str


class MethodProcess:
    """A process that holds the points of a case, read from an NPY file, and fits ``method`` to them on demand.

    ``first`` is the variant of the small fit that is not counted.
    """

    def __init__(self, method: Method, points_file: Path, k: int, threads: int, *, first: Variant) -> None:
        self._arguments = (method.name, points_file, k, threads)
        self._first = first
        self._environment = method.environment(threads)
        self._process: multiprocessing.process.BaseProcess | None = None
        self._connection: Connection[tuple[Variant, int], Timed | Failed] | None = None

    def run(self, variant: Variant, seed: int, limit: float) -> Timed | Failed:
        """Fit once; after ``limit`` seconds the process is killed, and the next run starts a new one."""
        connection = self._started()
        if isinstance(connection, Failed):
            return connection
        connection.send((variant, seed))
        if not connection.poll(SETTLE_SECONDS + limit):
            self.end()
            return Failed(f"cut after {limit:g} s")
        try:
            return connection.recv()
        except EOFError:
            self.end()
            return Failed("its process died")

    def _started(self) -> Connection[tuple[Variant, int], Timed | Failed] | Failed:
        if self._connection is None:
            context = multiprocessing.get_context("spawn")
            self._connection, theirs = context.Pipe()
            # The process inherits them: libraries read them when they are imported.
            with mock.patch.dict(os.environ, self._environment):
                self._process = context.Process(
                    target=_serve, args=(theirs, *self._arguments), kwargs={"first": self._first}, daemon=True
                )
                self._process.start()
            theirs.close()
            if not self._connection.poll(START_SECONDS):
                raise TimeoutError(f"{self._arguments[0]} did not start")
            ready = self._connection.recv()
            if isinstance(ready, Failed):
                # A setting that this version does not have must not end a benchmark of hours.
                self.end()
                return ready
        return self._connection

    def end(self) -> None:
        """Kill the process."""
        if self._process is not None and self._connection is not None:
            self._process.kill()
            self._process.join()
            self._connection.close()
        self._process = self._connection = None


def _serve(
    connection: Connection[Timed | Failed, tuple[Variant, int]],
    method_name: str,
    points_file: Path,
    k: int,
    threads: int,
    *,
    first: Variant,
) -> None:
    """Warm up, then fit once per message until the other side closes; the main function of the process."""
    method = next(method for method in METHODS if method.name == method_name)
    points: Float32 = np.load(points_file)
    warm_up = min(WARM_UP_ROWS, len(points)), min(WARM_UP_CLUSTERS, k)
    connection.send(_timed(method, points[: warm_up[0]], warm_up[1], first, 0, threads=threads))
    with suppress(EOFError):
        while True:
            variant, seed = connection.recv()
            time.sleep(SETTLE_SECONDS)
            connection.send(_timed(method, points, k, variant, seed, threads=threads))


def _timed(method: Method, points: Float32, k: int, variant: Variant, seed: int, *, threads: int) -> Timed | Failed:
    busy, cpu, started = busy_seconds(), time.process_time(), time.perf_counter()
    try:
        centers = method.run(points, k, seed, threads, variant.options)
    except Exception as error:  # the failure of one method must not end the others
        return Failed(f"{type(error).__name__}: {error}")
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu
    if len(centers) > k or not np.isfinite(centers).all():
        return Failed(f"expected at most {k} finite centers, found {len(centers)}, or values that are not finite")
    others = max(0.0, busy_seconds() - busy - cpu_seconds) / seconds
    return Timed(seconds, cpu_seconds, others, centers)
