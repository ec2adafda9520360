"""``docker run IMAGE validate``: reports every mistake in a job that can be found without training it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from kmeans.errors import KMeansError
from kmeans.formats.batches import Prepare
from train import channels, hyperparameters
from train.config import TEST_CHANNEL, Channel, read_job
from train.files import FileReader, ReadOptions, check_columns
from train.hyperparameters import Hyperparameters
from train.job import required_channel


@dataclass(slots=True)
class Findings:
    """Results of a validation.

    Attributes
    ----------
    facts
        Sentences about the configuration and the data, and at the end about the training job.
    mistakes
        One sentence each; none if the job is valid.
    """

    facts: list[str] = field(default_factory=list)
    mistakes: list[str] = field(default_factory=list)

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Turn an error within the context into a mistake."""
        try:
            yield
        except KMeansError as error:
            self.mistakes.append(str(error))
        except OSError as error:
            self.mistakes.append(f"{error.filename or 'The system'}: {error.strerror or error}.")


def validate(base: Path) -> Findings:
    """Check the configuration and read all data below ``base`` (``/opt/ml``); write nothing."""
    findings = Findings()
    wanted: Hyperparameters | None = None
    with findings.collecting():
        job = read_job(base)
        with findings.collecting():
            wanted = hyperparameters.parse(job.hyperparameters)
        feature_dim = wanted.feature_dim if wanted else None
        with findings.collecting():
            prepare = wanted.prepare if wanted else None
            found = _check_channel(required_channel(job), feature_dim, prepare, findings)
            if found:
                rows, columns = found
                feature_dim = feature_dim or columns or None
                if wanted:
                    _describe(wanted, rows, columns, findings)
        if TEST_CHANNEL in job.channels:
            with findings.collecting():
                _check_channel(job.channels[TEST_CHANNEL], feature_dim, wanted.prepare if wanted else None, findings)
    return findings


def _check_channel(
    channel: Channel, feature_dim: int | None, prepare: Prepare | None, findings: Findings
) -> tuple[int, int] | None:
    """Read all files of a channel; return the number of rows and of columns (0 if no file could be read).

    None for a pipe, which is not opened: the job would find nothing in it afterwards.
    """
    if channel.is_pipe:
        channels.check_channel(channel)
        findings.facts.append(
            f"Channel {channel.name}: a Pipe channel can't be checked beforehand, because that would use its data up."
        )
        return None
    paths = channels.list_files(channel)
    first: FileReader | None = None
    rows = empty = 0
    for path in paths:
        with findings.collecting():
            file = FileReader(path, channel.content_type, ReadOptions(feature_dim, prepare=prepare))
            for _ in file.batches():
                pass  # errors are raised on the way
            if not file.columns:
                empty += 1
                continue
            first = first or file
            check_columns(file, first, "as in the files before")
            rows += file.rows
    if empty == len(paths):
        raise channels.all_files_are_empty(channel, empty)
    columns = first.columns - first.label_columns if first else 0
    findings.facts.append(f"Channel {channel.name}: {rows} rows x {columns} columns in {len(paths) - empty} file(s).")
    return rows, columns


def _describe(wanted: Hyperparameters, rows: int, columns: int, findings: Findings) -> None:
    settings = wanted.settings
    if rows < settings.k:
        findings.mistakes.append(f"k={settings.k} clusters were asked for, but there are only {rows} readable rows.")
        return
    factor = min(settings.factor(), rows // settings.k)
    findings.facts.append(
        f"Training would stream {rows} rows x {columns} columns, {settings.epochs} time(s) in mini-batches of "
        f"{wanted.mini_batch_size}, onto {settings.k * factor} centers, shrink these to {settings.k} by the best of "
        f"{settings.trials()} run(s), and refine them by at most {settings.refinements()} passes over all rows."
    )
