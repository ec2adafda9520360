"""The command ``train``: the only place of this package that reads the environment and exits.

Exit codes: 0 the model is written; 1 the user's data or settings are wrong; 2 the machine failed, or the program did;
143 stopped. Whatever it was, the reason is the last line of the log and stands in ``/opt/ml/output/failure``.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import traceback
from pathlib import Path
from types import FrameType

DEFAULT_BASE = "/opt/ml"


def main() -> int:
    """Run the training job and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="train",
        description="Train a k-means model by SageMaker's training contract: reads input/ and writes model/ below "
        f"{DEFAULT_BASE}, or below the directory that SAGEMAKER_BASE_DIR names.",
    )
    parser.add_argument("--hyperparameters", action="store_true", help="print the table of hyperparameters and end")
    parser.add_argument(
        "--validate", action="store_true", help="check configuration and data, list all mistakes, train nothing"
    )
    options = parser.parse_args()
    base = Path(os.environ.get("SAGEMAKER_BASE_DIR") or DEFAULT_BASE)
    # The files must be readable and removable for whoever is outside of the container.
    os.umask(0)
    # Threads go over blocks of rows (kmeans.workers); BLAS threads of its own would fight with them for the CPUs. Must
    # be said before NumPy is imported.
    for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(name, "1")

    if options.hyperparameters:
        from train.hyperparameters import markdown_table

        print(markdown_table())
        return 0
    return _validate(base) if options.validate else _train(base)


def _validate(base: Path) -> int:
    """Print what is right and what is wrong with the job; return 1 if anything is wrong."""
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
    from kmeans.machine import usable_cpus, usable_memory
    from train.contract import output_directory
    from train.failure import Failure
    from train.job import run
    from train.metrics import JobLog

    log = JobLog()

    def stop(_number: int, _frame: FrameType | None) -> None:
        log.stop()

    # As PID 1 a process without a handler never hears of SIGTERM.
    signal.signal(signal.SIGTERM, stop)
    log.say("Docker entrypoint called with argument(s): train")
    Failure.clear(output_directory(base))
    try:
        run(base, usable_cpus(), usable_memory(), log)
    except Exception as error:
        failure = Failure.of(error)
        if failure.is_defect:
            traceback.print_exc()
        try:
            failure.write(output_directory(base))
        except Exception as second:
            log.say(f"the reason of failure could not be written: {second}", "ERROR")
        log.say(failure.reason, "ERROR")
        return failure.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
