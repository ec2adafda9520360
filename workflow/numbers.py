"""Numbers as options take them; the error says what was expected."""

from __future__ import annotations

from argparse import ArgumentTypeError


def positive(text: str) -> int:
    """Return an integer of at least 1."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise ArgumentTypeError(f"expected an integer of at least 1, found {text!r}")
    return number


def percent(text: str) -> int:
    """Return an integer from 1 to 100."""
    number = positive(text)
    if number > 100:
        raise ArgumentTypeError(f"expected an integer from 1 to 100, found {text!r}")
    return number
