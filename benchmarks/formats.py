"""``python -m benchmarks.formats``: how fast each format is read and written, beside NumPy's own reader of text.

Best of several runs on warm memory, one thread: what the code costs, not the machine's page faults or disk.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from functools import partial

import numpy as np

from kmeans.formats import csv, jsonlines, npy, recordio

RUNS = 5
ROWS, COLUMNS = 50_000, 784
TEXT_NUMBERS = 1_000_000


def seconds(action: Callable[[], object]) -> float:
    """Return the shortest time of several runs of ``action``."""
    best = float("inf")
    for _ in range(RUNS):
        started = time.perf_counter()
        action()
        best = min(best, time.perf_counter() - started)
    return best


def _loadtxt(lines: bytes) -> object:
    return np.loadtxt(io.BytesIO(lines), np.float32, delimiter=",", ndmin=2)


def main() -> None:
    """Print a table of RecordIO-protobuf, and one of text formats."""
    generator = np.random.default_rng(0)
    points = generator.random((ROWS, COLUMNS), dtype=np.float32)
    print(f"RecordIO-protobuf, {ROWS} x {COLUMNS} float32")
    labels = {
        "no labels": None,
        "float32 labels": np.arange(ROWS).astype(np.float32),
        "int64 labels of one length": np.arange(ROWS) % 100,
        "int64 labels of two lengths": np.arange(ROWS) % 300,
    }
    for name, column in labels.items():
        body = recordio.encode(points, column)
        size = len(body) / 1e9
        writing = seconds(partial(recordio.encode, points, column))
        reading = seconds(partial(recordio.decode, body))
        print(f"  {name:28s} read {size / reading:5.2f} GB/s   write {size / writing:5.2f} GB/s")
    print(f"\nText, {TEXT_NUMBERS} normal deviates, million numbers per second")
    print("  columns  format    csv  numpy.loadtxt  ratio  json lines")
    for columns, pattern in ((1, "%.6g"), (4, "%.6g"), (13, "%.6g"), (64, "%.6g"), (784, "%.6g"), (784, "%.3f")):
        table = generator.normal(size=(TEXT_NUMBERS // columns, columns))
        text = io.BytesIO()
        np.savetxt(text, table, fmt=pattern, delimiter=",")
        lines = text.getvalue()
        json_lines = b"\n".join(b'{"features": [' + line + b"]}" for line in lines.splitlines())
        ours = seconds(partial(csv.decode, lines))
        theirs = seconds(partial(_loadtxt, lines))
        others = seconds(partial(jsonlines.decode, json_lines))
        csv_rate, loadtxt_rate, json_rate = (table.size / 1e6 / spent for spent in (ours, theirs, others))
        print(
            f"  {columns:7d}  {pattern:6s} {csv_rate:6.1f} {loadtxt_rate:14.1f} {theirs / ours:6.2f} {json_rate:11.1f}"
        )
    file = io.BytesIO()
    np.save(file, points)
    body = file.getvalue()
    print(f"\nNPY, {ROWS} x {COLUMNS} float32: read {len(body) / 1e9 / seconds(lambda: npy.decode(body)):.2f} GB/s")


if __name__ == "__main__":
    main()
