"""Everything that can go wrong by someone's doing, as one tree.

    KMeansError
    |-- SettingError     a hyperparameter or a configuration file is wrong
    |   `-- NoDataError   a channel without a row
    |-- DataError        bytes or numbers from outside are wrong: file, row, column, expected, found
    |-- ModelError       a model directory is missing, incomplete or corrupt
    `-- ResourceError    the machine refused: disk full, memory exhausted, not permitted

Each carries one plain sentence with the cause first. Any other exception that leaves this project is a defect of ours.
The edges choose exit codes and failure files (``train.failure``) and HTTP statuses (``serve.errors``).
"""

from __future__ import annotations


class KMeansError(Exception):
    """Base of all errors whose message is meant for the user."""


class SettingError(KMeansError):
    """One or more settings are wrong; ``str(error)`` names them all."""


class NoDataError(SettingError):
    """There is not one row where data were expected."""


class ModelError(KMeansError):
    """A model directory holds no model, or one that can't be trusted."""


class ResourceError(KMeansError):
    """The machine could not do what was asked: no space, no memory, no permission."""


class DataError(KMeansError):
    """Data from outside that can't be used, with the place where it is wrong.

    Parameters
    ----------
    problem
        What is wrong, as the end of a sentence: ``"expected a number, found 'abc'"``.
    source
        File name, or None for a request body.
    row, column
        Counted from 1, as an editor shows them; None where they don't apply.
    offset
        Byte position of the fault, for binary formats.
    hint
        What to do about it, as a sentence of its own.
    """

    def __init__(
        self,
        problem: str,
        *,
        source: str | None = None,
        row: int | None = None,
        column: int | None = None,
        offset: int | None = None,
        hint: str | None = None,
    ) -> None:
        self.problem = problem
        self.source = source
        self.row = row
        self.column = column
        self.offset = offset
        self.hint = hint
        super().__init__(problem)

    def __str__(self) -> str:
        place = [self.source] if self.source else []
        place += [f"{name} {n}" for name, n in (("row", self.row), ("column", self.column)) if n is not None]
        if self.offset is not None:
            place.append(f"byte {self.offset}")
        sentence = f"{', '.join(place)}: {self.problem}." if place else f"{self.problem}."
        return f"{sentence} {self.hint}" if self.hint else sentence

    def within(self, source: str) -> DataError:
        """Return the same fault, placed in ``source`` (a decoder doesn't know the name of its file)."""
        # A file's name comes from outside too, and may be anything: no control characters in the log.
        source = source if source.isprintable() else repr(source)
        return DataError(
            self.problem, source=source, row=self.row, column=self.column, offset=self.offset, hint=self.hint
        )


def shown(value: object, limit: int = 40) -> str:
    """Return ``value`` as it may stand in a message: printable, quoted, never longer than ``limit`` characters."""
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return repr(shortened(text, limit))


def reason(error: Exception, limit: int = 200) -> str:
    """Return what a library's ``error`` says, as it may stand in a sentence: its first line, printable, cut off."""
    text = str(error).partition("\n")[0].strip().rstrip(":.")
    return "".join(character if character.isprintable() else "?" for character in shortened(text, limit))


def shortened(text: str, limit: int) -> str:
    """Return ``text``, cut off with three dots if it has more than ``limit`` characters."""
    return text if len(text) <= limit else text[: limit - 3] + "..."
