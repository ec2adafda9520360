"""The hyperparameters: one table, the source of validation, error texts and the table in docs/training.md.

Names, ranges and defaults are those of SageMaker's built-in k-means (developer guide, "K-Means Hyperparameters");
``seed`` and ``refine_max_iter`` are additions. All values arrive as texts, written by different clients in different
ways: ``8``, ``8.0``, ``"8"`` in quotes, ``True``, JSON lists, Python lists, bare lists.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from kmeans.errors import SettingError, shown
from kmeans.formats.batches import Prepare
from kmeans.metric import METRICS
from kmeans.ranges import AUTO, Integer
from kmeans.settings import MINI_BATCH_SIZE, RANGES, Settings


class Kind(Protocol):
    """A type of value: how it reads a text, and how it describes what it accepts."""

    def parse(self, text: str) -> Any:
        """Return the value of ``text``, None for ``auto``; raise ValueError if it isn't one."""

    def describe(self) -> str:
        """Return what is accepted, as a noun phrase."""


@dataclass(frozen=True, slots=True)
class Subset:
    """Some of ``names``, as a JSON list, a Python list or separated by commas."""

    names: tuple[str, ...]

    def parse(self, text: str) -> tuple[str, ...]:
        """Read ``["msd", "ssd"]``, ``['msd', 'ssd']``, ``[msd, ssd]`` or ``msd,ssd``."""
        found = tuple(word.strip().strip("'\"").lower() for word in text.strip("[]() ").split(",") if word.strip())
        if not found or not set(found) <= set(self.names):
            raise ValueError
        return tuple(dict.fromkeys(found))

    def describe(self) -> str:
        """Return the form and the names."""
        return f"a JSON list of {' and '.join(self.names)}"


@dataclass(frozen=True, slots=True)
class Boolean:
    """True or false."""

    def parse(self, text: str) -> bool:
        """Read ``true``, ``True``, ``1`` and their opposites."""
        words = {"true": True, "1": True, "false": False, "0": False}
        if text.lower() not in words:
            raise ValueError
        return words[text.lower()]

    def describe(self) -> str:
        """Return the words."""
        return "true or false"


@dataclass(frozen=True, slots=True)
class Hyperparameter:
    """A row of the table; ``default`` is a text as a user would write it, None if the value is required."""

    name: str
    kind: Kind
    default: str | None
    meaning: str


TABLE = (
    Hyperparameter("k", RANGES["k"], None, "Number of clusters."),
    Hyperparameter("feature_dim", Integer(1, auto=True), AUTO, "Number of columns; `auto` takes what the data have."),
    Hyperparameter("mini_batch_size", MINI_BATCH_SIZE, "5000", "Rows per mini-batch."),
    Hyperparameter("epochs", RANGES["epochs"], "1", "Passes of the mini-batch phase over the data."),
    Hyperparameter(
        "init_method",
        RANGES["init_method"],
        "random",
        "How the first K centers are drawn from the first rows; `hierarchical`: clusters within groups of rows instead "
        "of mini-batches.",
    ),
    Hyperparameter(
        "extra_center_factor",
        RANGES["extra_center_factor"],
        AUTO,
        "K = k x factor centers in the mini-batch phase; `auto` is 10, less for k > 200 and for few rows.",
    ),
    Hyperparameter(
        "half_life_time_size",
        RANGES["half_life_time_size"],
        "0",
        "A row weighs half after that many later rows; 0: never.",
    ),
    Hyperparameter(
        "local_lloyd_init_method",
        RANGES["local_lloyd_init_method"],
        "kmeans++",
        "Seeding of the Lloyd runs that shrink K to k.",
    ),
    Hyperparameter(
        "local_lloyd_max_iter",
        RANGES["local_lloyd_max_iter"],
        "300",
        "Maximum number of iterations per run.",
    ),
    Hyperparameter(
        "local_lloyd_num_trials",
        RANGES["local_lloyd_num_trials"],
        AUTO,
        "Number of these runs; the best is kept. `auto` is 10, less for k > 30.",
    ),
    Hyperparameter(
        "local_lloyd_tol",
        RANGES["local_lloyd_tol"],
        "0.0001",
        "Lloyd iterations end when the loss falls by no more than this fraction.",
    ),
    Hyperparameter(
        "refine_max_iter",
        RANGES["refine_max_iter"],
        AUTO,
        "Maximum number of Lloyd passes over all rows at the end; `auto`: until the loss converges, at most 100, and "
        "none with a half life; 0: none, as the built-in image does.",
    ),
    Hyperparameter(
        "refine_sample_size",
        RANGES["refine_sample_size"],
        AUTO,
        "Maximum number of rows, drawn at random, for these passes: fewer for a quick look; `auto`: all.",
    ),
    Hyperparameter(
        "distance_metric",
        RANGES["distance_metric"],
        "euclidean",
        "`cosine`: spherical k-means. Rows and centers get length 1; distances and losses are 1 - cosine.",
    ),
    Hyperparameter(
        "checkpoint_interval",
        Integer(0),
        "60",
        "Seconds between two checkpoints, if the job has a checkpoint folder; 0: after every step.",
    ),
    Hyperparameter(
        "ignore_changed_checkpoint",
        Boolean(),
        "false",
        "Start again if the checkpoint is that of other hyperparameters or data; else the job fails.",
    ),
    Hyperparameter("seed", RANGES["seed"], "0", "Fixes all random choices: the same seed gives the same model."),
    Hyperparameter("eval_metrics", Subset(("msd", "ssd")), '["msd"]', "Scores of the `test` channel."),
    Hyperparameter("force_dense", Boolean(), "true", "Sent by the SageMaker SDK; accepted, without effect."),
)

