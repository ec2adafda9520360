"""The values that a setting may have, in one place for texts, Python values, messages and documentation.

Each kind reads the text of a hyperparameter (``parse``), checks a Python value (``checked``) and describes what it
accepts (``describe``). ``auto`` is ``None`` in Python.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

AUTO = "auto"
LARGEST_INTEGER = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Integer:
    """An integer of at least ``minimum``, within 64 bits; with ``auto`` also ``auto``."""

    minimum: int
    auto: bool = False

    def parse(self, text: str) -> int | None:
        """Return the integer that ``8``, ``8.0`` or ``8e0`` stands for, None for ``auto``; raise ValueError otherwise.

        Raises OverflowError for an infinite number.
        """
        if self.auto and text.lower() == AUTO:
            return None
        number = float(text)
        if not number.is_integer():
            raise ValueError
        # Beyond 2^53 a float is no longer exact.
        return self._within(int(text) if text.lstrip("+").isdigit() else int(number))

    def checked(self, value: Any) -> int | None:
        """Return ``value``, an integer of Python or NumPy, as int, None for ``auto``; raise ValueError otherwise."""
        if self.auto and (value is None or (isinstance(value, str) and value.lower() == AUTO)):
            return None
        if isinstance(value, bool):
            raise ValueError
        try:
            return self._within(operator.index(value))
        except TypeError:
            raise ValueError from None

    def describe(self) -> str:
        """Return the range in words."""
        return f"an integer of at least {self.minimum}{' or auto' if self.auto else ''}"

    def _within(self, number: int) -> int:
        if not self.minimum <= number <= LARGEST_INTEGER:
            raise ValueError
        return number


@dataclass(frozen=True, slots=True)
class Real:
    """A number from ``minimum`` to ``maximum``, both included."""

    minimum: float
    maximum: float

    def parse(self, text: str) -> float:
        """Return the number in ``text``; raise ValueError if it has none in this range."""
        return self._within(float(text))

    def checked(self, value: Any) -> float:
        """Return ``value``, a number of Python or NumPy, as float; raise ValueError if it is out of range."""
        if isinstance(value, bool | str | bytes):
            raise ValueError
        try:
            return self._within(float(value))
        except TypeError:
            raise ValueError from None

    def describe(self) -> str:
        """Return the range in words."""
        return f"a number from {self.minimum:g} to {self.maximum:g}"

    def _within(self, number: float) -> float:
        if not math.isfinite(number) or not self.minimum <= number <= self.maximum:
            raise ValueError
        return number


@dataclass(frozen=True, slots=True)
class Choice:
    """One of ``names``; ``also`` maps other spellings to them."""

    names: tuple[str, ...]
    also: Mapping[str, str]

    def parse(self, text: str) -> str:
        """Return the name that ``text`` has, without regard to letter case; raise ValueError if it has none."""
        name = self.also.get(text.lower(), text.lower())
        if name not in self.names:
            raise ValueError
        return name

    def checked(self, value: Any) -> str:
        """Return the name that ``value`` has; raise ValueError if it isn't a text or has none."""
        if not isinstance(value, str):
            raise ValueError
        return self.parse(value)

    def describe(self) -> str:
        """Return the names."""
        return " or ".join(self.names)
