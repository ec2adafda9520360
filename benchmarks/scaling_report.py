"""Analysis of the jobs of ``benchmarks.scaling``: efficiency, the model's errors, a forecast, for docs/scaling.md."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from pathlib import Path
from statistics import fmean, median

from benchmarks import cost_model
from benchmarks.cost_model import FLOAT64_BYTES, Effort, Fit, Measured, Network, Rates, Shape, efficiency, predict
from benchmarks.results import Content, Document, picture

# Kinds of runs. The model's rates come from CALIBRATION, each job alone, and from CONCURRENT, two jobs at a time;
# the time of a start comes from START. CHECK has a given number of moves, DEFAULT the default settings. APART is half a
# job at the same time as another, with a given number of moves: it shows the cost of sharing a machine.
CALIBRATION, CONCURRENT, START, CHECK, DEFAULT, APART = "calibration", "beside", "start", "check", "default", "apart"

MAIN = Shape(784, 100)
GOAL, TOLERANCE = 0.9, 0.2

# A run that is longer than SHORT_SECONDS is disturbed if other processes used more CPUs than this.
SHORT_SECONDS, DISTURBED_CPUS = 4.0, 0.25

# Messages that latency and bandwidth come from; the others check them.
FITTED_EXCHANGES = (Shape(1, 1), Shape(784, 10), Shape(784, 100), Shape(784, 1000))

# The forecast: moves of a fit, hosts, rows and columns; and the additional cost of a network compared with the bridge:
# the latency of a message, and the time of each byte on the wire.
PAPER_MOVES, PAPER_HOSTS, PAPER_ROWS, PAPER_COLUMNS = 20, (2, 16, 128), (1e6, 1e7, 1e8, 1e9), 784
WIRE_LATENCY = 50e-6
WIRES = {"10 Gbit/s": 8 / 10e9, "25 Gbit/s": 8 / 25e9}
CHOICE = "10 Gbit/s"


@dataclass(frozen=True, slots=True)
class Run:
    """One job: ``docker run`` seconds, seconds of its phases, its quality, CPUs of other processes.

    In a ``replicated`` job all hosts had all files. ``with_all`` and ``with_nearby`` count as in a Fit.
    """

    kind: str
    columns: int
    clusters: int
    rows: int
    hosts: int
    seed: int
    replicated: bool
    moves: int
    with_all: int
    with_nearby: int
    seconds: float
    phases: dict[str, float]
    mean_squared_distance: float
    others: float

    @property
    def shape(self) -> Shape:
        """Columns and clusters."""
        return Shape(self.columns, self.clusters)

    @property
    def fit(self) -> float:
        """Seconds between reading and writing."""
        return self.measured.seconds

    @property
    def read(self) -> float:
        """Seconds of reading."""
        return self.phases["read"]

    @property
    def bytes(self) -> float:
        """Bytes of the numbers that one host reads."""
        return 4 * self.rows * self.columns / (1 if self.replicated else self.hosts)

    @property
    def measured(self) -> Measured:
        """The run in the form that the model uses."""
        fit = Fit(self.shape, self.rows, self.hosts, self.moves, self.with_all, self.with_nearby)
        return Measured(fit, self.phases)

    @property
    def comparisons(self) -> float:
        """Comparisons per row in phase 3, with all centers or some."""
        return (self.with_all + self.with_nearby) / self.rows


@dataclass(frozen=True, slots=True)
class JobModel:
    """The model of whole jobs: that of the fits, and the time of reading and starting.

    ``here``, ``read_per_byte`` and ``start`` are by the number of hosts on this machine, because two share its memory.
    """

    here: dict[int, dict[Shape, Rates]]
    efforts: dict[Shape, Effort]
    network: Network
    read_per_byte: dict[int, float]
    start: dict[int, float]

    @property
    def rates(self) -> dict[Shape, Rates]:
        """Rates of a host that does not share its machine."""
        return self.here[1]

    def fit(self, run: Run) -> float:
        """Return the predicted seconds of the fit."""
        return predict(run.measured.fit, self.here[run.hosts][run.shape], self.network)

    def job(self, run: Run) -> float:
        """Return the predicted seconds of the whole ``docker run``."""
        return self.start[run.hosts] + self.read_per_byte[run.hosts] * run.bytes + self.fit(run)


def model_of(runs: Sequence[Run], exchanges: Sequence[Content]) -> JobModel:
    """Return the model with the best parameters for the calibrations; it uses no other runs."""
    by_hosts = {1: _of(runs, CALIBRATION), 2: _of(runs, CONCURRENT)}
    shapes = dict.fromkeys(run.shape for run in by_hosts[1])
    largest = max(run.bytes for run in by_hosts[1])
    fitted = [each for each in exchanges if each["hosts"] == 2 and each["is_fitted"]]

    def measured(hosts: int, shape: Shape) -> list[Measured]:
        return [run.measured for run in by_hosts[hosts] if run.shape == shape]

    return JobModel(
        here={hosts: {shape: cost_model.rates_of(measured(hosts, shape)) for shape in shapes} for hosts in by_hosts},
        efforts={shape: cost_model.effort_of(measured(1, shape)) for shape in shapes},
        network=cost_model.network_of({each["numbers"]: each["mean"] for each in fitted}),
        read_per_byte={
            hosts: median(run.read / run.bytes for run in found if run.bytes == largest)
            for hosts, found in by_hosts.items()
        },
        start={
            hosts: median(run.seconds - run.read - run.fit for run in found)
            for hosts, found in ((1, by_hosts[1]), (2, _of(runs, START)))
        },
    )


def _of(runs: Iterable[Run], kind: str) -> list[Run]:
    return [run for run in runs if run.kind == kind]


@dataclass(frozen=True, slots=True)
class Pair:
    """Runs of one job with equal seeds on one host (``alone``), and on two with the same or twice the rows."""

    alone: tuple[Run, ...]
    together: tuple[Run, ...]

    @property
    def run(self) -> Run:
        """One of the runs on two hosts."""
        return self.together[0]

    def median(self, hosts: int, figure: str) -> float:
        """Return the median of a figure, the name of an attribute, over the runs on ``hosts``."""
        return float(median(map(attrgetter(figure), self.alone if hosts == 1 else self.together)))

    def ratios(self, figure: str) -> list[float]:
        """Return the efficiency for each seed: strong scaling if the rows are the same, otherwise weak."""
        work = self.run.rows / self.alone[0].rows
        alone = {run.seed: getattr(run, figure) for run in self.alone}
        return [alone[run.seed] * work / (2 * getattr(run, figure)) for run in self.together if run.seed in alone]

    def efficiency(self, figure: str = "fit") -> float:
        """Return the median efficiency."""
        return median(self.ratios(figure))


def pairs_of(runs: Sequence[Run], factor: int, *, replicated: bool) -> list[Pair]:
    """Return the runs on two hosts with those on one host of 1 / ``factor`` of the rows."""
    groups: dict[tuple[Shape, int, int], tuple[Run, ...]] = {}
    for run in (run for run in runs if run.hosts == 1 or run.replicated == replicated):
        key = run.shape, run.rows, run.hosts
        groups[key] = (*groups.get(key, ()), run)
    return [
        Pair(groups[shape, rows // factor, 1], together)
        for (shape, rows, hosts), together in groups.items()
        if hosts == 2 and (shape, rows // factor, 1) in groups
    ]


def networks(model: JobModel) -> dict[str, Network]:
    """Return the measured network, and those of the forecast, by name."""
    here = model.network
    return {
        "this bridge": here,
        **{name: Network(here.latency + WIRE_LATENCY, here.per_byte + per_byte) for name, per_byte in WIRES.items()},
    }


def context(content: Content) -> Content:
    """Return what the template shows."""
    runs = [Run(**record) for record in content["runs"]]
    exchanges = [
        {
            **each,
            "numbers": cost_model.message(each["clusters"], each["columns"]),
            "is_fitted": Shape(each["columns"], each["clusters"]) in FITTED_EXCHANGES,
        }
        for each in content["exchanges"]
    ]
    default, check = _of(runs, DEFAULT), _of(runs, CHECK)
    model = model_of(runs, exchanges)
    predicted = [*check, *default]
    alone = {(run.shape, run.rows, run.seed): run.fit for run in check if run.hosts == 1}
    apart = _of(runs, APART)
    return {
        "others": max((run.others for run in runs if run.seconds > SHORT_SECONDS), default=0.0),
        "moves": max((run.moves for run in check), default=0),
        "model": model,
        "strong": {
            how: {"default": pairs_of(default, 1, replicated=flag), "check": pairs_of(check, 1, replicated=flag)}
            for how, flag in (("replicated", True), ("sharded", False))
        },
        "weak": pairs_of(check, 2, replicated=False),
        # Time of one host over that of the same job while another container works, for each seed.
        "apart": apart,
        "apart_ratios": [alone[run.shape, run.rows, run.seed] / run.fit for run in apart],
        "errors": [
            {"what": what, "within": sum(error <= TOLERANCE for error in found), "all": found, "mean": fmean(found)}
            for what, found in (
                ("fits", [abs(model.fit(run) / run.fit - 1) for run in predicted]),
                ("whole jobs", [abs(model.job(run) / run.seconds - 1) for run in predicted]),
            )
        ],
        "exchanged": {hosts: [each for each in exchanges if each["hosts"] == hosts] for hosts in (2, 4)},
        "predicted": sorted(predicted, key=lambda run: (run.columns, run.clusters, run.rows, run.hosts)),
        **_forecast(model),
    }


def _forecast(model: JobModel) -> Content:
    """Return the efficiency by shape and rows, and the rows that a number of hosts needs."""
    by_name = networks(model)
    efficiencies, choices = [], []
    for shape in _paper_shapes(model):
        rates, fit_of = model.rates[shape], partial(_on_paper, model, shape)
        for rows in PAPER_ROWS:
            fits = [fit_of(rows=rows, hosts=hosts) for hosts in PAPER_HOSTS]
            cells = [[efficiency(fit, rates, network) for network in by_name.values()] for fit in fits]
            efficiencies.append({"clusters": shape.clusters, "rows": rows, "cells": cells})
        for hosts in PAPER_HOSTS:
            network = by_name[CHOICE]
            with_rows: Callable[[float], Fit] = partial(_on_paper, model, shape, hosts)
            rows = cost_model.rows_for(GOAL, with_rows, rates, network)
            fit, alone = (predict(fit_of(rows=rows, hosts=count), rates, network) for count in (hosts, 1))
            choices.append({"clusters": shape.clusters, "hosts": hosts, "rows": rows, "fit": fit, "alone": alone})
    return {"networks": list(by_name), "efficiencies": efficiencies, "choices": choices}


def _on_paper(model: JobModel, shape: Shape, hosts: int, rows: float) -> Fit:
    return model.efforts[shape].fit(shape, rows, hosts, PAPER_MOVES)


def _paper_shapes(model: JobModel) -> list[Shape]:
    return [shape for shape in model.rates if shape.columns == PAPER_COLUMNS]


def draw(variables: Content, file: Path) -> None:
    """Draw exchanges, predictions next to measurements, and the forecast of the efficiency."""
    model, checked = variables["model"], variables["predicted"]
    exchanges = sorted(variables["exchanged"][2], key=lambda each: each["numbers"])
    with picture(file, 1, 3, (16 / 3, 4.8)) as (_, (left, middle, right)):
        sizes = [FLOAT64_BYTES * each["numbers"] for each in exchanges]
        left.loglog(sizes, [1e3 * each["mean"] for each in exchanges], "o", label="mean")
        left.loglog(sizes, [1e3 * each["median"] for each in exchanges], "_", markersize=12, label="median")
        left.loglog(sizes, [1e3 * model.network.exchange(2, each["numbers"]) for each in exchanges], "-", label="model")
        left.set(title="Adding up sums over two hosts", xlabel="bytes", ylabel="ms")
        for hosts, marker, label in ((1, "s", "one host"), (2, "o", "two hosts")):
            runs = [run for run in checked if run.hosts == hosts]
            middle.loglog([run.fit for run in runs], [model.fit(run) for run in runs], marker, label=label)
        ends = [min(run.fit for run in checked) / 1.3, max(run.fit for run in checked) * 1.3]
        middle.loglog(ends, ends, "k-", linewidth=0.8)
        low, high = ([end * factor for end in ends] for factor in (1 - TOLERANCE, 1 + TOLERANCE))
        middle.fill_between(ends, low, high, alpha=0.15)
        title = f"Fits: model and measurement (band: {TOLERANCE:.0%})"
        middle.set(title=title, xlabel="measured, s", ylabel="model, s")
        counts = [2**power for power in range(8)]
        for number, shape in enumerate(_paper_shapes(model)):
            for rows, style in ((1e6, ":"), (1e8, "-")):
                fits = [_on_paper(model, shape, hosts, rows) for hosts in counts]
                values = [efficiency(fit, model.rates[shape], networks(model)[CHOICE]) for fit in fits]
                label = f"k = {shape.clusters}, {rows / 1e6:.0f} million rows"
                right.semilogx(counts, values, style, color=f"C{number}", label=label)
        right.set(title=f"On paper: efficiency at {CHOICE}", xlabel="hosts", ylim=(0, 1.05))
        for panel in (left, middle, right):
            panel.grid(visible=True, which="major", alpha=0.25)
            panel.legend(frameon=False, fontsize=8)


DOCUMENT = Document("scaling", context, draw)
