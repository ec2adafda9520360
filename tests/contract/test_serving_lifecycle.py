"""Start, settings and stop of the server, and what happens when a worker dies."""

import contextlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from kmeans import artifact
from kmeans.model import KMeansModel

from .opt_ml import OptMl
from .samples import csv, digits, predictions
from .server import Server, accepts_connections, serving, start
from .waiting import wait_until

pytestmark = pytest.mark.slow

POINTS = digits()[:50]
CSV = csv(POINTS)


@pytest.fixture
def served(tmp_path: Path, trained: OptMl) -> OptMl:
    """A copy of the trained model, to be spoiled."""
    copy = OptMl(tmp_path / "ml")
    for name, content in trained.model_files().items():
        (copy.model / name).write_bytes(content)
    return copy


def assert_gives_up(base: Path, output: Path, **variables: str) -> str:
    """Start a server that can't work: it ends by itself, with one sentence, and never opens its port."""
    with start(base, output, **variables) as server:
        wait_until(
            lambda: server.process.poll() is not None or accepts_connections(server.port), "the end of the server"
        )
        assert server.process.poll() == 1, f"the server works: {output.read_text()}"
    said = output.read_text()
    assert "Traceback" not in said
    assert len(said.splitlines()) == 1, said
    assert said.endswith(".\n")
    return said


# A model that can't be served.


def _remove_all(model: Path) -> None:
    for path in model.iterdir():
        path.unlink()


def _remove_the_folder(model: Path) -> None:
    shutil.rmtree(model)


def _remove_the_centers(model: Path) -> None:
    (model / "model_algo-1").unlink()


def _leave_it_packed(model: Path) -> None:
    _remove_all(model)
    (model / "model.tar.gz").write_bytes(b"\x1f\x8b")


def _cut_off(size: int, *, with_card: bool = True) -> Callable[[Path], None]:
    def spoil(model: Path) -> None:
        path = model / "model_algo-1"
        path.write_bytes(path.read_bytes()[:size])
        if not with_card:
            (model / "kmeans.json").unlink()

    return spoil


def _flip_a_bit(model: Path) -> None:
    content = bytearray((model / "model_algo-1").read_bytes())
    content[100] ^= 1
    (model / "model_algo-1").write_bytes(content)


def _write_nan(model: Path) -> None:
    content = bytearray((model / "model_algo-1").read_bytes())
    content[64:68] = b"\xff\xff\xff\xff"
    (model / "model_algo-1").write_bytes(content)
    (model / "kmeans.json").unlink()


def _put_something_else(model: Path) -> None:
    (model / "model_algo-1").write_bytes(b"\x80\x04\x95 a pickle, for instance")
    (model / "kmeans.json").unlink()


def _make_it_a_folder(model: Path) -> None:
    (model / "model_algo-1").unlink()
    (model / "model_algo-1").mkdir()


def _write_card(text: str) -> Callable[[Path], None]:
    def spoil(model: Path) -> None:
        (model / "kmeans.json").write_text(text)

    return spoil


def _change_card(**fields: object) -> Callable[[Path], None]:
    def spoil(model: Path) -> None:
        path = model / "kmeans.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))

    return spoil


