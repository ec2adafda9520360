"""``python -m benchmarks.job FILE``: a whole training job on a file, as a process, beside what it can't do without.

That is: the interpreter and NumPy, one sequential read of the file, and the fit alone on points in memory. All in
processes of their own, best of several runs on a warm page cache.
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

from benchmarks.methods import HEAP_VARIABLES, THREAD_VARIABLES
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

ENVIRONMENT = {
    **os.environ,
    **dict.fromkeys(THREAD_VARIABLES, "1"),
    **HEAP_VARIABLES,
}


def main() -> None:
    """Print the times and the ratio."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.job", description=__doc__)
    parser.add_argument("file", type=Path, help="RecordIO-protobuf")
    parser.add_argument("--k", type=int, default=10, help="clusters (default: 10)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        _write_job(Path(folder), options.file.resolve(), options.k)
        job = min(
            _seconds([sys.executable, "-m", "train"], {"SAGEMAKER_BASE_DIR": folder, "PYTHONDONTWRITEBYTECODE": "1"})
            for _ in range(RUNS)
        )
    started = min(_seconds([sys.executable, "-c", "import numpy"], {}) for _ in range(RUNS))
    empty = min(_seconds([sys.executable, "-c", "pass"], {}) for _ in range(RUNS))
    read = min(_seconds([sys.executable, "-c", READ, str(options.file)], {}) for _ in range(RUNS)) - empty
    fit = min(_fit_seconds(options.file, options.k) for _ in range(RUNS))
    total = started + read + fit
    print(f"interpreter and NumPy {started:.3f} s")
    print(f"one read of the file  {read:.3f} s")
    print(f"the fit alone         {fit:.3f} s")
    print(f"sum                   {total:.3f} s")
    print(f"the job               {job:.3f} s, {job / total:.2f} times the sum")


def _seconds(command: list[str], more: dict[str, str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, env={**ENVIRONMENT, **more}, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


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
