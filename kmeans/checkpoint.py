"""What a fit can go on from after an interruption, and when it is asked for.

A fit draws no number and adds up nothing that isn't in its state, so one that goes on from a state ends with the same
centers, to the bit, as one that was never interrupted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class State:
    """A moment of a fit; all hosts have one of the same moment. Nothing in it changes later.

    Attributes
    ----------
    phase
        ``stream``, ``refine`` or ``all rows`` (phase 3 over rows that memory doesn't hold).
    numbers
        Counters, the same on all hosts: JSON values, and infinity.
    arrays
        Centers and what belongs to them, the same on all hosts.
    share
        What belongs to this host's rows, arrays (n, m). May be missing from a state that is found: then the fit goes on
        as well, but not to the same bits.
    """

    phase: str
    numbers: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)
    share: dict[str, NDArray[Any]] = field(default_factory=dict)


class Checkpoints:
    """Where states come from and go to; this one has none and keeps none."""

    def found(self) -> State | None:
        """Return the state to go on from, None to begin at the beginning."""
        return None

    def offer(self, state: Callable[[], State]) -> None:
        """Take note of ``state()``, and save it if it is time to; all hosts offer theirs at the same moments."""