# What clients and tuning jobs add to the hyperparameters for other readers than the algorithm.
FOREIGN_PREFIXES = ("_", "sagemaker_", "default_user_module_name")

# Those that the fit isn't told.
OF_THE_JOB = (
    "feature_dim",
    "mini_batch_size",
    "checkpoint_interval",
    "ignore_changed_checkpoint",
    "eval_metrics",
    "force_dense",
)

REQUIRED = tuple(row.name for row in TABLE if row.default is None)


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """The validated values: ``settings`` for the fit, the others for the job around it.

    Attributes
    ----------
    feature_dim
        Number of columns that the data must have; None if any will do.
    mini_batch_size
        Rows per mini-batch.
    eval_metrics
        Scores of the test channel, some of ``msd`` and ``ssd``.
    checkpoint_interval
        Seconds between two checkpoints.
    ignore_changed_checkpoint
        Whether a checkpoint of another job is passed over.
    values
        All of them by name, ``auto`` as it stands, as JSON values (for the log and ``kmeans.json``).
    """

    settings: Settings
    feature_dim: int | None
    mini_batch_size: int
    eval_metrics: tuple[str, ...]
    checkpoint_interval: int
    ignore_changed_checkpoint: bool
    values: Mapping[str, Any]

    @property
    def prepare(self) -> Prepare | None:
        """What changes rows in place while they are read; None if nothing does."""
        metric = METRICS[self.settings.distance_metric]
        return metric.prepare_in_place if metric.normalizes else None

    @property
    def of_the_fit(self) -> dict[str, Any]:
        """The values that have a say in the centers."""
        without = set(OF_THE_JOB) - {"mini_batch_size"}
        return {name: value for name, value in self.values.items() if name not in without}


def parse(texts: Mapping[str, str]) -> Hyperparameters:
    """Validate the hyperparameters of a job.

    Raises
    ------
    kmeans.errors.SettingError
        If any is missing, unknown or out of range; the error names all of them at once.
    """
    known = {row.name for row in TABLE}
    given = {name: _unquoted(text) for name, text in texts.items() if not name.startswith(FOREIGN_PREFIXES)}
    mistakes = []
    missing = [name for name in REQUIRED if not given.get(name)]
    if missing:
        names = ", ".join(f"'{name}'" for name in missing)
        mistakes.append(f"No value(s) were specified for {names} which are required hyperparameter(s).")
    mistakes += [_unknown(name, known) for name in given if name not in known]
    values = {}
    for row in TABLE:
        text = given.get(row.name) or row.default
        if text is None:
            continue
        try:
            values[row.name] = row.kind.parse(text)
        except (ValueError, OverflowError):
            mistakes.append(f"Hyperparameter {row.name}: expected {row.kind.describe()}, found {shown(text)}.")
    if mistakes:
        raise SettingError(" ".join(mistakes))
    shown_values = {name: AUTO if value is None else value for name, value in values.items()}
    own = {name: values.pop(name) for name in OF_THE_JOB}
    return Hyperparameters(
        settings=Settings(**values),
        feature_dim=own["feature_dim"],
        mini_batch_size=own["mini_batch_size"],
        eval_metrics=own["eval_metrics"],
        checkpoint_interval=own["checkpoint_interval"],
        ignore_changed_checkpoint=own["ignore_changed_checkpoint"],
        values=shown_values,
    )


def markdown_table() -> str:
    """Return the table as Markdown, as in docs/training.md."""
    lines = ["| name | value | default | meaning |", "| --- | --- | --- | --- |"]
    for row in TABLE:
        default = "required" if row.default is None else f"`{row.default}`"
        lines.append(f"| `{row.name}` | {row.kind.describe()} | {default} | {row.meaning} |")
    return "\n".join(lines)


def _unknown(name: str, known: set[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(sorted(known))}."
    return f"{shown(name)} is not a hyperparameter: {hint}"


def _unquoted(text: str) -> str:
    text = text.strip()
    return text[1:-1].strip() if len(text) >= 2 and text[0] == text[-1] == '"' else text
