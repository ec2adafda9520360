"""What reads a channel, whether it comes in files or through pipes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator

from kmeans.arrays import Float32
from kmeans.formats.pieces import Prepare
from kmeans.narrowing import Narrowing
from train.config import Channel
from train.files import FileReader, OnProgress, check_columns


class Reader(ABC):
    """The rows of a channel, pass after pass.

    Parameters
    ----------
    channel
        What is read.
    feature_dim
        Columns of each row; None for as many as the first block has.
    on_progress
        Called again and again in each pass with words about where the reader is; what it raises ends the pass.
    prepare
        Changes rows in place before they are yielded; its errors get the file and the row.
    narrowing
        Gives the rows coordinates; None leaves them as they are.

    Attributes
    ----------
    features
        Number of columns of a block, d; 0 until the first block.
    rows, bytes
        Number of rows, and of their bytes as stored, in the last pass that is over; 0 until then.
    files
        Number of files with data in that pass, or of pipes that were read to their ends in all passes.
    content_type
        Media type by which the last file or pipe was read.
    label_columns
        How many leading columns of each CSV row are passed over as labels.
    """

    def __init__(
        self,
        channel: Channel,
        feature_dim: int | None,
        on_progress: OnProgress | None = None,
        prepare: Prepare | None = None,
        narrowing: Narrowing | None = None,
    ) -> None:
        self.features = self.rows = self.files = self.bytes = self.label_columns = 0
        self.content_type = ""
        self._channel = channel
        self._feature_dim = feature_dim
        self._on_progress = on_progress
        self._prepare = prepare
        self._narrowing = narrowing
        self._first: FileReader | None = None  # whose columns all others must have

    @property
    def is_pipe(self) -> bool:
        """Whether each pass brings rows of its own."""
        return self._channel.is_pipe

    @abstractmethod
    def blocks(self) -> Generator[Float32, None, None]:
        """Yield the rows of one pass as blocks (b, d) float32, each valid until the next one is asked for."""

    def _tell(self, state: str) -> None:
        if self._on_progress is not None:
            self._on_progress(state)

    def _note(self, file: FileReader, block: Float32) -> None:
        """Remember what a ``block`` of ``file`` is like; raise a DataError if it has other columns than the first."""
        self._first = self._first or file
        check_columns(file, self._first, f"as in {self._first.path}")
        self.features, self.label_columns = block.shape[1], file.label_columns
        self.content_type = file.content_type
