"""``python -m benchmarks.job FILE``: a whole training job on a file, compared with its unavoidable parts.

These are: the interpreter and NumPy, one sequential read of the file, and the fit alone on points in memory. Each is
measured in separate processes, best of several runs on a warm page cache. Results are written to
build/benchmark/job.json and printed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import machine
from benchmarks.results import QUICK, Document
from kmeans.system import usable_cpus

RUNS = 7
READ_BYTES = 4 << 20

READ = f"""
import sys
with open(sys.argv[1], "rb", buffering=0) as file:
    buffer = bytearray({READ_BYTES})
    while file.readinto(buffer):
        pass
"""

FIT = """
import sys, time
import numpy as np
from pathlib import Path
from kmeans.fitting import fit
from kmeans.formats import recordio
from kmeans.dataset import MemoryRows
from kmeans.settings import Settings
from kmeans.threads import ThreadPool

points = recordio.decode(Path(sys.argv[1]).read_bytes())
with ThreadPool(int(sys.argv[3])) as pool:
    fit(MemoryRows(points[:5000]), Settings(k=2), pool=pool)
    started = time.perf_counter()
    fit(MemoryRows(points), Settings(k=int(sys.argv[2])), pool=pool)
    print(time.perf_counter() - started)
"""

ENVIRONMENT = {**os.environ, **machine.ONE_THREAD, **machine.allocator_variables("train")}
DOCUMENT = Document("job", lambda content: {"total": content["start"] + content["read"] + content["fit"]})


def main() -> None:
    """Measure, and print the times and the ratio."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.job", description=__doc__)
    parser.add_argument("file", type=Path, help="RecordIO-protobuf")
    parser.add_argument("--k", type=int, default=10, help="clusters (default: 10)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        _write_job(Path(folder), options.file.resolve(), options.k)
        job = _best(["-m", "train"], SAGEMAKER_BASE_DIR=folder, PYTHONDONTWRITEBYTECODE="1")
    content = {
        "machine": machine.description(),
        "start": _best(["-c", "import numpy"]),
        "read": _best(["-c", READ, str(options.file)]) - _best(["-c", "pass"]),
        "fit": min(_fit_seconds(options.file, options.k) for _ in range(RUNS)),
        "job": job,
    }
    print(DOCUMENT.write(QUICK, content))


def _best(arguments: list[str], **variables: str) -> float:
    """Return the shortest time of several runs of Python with ``arguments``, in seconds."""
    times = []
    for _ in range(RUNS):
        began = time.perf_counter()
        command, environment = [sys.executable, *arguments], {**ENVIRONMENT, **variables}
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - began)
    return min(times)


def _fit_seconds(file: Path, k: int) -> float:
    command = [sys.executable, "-c", FIT, str(file), str(k), str(usable_cpus())]
    run = subprocess.run(command, env=ENVIRONMENT, check=True, capture_output=True, text=True)
    return float(run.stdout)


def _write_job(base: Path, file: Path, k: int) -> None:
    channel, config = base / "input" / "data" / "train", base / "input" / "config"
    channel.mkdir(parents=True)
    config.mkdir()
    (channel / file.name).symlink_to(file)
    (config / "hyperparameters.json").write_text(json.dumps({"k": str(k)}))


if __name__ == "__main__":
    main()