@pytest.mark.parametrize(
    ("spoil", "cause"),
    [
        pytest.param(_remove_all, "it is empty", id="an empty folder"),
        pytest.param(_remove_the_folder, "no such directory", id="no folder"),
        pytest.param(_remove_the_centers, "found kmeans.json", id="no centers"),
        pytest.param(_leave_it_packed, "found model.tar.gz", id="a packed model"),
        pytest.param(_cut_off(1000), "checksum", id="cut off"),
        pytest.param(_cut_off(0), "checksum", id="empty"),
        pytest.param(_cut_off(1000, with_card=False), "expected 2560 bytes", id="cut off, of the built-in image"),
        pytest.param(_cut_off(30, with_card=False), "ends within", id="nothing but a header"),
        pytest.param(_cut_off(0, with_card=False), "ends within", id="empty, of the built-in image"),
        pytest.param(_flip_a_bit, "checksum", id="one bit is wrong"),
        pytest.param(_write_nan, "NaN", id="a center that is NaN"),
        pytest.param(_put_something_else, "MXNet", id="another format"),
        pytest.param(_make_it_a_folder, "model_algo-1", id="a folder instead of a file"),
        pytest.param(_write_card("{"), "kmeans.json", id="a card that is no JSON"),
        pytest.param(_write_card("[]"), "kmeans.json", id="a card that is a list"),
        pytest.param(_write_card(""), "kmeans.json", id="a card that is empty"),
        pytest.param(_change_card(schema_version=99), "schema version 99", id="a card of the future"),
        pytest.param(_change_card(counts="many"), "kmeans.json", id="counts that are no numbers"),
        pytest.param(_change_card(counts=[1, 2]), "kmeans.json", id="counts of other clusters"),
        pytest.param(_change_card(centers_sha256=7), "checksum", id="a checksum that is a number"),
    ],
)
def test_invalid_model_ends_the_server_with_one_sentence(
    served: OptMl, tmp_path: Path, spoil: Callable[[Path], None], cause: str
) -> None:
    spoil(served.model)
    assert cause in assert_gives_up(served.base, tmp_path / "output")


def test_model_without_metadata_is_served(served: OptMl, tmp_path: Path) -> None:
    (served.model / "kmeans.json").unlink()
    with serving(served.base, tmp_path / "output", SAGEMAKER_MODEL_SERVER_WORKERS="1") as server:
        assert server.invoke(CSV).status == 200


def test_model_folder_is_not_modified(served: OptMl, tmp_path: Path) -> None:
    before = served.model_files()
    times = {path: path.stat().st_mtime_ns for path in (served.model, *served.model.iterdir())}
    with serving(served.base, tmp_path / "output", SAGEMAKER_MODEL_SERVER_WORKERS="1") as server:
        assert server.invoke(CSV).status == 200
    assert served.model_files() == before
    assert {path: path.stat().st_mtime_ns for path in times} == times


# Settings.


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SAGEMAKER_BIND_TO_PORT", "http"),
        ("SAGEMAKER_BIND_TO_PORT", "0"),
        ("SAGEMAKER_BIND_TO_PORT", "65536"),
        ("SAGEMAKER_MODEL_SERVER_WORKERS", "0"),
        ("SAGEMAKER_MODEL_SERVER_WORKERS", "two"),
        ("SAGEMAKER_MAX_PAYLOAD_IN_MB", "-1"),
        ("SAGEMAKER_MAX_PAYLOAD_IN_MB", "6.5"),
        ("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT", "image/png"),
    ],
)
def test_invalid_setting_ends_the_server_with_one_sentence(
    trained: OptMl, tmp_path: Path, name: str, value: str
) -> None:
    said = assert_gives_up(trained.base, tmp_path / "output", **{name: value})
    assert name in said
    assert value in said


def test_settings_take_effect(trained: OptMl, tmp_path: Path) -> None:
    settings = {
        "SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT": "text/csv",
        "SAGEMAKER_MAX_PAYLOAD_IN_MB": "2",
        "SAGEMAKER_MODEL_SERVER_WORKERS": "3",
    }
    with serving(trained.base, tmp_path / "output", **settings) as server:
        wait_until(lambda: len(server.workers()) == 3, "three workers")
        for accept in ({}, {"Accept": "*/*"}):
            answer = server.invoke(CSV, **accept)
            assert (answer.status, answer.content_type) == (200, "text/csv")
            assert predictions("text/csv", answer.body).shape == (len(POINTS), 2)
        assert server.invoke(CSV, Accept="application/json").content_type == "application/json"
        assert server.invoke(b"\n" * (2 << 20)).status == 400
        assert server.invoke(b"\n" * ((2 << 20) + 1)).status == 413
    first_line = (tmp_path / "output").read_text().splitlines()[0]
    assert first_line.startswith("serving 10 clusters x 64 features")
    assert f"on port {server.port} with 3 workers" in first_line


