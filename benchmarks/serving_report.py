"""What was measured of the servers -> docs/serving-benchmark.md and its picture: goals, and medians of the rounds."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TypeVar

from benchmarks.bodies import FORMATS
from benchmarks.servers import KINDS, LIMIT, MLFLOW, OURS, SAMPLE

NAME = "serving-benchmark"

# How many times as many rows (1000 rows a request) and requests (one row) we want to answer as the peers; which part of
# the limit's requests; and how many times the median the 99th percentile at half load may be.
ROWS_GOAL, REQUESTS_GOAL, LIMIT_GOAL, TAIL_GOAL = 3.0, 2.0, 0.5, 3.0
MANY_ROWS = 1000

# A run is disturbed if other processes used so much (in CPUs) meanwhile.
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
        """What is asked."""
        return f"{SHORT[self.media_type]}, {self.shape}"

    @property
    def shape(self) -> str:
        """Rows and columns."""
        return f"{self.rows:,} x {self.columns}"

    def of(self, server: str) -> Cell:
        """Return the same of another server."""
        return Cell(server, self.media_type, self.rows, self.columns)


@dataclass(frozen=True, slots=True)
class Run:
    """One run at saturation: requests per second, seconds of the median and the 99th percentile, CPUs of others."""

    cell: Cell
    requests_per_second: float
    p50: float
    p99: float
    others: float


@dataclass(frozen=True, slots=True)
class HalfLoad:
    """Requests at times that don't depend on the answers: how they came and how many, seconds, CPUs of others."""

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
    """A goal in one cell: what it says, what was found and what was wanted, and whether it is met."""

    title: str
    question: str
    found: float
    wanted: float
    is_met: bool


@dataclass(frozen=True, slots=True)
class Report:
    """All that was measured, and the machine it was measured on."""

    machine: Mapping[str, str]
    runs: Sequence[Run]
    half_loads: Sequence[HalfLoad]

    def of(self, cell: Cell) -> Run | None:
        """Return the medians of a cell's runs, or None if the server can't read such requests."""
        runs = calmest([run for run in self.runs if run.cell == cell])
        if not runs:
            return None
        return Run(
            cell,
            median(run.requests_per_second for run in runs),
            median(run.p50 for run in runs),
            median(run.p99 for run in runs),
            max(run.others for run in runs),
        )

    def half_load(self, cell: Cell, arrivals: str) -> HalfLoad:
        """Return the medians of what was measured of a cell at half load."""
        loads = calmest([load for load in self.half_loads if (load.cell, load.arrivals) == (cell, arrivals)])
        p50, p99 = median(load.p50 for load in loads), median(load.p99 for load in loads)
        others = max(load.others for load in loads)
        return HalfLoad(cell, arrivals, loads[0].requests_per_second, loads[0].requests, p50, p99, others)

    def cells(self) -> list[Cell]:
        """Return our cells, in the tables' order."""
        return list(dict.fromkeys(run.cell for run in self.runs if run.cell.server == OURS))


Measured = TypeVar("Measured", Run, HalfLoad)


def calmest(measured: Sequence[Measured]) -> list[Measured]:
    """Return those that other processes left the CPUs to; if there are none, the one that they disturbed least."""
    calm = [one for one in measured if one.others <= DISTURBED_CPUS]
    return calm or sorted(measured, key=lambda one: one.others)[:1]


def disturbed(measured: Sequence[Run] | Sequence[HalfLoad]) -> set[Cell]:
    """Return the cells in which other processes disturbed everything that was measured."""
    return {one.cell for one in measured} - {one.cell for one in measured if one.others <= DISTURBED_CPUS}


def goals(report: Report) -> list[Goal]:
    """Return every goal in every cell that it holds for."""
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
    ours, theirs = report.of(cell), report.of(cell.of(peer))
    if ours is not None and theirs is not None:
        ratio = ours.requests_per_second / theirs.requests_per_second
        yield Goal(title, cell.question, ratio, wanted, ratio >= wanted)


