"""Counters in shared memory: sums over processes, rows that are taken over, buckets."""

import os
import re

import numpy as np
import pytest

from kmeans.model import KMeansModel
from serve.exchange import Record
from serve.metrics import DISTANCE_POWERS, Metrics, distance_bounds, is_alive

MODEL = KMeansModel([[0.0]], None, {"metrics": {"train:mean_squared_distance": 4.0}})


def record(path: str = "/invocations", status: int = 200, rows: int = 3) -> Record:
    return Record("id", None, None, "POST", path, status=status, rows=rows, seconds={"read": 0.5}, total_seconds=0.02)


def value(telemetry: Metrics, name: str) -> float:
    found = re.search(rf"^{re.escape(name)} (\S+)$", telemetry.render().decode(), re.MULTILINE)
    assert found, name
    return float(found[1])


def in_a_child(action: object) -> None:
    pid = os.fork()
    if pid == 0:
        try:
            action()  # type: ignore[operator]
        finally:
            os._exit(0)
    os.waitpid(pid, 0)


def test_counts_of_several_processes_are_summed() -> None:
    telemetry = Metrics(2)

    def work(row: int) -> None:
        telemetry.claim(row)
        for _ in range(5):
            telemetry.begin()
            telemetry.end(record())

    in_a_child(lambda: work(0))
    in_a_child(lambda: work(1))
    in_a_child(lambda: work(1))  # takes over the row of one that has ended
    assert value(telemetry, 'kmeans_requests_total{route="/invocations",status="200"}') == 15
    assert value(telemetry, "kmeans_rows_total") == 45
    assert value(telemetry, 'kmeans_stage_seconds_total{stage="read"}') == 7.5


def test_requests_in_progress_end_with_their_process() -> None:
    telemetry = Metrics(1)

    def die() -> None:
        telemetry.claim(0)
        telemetry.begin()

    in_a_child(die)
    assert value(telemetry, "kmeans_requests_in_progress") == 0
    assert value(telemetry, "kmeans_workers") == 0
    telemetry.claim(0)
    telemetry.begin()
    assert value(telemetry, "kmeans_requests_in_progress") == 1
    assert value(telemetry, "kmeans_workers") == 1
    assert value(telemetry, "kmeans_workers_memory_bytes") > 1 << 20


@pytest.mark.parametrize("rows", [1, 5])
def test_distance_is_counted_in_the_first_bucket_that_covers_it(rows: int) -> None:
    telemetry = Metrics(1, MODEL)
    for distance, bound in ((0.0, "0.5"), (0.5, "0.5"), (0.51, "1"), (2.0, "2"), (20.0, "20"), (20.1, "+Inf")):
        before = value(telemetry, f'kmeans_distance_bucket{{le="{bound}"}}')
        telemetry.count_distances(np.full(rows, distance, dtype=np.float32))
        assert value(telemetry, f'kmeans_distance_bucket{{le="{bound}"}}') == before + rows
    assert value(telemetry, "kmeans_distance_count") == 6 * rows
    assert value(telemetry, "kmeans_distance_sum") == pytest.approx(43.11 * rows)


def test_empty_distances_are_counted_as_none() -> None:
    telemetry = Metrics(1, MODEL)
    telemetry.count_distances(np.empty(0, dtype=np.float32))
    assert value(telemetry, "kmeans_distance_count") == 0


@pytest.mark.parametrize("known", [None, 0, -1.0, float("nan"), "4", []])
def test_distance_bounds_without_training_distance_are_powers(known: object) -> None:
    model = KMeansModel([[0.0]], None, {"metrics": {"train:mean_squared_distance": known}})
    assert distance_bounds(model) == DISTANCE_POWERS
    assert list(DISTANCE_POWERS) == sorted(DISTANCE_POWERS)
    for other in (KMeansModel([[0.0]]), KMeansModel([[0.0]], None, {"metrics": 3}), None):
        assert distance_bounds(other) == DISTANCE_POWERS


def test_distance_bounds_of_cosine_models_use_the_mean_distance() -> None:
    metrics = {"metrics": {"train:mean_squared_distance": 0.04}}
    assert 0.04 in distance_bounds(KMeansModel([[1.0]], None, metrics, distance_metric="cosine"))
    assert 0.2 in distance_bounds(KMeansModel([[1.0]], None, metrics))


def test_unknown_routes_and_statuses_are_counted_together() -> None:
    telemetry = Metrics(1)
    for path, status in (("/etc/passwd", 404), ("/" + "x" * 5000, 404), ("/ping", 299), ("/models/a/invoke", 507)):
        telemetry.begin()
        telemetry.end(record(path, status))
    assert value(telemetry, 'kmeans_requests_total{route="other",status="404"}') == 2
    assert value(telemetry, 'kmeans_requests_total{route="/ping",status="other"}') == 1
    assert value(telemetry, 'kmeans_requests_total{route="/models",status="507"}') == 1


def test_process_is_alive_until_it_has_ended() -> None:
    assert is_alive(os.getpid())
    assert not is_alive(0)
    assert not is_alive("[booting]")
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # ended, and not yet waited for
    assert not is_alive(pid)
    os.waitpid(pid, 0)
    assert not is_alive(pid)