# What the workers share, and how long they may take.

# A server whose workers must give a sign of life every two seconds, and that thinks four over a request of three rows.
THOUGHTFUL = (
    sys.executable,
    "-c",
    """
import sys, time
from kmeans.model import KMeansModel
from serve import __main__
from serve.server import application

predict, load_config = KMeansModel.predict, application.Server.load_config

def think(self, points):
    time.sleep(4 * (len(points) == 3))
    return predict(self, points)

def load_impatiently(self):
    load_config(self)
    self.cfg.set("timeout", 2)

KMeansModel.predict, application.Server.load_config = think, load_impatiently
sys.exit(__main__.main())
""",
)


def test_request_may_compute_longer_than_the_worker_timeout(trained: OptMl, tmp_path: Path) -> None:
    with serving(trained.base, tmp_path / "output", THOUGHTFUL, SAGEMAKER_MODEL_SERVER_WORKERS="1") as server:
        workers = server.workers()
        assert server.invoke(csv(POINTS[:3])).status == 200
        assert server.workers() == workers


def test_worker_has_its_request_threads_and_no_blas_threads(trained: OptMl, tmp_path: Path) -> None:
    """Those of BLAS would be there after the first large product, one for each further CPU."""
    body = csv(digits())
    with serving(trained.base, tmp_path / "output", SAGEMAKER_MODEL_SERVER_WORKERS="1") as server:
        (worker,) = server.workers()
        with contextlib.ExitStack() as clients:
            uploads = [clients.enter_context(server.upload(len(body))) for _ in range(4)]
            for upload in uploads:
                assert upload.is_wanted
                upload.connection.sendall(body)
                assert upload.answer().status == 200
        # The main loop, four for requests, one for pings.
        assert len(os.listdir(f"/proc/{worker}/task")) == 1 + 4 + 1


def private_bytes(process: int) -> int:
    """Return the bytes of a process's memory that it shares with no other."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


def test_workers_share_the_memory_of_the_model(tmp_path: Path) -> None:
    """Of centers of 20 MB, kept as they are, scaled, and transposed, no worker has a copy after it has used them."""
    centers = np.random.default_rng(0).normal(size=(2500, 2000)).astype(np.float32)
    artifact.save(KMeansModel(centers), tmp_path / "ml" / "model")
    with serving(tmp_path / "ml", tmp_path / "output", SAGEMAKER_MODEL_SERVER_WORKERS="3") as server:
        wait_until(lambda: len(server.workers()) == 3, "three workers")
        for _ in range(30):
            assert server.invoke(csv(centers[:1])).status == 200
        assert max(map(private_bytes, server.workers())) < 2 * centers.nbytes


# Stop and accidents.


def start_upload_and_stop(server: Server) -> tuple[int, int]:
    """Signal while a request is under way; return the status of its answer and the exit code."""
    with server.upload(len(CSV)) as upload:
        assert upload.is_wanted
        upload.connection.sendall(CSV[:100])
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: "Handling signal: term" in server.output.read_text(), "the signal to arrive")
        upload.connection.sendall(CSV[100:])
        answer = upload.answer()
        assert len(predictions("application/json", answer.body)) == len(POINTS)
    return answer.status, server.process.wait(timeout=30)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_sigterm_during_a_request_completes_it(trained: OptMl, tmp_path: Path, workers: str) -> None:
    with serving(trained.base, tmp_path / "output", SAGEMAKER_MODEL_SERVER_WORKERS=workers) as server:
        assert start_upload_and_stop(server) == (200, 0)
    assert "Traceback" not in (tmp_path / "output").read_text()


def test_sigterm_does_not_wait_for_idle_connections(trained: OptMl, tmp_path: Path) -> None:
    with serving(trained.base, tmp_path / "output") as server, server.connection() as connection:
        connection.request("GET", "/ping")
        with connection.getresponse() as response:
            assert response.status == 200
        server.process.send_signal(signal.SIGTERM)
        # Well below the 25 s that a request may take.
        assert server.process.wait(timeout=15) == 0


def test_sigint_stops_the_server(trained: OptMl, tmp_path: Path) -> None:
    with serving(trained.base, tmp_path / "output", SAGEMAKER_MODEL_SERVER_WORKERS="1") as server:
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(timeout=15) == 0


def test_sigint_during_a_request_stops_at_once(trained: OptMl, tmp_path: Path) -> None:
    with (
        serving(trained.base, tmp_path / "output", SAGEMAKER_MODEL_SERVER_WORKERS="1") as server,
        server.upload(len(CSV)) as upload,
    ):
        assert upload.is_wanted, "a thread reads the body, which doesn't come"
        server.process.send_signal(signal.SIGINT)
        # Less than the 25 s that requests have after SIGTERM.
        assert server.process.wait(timeout=15) == 0


# A server whose workers stop themselves right after the fork, before they have any signal handler.
STOPPED_AT_BOOT = (
    sys.executable,
    "-c",
    """
