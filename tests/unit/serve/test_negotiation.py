"""Content-Type and Accept to formats."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmeans.formats import recordio
from kmeans.formats.registry import FORMATS
from serve.negotiation import (
    AcceptedRange,
    NotAcceptableError,
    UnsupportedContentTypeError,
    answer_type,
    request_format,
)
from tests.unit.kmeans import oracle

CSV, JSON, LINES = "text/csv", "application/json", "application/jsonlines"
RECORDIO, NPY = "application/x-recordio-protobuf", "application/x-npy"
REQUEST_TYPES = [form.media_type for form in FORMATS.of_requests()]
ANSWER_TYPES = [form.media_type for form in FORMATS.of_responses()]


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("text/csv", CSV),
        ("TEXT/CSV", CSV),
        ("text/csv; label_size=0", CSV),
        (" text/csv ;charset=utf-8", CSV),
        ("text/csv;", CSV),
        ("csv", CSV),
        ("application/json", JSON),
        ("Application/JSON; charset=UTF-8", JSON),
        ("application/jsonlines", LINES),
        ("application/JSONLINES", LINES),
        ("application/x-ndjson", LINES),
        ("application/x-recordio-protobuf", RECORDIO),
        ("application/x-npy", NPY),
    ],
)
def test_a_content_type_finds_its_decoder(content_type: str, expected: str) -> None:
    assert request_format(content_type).media_type == expected


def test_each_decoder_reads_what_its_type_promises() -> None:
    points = np.array([[1, 2]], dtype=np.float32)
    file = io.BytesIO()
    np.save(file, points)
    bodies = {
        CSV: b"1,2",
        JSON: b'{"instances": [{"features": [1, 2]}]}',
        LINES: b'{"features": [1, 2]}',
        RECORDIO: recordio.encode(points),
        NPY: file.getvalue(),
    }
    assert sorted(bodies) == sorted(REQUEST_TYPES)
    for name, body in bodies.items():
        np.testing.assert_array_equal(request_format(name).decode(body, 2).points, points)


@pytest.mark.parametrize(
    "content_type", [None, "", ";", "csvs", "text/*", "*/*", "text/csv,application/json", "image/png", "text /csv"]
)
def test_an_unknown_content_type_is_refused_with_those_that_are_known(content_type: str | None) -> None:
    with pytest.raises(UnsupportedContentTypeError) as caught:
        request_format(content_type)
    assert all(name in str(caught.value) for name in REQUEST_TYPES)


@pytest.mark.parametrize("content_type", [None, ""])
def test_a_missing_content_type_is_told_as_such(content_type: str | None) -> None:
    with pytest.raises(UnsupportedContentTypeError, match="found no Content-Type"):
        request_format(content_type)


# Lines with another letter case, parameters, weights; the default decides where the client leaves the choice.
@pytest.mark.parametrize(
    ("accept", "default", "expected"),
    [
        (None, JSON, JSON),
        (None, CSV, CSV),
        ("", JSON, JSON),
        ("", CSV, CSV),
        (" ", JSON, JSON),
        ("*/*", JSON, JSON),
        ("*/*", CSV, CSV),
        (" */* ", CSV, CSV),
        ("*/*;q=0.8", CSV, CSV),
        ("text/html, image/gif, */*;q=0.2", JSON, JSON),
        ("text/html, image/gif, */*;q=0.2", CSV, CSV),
        ("text/csv", JSON, CSV),
        ("application/json", CSV, JSON),
        ("Text/CSV", JSON, CSV),
        ("APPLICATION/JSON", CSV, JSON),
        ("text/*", JSON, CSV),
        ("application/*", CSV, JSON),
        ("text/csv,application/json", JSON, CSV),
        ("text/csv,application/json", CSV, CSV),
        ("application/json;q=0.5, text/csv", JSON, CSV),
        ("application/json;q=0.5, text/csv;q=0.4", CSV, JSON),
        ("application/json;q=0.5, text/csv;q=0.5", CSV, JSON),
        ("application/json;q=0, */*", CSV, CSV),
        ("*/*, application/json;q=0", JSON, LINES),
        ("text/*;q=0, */*", CSV, JSON),
        ("text/csv;q=0, */*;q=0.1", CSV, JSON),
        ("text/*;q=0.9, text/csv;q=0.1, application/json;q=0.5", JSON, JSON),
        ("image/png, text/csv;q=0.1", JSON, CSV),
        ("text/csv; charset=utf-8", JSON, CSV),
        ("text/csv;header=absent;q=0.9, application/json;q=0.1", JSON, CSV),
        ("application/json; charset=utf-8", CSV, JSON),
        (None, "TEXT/CSV", CSV),
        (None, "text/csv; charset=utf-8", CSV),
    ],
)
def test_accept_header_selects_the_answer_type(accept: str | None, default: str, expected: str) -> None:
    found = answer_type(accept, default)
    assert (found.form.media_type, found.integer_labels) == (expected, False)


@pytest.mark.parametrize("default", [JSON, CSV])
@pytest.mark.parametrize(
    "accept",
    [
        "image/png",
        "image/*",
        NPY,
        "text/csv;q=0",
        "*/*;q=0",
        "csvs",
        "text/html, a/b;q=0.1",
    ],
)
def test_an_accept_that_cant_be_met_is_refused_with_what_can_be(accept: str, default: str) -> None:
    with pytest.raises(NotAcceptableError) as caught:
        answer_type(accept, default)
    assert all(name in str(caught.value) for name in ANSWER_TYPES)


def test_all_that_can_be_declined_is_declined() -> None:
    with pytest.raises(NotAcceptableError):
        answer_type(", ".join(f"{name};q=0" for name in ANSWER_TYPES) + ", */*", JSON)


@pytest.mark.parametrize("name", ANSWER_TYPES)
def test_each_answers_type_can_be_asked_for(name: str) -> None:
    assert answer_type(name, JSON).form.media_type == name


@pytest.mark.parametrize(
    ("accept", "integers"),
    [
        ("application/json; labels=int", True),
        ("text/csv;Labels=INT;q=0.5", True),
        ("*/*; labels=int", True),
        ("application/json; labels=float", False),
        ("image/png; labels=int, application/json", False),
    ],
)
def test_labels_are_integers_where_the_chosen_type_asks_for_it(accept: str, integers: bool) -> None:
    assert answer_type(accept, JSON).integer_labels is integers


@pytest.mark.parametrize(
    ("text", "quality"),
    [
        ("text/csv", 1),
        ("text/csv;q=0.5", 0.5),
        ("text/csv; Q=0", 0),
        ("text/csv;q=1.000", 1),
        ("text/csv;q=7", 1),
        ("text/csv;q=-1", 0),
        ("text/csv;q=much", 0),
        ("text/csv;q=", 0),
        ("text/csv;q=nan", 0),
        ("text/csv;q=inf", 0),
    ],
)
def test_quality_lies_between_0_and_1(text: str, quality: float) -> None:
    assert AcceptedRange.parse(text).quality == quality


@pytest.mark.parametrize(
    ("accepted", "name", "covers"),
    [
        ("text/csv", "text/csv", True),
        ("text/csv", "text/plain", False),
        ("text/*", "text/csv", True),
        ("text/*", "application/json", False),
        ("text/*", "textual/csv", False),
        ("*/*", "text/csv", True),
        ("*", "text/csv", True),
        ("CSV", "text/csv", True),
        ("", "text/csv", False),
        ("*/csv", "text/csv", False),
    ],
)
def test_a_range_covers_its_types(accepted: str, name: str, covers: bool) -> None:
    assert AcceptedRange.parse(accepted).covers(name) is covers


@pytest.mark.parametrize(("text", "specificity"), [("text/csv;q=1", 2), ("text/*", 1), ("*/*; q=0.1", 0)])
def test_a_type_is_more_specific_than_a_range(text: str, specificity: int) -> None:
    assert AcceptedRange.parse(text).specificity == specificity


def test_accept_comma_in_quotes_separates_nothing() -> None:
    assert answer_type('text/csv; note="a, application/json"', JSON).form.media_type == CSV


@oracle.PROPERTY
@given(st.text(max_size=60))
def test_any_accept_item_is_read_without_an_error(text: str) -> None:
    item = AcceptedRange.parse(text)
    assert item.name == item.name.strip()
    assert 0 <= item.quality <= 1
