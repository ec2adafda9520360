"""``python -m local_test``: train on real digits, serve the model, send requests, and show the responses."""

from __future__ import annotations

import argparse
import json
import socket
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kmeans import artifact
from kmeans.arrays import Float32
from local_test import digits
from local_test.digits import Digits
from local_test.feeding import feeding, leftover_fifos, pipe_channels
from local_test.own_files import ForeignFileError, OwnFiles
from local_test.runners import PROJECT, DockerRunner, ProcessRunner, Runner, ServerError

LOCAL_TEST = PROJECT / "local_test"
ROWS_SHOWN = 10
ROWS_CHECKED = 100

# Files that ``train`` writes or removes, below the folder that stands for /opt/ml.
TRAIN_FILES = (
    f"model/{artifact.CENTERS_FILE}",
    f"model/{artifact.PRECISE_FILE}",
    f"model/{artifact.CARD_FILE}",
    "output/failure",
    "checkpoints/kmeans-checkpoint-0",
    "checkpoints/kmeans-checkpoint-1",
)


def main() -> int:
    """Run the whole job; return 0 if it succeeds and the responses are right."""
    options = _parse_options()
    base: Path = options.dir.resolve()
    try:
        own_files = OwnFiles(base)
        for name in TRAIN_FILES:
            own_files.check(base / name)
        data = digits.mnist(options.mnist) if options.mnist else digits.small()
        runner: Runner = DockerRunner(options.docker) if options.docker else ProcessRunner()
        _prepare(base, data, own_files, is_large=bool(options.mnist), through_pipes=options.pipe)
        _check_fifos(base)
    except Exception as error:  # of Docker's client or of the file system, or a file that is not ours
        print(f"local_test: {error}", file=sys.stderr)
        return 1
    if options.pipe and not pipe_channels(base):
        print(
            f"local_test: no channel in {_short(base / 'input/config/inputdataconfig.json')} is in Pipe mode",
            file=sys.stderr,
        )
        return 1
    print(f"\n2. Train ({'docker run ' + options.docker if options.docker else 'python -m'} train)", flush=True)
    own_files.expect([base / name for name in TRAIN_FILES])
    exit_code = _train(runner, base)
    own_files.record([base / name for name in TRAIN_FILES])
    if exit_code:
        failure = base / "output" / "failure"
        print(f"   {failure}: {failure.read_text() if failure.exists() else 'missing'}")
        return 1
    port = options.port or _free_port()
    print(f"\n3. Serve ({'docker run ' + options.docker if options.docker else 'python -m'} serve)", flush=True)
    started = time.perf_counter()
    try:
        with runner.serving(base, port):
            print(f"   GET http://127.0.0.1:{port}/ping: 200 after {time.perf_counter() - started:.2f} s", flush=True)
            agrees = _invoke(f"http://127.0.0.1:{port}/invocations", base, data)
            if options.keep:
                _wait_for_interrupt(port)
    except ServerError as error:
        print(f"   {error}")
        return 1
    _show_results(base)
    return 0 if agrees else 1


def _train(runner: Runner, base: Path) -> int:
    """Run the training job, and feed its pipes if it has any; return its exit code."""
    started = time.perf_counter()
    with feeding(base) as feeders:
        exit_code = runner.train(base)
    print(f"   exit code {exit_code} after {time.perf_counter() - started:.2f} s", flush=True)
    for feeder in feeders:
        print(f"   channel {feeder.folder.name} was read to its end through {feeder.epochs} FIFO(s)")
    return exit_code


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m local_test",
        description="Train on real digits by SageMaker's training contract, serve the model by its hosting contract, "
        "send requests, and show the answers. Without Docker unless --docker is given; never with AWS.",
    )
    parser.add_argument("--docker", metavar="IMAGE", help="run this image (for example kmeans:latest) through Docker")
    parser.add_argument(
        "--mnist",
        metavar="DIR",
        type=Path,
        help="train on 50,000 digits of MNIST as RecordIO-protobuf; DIR holds its IDX files (default: scikit-learn's "
        "digits as CSV)",
    )
    parser.add_argument(
        "--pipe",
        action="store_true",
        help="train in Pipe mode: the files of each channel go through FIFOs, once per epoch (3 of them), as SageMaker "
        "sends them; channels that a configuration has in Pipe mode are fed without this option too",
    )
    parser.add_argument(
        "--dir",
        type=Path,
        help="the folder that stands for /opt/ml; configuration files that are there are used as they are (default: "
        "local_test/test_dir; with --mnist mnist_dir, with --pipe test_pipe_dir or mnist_pipe_dir)",
    )
    parser.add_argument("--port", type=int, help="port to serve on (default: any free one)")
    parser.add_argument("--keep", action="store_true", help="go on serving until Ctrl-C, to try requests by hand")
    options = parser.parse_args()
    name = f"{'mnist' if options.mnist else 'test'}{'_pipe' if options.pipe else ''}_dir"
    options.dir = options.dir or LOCAL_TEST / name
    return options


