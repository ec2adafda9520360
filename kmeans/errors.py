"""The tree of errors with messages for users.

    KMeansError
    |-- SettingError     a hyperparameter or a configuration file is wrong
    |   |-- NoDataError   a channel without a row
    |   `-- UnknownSettingError   there is no setting of this name; also a TypeError
    |-- DataError        bytes or numbers from outside are wrong: file, row, column, expected, found
    |-- ModelError       a model directory is missing, incomplete or corrupt
    `-- ResourceError    the machine refused: disk full, memory exhausted, not permitted

Each carries one plain sentence with the cause first. Any other exception that leaves this project is a defect in it.
The edges choose exit codes and failure files (``train.failure``) and HTTP statuses (``serve.errors``).
"""

from __future__ import annotations


class KMeansError(Exception):
    """Base of all errors whose message is meant for the user."""


class SettingError(KMeansError):
    """One or more settings are wrong; ``str(error)`` names them all."""


class NoDataError(SettingError):
    """There are no rows where data were expected."""


class UnknownSettingError(SettingError, TypeError):
    """There is no setting of this name; ``str(error)`` names those that there are."""


class ModelError(KMeansError):
    """A model directory has no model, or a corrupt one."""


class ResourceError(KMeansError):
    """The system refused an operation: no space, no memory, no permission."""


class DataError(KMeansError):
    """Input data that can't be used, with the place of the fault.

    Parameters
    ----------
    problem
        The fault, as the end of a sentence: ``"expected a number, found 'abc'"``.
    source
        File name, or None for a request body.
    row, column
        Counted from 1, as an editor shows them; None where they don't apply.
    offset
        Byte position of the fault, for binary formats.
    hint
        The remedy, as a separate sentence.
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
        """Return the same fault with its ``source``, which a decoder doesn't know."""
        # A file's name is input, too: control characters must not reach the log.
        source = source if source.isprintable() else repr(source)
        return DataError(
            self.problem, source=source, row=self.row, column=self.column, offset=self.offset, hint=self.hint
        )


def shown(value: object, limit: int = 40) -> str:
    """Return ``value`` for a message: printable, quoted, and shortened.

    It has at most ``limit`` characters, without the quotes.
    """
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return repr(shortened(text, limit))


def reason(error: Exception, limit: int = 200) -> str:
    """Return the message of a library's ``error`` for a sentence.

    It is the first line, printable, of at most ``limit`` characters.
    """
    text = str(error).partition("\n")[0].strip().rstrip(":.")
    return "".join(character if character.isprintable() else "?" for character in shortened(text, limit))


def shortened(text: str, limit: int) -> str:
    """Return ``text``, with three dots in place of characters beyond ``limit``."""
    return text if len(text) <= limit else text[: limit - 3] + "..."
