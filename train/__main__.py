"""The command ``train``: the only module of this package that reads the environment and exits.

Exit codes: 0 the model is written; 1 the user's data or settings are wrong; 2 the machine or the program failed;
143 stopped by SIGTERM, 130 by SIGINT, before there was a model. The reason of a failure is the last line of the log and
the content of ``/opt/ml/output/failure``.
"""

from __future__ import annotations

import argparse
import math
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from train.config import HostNames
    from train.failure import Failure
    from train.metrics import JobLog

DEFAULT_BASE = "/opt/ml"

# SageMaker and `docker stop` send the first, Ctrl-C the second.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def main() -> int:
    """Run the training job and return its exit code."""
    # Until there is a handler, a signal waits; container/bin/train blocks them earlier still.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    parser = argparse.ArgumentParser(
        prog="train",
        description="Train a k-means model by SageMaker's training contract: reads input/ and writes model/ below "
        f"{DEFAULT_BASE}, or below the directory that SAGEMAKER_BASE_DIR names.",
    )
    parser.add_argument("--hyperparameters", action="store_true", help="print the table of hyperparameters and end")
    parser.add_argument(
        "--validate", action="store_true", help="check configuration and data, list all mistakes, train nothing"
    )
    parser.add_argument("--rank", action="store_true", help=argparse.SUPPRESS)  # for train.distributed.launcher only
    options = parser.parse_args()
    base = Path(os.environ.get("SAGEMAKER_BASE_DIR") or DEFAULT_BASE)
    # Users outside of the container must be able to read and remove the files.
    os.umask(0)
    # kmeans.threads divides rows among threads, with which those of BLAS would compete for the CPUs. NumPy reads these
    # variables when it is imported.
    for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(name, "1")

    if options.hyperparameters or options.validate:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)  # these have no handler
    if options.hyperparameters:
        from train.hyperparameters import markdown_table

        print(markdown_table())
        return 0
    if options.rank:
        return _run_rank(base)
    return _validate(base) if options.validate else _train(base)


def _validate(base: Path) -> int:
    """Print the facts and the mistakes of the job; return 1 if there are mistakes."""
    from train.validation import validate

    findings = validate(base)
    for fact in findings.facts:
        print(fact)
    for number, mistake in enumerate(findings.mistakes, start=1):
        print(f"{number}. {mistake}")
    print(f"The job has {len(findings.mistakes)} mistake(s)." if findings.mistakes else "The job is valid.")
    return 1 if findings.mistakes else 0


def _train(base: Path) -> int:
    """Train; return the exit code."""
    from kmeans.errors import SettingError
    from train.config import HostNames, output_directory, read_hosts
    from train.failure import Failure
    from train.metrics import JobLog

    log = JobLog()
    # Before NumPy is imported, which takes a moment: a stop is reported without delay.
    _on_stop(log.stop)
    log.say("Docker entrypoint called with argument(s): train")
    Failure.clear(output_directory(base))
    try:
        hosts = read_hosts(base)
    except SettingError:
        hosts = HostNames()  # the job reads it again, and reports the mistakes of all files
    failure: Failure | None = None
    try:
        if len(hosts.names) > 1:
            failure = _train_together(base, hosts, log)
        else:
            _train_alone(base, log)
    except Exception as error:
        failure = Failure.of(error)
        if failure.is_defect:
            traceback.print_exc()
    # The outcome is final. Python removes its handlers while it exits, and a signal would kill a job that is done.
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if failure is None:
        return 0
    try:
        failure.write(output_directory(base))
    except Exception as second:
        log.say(f"the reason of failure could not be written: {second}", "ERROR")
    log.say(failure.reason, "ERROR")
    return failure.exit_code


def _train_alone(base: Path, log: JobLog) -> None:
    """Train in this process."""
    from kmeans.system import usable_cpus, usable_memory
    from train.job import TrainingJob

    TrainingJob(base, usable_cpus(), usable_memory(), log, checkpoint_folder=_checkpoint_folder()).run()


def _train_together(base: Path, hosts: HostNames, log: JobLog) -> Failure | None:
    """Supervise the process that trains with other hosts; return why the job failed, or None."""
    from train.distributed.follower import Follower
    from train.distributed.launcher import HydraLauncher
    from train.distributed.leader import Leader
    from train.distributed.supervisor import Deadlines

    log.host = hosts.current
    deadlines = Deadlines(
        arrival=_seconds("KMEANS_HOSTS_TIMEOUT_SECONDS", Deadlines().arrival),
        silence=_seconds("KMEANS_HEARTBEAT_TIMEOUT_SECONDS", Deadlines().silence),
    )
    launcher = HydraLauncher([sys.executable, "-m", "train", "--rank"])
    kind = Leader if hosts.current == hosts.leader else Follower
    host = kind(hosts, launcher, log.say, deadlines)
    _on_stop(host.stop)
    if log.stop_signal is not None:
        host.stop(log.stop_signal)
    return host.run()


def _run_rank(base: Path) -> int:
    """Run the rank on one of several hosts, and its exit reporter; return the exit code."""
    from train.distributed.exit_reporter import report_exit

    # Before NumPy and MPI are imported: the exit reporter must stay small, and MPI starts threads.
    exit_code = report_exit()
    if exit_code is not None:
        os._exit(exit_code)  # nothing needs cleanup, and the launcher waits
    from train.config import read_hosts
    from train.distributed.launcher import rank_environment

    # MPI reads these variables when it starts.
    for name, value in rank_environment(read_hosts(base).interface).items():
        os.environ.setdefault(name, value)
    from kmeans.system import usable_cpus, usable_memory
    from train.distributed.rank import claim_streams, run_rank
    from train.metrics import JobLog

    claim_streams()
    log = JobLog()
    _on_stop(log.stop)
    return run_rank(base, usable_cpus(), usable_memory(), log, checkpoint_folder=_checkpoint_folder())


def _on_stop(stop: Callable[[int], None]) -> None:
    """Call ``stop`` with the signal's number when SIGTERM or SIGINT arrives, also one that arrived before this call."""

    def handle(number: int, _frame: FrameType | None) -> None:
        stop(number)

    signal.signal(signal.SIGTERM, handle)
    # A shell ignores SIGINT for its background jobs: Ctrl-C is meant for others.
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, handle)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)


def _checkpoint_folder() -> Path | None:
    """Return the folder for checkpoints from the environment, or None."""
    name = os.environ.get("KMEANS_CHECKPOINT_DIR")
    return Path(name) if name else None


def _seconds(variable: str, default: float) -> float:
    """Return a number of seconds from the environment."""
    from kmeans.errors import SettingError, shown

    text = os.environ.get(variable)
    if not text:
        return default
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise SettingError(f"{variable}: expected a number of seconds above 0, found {shown(text)}.")
    return seconds


if __name__ == "__main__":
    sys.exit(main())
