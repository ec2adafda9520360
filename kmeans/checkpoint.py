"""The state of a fit, from which an interrupted fit continues.

``State`` holds all random state and accumulators, so a resumed fit is bit-identical to one without an interruption.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class State:
    """The state of a fit at one step, the same step on all hosts.

    It is never modified.

    Attributes
    ----------
    phase
        ``stream``, ``refine`` or ``all rows`` (phase 3 over rows that memory doesn't hold).
    numbers
        Counters, the same on all hosts: JSON values, and infinity.
    arrays
        Centers and their accumulators, the same on all hosts.
    share
        Per-host state: arrays (n, m) for the local rows. May be missing from a state that is found: then the fit
        continues as well, but isn't bit-identical.
    """

    phase: str
    numbers: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)
    per_host: dict[str, NDArray[Any]] = field(default_factory=dict)


class Checkpoints:
    """Loads and saves states; this base class does neither."""

    def found(self) -> State | None:
        """Return the state to continue from; None to start at the beginning."""
        return None

    def offer(self, state: Callable[[], State]) -> None:
        """Keep ``state()``, and save it if the interval has passed.

        All hosts call this at the same steps.
        """
