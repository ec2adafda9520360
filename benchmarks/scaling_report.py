"""What was measured of several hosts -> docs/scaling.md and its picture: tables, the model's errors, a forecast."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import fmean, median
from typing import Any

from benchmarks.cost_model import (
    FLOAT64_BYTES,
    Effort,
    Fit,
    Measured,
    Network,
    Rates,
    Shape,
    efficiency,
    effort_of,
    message,
    network_of,
    predict,
    rates_of,
    rows_for,
)

# Kinds of runs: what the model's rates come from, each alone, and each beside another that does the same; what the time
# of a start comes from; with a number of moves that is given; with the settings as they are; and half a job beside
# another, with a number of moves that is given, which tells what two hosts lose that share a machine.
CALIBRATION, BESIDE, START, CHECK, DEFAULT, APART = "calibration", "beside", "start", "check", "default", "apart"

MAIN = Shape(784, 100)
GOAL, TOLERANCE = 0.9, 0.2

# Runs that are longer are disturbed if others took so much (in CPUs).
SHORT_SECONDS, DISTURBED_CPUS = 4.0, 0.25

# Messages that latency and bandwidth come from; the others check them.
FITTED_EXCHANGES = (Shape(1, 1), Shape(784, 10), Shape(784, 100), Shape(784, 1000))

# On paper: moves of a fit, hosts, rows and columns; and what a network adds to what the bridge takes (copies, the work
# of the kernel): the time of a message on its way, and of each byte on the wire.
PAPER_MOVES, PAPER_HOSTS, PAPER_ROWS, PAPER_COLUMNS = 20, (2, 16, 128), (1e6, 1e7, 1e8, 1e9), 784
WIRE_LATENCY = 50e-6
WIRES = {"10 Gbit/s": 8 / 10e9, "25 Gbit/s": 8 / 25e9}


@dataclass(frozen=True, slots=True)
class Exchange:
    """Seconds of adding up the sums of a pass over ``hosts``: of many times the mean, the median and the least."""

    hosts: int
    clusters: int
    columns: int
    mean: float
    median: float
    min: float

    @property
    def shape(self) -> Shape:
        """Columns and clusters."""
        return Shape(self.columns, self.clusters)

    @property
    def numbers(self) -> int:
        """Numbers in the message."""
        return message(self.clusters, self.columns)


@dataclass(frozen=True, slots=True)
class Run:
    """One job: what it was, seconds of the whole ``docker run`` and of its phases, its quality, CPUs of others.

    ``replicated`` is a job whose hosts all had all files; ``with_all`` and ``with_nearby`` count as in a Fit.
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
        """The same as the model takes it."""
        fit = Fit(self.shape, self.rows, self.hosts, self.moves, self.with_all, self.with_nearby)
        return Measured(fit, self.phases)

    @property
    def comparisons(self) -> float:
        """How often a row was compared in phase 3, with all centers or some."""
        return (self.with_all + self.with_nearby) / self.rows


@dataclass(frozen=True, slots=True)
class Figures:
    """All that was measured, and on what."""

    machine: dict[str, str]
    exchanges: tuple[Exchange, ...]
    runs: tuple[Run, ...]

    def write(self, file: Path) -> None:
        """Write a JSON file, a measurement a line: differences between two versions can be read."""
        parts = [f' "machine": {json.dumps(self.machine)}']
        for name, records in (("exchanges", self.exchanges), ("runs", self.runs)):
            lines = ",\n  ".join(json.dumps(asdict(record)) for record in records)
            parts.append(f' "{name}": [\n  {lines}\n ]')
        file.write_text("{\n" + ",\n".join(parts) + "\n}\n")

    @classmethod
    def read(cls, file: Path) -> Figures:
        """Read such a file."""
        content: dict[str, Any] = json.loads(file.read_text())
        return cls(
            content["machine"],
            tuple(Exchange(**record) for record in content["exchanges"]),
            tuple(Run(**record) for record in content["runs"]),
        )

    def of(self, kind: str, shape: Shape | None = None) -> list[Run]:
        """Return the runs of a kind, and of a shape if one is given, in their order."""
        return [run for run in self.runs if run.kind == kind and shape in (None, run.shape)]