def markdown(report: Report) -> str:
    """Return the whole report."""
    checked = goals(report)
    lines = [
        "# The server beside others, under load",
        "",
        "Made by `make bench` (`python -m benchmarks.serving`); all numbers are of one run of it on one machine.",
        "",
        *(f"- {name}: {value}" for name, value in report.machine.items()),
        f"- runs during which other processes used more than {DISTURBED_CPUS:g} CPUs: "
        f"{sum(run.others > DISTURBED_CPUS for run in report.runs)} of {len(report.runs)}; they don't count, but in "
        f"the {len(disturbed(report.runs))} cells that have no others, where the least disturbed run does",
        "",
        "The servers:",
        "",
        *(f"- {kind.name}: {kind.title}" for kind in KINDS),
        f"- {LIMIT}: gunicorn with the same class of workers and as many threads; a function of four lines reads the "
        "body and answers as many bytes as ours does, always the same",
        "",
        "How it is measured:",
        "",
        "- Each server has one worker process (ours, the sample and the limit of four threads), all on the same CPU, "
        "and wrk has another one. They run without containers, and their logs go to files: ours writes a line of JSON "
        "for each request, MLflow its line of access, the sample and the limit none.",
        "- Before anything is measured, the labels of each answer are compared with brute force.",
        "- Ours gives label and distance of each row, in the type of the request; the sample and MLflow the label.",
        "- Requests/s, p50 and p99 under saturation are wrk's, which sends the next request when an answer has come: "
        "with more connections than CPUs, p50 is mostly the time in the queue.",
        "- Half load: a client sends half as many requests as were answered under saturation, each at a time set "
        "beforehand, on another connection if need be, and measures from that time. Fixed: at equal distances, as "
        "wrk2 does. Random: at exponential ones; there, a CPU that takes exactly the same time for each request would "
        "have a p99 of 4.3 times its p50 (M/D/1 at half load), so the goal is about fixed times. Fixed times were "
        "measured several times over, and the medians count. The limit is asked half as often as it could answer in "
        "the same way: what it has of a tail is the machine's, as when something else takes the CPU for milliseconds.",
        "",
        "![requests and rows per second](serving-benchmark.svg)",
        "",
        "## Goals",
        "",
        f"{sum(goal.is_met for goal in checked)} of {len(checked)} are met.",
        "",
        "| goal | request | found | |",
        "| --- | --- | --: | --- |",
        *(
            f"| {goal.title} | {goal.question} | {goal.found:.2f} | {'met' if goal.is_met else '**not met**'} |"
            for goal in checked
        ),
    ]
    for title, unit in (("Requests per second", "requests"), ("Rows per second", "rows")):
        lines += ["", f"## {title}", "", *_rates(report, unit)]
    lines += ["", "## Time of an answer under saturation: p50 / p99, ms", "", *_times(report)]
    lines += ["", "## Time of an answer at half load", "", *_tails(report)]
    return "\n".join(lines) + "\n"


def _rates(report: Report, unit: str) -> list[str]:
    lines = [
        f"| request | {' | '.join(SERVERS)} | ours / the limit |",
        f"| --- {'| --: ' * (len(SERVERS) + 1)}|",
    ]
    for cell in report.cells():
        factor = cell.rows if unit == "rows" else 1
        runs = [report.of(cell.of(server)) for server in SERVERS]
        ours = runs[0]
        texts = []
        for run in runs:
            if run is None or ours is None:
                texts.append("can't")
                continue
            text = f"{run.requests_per_second * factor:,.0f}"
            if run.cell.server in PEERS:
                text += f" (ours: {ours.requests_per_second / run.requests_per_second:.1f} x)"
            texts.append(text)
        limit = runs[-1]
        share = f"{ours.requests_per_second / limit.requests_per_second:.2f}" if ours and limit else ""
        lines.append(f"| {cell.question} | {' | '.join(texts)} | {share} |")
    return lines


