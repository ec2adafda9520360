"""What a fit tells about itself while it runs.

``fit`` prints nothing: it calls an observer. ``train.metrics`` is the one that writes the job's log lines.
"""

from __future__ import annotations


class Callbacks:
    """Hears of every step of a fit; each method does nothing until a subclass says otherwise."""

    def seeded(self, *, centers: int, clusters: int, factor: int, auto: bool, rows: int) -> None:
        """``centers`` = ``clusters`` x ``factor`` drawn from ``rows`` rows; ``auto``: the factor was chosen here."""

    def hierarchy_started(self, *, clusters: int) -> None:
        """Mark that clusters within groups replace phases 1 and 2: from here on a stop ends with a model."""

    def stream_started(self) -> None:
        """Mark the start of phase 1, drawn centers or found ones in hand: from here on a stop ends with a model."""

    def batch_done(self, *, epoch: int, epochs: int, rows_seen: int, rows: int, mean_squared_distance: float) -> None:
        """Mark a mini-batch: ``rows_seen`` of ``rows`` in this epoch; the distance is to the centers as they were."""

    def epoch_done(self, *, epoch: int, epochs: int, rows: int, batches: int, seconds: float) -> None:
        """Mark the end of a pass of the streaming phase."""

    def shrink_started(self, *, centers: int, clusters: int) -> None:
        """Mark the start of phase 2; with ``centers`` equal to ``clusters`` there is nothing to shrink."""

    def shrink_attempt(self, *, attempt: int, mean_squared_distance: float) -> None:
        """Mark the end of one Lloyd run over the weighted centers."""

    def shrink_done(self, *, mean_squared_distance: float) -> None:
        """Mark the end of phase 2, with the loss of the best run."""

    def refine_started(self, *, at_most: int) -> None:
        """Mark the start of phase 3; with 0 passes at most it is left out."""

    def refine_pass(self, *, done: int, rows: int, mean_squared_distance: float, empty_clusters: int) -> None:
        """Mark a pass of phase 3 over so many ``rows``, with their mean squared distance to the centers as they are."""

    def refined(self, *, with_all: int, with_nearby: int, clusters: int) -> None:
        """Mark the end of phase 3 on the rows in memory: how often a row of this host was compared with centers.

        Either with all ``clusters`` centers or with those around its own.
        """

    def phase_done(self, *, phase: str, seconds: float) -> None:
        """Mark the end of ``seed``, ``stream``, ``shrink``, ``refine`` or ``count``."""
