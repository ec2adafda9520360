"""Reproducible random generators, made from the seed and a number.

So the random state in a checkpoint is one number, draws of the leader don't affect the other hosts, and a resumed fit
draws the same numbers.
"""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

# Between the seed and the number: permutations of rows, which belong to an epoch, have a seed of two numbers.
_KIND = 0


class RandomStreams:
    """A series of generators.

    Parameters
    ----------
    seed
        Fixes all of them.

    Attributes
    ----------
    made
        Number of generators made so far; may be set, to continue.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self.made = 0

    def next(self) -> Generator:
        """Return the next generator."""
        self.made += 1
        return np.random.default_rng((self._seed, _KIND, self.made))
