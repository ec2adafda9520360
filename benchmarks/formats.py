"""``python -m benchmarks.formats``: speed of reading and writing each format, compared with NumPy's reader of text.

Best of several runs on warm memory with one thread: the cost of the code, not of the machine's page faults or disk.
Results are written to build/benchmark/formats.json and printed.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from functools import partial

import numpy as np

from benchmarks import machine
from benchmarks.results import QUICK, Content, Document
from kmeans.formats import csv, jsonlines, npy, recordio

RUNS = 5
ROWS, COLUMNS = 50_000, 784
TEXT_NUMBERS = 1_000_000
# Columns and format of the numbers.
TEXTS = ((1, "%.6g"), (4, "%.6g"), (13, "%.6g"), (64, "%.6g"), (784, "%.6g"), (784, "%.3f"))

DOCUMENT = Document("formats", lambda _: {})


def main() -> None:
    """Measure all formats, and print the tables."""
    generator = np.random.default_rng(0)
    points = generator.random((ROWS, COLUMNS), dtype=np.float32)
    labels = {
        "no labels": None,
        "float32 labels": np.arange(ROWS).astype(np.float32),
        "int64 labels of one length": np.arange(ROWS) % 100,
        "int64 labels of two lengths": np.arange(ROWS) % 300,
    }
    records = []
    for name, column in labels.items():
        body = recordio.encode(points, column)
        written, read = _best(partial(recordio.encode, points, column)), _best(partial(recordio.decode, body))
        records.append({"labels": name, "bytes": len(body), "read_seconds": read, "write_seconds": written})
    file = io.BytesIO()
    np.save(file, points)
    content = {
        "machine": machine.description(),
        "rows": ROWS,
        "columns": COLUMNS,
        "recordio": records,
        "texts": [_text(generator, columns, pattern) for columns, pattern in TEXTS],
        "npy": {"bytes": len(file.getvalue()), "read_seconds": _best(partial(npy.decode, file.getvalue()))},
    }
    print(DOCUMENT.write(QUICK, content))


def _text(generator: np.random.Generator, columns: int, pattern: str) -> Content:
    """Return the time of reading normal deviates from CSV and from JSON Lines."""
    table = generator.normal(size=(TEXT_NUMBERS // columns, columns))
    text = io.BytesIO()
    np.savetxt(text, table, fmt=pattern, delimiter=",")
    lines = text.getvalue()
    json_lines = b"\n".join(b'{"features": [' + line + b"]}" for line in lines.splitlines())
    return {
        "columns": columns,
        "pattern": pattern,
        "numbers": table.size,
        "csv_seconds": _best(partial(csv.decode, lines)),
        "loadtxt_seconds": _best(lambda: np.loadtxt(io.BytesIO(lines), np.float32, delimiter=",", ndmin=2)),
        "json_lines_seconds": _best(partial(jsonlines.decode, json_lines)),
    }


def _best(action: Callable[[], object]) -> float:
    """Return the shortest time of several runs of ``action``, in seconds."""
    times = []
    for _ in range(RUNS):
        started = time.perf_counter()
        action()
        times.append(time.perf_counter() - started)
    return min(times)


if __name__ == "__main__":
    main()