import os, signal, sys
from serve import __main__
from serve.server import application

load_config = application.Server.load_config

def load_and_stop_workers(self):
    load_config(self)
    self.cfg.set("post_fork", lambda master, worker: os.kill(worker.pid, signal.SIGSTOP))

application.Server.load_config = load_and_stop_workers
sys.exit(__main__.main())
""",
)


def status_of(process: int) -> dict[str, str]:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT], ids=lambda stop: stop.name)
def test_stop_signal_while_a_worker_boots_ends_it_in_time(trained: OptMl, tmp_path: Path, stop: signal.Signals) -> None:
    with start(trained.base, tmp_path / "output", STOPPED_AT_BOOT, SAGEMAKER_MODEL_SERVER_WORKERS="1") as server:
        wait_until(lambda: [status_of(worker)["State"][0] for worker in server.workers()] == ["T"], "a stopped worker")
        (worker,) = server.workers()
        server.process.send_signal(stop)
        wait_until(lambda: int(status_of(worker)["ShdPnd"], 16) != 0, "the master's signal to the worker")
        os.kill(worker, signal.SIGCONT)
        # Less than the 25 s after which the master kills a worker that does not end.
        assert server.process.wait(timeout=15) == 0
    assert "SIGKILL" not in (tmp_path / "output").read_text()


def test_killed_worker_is_replaced(trained: OptMl, tmp_path: Path) -> None:
    with serving(trained.base, tmp_path / "output", SAGEMAKER_MODEL_SERVER_WORKERS="2") as server:
        wait_until(lambda: len(server.workers()) == 2, "both workers")
        before = server.workers()
        victim = min(before)
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: victim not in server.workers() and len(server.workers()) == 2, "another worker")
        assert server.process.poll() is None
        for _ in range(10):
            assert server.invoke(CSV).status == 200
        assert server.stop() == 0


def test_server_survives_the_death_of_all_workers(trained: OptMl, tmp_path: Path) -> None:
    with serving(trained.base, tmp_path / "output", SAGEMAKER_MODEL_SERVER_WORKERS="1") as server:
        (victim,) = server.workers()
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: server.workers() not in ({victim}, set()), "another worker")
        # The port stays open meanwhile: requests wait for the new worker.
        assert server.ask("GET", "/ping").status == 200


def test_two_servers_run_independently(trained: OptMl, tmp_path: Path) -> None:
    with contextlib.ExitStack() as servers:
        for i in range(2):
            server = servers.enter_context(
                serving(trained.base, tmp_path / f"output-{i}", SAGEMAKER_MODEL_SERVER_WORKERS="1")
            )
            assert server.invoke(CSV).status == 200
