"""Fuzz all targets, or those that are named, each in a separate process: ``make fuzz``."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.targets import TARGETS

PROJECT = Path(__file__).resolve().parents[2]

# Longest input; longer ones find no more, but take longer.
MAX_BYTES = 4096

# An input that takes longer, and memory beyond this, end a target as a finding.
TIMEOUT_SECONDS, MEMORY_MB = 10, 1024

# How much of what a target that failed said is shown.
SHOWN_LINES = 60


@dataclass(frozen=True)
class Outcome:
    """What became of one target: inputs that were tried, places reached in the code, seconds, and what failed."""

    name: str
    inputs: int
    coverage: int
    seconds: int
    failure: str | None


def main() -> int:
    """Run the targets; return 1 if one of them failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"one of {', '.join(TARGETS)} (default: all)")
    parser.add_argument("--runs", type=int, default=20_000, help="inputs for each target (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the search; the same finds the same")
    parser.add_argument("--jobs", type=int, default=2, help="targets at a time (default: %(default)s)")
    parser.add_argument("--corpus", type=Path, help="folder to go on from and to add to; none: the seeds alone")
    parser.add_argument("--findings", type=Path, default=Path("fuzz-findings"), help="folder for inputs that failed")
    parser.add_argument("--repeat", type=Path, metavar="FILE", help="run the one target on this input")
    given = parser.parse_args()
    names = given.targets or list(TARGETS)
    if unknown := [name for name in names if name not in TARGETS]:
        parser.error(f"no such target: {', '.join(unknown)}")
    if given.repeat:
        TARGETS[names[0]].check(given.repeat.read_bytes())
        return 0
    with tempfile.TemporaryDirectory() as temporary, ThreadPoolExecutor(given.jobs) as threads:
        corpus = given.corpus or Path(temporary)
        print(f"{'target':16}{'inputs':>10}{'coverage':>10}{'seconds':>10}  failure", flush=True)
        running = [threads.submit(fuzz, name, given.runs, given.seed, corpus / name, given.findings) for name in names]
        outcomes = []
        for ended in as_completed(running):
            outcome = ended.result()
            outcomes.append(outcome)
            says = outcome.failure.splitlines()[0] if outcome.failure else "none"
            line = f"{outcome.name:16}{outcome.inputs:>10}{outcome.coverage:>10}{outcome.seconds:>10}  {says}"
            print(line, flush=True)  # a long search shows how far it is
    print(f"{'in all':16}{sum(outcome.inputs for outcome in outcomes):>10}")
    for outcome in outcomes:
        if outcome.failure:
            print(f"\n{outcome.name}: {outcome.failure}")
    return int(any(outcome.failure for outcome in outcomes))


def fuzz(name: str, runs: int, seed: int, corpus: Path, findings: Path) -> Outcome:
    """Run one target on ``runs`` inputs, which begin with its seeds and what ``corpus`` holds of earlier runs."""
    corpus.mkdir(parents=True, exist_ok=True)
    findings.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(TARGETS[name].seeds()):
        (corpus / f"seed-{number:03}").write_bytes(content)
    options = {
        "runs": runs,
        "seed": seed,
        "max_len": MAX_BYTES,
        "timeout": TIMEOUT_SECONDS,
        "rss_limit_mb": MEMORY_MB,
        "artifact_prefix": f"{findings / name}-",
        "print_final_stats": 1,
    }
    command = [sys.executable, "-m", "tests.fuzz.harness", name, *(f"-{key}={value}" for key, value in options.items())]
    ended = subprocess.run(
        [*command, str(corpus)], cwd=PROJECT, capture_output=True, text=True, errors="replace", check=False
    )
    log = ended.stdout + ended.stderr
    failure = None
    if ended.returncode:
        failure = f"ended with code {ended.returncode}\n" + "\n".join(_telling(log.splitlines()))
    return Outcome(
        name,
        _last(r"number_of_executed_units: *(\d+)", log) or _last(r"^#(\d+)", log),
        _last(r" cov: (\d+)", log),
        _last(r"Done \d+ runs in (\d+) second", log),
        failure,
    )


def _telling(lines: Sequence[str]) -> Sequence[str]:
    """Return the end of a log without libFuzzer's notes on its progress."""
    return [line for line in lines if not re.match(r"#\d+\s|INFO: ", line)][-SHOWN_LINES:]


def _last(pattern: str, text: str) -> int:
    found = re.findall(pattern, text, re.MULTILINE)
    return int(found[-1]) if found else 0


if __name__ == "__main__":
    sys.exit(main())