@dataclass(frozen=True, slots=True)
class JobModel:
    """The model of whole jobs: that of the fits, with what reading and starting take; and what effort fits are.

    What is ``here`` is by the number of hosts on this machine: two share its memory. ``rates`` are those of one.
    """

    here: dict[int, dict[Shape, Rates]]
    efforts: dict[Shape, Effort]
    network: Network
    read_per_byte: dict[int, float]
    start: dict[int, float]

    @property
    def rates(self) -> dict[Shape, Rates]:
        """Rates of a host that has its machine for itself."""
        return self.here[1]

    def fit(self, run: Run) -> float:
        """Return the predicted seconds of the fit."""
        return predict(run.measured.fit, self.here[run.hosts][run.shape], self.network)

    def job(self, run: Run) -> float:
        """Return the predicted seconds of the whole ``docker run``."""
        return self.start[run.hosts] + self.read_per_byte[run.hosts] * run.bytes + self.fit(run)


def model_of(figures: Figures) -> JobModel:
    """Return the model whose parameters fit the calibrations best; it knows nothing of the other runs."""
    calibrations, starts = figures.of(CALIBRATION), figures.of(START)
    by_hosts = {1: calibrations, 2: figures.of(BESIDE)}
    shapes = dict.fromkeys(run.shape for run in calibrations)
    largest = max(run.bytes for run in calibrations)
    return JobModel(
        here={hosts: {shape: rates_of(_measured(runs, shape)) for shape in shapes} for hosts, runs in by_hosts.items()},
        efforts={shape: effort_of(_measured(calibrations, shape)) for shape in shapes},
        network=network_of(
            {each.numbers: each.mean for each in figures.exchanges if each.hosts == 2 and _is_fitted(each)}
        ),
        read_per_byte={
            hosts: median(run.read / run.bytes for run in runs if run.bytes == largest)
            for hosts, runs in by_hosts.items()
        },
        start={
            1: median(run.seconds - run.read - run.fit for run in calibrations),
            2: median(run.seconds - run.read - run.fit for run in starts),
        },
    )


def _measured(runs: Sequence[Run], shape: Shape) -> list[Measured]:
    return [run.measured for run in runs if run.shape == shape]


def _is_fitted(exchange: Exchange) -> bool:
    return exchange.shape in FITTED_EXCHANGES


def markdown(figures: Figures) -> str:
    """Return the whole report."""
    model = model_of(figures)
    sections = (
        _head(figures),
        _summary(figures, model),
        _scaling(figures),
        _exchanges(figures, model),
        _model(model),
        _predictions(figures, model),
        _paper(model),
    )
    return "\n".join(line for section in sections for line in (*section, "")).rstrip() + "\n"


def _head(figures: Figures) -> list[str]:
    others = max((run.others for run in figures.runs if run.seconds > SHORT_SECONDS), default=0.0)
    disturbed = [f"**Disturbed: something else used {others:.1f} CPUs during a run. Don't believe these figures.**", ""]
    return [
        "# Several hosts: what they gain, and what they cost",
        "",
        "Made by `python -m benchmarks.scaling`; every number below is of one run of it on one machine. Raw figures:",
        "[scaling.json](scaling.json).",
        "",
        *(disturbed if others > DISTURBED_CPUS else []),
        "![exchanges, predictions, forecast](scaling.svg)",
        "",
        *(f"- {name}: {value}" for name, value in figures.machine.items()),
        "- a host is a container of the image, pinned to one CPU, with one thread; the hosts of a job talk over a "
        "bridge network of Docker",
        "- data: 200 overlapping clusters in 32 dimensions, mapped linearly to all columns, with noise; files of "
        "RecordIO-protobuf in the page cache",
        "- seconds of phases are those of the job's log, of the slowest host; `docker run` is from the start of the "
        "first container to the end of the last; the fit is all between reading and writing",
        "- efficiency of two hosts: the seconds of one host over twice theirs for the same rows (strong scaling), over "
        "theirs for twice the rows (weak scaling)",
        f"- others: CPUs that anything else used during a run of more than {SHORT_SECONDS:g} s (Docker starts "
        f"containers in the first of them): at most {others:.2f}",
    ]


