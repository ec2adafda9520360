"""The load benchmark and the soak: requests, measurement, and documents that follow from the results."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace

import numpy as np
import pytest

from benchmarks import bodies
from benchmarks.open_loop import OverloadError, measure
from benchmarks.results import Content, as_json
from benchmarks.servers import LIMIT, MLFLOW, OURS, SAMPLE, Question
from benchmarks.serving_report import DOCUMENT, Cell, HalfLoad, Report, Run, disturbed, from_json, goals
from benchmarks.soak import Sample, drift
from kmeans.formats.instances import Predictions
from kmeans.formats.media_type import CSV, JSON, JSON_LINES, NPY, RECORDIO
from kmeans.formats.registry import FORMATS

POINTS = np.random.default_rng(0).normal(size=(7, 13)).astype(np.float32)
QUESTION = Question("/invocations", CSV, CSV, b"1,2\n")
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n0\n"


@pytest.mark.parametrize("media_type", [*bodies.FORMATS, JSON_LINES, NPY])
def test_encode_keeps_the_rows_bit_by_bit(media_type: str) -> None:
    found = FORMATS[media_type].decode(bodies.encode(POINTS, media_type), POINTS.shape[1])
    np.testing.assert_array_equal(found.points, POINTS)


@pytest.mark.parametrize("media_type", [*bodies.FORMATS, JSON_LINES])
def test_labels_of_an_answer_are_read(media_type: str) -> None:
    answer = FORMATS[media_type].encode(Predictions(np.array([3.0, 0.0, 250.0]), np.array([0.5, 1.25, 9.0])))
    assert bodies.labels(answer, media_type).tolist() == [3, 0, 250]


def test_nearest_matches_the_definition() -> None:
    centers = np.array([[0, 0], [10, 0]], np.float32)
    assert bodies.nearest(np.array([[4, 0], [6, 9], [-1, 0]], np.float32), centers).tolist() == [0, 1, 0]


@contextmanager
def server(*, holds: int = 1, answer: bytes = ANSWER) -> Iterator[int]:
    """Answer nothing until ``holds`` requests are there, each on a separate connection; the first comes alone."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def read(connection: socket.socket) -> None:
            received = b""
            while not received.endswith(QUESTION.body):
                part = connection.recv(4096)
                if not part:
                    return
                received += part

        def serve() -> None:
            first, _ = listener.accept()
            connections = [first]
            read(first)
            first.sendall(answer)
            read(first)
            for _ in range(holds - 1):
                connections.append(listener.accept()[0])
                read(connections[-1])
            for connection in connections:
                connection.sendall(answer)
            for connection in connections:
                connection.recv(1)  # until the client goes
                connection.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(timeout=10)
        assert not thread.is_alive()


def test_measure_does_not_wait_for_earlier_answers() -> None:
    with server(holds=3) as port:
        assert len(measure(port, QUESTION, [0.0, 0.0, 0.0])) == 3


def test_measure_late_request_counts_from_its_due_time() -> None:
    with server() as port:
        (seconds,) = measure(port, QUESTION, [-5.0])
    assert 5 < seconds < 10


