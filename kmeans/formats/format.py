"""``Format``: everything that training, serving and the workflow need to know about one media type."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Never, Protocol

from kmeans.formats.batches import ParsedRows
from kmeans.formats.buffer import Buffer
from kmeans.formats.instances import Instances, Predictions
from kmeans.formats.payloads import Body, Chunk, whole


class RowReader(Protocol):
    """Reads a stream in bounded memory, for training."""

    def __call__(self, buffer: Buffer, features: int | None, /, *, wide: bool = False) -> Iterator[ParsedRows]:
        """Yield all rows, some at a time, each time as many as the buffer holds.

        Parameters
        ----------
        features
            Width that sparse vectors must have; None for any.
        wide
            Whether rows that the format makes dense are float64.

        Raises
        ------
        DataError
            If the stream isn't of this format; when the reader gets there.
        """


class Decoder(Protocol):
    """Decodes the body of a request."""

    def __call__(self, body: bytes, features: int | None, /, *, wide: bool = False) -> Instances:
        """Return its points, float32 or, if ``wide``, float64; errors and ``features`` are those of ``RowReader``."""


def unsupported(*_: Any, **__: Any) -> Never:
    """Raise a NotImplementedError; stands for a function that a format doesn't have."""
    raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Format:
    """A format of training data, requests or responses, or of some of these.

    Attributes
    ----------
    media_type
        Its name in HTTP and in channels, lower case.
    name
        Its name in sentences.
    aliases
        Other names that clients use.
    magic
        The first bytes of each file; empty if there are none.
    is_text_like
        Whether the first bytes of a text file are of this format; None for formats that aren't text. Text may come in
        another encoding.
    read_rows
        Reads files and pipes in training; ``unsupported`` if it isn't a format of training data.
    has_label_columns
        Whether the first columns of training data may be labels (``label_size``).
    decode
        Decodes requests; ``unsupported`` if it isn't a format of requests.
    split
        Cuts a large request into chunks of whole rows, of about a number of bytes. Default: one chunk.
    split_rows
        Returns each row of a request as a request; None if it isn't known where they end.
    has_lines
        Whether a row is a line.
    counts_blank_lines
        Whether errors number rows as an editor numbers lines.
    chunk_factor
        Size of a chunk of a request, in the usual size.
    spare_bytes
        Bytes that a chunk may have beyond its usual size and what its numbers take. A longer one is a row that can't
        be cut, and would take many times its bytes if it were decoded. None for no limit.
    long_row_hint
        What to do about such a row.
    encode
        Encodes responses; ``unsupported`` if it isn't a format of responses.
    envelope
        What a response begins with, what separates its rows, and what it ends with.
    preference
        Of formats that a client accepts alike, the one with the largest preference is the response's.
    is_json_document
        Whether requests and responses are one JSON document, which a JSON schema can describe.
    """

    media_type: str
    name: str
    aliases: tuple[str, ...] = ()
    magic: bytes = b""
    is_text_like: Callable[[bytes], bool] | None = None
    read_rows: RowReader = unsupported
    has_label_columns: bool = False
    decode: Decoder = unsupported
    split: Callable[[Body, int], Iterator[Chunk]] = whole
    split_rows: Callable[[bytes], list[bytes] | None] = lambda _: None
    has_lines: bool = False
    counts_blank_lines: bool = False
    chunk_factor: int = 1
    spare_bytes: int | None = None
    long_row_hint: str | None = None
    encode: Callable[[Predictions], bytes] = unsupported
    envelope: tuple[bytes, bytes, bytes] = (b"", b"", b"")
    preference: int = 0
    is_json_document: bool = False

    @property
    def is_of_training(self) -> bool:
        """Whether training data may be of this format."""
        return self.read_rows is not unsupported

    @property
    def is_of_requests(self) -> bool:
        """Whether requests may be of this format."""
        return self.decode is not unsupported

    @property
    def is_of_responses(self) -> bool:
        """Whether responses may be of this format."""
        return self.encode is not unsupported

    @property
    def is_text(self) -> bool:
        """Whether files are text."""
        return self.is_text_like is not None