def _summary(figures: Figures, model: JobModel) -> list[str]:
    lines = ["## Summary", ""]
    check = figures.of(CHECK)
    moves = max((run.moves for run in check), default=0)
    for replicated, how in (
        (True, "all rows on both (`FullyReplicated`)"),
        (False, "each its files (`ShardedByS3Key`)"),
    ):
        for kind, what in ((DEFAULT, "default settings"), (CHECK, f"{moves} moves")):
            for pair in _strong(figures.of(kind), replicated=replicated):
                if pair.of(1).shape == MAIN:
                    reached = "reached" if pair.efficiency >= GOAL else "missed"
                    alone, together = (pair.median(hosts, lambda run: run.comparisons) for hosts in (1, 2))
                    lines.append(
                        f"- efficiency of two hosts, {pair.label}, {how}, {what}: {pair.efficiency:.2f} (goal "
                        f"{GOAL:g}: {reached}; {_list(pair.efficiencies)}), with {together / alone:.2f} times the "
                        "comparisons of one host"
                    )
    lines += _ceiling(check, figures.of(APART))
    errors = [abs(model.fit(run) / run.fit - 1) for run in _predicted(figures)]
    jobs = [abs(model.job(run) / run.seconds - 1) for run in _predicted(figures)]
    for what, found in (("fits", errors), ("whole jobs", jobs)):
        within = sum(error <= TOLERANCE for error in found)
        lines.append(
            f"- the model predicts {within} of {len(found)} {what} that it knows nothing of within {TOLERANCE:.0%}; "
            f"its largest error is {max(found):.0%}, the mean {fmean(found):.0%}"
        )
    return lines


def _ceiling(check: Sequence[Run], apart: Sequence[Run]) -> list[str]:
    """Return what two hosts can reach that share a machine, its memory and its caches."""
    alone = {(run.shape, run.rows, run.seed): run.fit for run in check if run.hosts == 1}
    shares = [alone[run.shape, run.rows, run.seed] / run.fit for run in apart]
    if not shares:
        return []
    run = apart[0]
    return [
        f"- what two hosts lose that share this machine: the fit of {run.rows:,} rows took {1 / median(shares):.2f} "
        "times as long while another container did the same on the other CPU, neither knowing of the other. An "
        f"efficiency of about {median(shares):.2f} ({_list(shares)}) is what two hosts here can reach",
    ]


def _list(ratios: Sequence[float]) -> str:
    return "runs: " + ", ".join(f"{ratio:.2f}" for ratio in ratios)


@dataclass(frozen=True, slots=True)
class Pair:
    """Runs of one job on one host and on two, or of half a job on one host and of it all on two, with equal seeds."""

    alone: tuple[Run, ...]
    together: tuple[Run, ...]

    def of(self, hosts: int) -> Run:
        """Return one of the runs on so many hosts."""
        return (self.alone if hosts == 1 else self.together)[0]

    def median(self, hosts: int, figure: Callable[[Run], float]) -> float:
        """Return the median of a figure of the runs on so many hosts."""
        return median(map(figure, self.alone if hosts == 1 else self.together))

    def ratios(self, figure: Callable[[Run], float]) -> list[float]:
        """Return the efficiency by a figure for each seed: strong if the rows are the same, else weak."""
        work = self.of(2).rows / self.of(1).rows
        alone = {run.seed: figure(run) for run in self.alone}
        return [alone[run.seed] * work / (2 * figure(run)) for run in self.together if run.seed in alone]

    @property
    def efficiencies(self) -> list[float]:
        """Efficiency of the fit for each seed, whose runs followed one another."""
        return self.ratios(lambda run: run.fit)

    @property
    def efficiency(self) -> float:
        """Their median."""
        return median(self.efficiencies)

    @property
    def label(self) -> str:
        """What the pair is about."""
        run = self.of(2)
        return f"{run.rows:,} x {run.columns}, k = {run.clusters}"


