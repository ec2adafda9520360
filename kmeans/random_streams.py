"""Random draws that a fit can repeat: each has a generator that its number gives, on every host the same.

So what a checkpoint must tell of chance is one number, the leader's draws don't disturb the others', and a fit that
goes on draws what it would have drawn.
"""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

# Between the seed and the number: permutations of rows, which belong to an epoch, have a seed of two numbers.
_KIND = 0


class RandomStreams:
    """A row of generators.

    Parameters
    ----------
    seed
        Fixes all of them.

    Attributes
    ----------
    made
        How many were taken so far; may be set, to go on.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self.made = 0

    def next(self) -> Generator:
        """Return the generator of the next draw."""
        self.made += 1
        return np.random.default_rng((self._seed, _KIND, self.made))
