"""What a fit can be told: the built-in image's hyperparameters, under their own names, with their defaults."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from kmeans.errors import SettingError, UnknownSettingError, shortened, shown
from kmeans.metric import METRICS, MetricName
from kmeans.ranges import Choice, Integer, Real
from kmeans.seeding import Method

InitMethod = Literal[Method, "hierarchical"]

# `auto` of the built-in image gave 10 centers for each one asked for, and 10 trials, in every log that is known. Here
# both are lowered where many centers are asked for: the streaming phase costs n x K, a trial K x k.
AUTO_EXTRA_CENTER_FACTOR = 10
AUTO_STREAMING_CENTERS = 2000
AUTO_NUM_TRIALS = 10
AUTO_TRIAL_CENTERS = 300
AUTO_REFINE_MAX_ITER = 100

# With few clusters, where a bad local minimum shows most, several starts are tried on a sample.
OTHER_STARTS, MANY_CLUSTERS = 4, 40

# Rows that the streaming phase sees where refinement follows.
STREAMED_ROWS_PER_CENTER, MIN_STREAMED_ROWS = 10, 10_000

_ALIASES = {"k-means++": "kmeans++", "kmeans_plus_plus": "kmeans++"}
_METHOD = Choice(("random", "kmeans++"), _ALIASES)
_INIT_METHOD = Choice(("random", "kmeans++", "hierarchical"), _ALIASES)

# Longer values are cut off in messages.
MAX_SHOWN = 40

# The values that each field of Settings may have; the training job reads its hyperparameters by the same ranges.
RANGES: Mapping[str, Integer | Real | Choice] = {
    "k": Integer(1),
    "epochs": Integer(1),
    "init_method": _INIT_METHOD,
    "extra_center_factor": Integer(1, auto=True),
    "half_life_time_size": Integer(0),
    "local_lloyd_init_method": _METHOD,
    "local_lloyd_max_iter": Integer(1),
    "local_lloyd_num_trials": Integer(1, auto=True),
    "local_lloyd_tol": Real(0, 1),
    "refine_max_iter": Integer(0, auto=True),
    "refine_sample_size": Integer(1, auto=True),
    "seed": Integer(0),
    "distance_metric": Choice(tuple(METRICS), {}),
}
MINI_BATCH_SIZE = Integer(1)

# What other libraries call these settings, scikit-learn above all.
OTHER_NAMES = {
    "n_clusters": "k",
    "random_state": "seed",
    "init": "init_method",
    "n_init": "local_lloyd_num_trials",
    "max_iter": "refine_max_iter",
    "tol": "local_lloyd_tol",
    "metric": "distance_metric",
    "batch_size": "mini_batch_size",
    "sample_weight": "weights",
    "n_jobs": "threads",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Settings of :func:`kmeans.fit`, checked when they are made; ``None`` or ``"auto"`` chooses a value.

    Attributes
    ----------
    k
        Clusters in the final model, at least 1.
    epochs
        Passes of the streaming phase over the data.
    init_method
        How the first K centers are drawn from the first rows. ``hierarchical`` replaces the first two phases by
        clusters within groups (:mod:`kmeans.hierarchy`), without ``epochs`` and ``half_life_time_size``.
    extra_center_factor
        K = k x factor centers while streaming.
    half_life_time_size
        A point weighs half after that many later points; 0 never forgets.
    local_lloyd_init_method, local_lloyd_max_iter, local_lloyd_num_trials
        Seeding, cap on iterations, and number of the Lloyd runs that shrink K centers to k.
    local_lloyd_tol
        Lloyd iterations end when the loss falls by no more than this share of itself.
    refine_max_iter
        Cap on the moves of the refinement over all rows that follows; 0 leaves it out, as the built-in image does.
        ``auto`` is 100, and 0 with a half life: refinement would bring back what was to be forgotten.
    refine_sample_size
        At most so many rows, drawn at random, take part in the refinement; ``auto`` is all.
    seed
        Fixes every random draw.
    distance_metric
        ``euclidean``, or ``cosine`` for spherical k-means: rows and centers are normalized to length 1.

    Raises
    ------
    kmeans.SettingError
        If a value has the wrong type or is out of range; the error names all such settings at once.
    kmeans.UnknownSettingError
        If there is no setting of a name.

    Examples
    --------
    >>> settings = Settings(k=8, init_method="kmeans++")
    >>> settings.k, settings.init_method, settings.refine_max_iter
    (8, 'kmeans++', None)
    >>> Settings(k=0)
    Traceback (most recent call last):
    kmeans.errors.SettingError: k: expected an integer of at least 1, found 0.
    """

    k: int
    epochs: int = 1
    init_method: InitMethod = "random"
    extra_center_factor: int | None = None
    half_life_time_size: int = 0
    local_lloyd_init_method: Method = "kmeans++"
    local_lloyd_max_iter: int = 300
    local_lloyd_num_trials: int | None = None
    local_lloyd_tol: float = 1e-4
    refine_max_iter: int | None = None
    refine_sample_size: int | None = None
    seed: int = 0
    distance_metric: MetricName = "euclidean"

    def __new__(cls, **values: Any) -> Self:
        """Refuse unknown names before Python does, with an error of this project."""
        check_names(values, RANGES)
        return object.__new__(cls)

    def __post_init__(self) -> None:
        """Check all values, and keep them as Python's own types."""
        for name, value in check_values({name: getattr(self, name) for name in RANGES}, RANGES).items():
            object.__setattr__(self, name, value)

    def factor(self) -> int:
        """Return the factor K / k, with ``auto`` evaluated (before the number of rows may lower it)."""
        if self.extra_center_factor is not None:
            return self.extra_center_factor
        return max(1, min(AUTO_EXTRA_CENTER_FACTOR, AUTO_STREAMING_CENTERS // self.k))

    def trials(self) -> int:
        """Return the number of Lloyd runs of the shrinking phase, with ``auto`` evaluated."""
        if self.local_lloyd_num_trials is not None:
            return self.local_lloyd_num_trials
        return max(1, min(AUTO_NUM_TRIALS, AUTO_TRIAL_CENTERS // self.k))

    def refinements(self) -> int:
        """Return the cap on refinement passes, with ``auto`` evaluated."""
        if self.refine_max_iter is not None:
            return self.refine_max_iter
        return 0 if self.half_life_time_size else AUTO_REFINE_MAX_ITER

    def other_starts(self) -> int:
        """Return how many of the next best shrunken centers are tried beside the best."""
        return OTHER_STARTS if self.k <= MANY_CLUSTERS else 0

    def rows_to_stream(self, centers: int) -> int | None:
        """Return how many rows the streaming phase needs for so many centers; None for all there are.

        The streamed centers are only where refinement begins, unless that is off or several epochs are asked for.
        """
        if not self.refinements() or self.epochs > 1:
            return None
        # Without centers to choose from, these are only first centers.
        per_center = STREAMED_ROWS_PER_CENTER if centers > self.k else 0
        needed = max(MIN_STREAMED_ROWS, per_center * centers)
        return needed if self.refine_sample_size is None else min(needed, self.refine_sample_size)


def check_values(values: Mapping[str, Any], ranges: Mapping[str, Integer | Real | Choice]) -> dict[str, Any]:
    """Return ``values`` as Python's own types.

    Raises
    ------
    kmeans.errors.SettingError
        If any is out of its range; the error names all of them at once.
    """
    checked, mistakes = {}, []
    for name, value in values.items():
        try:
            checked[name] = ranges[name].checked(value)
        except (ValueError, OverflowError):
            found = shown(value) if isinstance(value, str) else shortened(" ".join(repr(value).split()), MAX_SHOWN)
            mistakes.append(f"{name}: expected {ranges[name].describe()}, found {found}.")
    if mistakes:
        raise SettingError(" ".join(mistakes))
    return checked


def check_names(names: Collection[str], known: Collection[str]) -> None:
    """Raise an UnknownSettingError that names the first of ``names`` that isn't ``known``, and what it may mean."""
    for name in names:
        if name not in known:
            close = [OTHER_NAMES.get(name, ""), *difflib.get_close_matches(name, known, n=1)]
            meant = next((f"did you mean {word}? " for word in close if word in known), "")
            raise UnknownSettingError(
                f"{shown(name)} is not a setting: {meant}{'V' if meant else 'v'}alid are {', '.join(sorted(known))}."
            )
