from __future__ import annotations

from typing import Any

import pytest

from kmeans.errors import DataError, KMeansError, ModelError, ResourceError, SettingError, shown

PROBLEM = "expected a number, found 'abc'"


@pytest.mark.parametrize(
    ("place", "sentence"),
    [
        ({}, "expected a number, found 'abc'."),
        ({"source": "train/a.csv"}, "train/a.csv: expected a number, found 'abc'."),
        ({"row": 3}, "row 3: expected a number, found 'abc'."),
        ({"row": 3, "column": 2}, "row 3, column 2: expected a number, found 'abc'."),
        ({"source": "a.csv", "row": 3, "column": 2}, "a.csv, row 3, column 2: expected a number, found 'abc'."),
        ({"offset": 0}, "byte 0: expected a number, found 'abc'."),
        ({"source": "a", "row": 1, "offset": 24}, "a, row 1, byte 24: expected a number, found 'abc'."),
        ({"row": 3, "hint": "Remove it."}, "row 3: expected a number, found 'abc'. Remove it."),
        ({"hint": "Remove it."}, "expected a number, found 'abc'. Remove it."),
    ],
)
def test_a_data_error_is_a_sentence_that_begins_with_the_place(place: dict[str, Any], sentence: str) -> None:
    assert str(DataError(PROBLEM, **place)) == sentence


def test_a_data_error_can_be_placed_in_a_file_later() -> None:
    error = DataError(PROBLEM, row=3, column=2, offset=5, hint="Remove it.")
    placed = error.within("b.csv")
    assert str(placed) == "b.csv, row 3, column 2, byte 5: expected a number, found 'abc'. Remove it."
    assert error.source is None


@pytest.mark.parametrize("kind", [DataError, ModelError, ResourceError, SettingError])
def test_every_error_meant_for_the_user_is_of_one_family(kind: type[KMeansError]) -> None:
    assert issubclass(kind, KMeansError)
    assert str(kind("k is wrong")).startswith("k is wrong")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("abc", "'abc'"),
        (b"abc", "'abc'"),
        (17, "'17'"),
        ("a\nb\x00\x1b[31m", r"'a\nb\x00\x1b[31m'"),
        (b"\xff\xfe", "'\ufffd\ufffd'"),
        ("x" * 40, repr("x" * 40)),
        ("x" * 41, repr("x" * 37 + "...")),
        ("x" * 10**6, repr("x" * 37 + "...")),
    ],
)
def test_a_value_in_a_message_is_quoted_printable_and_short(value: object, text: str) -> None:
    assert shown(value) == text


def test_the_length_of_a_value_in_a_message_can_be_chosen() -> None:
    assert shown("abcdefghij", limit=6) == "'abc...'"


def test_file_name_with_control_characters_is_shown_escaped() -> None:
    text = str(DataError("expected a number, found 'x'", row=1).within("/data/a\x01b\n"))
    assert text.isprintable()
    assert r"a\x01b\n" in text
