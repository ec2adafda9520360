"""Analysis of the runs of ``benchmarks.serving``: goals, and medians of the rounds, for docs/serving-benchmark.md."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import TypeVar

from benchmarks.bodies import FORMATS
from benchmarks.results import Content, Document, picture
from benchmarks.servers import KINDS, LIMIT, MLFLOW, OURS, SAMPLE

# Goals: rows/s (1000 rows per request) and requests/s (one row) as multiples of the peers', requests/s as a fraction of
# the limit's, and the 99th percentile at half load as a multiple of the median.
ROWS_GOAL, REQUESTS_GOAL, LIMIT_GOAL, TAIL_GOAL = 3.0, 2.0, 0.5, 3.0
MANY_ROWS = 1000

# A run is disturbed if other processes used more CPUs than this.
DISTURBED_CPUS = 0.1

PEERS = (SAMPLE, MLFLOW)
SERVERS = (OURS, SAMPLE, MLFLOW, LIMIT)

SHORT = {"text/csv": "CSV", "application/json": "JSON", "application/x-recordio-protobuf": "RecordIO-protobuf"}


@dataclass(frozen=True, slots=True)
class Cell:
    """A server, the type of the requests, and the rows and columns of each."""

    server: str
    media_type: str
    rows: int
    columns: int

    def __str__(self) -> str:
        return f"{self.server}, {self.question}"

    @property
    def question(self) -> str:
        """Format and shape of the request."""
        return f"{SHORT[self.media_type]}, {self.rows:,} x {self.columns}"

    def of(self, server: str) -> Cell:
        """Return the cell of another server with the same request."""
        return replace(self, server=server)


@dataclass(frozen=True, slots=True)
class Run:
    """One run at saturation: requests per second, seconds of median and 99th percentile, CPUs of other processes."""

    cell: Cell
    requests_per_second: float
    p50: float
    p99: float
    others: float


@dataclass(frozen=True, slots=True)
class HalfLoad:
    """Requests at given times: the kind of times (``arrivals``), rate and number, seconds, CPUs of other processes."""

    cell: Cell
    arrivals: str
    requests_per_second: float
    requests: int
    p50: float
    p99: float
    others: float

    @property
    def tail(self) -> float:
        """The 99th percentile as a multiple of the median."""
        return self.p99 / self.p50


@dataclass(frozen=True, slots=True)
class Goal:
    """A goal in one cell: its title, the request, the measured and the wanted value, and whether it is met."""

    title: str
    question: str
    found: float
    wanted: float
    is_met: bool


@dataclass(frozen=True, slots=True)
class Report:
    """All measurements."""

    runs: Sequence[Run]
    half_loads: Sequence[HalfLoad]

    def of(self, cell: Cell) -> Run | None:
        """Return the medians of a cell's runs, or None if the server cannot read such requests."""
        runs = calmest([run for run in self.runs if run.cell == cell])
        if not runs:
            return None
        rate, p50, p99 = (median(getattr(run, name) for run in runs) for name in ("requests_per_second", "p50", "p99"))
        return Run(cell, rate, p50, p99, max(run.others for run in runs))

    def rate(self, cell: Cell) -> float | None:
        """Return the median of the requests per second of a cell, or None if nothing was answered."""
        run = self.of(cell)
        return (run.requests_per_second or None) if run else None

    def half_load(self, cell: Cell, arrivals: str) -> HalfLoad:
        """Return the medians of a cell's measurements at half load."""
        loads = calmest([load for load in self.half_loads if (load.cell, load.arrivals) == (cell, arrivals)])
        p50, p99 = median(load.p50 for load in loads), median(load.p99 for load in loads)
        return replace(loads[0], p50=p50, p99=p99, others=max(load.others for load in loads))

    def cells(self) -> list[Cell]:
        """Return the cells of our server, in the tables' order."""
        return list(dict.fromkeys(run.cell for run in self.runs if run.cell.server == OURS))


