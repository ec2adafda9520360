"""Progress callbacks of a fit.

``fit`` prints nothing: it calls the methods of a :class:`Callbacks`. That of ``train.metrics`` writes the log lines.
"""

from __future__ import annotations


class Callbacks:
    """Receives progress callbacks during ``fit``; each does nothing by default."""

    def seeded(self, *, centers: int, clusters: int, factor: int, auto: bool, rows: int) -> None:
        """Report ``centers`` = ``clusters`` x ``factor``, drawn from ``rows`` rows.

        With ``auto`` the fit chose the factor.
        """

    def hierarchy_started(self, *, clusters: int) -> None:
        """Mark that clusters within groups replace phases 1 and 2: from here on a stop ends with a model."""

    def stream_started(self) -> None:
        """Mark the start of phase 1.

        First centers exist: from here on a stop ends with a model.
        """

    def batch_done(self, *, epoch: int, epochs: int, rows_seen: int, rows: int, mean_squared_distance: float) -> None:
        """Mark a mini-batch: ``rows_seen`` of ``rows`` in this epoch.

        The mean squared distance is that to the previous centers.
        """

    def epoch_done(self, *, epoch: int, epochs: int, rows: int, batches: int, seconds: float) -> None:
        """Mark the end of a pass of the mini-batch phase."""

    def shrink_started(self, *, centers: int, clusters: int) -> None:
        """Mark the start of phase 2.

        With ``centers`` equal to ``clusters`` there is nothing to shrink.
        """

    def shrink_attempt(self, *, attempt: int, mean_squared_distance: float) -> None:
        """Mark the end of one Lloyd run over the weighted centers."""

    def shrink_done(self, *, mean_squared_distance: float) -> None:
        """Mark the end of phase 2, with the loss of the best run."""

    def refine_started(self, *, at_most: int) -> None:
        """Mark the start of phase 3, which is skipped if ``at_most`` is 0."""

    def refine_pass(self, *, done: int, rows: int, mean_squared_distance: float, empty_clusters: int) -> None:
        """Mark a pass of phase 3 over ``rows`` rows.

        The mean squared distance is that to the current centers.
        """

    def refined(self, *, with_all: int, with_nearby: int, clusters: int) -> None:
        """Mark the end of phase 3 on the rows in memory, with the comparisons.

        A row was compared with all ``clusters`` centers, or with those nearest to its own.
        """

    def phase_done(self, *, phase: str, seconds: float) -> None:
        """Mark the end of ``seed``, ``stream``, ``shrink``, ``refine`` or ``count``."""
