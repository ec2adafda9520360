"""What a soak has found -> docs/soak.md: goals, how memory changed, and what was asked."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from benchmarks.soak_clients import PING_LIMIT_SECONDS

# Of the whole time: what doesn't count, and the parts at its beginning and end that are compared.
WARM_UP_SHARE, WINDOW_SHARE = 1 / 6, 1 / 6
FLAT = 0.02

MEBIBYTE = 1 << 20


@dataclass(frozen=True, slots=True)
class Sample:
    """What the container takes at a moment.

    Attributes
    ----------
    seconds
        Since the load began.
    memory_bytes
        Of its cgroup, without the cache of files.
    resident_bytes
        Of each process, by its number.
    cpu_seconds
        Used so far.
    """

    seconds: float
    memory_bytes: int
    resident_bytes: dict[int, int]
    cpu_seconds: float

    @property
    def resident(self) -> int:
        """Resident memory of all processes, shared pages counted for each."""
        return sum(self.resident_bytes.values())


def drift(samples: Sequence[Sample], seconds: float, figure: Callable[[Sample], float]) -> dict[str, float]:
    """Return how a figure changed after the warm-up.

    Parameters
    ----------
    samples
        At least one in each of the two windows.
    seconds
        Length of the whole load.

    Returns
    -------
    dict
        ``first`` and ``last``: medians of the windows after the warm-up and at the end; ``drift``: last / first - 1;
        ``per_hour``: slope of a line through all samples after the warm-up, as a share of ``first``; ``max``.
    """
    warm, window = WARM_UP_SHARE * seconds, WINDOW_SHARE * seconds
    counted = [sample for sample in samples if sample.seconds >= warm]
    first = median(figure(sample) for sample in counted if sample.seconds < warm + window)
    last = median(figure(sample) for sample in counted if sample.seconds >= seconds - window)
    slope = np.polyfit([sample.seconds for sample in counted], [figure(sample) for sample in counted], 1)[0]
    return {
        "first": first,
        "last": last,
        "drift": last / first - 1,
        "per_hour": float(slope) * 3600 / first,
        "max": max(map(figure, samples)),
    }


def goals(report: dict[str, Any]) -> list[tuple[str, bool, str]]:
    """Return each goal: what it is, whether it is met, and what was found."""
    restarted = report["processes_ever"] - max(report["processes"])
    disagreement = abs(report["server_counted_200"] - report["clients_counted_200"])
    return [
        ("no error", report["errors"] == 0, f"{report['errors']} in {report['requests']:,} requests"),
        ("no answer of 500 or more", report["server_counted_500"] == 0, f"{report['server_counted_500']:.0f}"),
        ("the server's own count agrees", disagreement == 0, f"{report['server_counted_200']:,.0f} answers of 200"),
        (
            f"memory is flat within {FLAT:.0%} after warm-up",
            abs(report["memory"]["drift"]) <= FLAT,
            f"{report['memory']['drift']:+.2%}",
        ),
        (
            f"every ping is answered within {PING_LIMIT_SECONDS:g} s",
            report["pings"]["max"] < PING_LIMIT_SECONDS,
            f"at most {1000 * report['pings']['max']:.0f} ms",
        ),
        (
            "no process was restarted, none was killed",
            restarted == 0 and not report["out_of_memory"],
            f"{restarted} restarted",
        ),
        (
            "SIGTERM ends it",
            report["exit_code"] == 0,
            f"exit code {report['exit_code']} after {report['stop_seconds']:.1f} s",
        ),
    ]


def as_json(report: dict[str, Any]) -> str:
    """Return the report as JSON, a sample a line."""
    head = json.dumps({name: value for name, value in report.items() if name != "samples"}, indent=1)[:-2]
    samples = ",\n  ".join(map(json.dumps, report["samples"]))
    return f'{head},\n "samples": [\n  {samples}\n ]\n}}\n'


def summary(report: dict[str, Any]) -> str:
    """Return the report as text."""
    pings, memory, resident = report["pings"], report["memory"], report["resident"]
    lines = [
        "# A server at saturation",
        "",
        "Made by `python -m benchmarks.soak`: a container of "
        f"{report['limits']['memory']} and {report['limits']['cpus']} CPUs, {report['clients']} clients that ask "
        f"without a pause for {report['minutes']:g} minutes, {report['rows']} rows of 784 columns in mixed formats and "
        f"sizes, and broken requests among them. {report['machine']}, {report['date']}.",
        "",
        "| goal | found | |",
        "| --- | --- | --- |",
        *(f"| {goal} | {found} | {'met' if met else '**not met**'} |" for goal, met, found in goals(report)),
        "",
        f"- {report['requests']:,} requests ({report['requests_per_second']:.0f}/s), {report['rows_predicted']:,} "
        f"rows; {report['cpu_share']:.0%} of its CPU share were used",
        f"- pings, one each second on a new connection: median {1000 * pings['p50']:.1f} ms, p99 "
        f"{1000 * pings['p99']:.1f} ms, {pings['count']:,} in all",
        f"- memory of the cgroup without the cache of files, medians: {memory['first'] / MEBIBYTE:.1f} MiB in the "
        f"window after the warm-up, {memory['last'] / MEBIBYTE:.1f} MiB in the last, at most "
        f"{memory['max'] / MEBIBYTE:.1f} MiB; a line through all samples rises by {memory['per_hour']:+.2%} an hour",
        f"- resident memory of its processes: {resident['first'] / MEBIBYTE:.1f} MiB, then "
        f"{resident['last'] / MEBIBYTE:.1f} MiB ({resident['drift']:+.2%})",
        f"- the warm-up is the first {WARM_UP_SHARE:.0%} of the time, a window {WINDOW_SHARE:.0%}",
        "",
        "| request | status | bytes | answers as expected |",
        "| --- | --: | --: | --: |",
        *(
            f"| {name} | {'none' if row['status'] is None else row['status']} | {row['bytes']:,} | {row['count']:,} |"
            for name, row in report["by_request"].items()
        ),
    ]
    if report["first_errors"]:
        lines += ["", "First errors:", "", *(f"- {error}" for error in report["first_errors"])]
    return "\n".join(lines) + "\n"