def from_json(content: Content) -> Report:
    """Return the report of stored results."""
    return Report(
        [Run(**{**run, "cell": Cell(**run["cell"])}) for run in content["runs"]],
        [HalfLoad(**{**load, "cell": Cell(**load["cell"])}) for load in content["half_loads"]],
    )


Measured = TypeVar("Measured", Run, HalfLoad)


def calmest(measured: Sequence[Measured]) -> list[Measured]:
    """Return the undisturbed measurements, or the least disturbed one if there are none."""
    calm = [one for one in measured if one.others <= DISTURBED_CPUS]
    return calm or sorted(measured, key=lambda one: one.others)[:1]


def disturbed(measured: Sequence[Run] | Sequence[HalfLoad]) -> set[Cell]:
    """Return the cells in which all measurements were disturbed."""
    return {one.cell for one in measured} - {one.cell for one in measured if one.others <= DISTURBED_CPUS}


def goals(report: Report) -> list[Goal]:
    """Return every goal in every cell that it applies to."""
    found: list[Goal] = []
    for cell in report.cells():
        for peer in PEERS:
            if cell.rows == MANY_ROWS:
                found += _ratio(report, cell, peer, ROWS_GOAL, f"{ROWS_GOAL:g} times the rows/s of {peer}")
            elif cell.rows == 1:
                found += _ratio(report, cell, peer, REQUESTS_GOAL, f"{REQUESTS_GOAL:g} times the requests/s of {peer}")
        if cell.rows == 1:
            found += _ratio(report, cell, LIMIT, LIMIT_GOAL, f"{LIMIT_GOAL:g} of the requests/s of {LIMIT}")
    title = f"p99 under {TAIL_GOAL:g} times p50 at half load"
    loads = [report.half_load(cell, "fixed") for cell in report.cells()]
    found += [Goal(title, load.cell.question, load.tail, TAIL_GOAL, load.tail < TAIL_GOAL) for load in loads]
    return sorted(found, key=lambda goal: goal.title)


def _ratio(report: Report, cell: Cell, peer: str, wanted: float, title: str) -> Iterable[Goal]:
    ours, theirs = report.rate(cell), report.rate(cell.of(peer))
    if ours is not None and theirs is not None:
        yield Goal(title, cell.question, ours / theirs, wanted, ours / theirs >= wanted)


def context(content: Content) -> Content:
    """Return what the template shows."""
    report = from_json(content)
    return {
        "report": report,
        "kinds": KINDS,
        "goals": goals(report),
        "disturbed_runs": sum(run.others > DISTURBED_CPUS for run in report.runs),
        "disturbed_cells": disturbed(report.runs),
    }


def draw(variables: Content, file: Path) -> None:
    """Draw a panel for each shape, in it a group of bars for each format, and a bar for each server."""
    report: Report = variables["report"]
    shapes = list(dict.fromkeys((cell.rows, cell.columns) for cell in report.cells()))
    with picture(file, 1, len(shapes), (4.2, 4)) as (figure, panels):
        for panel, (rows, columns) in zip(panels, shapes, strict=True):
            for place, server in enumerate(SERVERS):
                cells = [Cell(server, media_type, rows, columns) for media_type in FORMATS]
                rates = [(report.rate(cell) or 0.0) * rows for cell in cells]
                positions = [group + 0.2 * (place - 1.5) for group in range(len(FORMATS))]
                panel.bar(positions, rates, 0.2, label=server, color="0.8" if server == LIMIT else f"C{place}")
            panel.set_xticks(range(len(FORMATS)), [SHORT[media_type] for media_type in FORMATS], fontsize=8)
            panel.set_title(f"{rows:,} x {columns} a request", fontsize=9)
            panel.set_ylabel("rows per second")
            panel.grid(visible=True, axis="y", alpha=0.25)
            panel.set_axisbelow(True)
        panels[0].legend(fontsize=8)
        figure.suptitle(
            "Rows per second of one worker on one CPU; where there is no bar, the server can't read the format"
        )


DOCUMENT = Document("serving-benchmark", context, draw)
