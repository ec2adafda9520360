"""``python -m workflow STEP``: the only module of this package that reads the environment and exits."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143
EXIT_BROKEN_PIPE = 141


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a step; return the exit code, 1 after an error message of one sentence on standard error."""
    try:
        return _run(arguments)
    except ModuleNotFoundError as error:
        return _fail(
            f"The package {error.name} isn't installed here: run `make workflow-ready`, then `.venv/bin/python -m "
            "workflow`."
        )


def _run(arguments: Sequence[str] | None) -> int:
    from botocore.exceptions import BotoCoreError, ClientError

    from kmeans.errors import KMeansError
    from workflow.errors import WorkflowError, explain, explain_system
    from workflow.steps import STEPS
    from workflow.workspace import open_workspace

    options = _parse(arguments)
    step = STEPS[options.step]
    try:
        with open_workspace(_settings(options)) as work:
            plan = step.plan(work, options)
            if options.dry_run:
                print(json.dumps(plan, indent=2), flush=True)
            else:
                step.carry_out(work, plan, options)
    except (BotoCoreError, ClientError) as error:
        return _fail(explain(error))
    except (WorkflowError, KMeansError) as error:
        return _fail(str(error))
    except BrokenPipeError:  # the reader of our output has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    except OSError as error:
        return _fail(explain_system(error))
    except KeyboardInterrupt:
        _fail(
            "interrupted. What runs in an account goes on: `python -m workflow list` shows it, `delete` ends it, and "
            "`train --follow JOB` or `tune --follow JOB` waits for it again."
            if options.target == "aws"
            else "interrupted. A job that ran was stopped; an endpoint lives on: `python -m workflow list` shows it, "
            "`delete` ends it."
        )
        return EXIT_INTERRUPTED
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    from workflow.settings import AWS, DEFAULT_FOLDER, DEFAULT_NAME, LOCAL
    from workflow.steps import STEPS

    shared = argparse.ArgumentParser(add_help=False)
    group = shared.add_argument_group("options of all steps")
    group.add_argument(
        "--target",
        choices=(LOCAL, AWS),
        default=os.environ.get("KMEANS_TARGET") or LOCAL,
        help="this machine or an account (default: KMEANS_TARGET, else local)",
    )
    group.add_argument("--dry-run", action="store_true", help="print the requests as JSON; ask and change nothing")
    group.add_argument("--name", default=DEFAULT_NAME, help="what all names begin with (default: %(default)s)")
    group.add_argument("--image", help="image of jobs and endpoints (default: that of the step image, kmeans:latest)")
    group.add_argument("--bucket", help="S3 bucket (default: SageMaker's usual one of the account and region)")
    group.add_argument("--role", help="ARN under which SageMaker works (default: SAGEMAKER_ROLE)")
    group.add_argument("--region", help="AWS region (default: AWS_REGION, then the profile's)")
    group.add_argument("--profile", help="AWS profile (default: AWS_PROFILE)")
    group.add_argument(
        "--folder",
        type=Path,
        default=DEFAULT_FOLDER,
        help="where it is kept what was created and, here, S3's objects (default: %(default)s)",
    )
    parser = argparse.ArgumentParser(
        prog="python -m workflow",
        description="The classic five steps: data, image, train, deploy or transform, validate; then delete. On this "
        "machine with Docker, or on SageMaker with --target aws.",
    )
    steps = parser.add_subparsers(dest="step", metavar="STEP", required=True)
    for name, step in STEPS.items():
        step.configure(steps.add_parser(name, parents=[shared], help=step.help, description=f"{step.help}."))
    options = parser.parse_args(arguments)
    if options.target not in (LOCAL, AWS):  # argparse doesn't validate defaults
        parser.error(f"KMEANS_TARGET: expected {LOCAL} or {AWS}, found {options.target!r}")
    return options


def _settings(options: argparse.Namespace) -> Any:
    from workflow.settings import DEFAULT_REGION, Settings, region_of

    region = region_of(options.region, os.environ)
    return Settings(
        target=options.target,
        folder=options.folder,
        name=options.name,
        region=region or (DEFAULT_REGION if options.target == "local" else ""),
        profile=options.profile,
        bucket=options.bucket,
        role=options.role or os.environ.get("SAGEMAKER_ROLE"),
        image=options.image,
        is_dry_run=options.dry_run,
    )


def _fail(sentence: str) -> int:
    print(f"workflow: {sentence}", file=sys.stderr)
    return 1


def _terminate(number: int, frame: FrameType | None) -> None:
    # An exception, so that local jobs are stopped.
    raise SystemExit(EXIT_TERMINATED)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _terminate)
    sys.exit(main())
