"""The reason of a failed job: one sentence for the user, a file for SageMaker, an exit code for the platform.

SageMaker shows the first 1,024 characters of ``/opt/ml/output/failure`` as the job's FailureReason (developer guide,
"How Amazon SageMaker Processes Training Output"). ``ClientError:`` marks errors that the user can correct,
``AlgorithmError:`` all others, as in the built-in algorithms.
"""

from __future__ import annotations

import contextlib
import signal
from dataclasses import dataclass, replace
from pathlib import Path

from kmeans.atomic_file import write_files
from kmeans.errors import KMeansError, ResourceError, shortened

FAILURE_FILE = "failure"
MAX_CHARACTERS = 1024


class StoppedError(Exception):
    """The job received the signal ``number`` before it had a model."""

    def __init__(self, number: int = signal.SIGTERM) -> None:
        super().__init__(number)
        self.number = signal.Signals(number)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a job failed.

    Attributes
    ----------
    reason
        At most 1,024 characters, the cause first.
    exit_code
        1: the user's data or settings; 2: the machine or a defect of the program; 143: stopped by SIGTERM; 130: by
        SIGINT.
    is_defect
        Whether the traceback must be logged.
    """

    reason: str
    exit_code: int
    is_defect: bool = False

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """Return the failure that ``error`` causes."""
        if isinstance(error, StoppedError):
            reason = f"AlgorithmError: the job was stopped ({error.number.name}) before there was a model."
            return cls(reason, 128 + error.number)
        if isinstance(error, ResourceError):
            return cls(_cut(f"AlgorithmError: {error}"), 2)
        if isinstance(error, KMeansError):
            return cls(_cut(f"ClientError: {error}"), 1)
        if isinstance(error, MemoryError):
            return cls(
                "AlgorithmError: the data don't fit into this machine's memory. "
                "Choose an instance with more memory or train on fewer rows.",
                2,
            )
        if isinstance(error, OSError):
            return cls(_cut(f"AlgorithmError: {error.filename or 'the system'}: {error.strerror or error}."), 2)
        defect = f"unexpected {type(error).__name__}: {error}. This is a defect; details are in the log."
        return cls(_cut(f"AlgorithmError: {defect}"), 2, is_defect=True)

    def at(self, host: str) -> Failure:
        """Return the same failure with the name of the machine ``host``."""
        kind, separator, cause = self.reason.partition(": ")
        return replace(self, reason=_cut(f"{kind}{separator}host {host}: {cause}"))

    @staticmethod
    def clear(output: Path) -> None:
        """Remove the reason of an earlier job from the directory ``output``."""
        with contextlib.suppress(OSError):
            (output / FAILURE_FILE).unlink(missing_ok=True)

    def write(self, output: Path) -> None:
        """Write the reason to the file ``failure`` in the directory ``output``.

        Raises
        ------
        kmeans.errors.ResourceError
            If the file can't be written.
        """
        write_files(output, {FAILURE_FILE: self.reason.encode("utf-8", "replace")})


def _cut(text: str) -> str:
    return shortened(text, MAX_CHARACTERS)
