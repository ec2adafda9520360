from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmeans.formats.media_type import MediaType
from tests.unit.kmeans import oracle


@pytest.mark.parametrize(
    ("text", "name", "parameters"),
    [
        ("text/csv", "text/csv", {}),
        ("Text/CSV", "text/csv", {}),
        ("  text/csv  ", "text/csv", {}),
        ("text/csv;label_size=0", "text/csv", {"label_size": "0"}),
        ("text/csv; label_size=0; charset=UTF-8", "text/csv", {"label_size": "0", "charset": "UTF-8"}),
        ("text/csv ; Label_Size = 0 ", "text/csv", {"label_size": "0"}),
        ('text/csv; charset="utf-8"', "text/csv", {"charset": "utf-8"}),
        ("text/csv;", "text/csv", {}),
        ("text/csv; header", "text/csv", {}),
        ("text/csv; a=b=c", "text/csv", {"a": "b=c"}),
        ("application/x-recordio-protobuf", "application/x-recordio-protobuf", {}),
        ("", "", {}),
        (None, "", {}),
        ("nonsense", "nonsense", {}),
        ("; a=b", "", {"a": "b"}),
    ],
)
def test_a_header_is_read_into_a_name_and_parameters(text: str | None, name: str, parameters: dict[str, str]) -> None:
    assert MediaType.parse(text) == MediaType(name, parameters)


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("csv", "text/csv"),
        ("application/csv", "text/csv"),
        ("application/jsonl", "application/jsonlines"),
        ("application/x-jsonlines", "application/jsonlines"),
        ("application/x-ndjson", "application/jsonlines"),
        ("X-RecordIO-Protobuf", "application/x-recordio-protobuf"),
    ],
)
def test_an_alias_is_read_as_the_usual_name(alias: str, name: str) -> None:
    assert MediaType.parse(f"{alias}; label_size=0") == MediaType(name, {"label_size": "0"})


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
    assert MediaType.parse(text).quality == quality


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
    assert MediaType.parse(accepted).covers(name) is covers


@pytest.mark.parametrize(("text", "specificity"), [("text/csv;q=1", 2), ("text/*", 1), ("*/*; q=0.1", 0)])
def test_a_type_is_more_specific_than_a_range(text: str, specificity: int) -> None:
    assert MediaType.parse(text).specificity == specificity


@oracle.PROPERTY
@given(st.text(max_size=60))
def test_any_header_is_read_without_an_error(text: str) -> None:
    media_type = MediaType.parse(text)
    assert media_type.name == media_type.name.strip()
    assert 0 <= media_type.quality <= 1
