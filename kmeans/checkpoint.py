"""What a fit can go on from after an interruption, and when it is asked for.

A fit draws no number and adds up nothing that isn't in its state, so one that goes on from a state ends with the same
centers, to the bit, as one that was never interrupted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class State:
    """A moment of a fit.

    Attributes
    ----------
    phase
        ``stream``, ``refine`` or ``all rows`` (phase 3 over rows that memory doesn't hold).
    numbers
        Counters and the state of the random generator: JSON values, and infinity.
    arrays
        Centers and what belongs to them.
    """

    phase: str
    numbers: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)


class Checkpoints:
    """Where states come from and go to; this one has none and keeps none."""

    def found(self) -> State | None:
        """Return the state to go on from, None to begin at the beginning."""
        return None

    def offer(self, state: Callable[[], State]) -> None:
        """Save ``state()`` if it is time to; its arrays may change afterwards."""


def generator_state(generator: Generator) -> dict[str, Any]:
    """Return the state of ``generator`` as JSON values; its integers are too long for JSON's readers."""
    state: dict[str, Any] = dict(generator.bit_generator.state)
    return {**state, "state": {name: str(value) for name, value in state["state"].items()}}


def generator_from(state: dict[str, Any]) -> Generator:
    """Return a generator with the state that :func:`generator_state` gave."""
    generator = np.random.default_rng(0)
    generator.bit_generator.state = {**state, "state": {name: int(value) for name, value in state["state"].items()}}
    return generator