def _prepare(base: Path, data: Digits, own_files: OwnFiles, *, is_large: bool, through_pipes: bool) -> None:
    """Write channels, configuration and requests."""
    print(f"1. Data and configuration, as SageMaker lays them out below /opt/ml, in {_short(base)}", flush=True)
    content_type = "application/x-recordio-protobuf" if is_large else "text/csv;label_size=0"
    files = digits.recordio_files(data) if is_large else digits.csv_files(data)
    channels = {base / "input" / "data" / name: content for name, content in files.items()}
    points = data.test[:ROWS_CHECKED]
    instances = json.dumps({"instances": [{"features": row} for row in points.tolist()]})
    requests = {base / "request.csv": digits.as_csv(points), base / "request.json": instances.encode()}
    own_files.write(channels | requests)
    input_mode = "Pipe" if through_pipes else "File"
    digits.write_configuration(base / "input" / "config", data.train.shape[1], content_type, input_mode)
    for path, points in zip(channels, (data.train, data.test), strict=True):
        print(f"   {path.relative_to(base)}: {points.shape[0]} digits x {points.shape[1]} pixels")
    print(f"   input/config/hyperparameters.json: {(base / 'input/config/hyperparameters.json').read_text().strip()}")


def _check_fifos(base: Path) -> None:
    """Raise a ForeignFileError if a file is where a FIFO of Pipe mode will be."""
    for path in leftover_fifos(base):
        if not path.is_fifo():
            raise ForeignFileError(path)


def _invoke(url: str, base: Path, data: Digits) -> bool:
    """Send some digits as CSV and as JSON; print the responses; return whether they equal what NumPy computes."""
    points = data.test[:ROWS_CHECKED]
    print("\n4. Invoke", flush=True)
    answers = []
    for content_type, name in (("text/csv", "request.csv"), ("application/json", "request.json")):
        print(f"   curl -H 'Content-Type: {content_type}' --data-binary @{_short(base / name)} {url}")
        started = time.perf_counter()
        answer = _post(url, content_type, (base / name).read_bytes())
        print(f"   {answer[:150]}... ({time.perf_counter() - started:.4f} s)")
        predictions = json.loads(answer)["predictions"]
        answers.append(([p["closest_cluster"] for p in predictions], [p["distance_to_cluster"] for p in predictions]))
    print(f"\n   The first {ROWS_SHOWN} digits of the test channel:")
    print("   digit  closest_cluster  distance_to_cluster")
    for digit, label, distance in list(zip(data.test_digits, *answers[0], strict=False))[:ROWS_SHOWN]:
        print(f"   {digit:5d}  {label:15g}  {distance:19.6f}")
    labels, distances = _brute_force(points, artifact.load(base / "model").centers)
    agrees = all(np.array_equal(a, labels) and np.allclose(b, distances, rtol=1e-5) for a, b in answers)
    print(
        f"   All {len(points)} labels and distances {'equal' if agrees else 'DIFFER FROM'} those that NumPy computes "
        "from the centers in the model."
    )
    return agrees


def _post(url: str, content_type: str, body: bytes) -> str:
    request = urllib.request.Request(url, body, {"Content-Type": content_type})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return str(response.read().decode())
    except urllib.error.HTTPError as error:
        raise ServerError(f"{error.code}: {error.read().decode()}") from None


def _brute_force(points: Float32, centers: Float32) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    differences = points[:, None, :].astype(np.float64) - centers[None, :, :]
    distances = np.sqrt((differences**2).sum(axis=2))
    return distances.argmin(axis=1), distances.min(axis=1)


def _wait_for_interrupt(port: int) -> None:
    print(f"\n   Serving on http://127.0.0.1:{port} until Ctrl-C.", flush=True)
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        print()


def _show_results(base: Path) -> None:
    print(f"\n5. Results in {_short(base)}")
    print("   model/model_algo-1   the centers, in the format of SageMaker's own k-means")
    print("   model/kmeans.json    how they came about: hyperparameters, cluster sizes, metrics")
    print("   request.csv, request.json   the requests above; `--keep` leaves the server running for your own")


def _short(path: Path) -> str:
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