def _groups(runs: Iterable[Run]) -> dict[tuple[Shape, int, int], tuple[Run, ...]]:
    groups: dict[tuple[Shape, int, int], tuple[Run, ...]] = {}
    for run in runs:
        key = run.shape, run.rows, run.hosts
        groups[key] = (*groups.get(key, ()), run)
    return groups


def _pairs(runs: Sequence[Run], share: int, *, replicated: bool) -> list[Pair]:
    """Return the runs on two hosts with those on one of 1 / ``share`` of the rows."""
    groups = _groups(run for run in runs if run.hosts == 1 or run.replicated == replicated)
    return [
        Pair(groups[shape, rows // share, 1], together)
        for (shape, rows, hosts), together in groups.items()
        if hosts == 2 and (shape, rows // share, 1) in groups
    ]


def _strong(runs: Sequence[Run], *, replicated: bool) -> list[Pair]:
    return _pairs(runs, 1, replicated=replicated)


def _weak(runs: Sequence[Run]) -> list[Pair]:
    return _pairs(runs, 2, replicated=False)


def _scaling(figures: Figures) -> list[str]:
    default, check = figures.of(DEFAULT), figures.of(CHECK)
    moves = max((run.moves for run in check), default=0)
    fixed = f"With {moves} moves, neither more nor fewer (`refine_max_iter={moves}`, `local_lloyd_tol=0`):"
    return [
        "## Strong scaling: the same rows on one host and on two",
        "",
        "Medians over the runs, each with a seed of its own; efficiencies are those of runs with one seed, which "
        "followed one another, and their medians. Comparisons are how often phase 3 compared a row with "
        "centers, which is what its time goes into.",
        "",
        "Both hosts have all rows (`FullyReplicated`) and read them, and each keeps half: they draw from one order, "
        "and the fit is that of one host, but for rounding. So this is what dividing the same work gains.",
        "",
        *_table(_strong(default, replicated=True)),
        "",
        fixed,
        "",
        *_table(_strong(check, replicated=True)),
        "",
        "Each host has its files (`ShardedByS3Key`), and reads no others. There the rows come in another order, so "
        "that neither the moves of the centers nor the comparisons nor the result are quite those of one host: the "
        "efficiency is that of two fits, as after another seed.",
        "",
        *_table(_strong(default, replicated=False)),
        "",
        fixed,
        "",
        *_table(_strong(check, replicated=False)),
        "",
        f"## Weak scaling: as many rows on each host, {moves} moves",
        "",
        *_table(_weak(check)),
    ]


def _table(pairs: Sequence[Pair]) -> list[str]:
    lines = [
        "| rows on two hosts | columns | k | runs | `docker run`: 1 host | 2 | read: 1 | 2 | fit: 1 | 2 | moves: 1 | 2 "
        "| comparisons per row: 1 | 2 | mean squared distance: 1 | 2 | efficiency, fit | `docker run` |",
        "|" + " --: |" * 18,
    ]
    for pair in pairs:
        run = pair.of(2)
        figures: tuple[Callable[[Run], float], ...] = (
            lambda run: run.seconds,
            lambda run: run.read,
            lambda run: run.fit,
            lambda run: run.moves,
            lambda run: run.comparisons,
        )
        cells = [_short(pair.median(hosts, figure)) for figure in figures for hosts in (1, 2)]
        qualities = [f"{pair.median(hosts, lambda run: run.mean_squared_distance):.5g}" for hosts in (1, 2)]
        of_the_job = median(pair.ratios(lambda run: run.seconds))
        lines.append(
            f"| {run.rows:,} | {run.columns} | {run.clusters} | {len(pair.together)} | {' | '.join(cells)} "
            f"| {' | '.join(qualities)} | **{pair.efficiency:.2f}** | {of_the_job:.2f} |"
        )
    return lines


def _exchanges(figures: Figures, model: JobModel) -> list[str]:
    lines = [
        "## Adding up the sums of a pass",
        "",
        "Milliseconds of `ClusterSums.over`: k x d sums, k weights and two numbers, in float64, by one allreduce, with "
        "nothing between, in ranks that are started as those of a job. A fit pays the mean. Four hosts share two CPUs: "
        "these figures only say that it works. The model's two parameters come from the rows marked *; the others "
        "check it.",
        "",
        "| k x d | kB | 2 hosts: mean | median | least | model | model / mean | 4 hosts on 2 CPUs: mean |",
        "| --- | --: | --: | --: | --: | --: | --: | --: |",
    ]
    four = {each.shape: each for each in figures.exchanges if each.hosts == 4}
    for each in (each for each in figures.exchanges if each.hosts == 2):
        predicted = model.network.exchange(2, each.numbers)
        mark = " *" if _is_fitted(each) else ""
        lines.append(
            f"| {each.clusters} x {each.columns}{mark} | {FLOAT64_BYTES * each.numbers / 1e3:,.1f} "
            f"| {1e3 * each.mean:.2f} | {1e3 * each.median:.2f} | {1e3 * each.min:.2f} | {1e3 * predicted:.2f} "
            f"| {predicted / each.mean:.2f} | {1e3 * four[each.shape].mean:.2f} |"
        )
    return lines


def _model(model: JobModel) -> list[str]:
    network = model.network
    lines = [
        "## The model",
        "",
        "    job      = start(h) + read x bytes / h + fit",
        "    fit      = serial + streamed / h + (all x compared with all + nearby x compared nearby + count x n) / h",
        "             + steps x step + sum of the exchanges of all steps + rows and centers that the leader handles",
        "    exchange = latency x log2(h) + per byte x bytes x 2 (h - 1) / h",
        "",
        "for h hosts and n rows; `benchmarks/cost_model.py` explains the terms. How often rows are compared is taken "
        "from a job's log, all seconds are predicted. The rates are those of one CPU and come from small jobs on one "
        "host, by least squares of the relative errors; latency and bandwidth come from the exchanges above, the start "
        "of two hosts from jobs of a second. No second of what is predicted below was used. Two hosts of this machine "
        "share its memory: rates for them come from the same small jobs, two at a time, that know nothing of each "
        "other. On paper each host has a machine for itself.",
        "",
        f"- start: {model.start[1]:.2f} s on one host, {model.start[2]:.2f} s on two; reading: "
        f"{1e-9 / model.read_per_byte[1]:.2f} GB/s, two at a time {1e-9 / model.read_per_byte[2]:.2f} GB/s each",
        f"- exchange: latency {1e3 * network.latency:.2f} ms, {_rate(network.per_byte)} GB/s",
        "",
        "| d | k | at a time | serial, s | streamed, s | all, us | nearby, us | count, us | step, ms |",
        "| --: | --: | --: | --: | --: | --: | --: | --: | --: |",
    ]
    for shape in model.rates:
        for hosts, by_shape in model.here.items():
            rates = by_shape[shape]
            lines.append(
                f"| {shape.columns} | {shape.clusters} | {hosts} | {rates.serial:.3f} | {rates.streamed:.3f} "
                f"| {1e6 * rates.compare_all:.2f} | {1e6 * rates.compare_nearby:.2f} | {1e6 * rates.count:.2f} "
                f"| {1e3 * rates.step:.2f} |"
            )
    return lines


def _rate(per_byte: float) -> str:
    return f"{1e-9 / per_byte:.2f}" if per_byte else "unlimited"


def _predictions(figures: Figures, model: JobModel) -> list[str]:
    lines = [
        "### Predicted and measured",
        "",
        "| rows | columns | k | hosts | replicated | moves | comparisons per row | fit, s: model | measured | ratio "
        "| job, s: model | measured | ratio |",
        "|" + " --: |" * 13,
    ]
    for run in sorted(_predicted(figures), key=lambda run: (run.columns, run.clusters, run.rows, run.hosts)):
        fit, job = model.fit(run), model.job(run)
        lines.append(
            f"| {run.rows:,} | {run.columns} | {run.clusters} | {run.hosts} | {'yes' if run.replicated else ''} "
            f"| {run.moves} | {run.comparisons:.1f} | {_short(fit)} "
            f"| {_short(run.fit)} | {_marked(fit / run.fit)} | {_short(job)} | {_short(run.seconds)} "
            f"| {_marked(job / run.seconds)} |"
        )
    return lines


def _predicted(figures: Figures) -> list[Run]:
    return [*figures.of(CHECK), *figures.of(DEFAULT)]


def _marked(ratio: float) -> str:
    return f"{ratio:.2f}" if abs(ratio - 1) <= TOLERANCE else f"**{ratio:.2f}**"


def networks(model: JobModel) -> dict[str, Network]:
    """Return the network that was measured, and those of the forecast, by name."""
    here = model.network
    return {
        "this bridge": here,
        **{name: Network(here.latency + WIRE_LATENCY, here.per_byte + per_byte) for name, per_byte in WIRES.items()},
    }


def _on_paper(model: JobModel, shape: Shape, rows: float, hosts: int) -> Fit:
    return model.efforts[shape].fit(shape, rows, hosts, PAPER_MOVES)


def _paper(model: JobModel) -> list[str]:
    shapes = _paper_shapes(model)
    by_name = networks(model)
    lines = [
        "## On paper: 16 and 128 hosts",
        "",
        f"The model for hosts that nobody has measured: one CPU each like those here, {PAPER_COLUMNS} columns, "
        f"{PAPER_MOVES} moves with as many comparisons per row as in the largest of the small jobs, rows in memory and "
        "evenly divided, no host slower than the others. In a network of so many Gbit/s each byte takes its time on "
        "the wire beside what it takes here (copies and the kernel's work stay, and nothing overlaps), and each of the "
        f"log2(h) steps of a message {1e6 * WIRE_LATENCY:.0f} us more. A host with p CPUs and n rows does as one with "
        "one CPU and n / p rows. Not in it: the start of the machines, and the download from S3.",
        "",
        "Efficiency of the fit, on " + ", ".join(by_name) + ":",
        "",
        "| k | rows | " + " | ".join(f"{hosts} hosts" for hosts in PAPER_HOSTS) + " |",
        "| --: | --: |" + " --: |" * len(PAPER_HOSTS),
    ]
    for shape in shapes:
        for rows in PAPER_ROWS:
            cells = [
                ", ".join(
                    f"{efficiency(_on_paper(model, shape, rows, hosts), model.rates[shape], network):.2f}"
                    for network in by_name.values()
                )
                for hosts in PAPER_HOSTS
            ]
            lines.append(f"| {shape.clusters} | {rows / 1e6:,.0f} million | {' | '.join(cells)} |")
    return [*lines, "", *_choice(model, shapes, by_name)]


def _choice(model: JobModel, shapes: Sequence[Shape], by_name: dict[str, Network]) -> list[str]:
    wire = "10 Gbit/s"
    lines = [
        f"### How many instances: rows per host and CPU for an efficiency of {GOAL:g}",
        "",
        f"At {wire}; seconds of the fit with that many rows, and on one host.",
        "",
        "| k | hosts | rows per host | rows | fit, s | on one host, s |",
        "| --: | --: | --: | --: | --: | --: |",
    ]
    for shape in shapes:
        for hosts in PAPER_HOSTS:
            rates, network = model.rates[shape], by_name[wire]
            rows = rows_for(GOAL, partial(_on_paper, model, shape, hosts=hosts), rates, network)
            fit, alone = (predict(_on_paper(model, shape, rows, count), rates, network) for count in (hosts, 1))
            lines.append(
                f"| {shape.clusters} | {hosts} | {_rounded(rows / hosts)} | {_rounded(rows)} | {_short(fit)} "
                f"| {_short(alone)} |"
            )
    return [
        *lines,
        "",
        "What follows:",
        "",
        "- First a larger instance, then more of them: the CPUs of one machine exchange nothing.",
        "- As many hosts as leave each CPU the rows of the table, or as the memory needs (4 d + 96 bytes per row). "
        "With more a job may still get faster, but the CPU time that is paid for grows.",
        "- What limits many hosts is what doesn't shrink with their rows: shrinking the streamed centers, on the "
        "leader alone, and what each step costs whatever its rows. A faster network changes little of that.",
        "- A host takes seconds to start as a container, and minutes as a machine: what one host fits in a minute "
        "should stay there.",
    ]


def _paper_shapes(model: JobModel) -> list[Shape]:
    return [shape for shape in model.rates if shape.columns == PAPER_COLUMNS]


def _rounded(rows: float) -> str:
    return f"{float(f'{rows:.2g}'):,.0f}"


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def draw(figures: Figures, file: Path) -> None:
    """Write the picture: exchanges, predictions beside measurements, efficiency on paper."""
    import matplotlib as mpl  # noqa: PLC0415 - not in the processes that measure

    mpl.use("Agg")
    # The same figures shall give the same file.
    mpl.rcParams["svg.hashsalt"] = "scaling"
    from matplotlib import pyplot  # noqa: PLC0415

    model = model_of(figures)
    figure, (left, middle, right) = pyplot.subplots(1, 3, figsize=(16, 4.8))

    two = sorted((each for each in figures.exchanges if each.hosts == 2), key=lambda each: each.numbers)
    sizes = [FLOAT64_BYTES * each.numbers for each in two]
    left.loglog(sizes, [1e3 * each.mean for each in two], "o", label="mean")
    left.loglog(sizes, [1e3 * each.median for each in two], "_", markersize=12, label="median")
    left.loglog(sizes, [1e3 * model.network.exchange(2, each.numbers) for each in two], "-", label="model")
    left.set(title="Adding up sums over two hosts", xlabel="bytes", ylabel="ms")

    checked = _predicted(figures)
    for hosts, marker, label in ((1, "s", "one host"), (2, "o", "two hosts")):
        runs = [run for run in checked if run.hosts == hosts]
        middle.loglog([run.fit for run in runs], [model.fit(run) for run in runs], marker, label=label)
    ends = [min(run.fit for run in checked) / 1.3, max(run.fit for run in checked) * 1.3]
    middle.loglog(ends, ends, "k-", linewidth=0.8)
    middle.fill_between(
        ends, [end * (1 - TOLERANCE) for end in ends], [end * (1 + TOLERANCE) for end in ends], alpha=0.15
    )
    middle.set(title=f"Fits: model and measurement (band: {TOLERANCE:.0%})", xlabel="measured, s", ylabel="model, s")

    counts = [2**power for power in range(8)]
    network = networks(model)["10 Gbit/s"]
    for number, shape in enumerate(_paper_shapes(model)):
        for rows, style in ((1e6, ":"), (1e8, "-")):
            values = [efficiency(_on_paper(model, shape, rows, hosts), model.rates[shape], network) for hosts in counts]
            right.semilogx(
                counts, values, style, color=f"C{number}", label=f"k = {shape.clusters}, {rows / 1e6:.0f} million rows"
            )
    right.set(title="On paper: efficiency at 10 Gbit/s", xlabel="hosts", ylim=(0, 1.05))

    for panel in (left, middle, right):
        panel.grid(visible=True, which="major", alpha=0.25)
        panel.legend(frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})
    pyplot.close(figure)