def test_measure_answer_503_raises_overload_error() -> None:
    with (
        pytest.raises(OverloadError, match=r"expected 200 .* found b'HTTP/1\.1 503"),
        server(answer=b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n") as port,
    ):
        measure(port, QUESTION, [0.0])


def report(ours: float, peer: float, limit: float, tail: float) -> Report:
    many, one = Cell(OURS, CSV, 1000, 784), Cell(OURS, CSV, 1, 13)
    rates = {OURS: ours, SAMPLE: peer, MLFLOW: peer, LIMIT: limit}
    runs = [Run(cell.of(name), rate, 0.001, 0.002, 0.0) for cell in (many, one) for name, rate in rates.items()]
    loads = [
        HalfLoad(cell, arrivals, ours / 2, 100, 0.001, 0.001 * tail, 0.0)
        for cell in (many, one)
        for arrivals in ("fixed", "random")
    ]
    loads += [HalfLoad(cell.of(LIMIT), "fixed", limit / 2, 100, 0.001, 0.007, 0.0) for cell in (many, one)]
    return Report(runs, loads)


def stored(report: Report) -> Content:
    runs, half_loads = ([asdict(each) for each in found] for found in (report.runs, report.half_loads))
    return {"machine": {"machine": "none"}, "runs": runs, "half_loads": half_loads}


def met(report: Report) -> dict[tuple[str, str], bool]:
    return {(goal.title, goal.question): goal.is_met for goal in goals(report)}


def test_goals_at_their_limits_are_met() -> None:
    just = met(report(ours=300, peer=100, limit=600, tail=2.9))
    assert len(just) == 7
    assert all(just.values())
    assert not any(met(report(ours=199, peer=100, limit=399, tail=3.1)).values())
    between = met(report(ours=250, peer=100, limit=500, tail=1))
    assert {title for (title, _), is_met in between.items() if not is_met} == {
        f"3 times the rows/s of {SAMPLE}",
        f"3 times the rows/s of {MLFLOW}",
    }


def test_goals_skip_requests_that_a_peer_cannot_read() -> None:
    whole = report(ours=300, peer=100, limit=600, tail=1)
    less = replace(whole, runs=[run for run in whole.runs if run.cell.server != SAMPLE])
    assert not [goal for goal in goals(less) if SAMPLE in goal.title]
    assert "| CSV, 1 x 13 | 300 | can't | 100 (ours: 3.0 x) | 600 | 0.50 |" in DOCUMENT.markdown(stored(less))


def test_goals_skip_a_peer_without_answers() -> None:
    silent = report(ours=300, peer=0, limit=600, tail=1)
    assert not [goal for goal in goals(silent) if SAMPLE in goal.title]
    assert "| CSV, 1 x 13 | 300 | can't | can't | 600 | 0.50 |" in DOCUMENT.markdown(stored(silent))


def test_report_of_cell_takes_the_median_of_rounds() -> None:
    cell = Cell(OURS, CSV, 1, 13)
    runs = [Run(cell, rate, 0.001, 0.002, 0.0) for rate in (900.0, 1000.0, 100.0)]
    found = Report(runs, []).of(cell)
    assert found is not None
    assert found.requests_per_second == 900


def test_report_disturbed_runs_count_only_without_others() -> None:
    cell, other = Cell(OURS, CSV, 1, 13), Cell(OURS, CSV, 1000, 784)
    runs = [
        Run(cell, 500.0, 0.001, 0.002, others=0.8),
        Run(cell, 1000.0, 0.001, 0.002, others=0.02),
        Run(other, 7.0, 0.001, 0.002, others=0.9),
        Run(other, 10.0, 0.001, 0.002, others=0.5),
    ]
    whole = Report(runs, [])
    assert [found.requests_per_second for found in map(whole.of, (cell, other)) if found] == [1000, 10]
    assert disturbed(runs) == {other}


def test_results_json_round_trip_is_the_same() -> None:
    whole = report(ours=300, peer=100, limit=600, tail=1)
    assert from_json(json.loads(as_json(stored(whole)))) == whole


def samples(*mebibytes: float) -> list[Sample]:
    return [Sample(10.0 * i, int(size * 2**20), {7: 1}, 0.0) for i, size in enumerate(mebibytes)]


def test_drift_skips_the_warm_up_and_compares_the_ends() -> None:
    rising = samples(10, 50, *(100 for _ in range(5)), *(110 for _ in range(5)))
    found = drift(rising, 120.0, lambda sample: sample.memory_bytes)
    assert found["first"] == 100 * 2**20
    assert found["last"] == 110 * 2**20
    assert found["drift"] == pytest.approx(0.1)
    assert found["per_hour"] > 0


def test_drift_of_noise_is_zero() -> None:
    found = drift(samples(*[100, 101, 100, 99] * 6), 240.0, lambda sample: sample.memory_bytes)
    assert abs(found["drift"]) < 0.01


@pytest.mark.parametrize("media_type", [JSON, RECORDIO])
def test_encode_shortest_digits_identify_a_float32(media_type: str) -> None:
    tiny = np.array([[1e-7, 16777217.0, 0.1, 1 / 3]], np.float32)
    np.testing.assert_array_equal(FORMATS[media_type].decode(bodies.encode(tiny, media_type), 4).points, tiny)