def _times(report: Report) -> list[str]:
    lines = [f"| request | {' | '.join(SERVERS)} |", f"| --- {'| --: ' * len(SERVERS)}|"]
    for cell in report.cells():
        runs = [report.of(cell.of(server)) for server in SERVERS]
        texts = ["can't" if run is None else f"{1e3 * run.p50:.2f} / {1e3 * run.p99:.2f}" for run in runs]
        lines.append(f"| {cell.question} | {' | '.join(texts)} |")
    return lines


def _tails(report: Report) -> list[str]:
    lines = [
        "| request | requests/s | fixed times: requests | p50, ms | p99, ms | p99 / p50 | random: p50, ms | p99, ms "
        "| p99 / p50 | the limit: requests/s | p50, ms | p99, ms | p99 / p50 |",
        "| --- |" + " --: |" * 12,
    ]
    for cell in report.cells():
        fixed, random = report.half_load(cell, "fixed"), report.half_load(cell, "random")
        limit = report.half_load(cell.of(LIMIT), "fixed")
        lines.append(
            f"| {cell.question} | {fixed.requests_per_second:,.0f} | {fixed.requests:,} | {1e3 * fixed.p50:.2f} "
            f"| {1e3 * fixed.p99:.2f} | {fixed.tail:.2f} | {1e3 * random.p50:.2f} | {1e3 * random.p99:.2f} "
            f"| {random.tail:.2f} | {limit.requests_per_second:,.0f} | {1e3 * limit.p50:.2f} | {1e3 * limit.p99:.2f} "
            f"| {limit.tail:.2f} |"
        )
    return lines


def draw(report: Report, file: Path) -> None:
    """Write the picture: for each shape a panel, for each format a group of bars, a bar for each server."""
    import matplotlib as mpl  # noqa: PLC0415 - not while something is measured

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = NAME
    from matplotlib import pyplot  # noqa: PLC0415

    shapes = list(dict.fromkeys((cell.rows, cell.columns) for cell in report.cells()))
    figure, panels = pyplot.subplots(1, len(shapes), figsize=(4.2 * len(shapes), 4), squeeze=False)
    for panel, (rows, columns) in zip(panels.flat, shapes, strict=True):
        for place, server in enumerate(SERVERS):
            runs = [report.of(Cell(server, media_type, rows, columns)) for media_type in FORMATS]
            rates = [run.requests_per_second * rows if run is not None else 0.0 for run in runs]
            positions = [group + 0.2 * (place - 1.5) for group in range(len(FORMATS))]
            panel.bar(positions, rates, 0.2, label=server, color="0.8" if server == LIMIT else f"C{place}")
        panel.set_xticks(range(len(FORMATS)), [SHORT[media_type] for media_type in FORMATS], fontsize=8)
        panel.set_title(f"{rows:,} x {columns} a request", fontsize=9)
        panel.set_ylabel("rows per second")
        panel.grid(visible=True, axis="y", alpha=0.25)
        panel.set_axisbelow(True)
    panels.flat[0].legend(fontsize=8)
    figure.suptitle("Rows per second of one worker on one CPU; where there is no bar, the server can't read the format")
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})
    pyplot.close(figure)


def write(report: Report, folder: Path) -> None:
    """Write figures, tables and the picture into ``folder``."""
    (folder / f"{NAME}.json").write_text(as_json(report))
    (folder / f"{NAME}.md").write_text(markdown(report))
    draw(report, folder / f"{NAME}.svg")


def as_json(report: Report) -> str:
    """Return all figures as JSON, a run a line: differences between two versions of the file can be read."""
    parts = [json.dumps({"machine": dict(report.machine)}, indent=1)[:-2]]
    for name, items in (("runs", report.runs), ("half_loads", report.half_loads)):
        lines = ",\n  ".join(json.dumps(asdict(item)) for item in items)
        parts.append(f' "{name}": [\n  {lines}\n ]')
    return ",\n".join(parts) + "\n}\n"


def from_json(text: str) -> Report:
    """Return what :func:`as_json` was given."""
    content = json.loads(text)
    return Report(
        content["machine"],
        [Run(**{**run, "cell": Cell(**run["cell"])}) for run in content["runs"]],
        [HalfLoad(**{**load, "cell": Cell(**load["cell"])}) for load in content["half_loads"]],
    )
