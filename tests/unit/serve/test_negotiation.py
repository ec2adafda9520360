"""Content-Type and Accept to formats."""

import io

import numpy as np
import pytest

from kmeans.formats import recordio
from serve.negotiation import (
    DECODERS,
    ENCODERS,
    AnswerType,
    NotAcceptableError,
    UnsupportedContentTypeError,
    answer_type,
    decoder,
)

CSV, JSON, LINES = "text/csv", "application/json", "application/jsonlines"
RECORDIO, NPY = "application/x-recordio-protobuf", "application/x-npy"


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
    assert decoder(content_type) is DECODERS[expected]


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
    assert sorted(bodies) == sorted(DECODERS)
    for name, body in bodies.items():
        np.testing.assert_array_equal(decoder(name)(body, 2).points, points)


@pytest.mark.parametrize(
    "content_type", [None, "", ";", "csvs", "text/*", "*/*", "text/csv,application/json", "image/png", "text /csv"]
)
def test_an_unknown_content_type_is_refused_with_those_that_are_known(content_type: str | None) -> None:
    with pytest.raises(UnsupportedContentTypeError) as caught:
        decoder(content_type)
    assert all(name in str(caught.value) for name in DECODERS)


@pytest.mark.parametrize("content_type", [None, ""])
def test_a_missing_content_type_is_told_as_such(content_type: str | None) -> None:
    with pytest.raises(UnsupportedContentTypeError, match="found no Content-Type"):
        decoder(content_type)


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
    assert answer_type(accept, default) == AnswerType(expected, integer_labels=False)


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
    assert all(name in str(caught.value) for name in ENCODERS)


def test_all_that_can_be_declined_is_declined() -> None:
    with pytest.raises(NotAcceptableError):
        answer_type(", ".join(f"{name};q=0" for name in ENCODERS) + ", */*", JSON)


@pytest.mark.parametrize("name", ENCODERS)
def test_each_answers_type_can_be_asked_for(name: str) -> None:
    assert answer_type(name, JSON).media_type == name


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
